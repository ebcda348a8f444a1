"""Floor 4: inner update rules U(phi, g), and the adjoint of one step, derived by hand.

A rule's ``step`` maps (phi, g, state) to (phi', state'). Its ``adjoint`` maps the gradients of some real F with respect
to what came out, a' = dF/dphi' and dF/dstate', to those with respect to what went in: dF/dphi, dF/dg, dF/dstate and
dF/dlr. The gradient g is held independent of phi here; the chain rule through g(phi) is the trajectory's (H dF/dg).

``state=None`` is a fresh start. The learning rate ``lr`` is a number; or a vector ``(D,)``, one rate a parameter; or one
per step: a tuple of numbers, or an array ``(k, 1)`` or ``(k, D)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..arrays.backend import Array, array_module
from ..errors import SettingsError

Rate = float | tuple[float, ...] | Array


class Adjoint(NamedTuple):
    """Gradients with respect to what went into a step."""

    phi: Array  # (T, D)
    g: Array  # (T, D)
    state: Any
    lr: Callable[
        [], Array
    ]  # gives (T, D): element by element; the sum over what shares a rate is the rate's gradient
    rate: int  # number of the rate that the step used, from 0, where there is one per step


class InnerRule(Protocol):
    """What a trajectory and an algorithm need of an update rule."""

    @property
    def lr(self) -> Rate:
        """The learning rate: a number, a vector, or one per step."""

    def step(self, phi: Array, g: Array, state: Any = None) -> tuple[Array, Any]:
        """phi', state'."""

    def adjoint(self, g: Array, state: Any, dphi: Array, dstate: Any = None) -> Adjoint:
        """The adjoint of ``step`` at (g, state), for the gradients ``dphi``, ``dstate`` of what came out."""

    def merge(self, shared: Any, states: Any, tasks: int) -> Any:
        """The state to go on with after ``tasks`` tasks, side by side, went from ``shared`` to ``states``."""


def is_per_step(lr: Rate) -> bool:
    """Whether ``lr`` holds one rate per step."""
    return isinstance(lr, (tuple, list)) or getattr(lr, "ndim", 0) == 2


def rate_at(lr: Rate, step: int) -> float | Array:
    """The rate of step number ``step`` (from 0): a Python number, or an array that broadcasts against ``(T, D)``.

    A NumPy scalar becomes a Python number, which takes the dtype of what it multiplies.
    """
    if is_per_step(lr):
        if step >= len(lr):
            raise SettingsError(
                f"lr holds rates for {len(lr)} inner steps, but step {step + 1} was asked for"
            )
        if isinstance(lr, (tuple, list)) and getattr(lr[step], "ndim", 0):
            raise SettingsError(
                "a tuple of rates holds numbers: give one vector a step as an array (k, D)"
            )
        lr = lr[step]
    return lr.item() if getattr(lr, "ndim", 1) == 0 else lr


class RateGradient:
    """dF/dlr, added up from the steps' element-wise gradients ``(T, D)``: a sum over whatever shares one rate."""

    def __init__(self, lr: Rate) -> None:
        self._lr = lr
        self._steps: dict[int, Array] = {}

    def add(self, step: int, dlr: Array) -> None:
        """Add step number ``step``'s (from 0)."""
        if is_per_step(self._lr):
            self._steps[step] = self._over_parameters(dlr)
        else:
            self._steps[0] = self._steps[0] + dlr if self._steps else dlr

    def total(self, like: Array) -> Array:
        """The gradient, ``(T, *shape of lr)``; zero for rates of steps that were not made. ``like: (T, D)``."""
        xp = array_module(like)
        if is_per_step(self._lr):
            none = self._over_parameters(xp.zeros_like(like))
            return xp.stack([self._steps.get(j, none) for j in range(len(self._lr))], axis=1)
        return self._over_parameters(self._steps[0] if self._steps else xp.zeros_like(like))

    def _over_parameters(self, dlr: Array) -> Array:
        shape = getattr(self._lr, "shape", ())
        if shape and shape[-1] > 1:
            return dlr
        return dlr.sum(axis=1, keepdims=len(shape) > 0)


@dataclass(frozen=True)
class SGD:
    """phi' = phi - lr g. The state is the number of steps made; nothing of it passes from task to task."""

    lr: Rate

    def step(self, phi: Array, g: Array, state: int | None = None) -> tuple[Array, int]:
        """phi - lr o g."""
        steps = state or 0
        return phi - rate_at(self.lr, steps) * g, steps + 1

    def adjoint(self, g: Array, state: int | None, dphi: Array, dstate: None = None) -> Adjoint:
        """dF = <a', dphi - lr dg - g dlr>: the gradients are a', -lr o a' and, element by element, -g o a'."""
        steps = state or 0
        return Adjoint(dphi, -rate_at(self.lr, steps) * dphi, None, lambda: -g * dphi, steps)

    def merge(self, shared: None, states: int, tasks: int) -> None:
        """Every task starts afresh."""
        return None


class AdamState(NamedTuple):
    """``steps`` made so far, for the bias correction, and ``here`` of them in this task, for a rate per step; moments ``m``
    and ``v``, ``(D,)`` where shared by tasks, ``(T, D)`` after a step."""

    steps: int
    m: Array
    v: Array
    here: int = 0


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1); beta1 = 0, the papers' inner rule, leaves only the second moment.

    With t the number of this step, from 1:

        m' = beta1 m + (1 - beta1) g,            m^ = m' / (1 - beta1^t),
        v' = beta2 v + (1 - beta2) g^2,          v^ = v' / (1 - beta2^t),
        phi' = phi - lr m^ / (sqrt(v^) + eps).
    """

    lr: Rate
    beta1: float = 0.0
    beta2: float = 0.999
    eps: float = 1e-8

    def step(self, phi: Array, g: Array, state: AdamState | None = None) -> tuple[Array, AdamState]:
        """phi', and the state with m', v' and t."""
        after = self._moments(g, state)
        m_hat, root, _, _ = self._corrected(after)
        root += self.eps
        return phi - rate_at(self.lr, after.here - 1) * (m_hat / root), after

    def adjoint(
        self,
        g: Array,
        state: AdamState | None,
        dphi: Array,
        dstate: tuple[Array, Array] | None = None,
    ) -> Adjoint:
        """With c1 = 1 - beta1^t, c2 = 1 - beta2^t, s = sqrt(v^), and (a', am', av') the gradients of what came out:

            dphi'/dm' = -lr / (c1 (s + eps))                        adds  -lr a' / (c1 (s + eps))            to am',
            dphi'/dv' = lr m^ / (s + eps)^2 . ds/dv', ds/dv' = 1/(2 s c2)
                                                                    adds   lr a' m^ / (2 c2 s (s + eps)^2)    to av',
            then  dF/dg = (1 - beta1) am' + 2 (1 - beta2) g av',  dF/dm = beta1 am',  dF/dv = beta2 av',
            dF/dphi = a',  dF/dlr = -a' m^ / (s + eps).

        Where v' = 0 every gradient so far was 0, so m^ = 0 as well: the term of av' is zero, whatever it is divided by.
        """
        after = self._moments(g, state)
        m_hat, root, c1, c2 = self._corrected(after)
        denominator = root + self.eps
        rate = rate_at(self.lr, after.here - 1)
        step_m = dphi / denominator
        am = step_m * (-rate / c1)
        xp = array_module(g)
        av = (rate / (2 * c2)) * step_m * m_hat / xp.where(root == 0, 1, root * denominator)
        if dstate is not None:
            am, av = am + dstate[0], av + dstate[1]
        dg = (1 - self.beta1) * am + (2 - 2 * self.beta2) * g * av
        return Adjoint(
            dphi, dg, (self.beta1 * am, self.beta2 * av), lambda: -step_m * m_hat, after.here - 1
        )

    def merge(
        self, shared: AdamState | None, states: AdamState | None, tasks: int
    ) -> AdamState | None:
        """The state that the same gradients would leave if the tasks had come one after another.

        A task that went from v to v_i in k steps added d_i = v_i - beta2^k v, and every later task's k steps shrink that
        by beta2^k. So v' = beta2^(kT) v + sum_i beta2^(k (T - i)) d_i, and alike for m; t grows by k T. Every d_i of v is a
        sum of squares; where it is zero, rounding must not make it negative.
        """
        if states is shared:  # no step was made
            return shared
        before, m0, v0 = (shared.steps, shared.m, shared.v) if shared is not None else (0, 0.0, 0.0)
        k, xp = states.steps - before, array_module(states.v)

        def one_after_another(beta: float, start: Array | float, added: Array) -> Array:
            weights = xp.asarray(
                [beta ** (k * (tasks - 1 - i)) for i in range(tasks)], dtype=added.dtype
            )
            return weights @ added + beta ** (k * tasks) * start

        m = one_after_another(self.beta1, m0, states.m - self.beta1**k * m0)
        v = one_after_another(self.beta2, v0, xp.maximum(states.v - self.beta2**k * v0, 0))
        return AdamState(before + k * tasks, m, v)

    def _moments(self, g: Array, state: AdamState | None) -> AdamState:
        """m', v' and t."""
        square = (1 - self.beta2) * g * g
        if state is None:
            return AdamState(1, g if self.beta1 == 0 else (1 - self.beta1) * g, square, 1)
        m = g if self.beta1 == 0 else self.beta1 * state.m + (1 - self.beta1) * g
        return AdamState(state.steps + 1, m, self.beta2 * state.v + square, state.here + 1)

    def _corrected(self, after: AdamState) -> tuple[Array, Array, float, float]:
        """m^, sqrt(v^), c1 and c2."""
        c1, c2 = 1 - self.beta1**after.steps, 1 - self.beta2**after.steps
        m_hat = after.m if c1 == 1 else after.m / c1
        root = array_module(after.v).sqrt(after.v * (1 / c2))
        return m_hat, root, c1, c2
