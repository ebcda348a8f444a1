"""What an inner rule and a trajectory must satisfy: their adjoints are transposes of derivatives that the oracles give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..inner import STORES, InnerRule, Rate, adapt, is_per_step, unroll
from ..objectives import Batch, Differentiable
from .checks import TOLERANCE, compare, dots, leaves
from .complex_step import complex_step, tree_map
from .findings import Findings, reported


@reported
def check_rule(
    rule: InnerRule,
    *,
    tasks: int = 2,
    size: int = 3,
    steps: int = 3,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> None:
    """``adjoint`` is the transpose of ``step``'s derivative, with a fresh state and after each of ``steps`` random steps.

    For F = <a', phi'> + <b', state'> with random a' and b', and for b' = 0: the gradients that ``adjoint`` gives with
    respect to phi, g, the arrays of the state, and the rates, are F's, each moved alone. The rates are moved one a
    parameter, however ``rule.lr`` gives them, so ``Adjoint.lr`` is checked element by element. ``rule`` is a dataclass
    with a field ``lr``; its ``Adjoint.state`` holds one gradient for each array of the state, in their order.

    All this once more with a parameter whose gradients have all been zero, but without moving that parameter's state,
    where the root in Adam has no derivative. Give Adam an eps of 1e-3 or so: with less, a first step is so nearly the
    sign of g that its derivative is what rounding leaves of two large terms.

    Where the rates are one a parameter their number is the ``size``, and where they are one per step no step is made
    without one.

    Raises
    ------
    CheckError
        naming the gradient that is wrong, and by how much.
    """
    own = np.asarray(rule.lr).shape[-1] if isinstance(rule.lr, np.ndarray) and rule.lr.ndim else 1
    size = own if own > 1 else size
    steps = min(steps, len(rule.lr) - 1) if is_per_step(rule.lr) else steps
    for alive in (np.ones(size), np.arange(size) > 0):
        rng, state = np.random.default_rng(seed), None
        for step in range(steps + 1):
            g = alive * rng.standard_normal((tasks, size))
            with Findings(type(rule).__name__, f"step {step + 1}").reporting() as findings:
                _RuleCheck(rule, g, state, alive, rng, tolerance, findings).run()
            _, state = rule.step(np.zeros((tasks, size)), g, state)


class _RuleCheck:
    """One step of one rule, at random gradients of what comes out."""

    def __init__(self, rule, g, state, alive, rng, tolerance, findings) -> None:
        rates = _one_rate_a_parameter(rule.lr, g.shape[1])
        self.rule, self.state, self.alive = replace(rule, lr=rates), state, alive
        self.findings, self.tolerance = findings, tolerance
        phi, self.dphi, phi_dot, g_dot = rng.standard_normal((4, *g.shape))
        held = tuple(_arrays(state))
        self.at = (phi, g, held, rates)
        held_dot = tuple(alive * rng.standard_normal(g.shape) for _ in held)
        self.along = (phi_dot, g_dot, held_dot, rng.standard_normal(rates.shape))
        _, after = findings.call("step", self.rule.step, phi=phi, g=g, state=state)
        self.dstate = tuple(rng.standard_normal(g.shape) for _ in _arrays(after))

    def run(self) -> None:
        """With gradients of the state that comes out, and without: after the last step it has none."""
        self.check(())
        if self.dstate:
            self.check(self.dstate)

    def check(self, dstate: tuple[np.ndarray, ...]) -> None:
        """Every gradient that ``adjoint`` gives, against F moved along its argument alone."""
        _, g, held, _ = self.at
        adjoint = self.findings.call(
            "adjoint",
            self.rule.adjoint,
            g=g,
            state=self.state,
            dphi=self.dphi,
            dstate=dstate or None,
        )
        dheld = tuple(adjoint.state) if held else ()
        phi_dot, g_dot, held_dot, rates_dot = self.along
        used = rates_dot[adjoint.rate] if rates_dot.ndim == 2 else rates_dot
        gradients, directions = (
            ((adjoint.phi,), (adjoint.g,), dheld, (adjoint.lr(),)),
            ((phi_dot,), (g_dot,), held_dot, (used,)),
        )
        still = tree_map(np.zeros_like, self.at)
        for i, term in enumerate(("phi", "g", "state", "lr")):
            for gradient in gradients[i]:
                self.findings.array("adjoint", term, gradient, g.shape, np.float64)
            pairs = list(zip(gradients[i], directions[i], strict=True))
            if pairs:
                along = (*still[:i], self.along[i], *still[i + 1 :])
                sizes = sum(dots(abs(a), abs(u)) for a, u in pairs)
                self.compare(term, sum(dots(a, u) for a, u in pairs), dstate, along, sizes)

    def compare(
        self,
        term: str,
        got: np.ndarray,
        dstate: tuple[np.ndarray, ...],
        along: tuple,
        sizes: np.ndarray,
    ) -> None:
        """By both oracles; near a gradient of zero by the complex step alone, since a difference would step over eps."""

        def scored(phi, g, held, rates):
            out, after = replace(self.rule, lr=rates).step(
                phi, g, _with_arrays(self.state, iter(held))
            )
            return dots(self.dphi, out) + sum(
                dots(b, a) for b, a in zip(dstate, _arrays(after), strict=False)
            )

        if self.alive.all():
            compare(
                self.findings, "adjoint", term, got, scored, self.at, along, self.tolerance, sizes
            )
        else:
            self.findings.close(
                "adjoint", term, got, complex_step(scored, self.at, along), self.tolerance, sizes
            )


@reported
def check_trajectory(
    objective: Differentiable,
    phi: np.ndarray,
    minibatches: Sequence[Batch],
    rule: InnerRule,
    *,
    state: Any = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> None:
    """``pullback(v)`` is the gradient of <v, phi_{k+1}> with respect to phi ``(D,) or (T, D)`` and to the rule's ``lr``, in
    whichever way that gives the rates; the same whatever the trajectory stores.

    ``rule`` is a dataclass with a field ``lr``; ``state`` is its state at the start, held constant.

    Raises
    ------
    CheckError
        naming which gradient is wrong, and by how much.
    """
    rng = np.random.default_rng(seed)
    tasks = len(minibatches[0][0]) if len(minibatches) else len(np.atleast_2d(phi))
    v, u = rng.standard_normal((2, tasks, objective.size))
    rows, lr = np.array(np.broadcast_to(phi, v.shape)), np.asarray(rule.lr, dtype=np.float64)
    lr_dot = rng.standard_normal(lr.shape)

    def scored(start, rates):
        rates = tuple(rates) if isinstance(rule.lr, (tuple, list)) else rates
        return dots(v, adapt(objective, start, minibatches, replace(rule, lr=rates), state))

    with Findings(
        "Trajectory", f"{type(rule).__name__}, {len(minibatches)} steps"
    ).reporting() as findings:
        kept, *others = (
            unroll(objective, phi, minibatches, rule, store, state) for store in STORES
        )
        dphi, dlr = findings.call("pullback", kept.pullback, v=v)
        findings.array("pullback", "dphi", dphi, v.shape, np.float64)
        findings.array("pullback", "dlr", dlr, (tasks, *lr.shape), np.float64)
        for term, gradient, direction, along in (
            ("dphi", dphi, u, (u, 0 * lr)),
            ("dlr", dlr, lr_dot, (0 * rows, lr_dot)),
        ):
            sizes = dots(abs(gradient), abs(direction)) + abs(
                complex_step(scored, (rows, lr), along)
            )
            got = dots(gradient, direction)
            compare(findings, "pullback", term, got, scored, (rows, lr), along, tolerance, sizes)
        for store, other in zip(STORES[1:], others, strict=True):
            for term, a, b in zip(("dphi", "dlr"), other.pullback(v), (dphi, dlr), strict=True):
                findings.close("pullback", f"{term} with stored {store}: it", a, b, tolerance)


def _arrays(state: Any) -> list[np.ndarray]:
    """The arrays among the numbers of an inner rule's state, in order."""
    return [leaf for leaf in leaves(state) if isinstance(leaf, np.ndarray)]


def _with_arrays(state: Any, arrays: Iterator[np.ndarray]) -> Any:
    """``state`` with its arrays replaced, in order."""
    if isinstance(state, tuple):
        parts = [_with_arrays(part, arrays) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return next(arrays) if isinstance(state, np.ndarray) else state


def _one_rate_a_parameter(lr: Rate, size: int) -> np.ndarray:
    """The same rates as ``(size,)``, or ``(k, size)`` where there is one per step."""
    rates, steps = np.asarray(lr, dtype=np.float64), len(lr) if is_per_step(lr) else 1
    spread = np.array(np.broadcast_to(rates.reshape(steps, -1), (steps, size)))
    return spread if is_per_step(lr) else spread[0]
