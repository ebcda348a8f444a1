"""iMAML: meta-learning with implicit gradients (Rajeswaran, Finn, Kakade and Levine 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from ..arrays.backend import Array, array_module
from ..errors import SettingsError, ShapeError
from ..inner import adapt, descend, unroll
from ..objectives import Altered, Batch, Differentiable, Point
from .base import Algorithm, Outcome


@dataclass(frozen=True)
class IMAML(Algorithm):
    """The gradient of the loss at a regularised optimum, from the optimum alone: no step of the way there is pulled back.

    Adaptation solves, with lambda = ``regularization`` > 0 pulling towards phi,

        theta* = argmin_theta  L(theta) + lambda/2 |theta - phi|^2,

    by inner steps on mini-batches 1 .. k-1; the last, k, scores it: F(phi) = L_k(theta*). With H the Hessian of L at theta*,
    the optimum's condition, and its derivative with respect to phi, are

        grad L(theta*) + lambda (theta* - phi) = 0,       (H + lambda I) dtheta*/dphi = lambda I,

    and H is symmetric, so with g_k the gradient of L_k at theta* the direction is

        dF/dphi = (dtheta*/dphi)^T g_k = (I + H/lambda)^{-1} g_k,

    by ``cg_steps`` of conjugate gradients, one Hessian product each. It is as exact as the inner solution (phi_k stands for
    theta*) and the solve are. A task's solve is at rest once its residual is at most ``tolerance`` |g_k|.

    H is that of mini-batch k-1, at phi_k. Where each mini-batch is the whole training set, as in the paper, that is H. The
    mean over all k-1 would cost k-1 products a step and hold as many activations, and grow with the inner loop, which is
    what the implicit gradient avoids; of unequal mini-batches the last is a sample.

    Conjugate gradients want I + H/lambda positive definite, as it is at a strict minimum. A direction in which it is not
    ends a task's solve: the steps before it stand, and where it is the first, g_k itself does, which is FOMAML.
    """

    regularization: float = 1.0
    cg_steps: int = 5
    tolerance: float = 1e-10

    def __post_init__(self) -> None:
        if not 0 < self.regularization < inf:
            raise SettingsError(
                f"IMAML's regularization (lambda) must be above 0 and finite, got {self.regularization}: use about the size "
                "of the training loss's largest curvature, or MAML to adapt without a pull towards phi"
            )
        if self.cg_steps < 1:
            raise SettingsError(
                f"IMAML's cg_steps must be 1 or more, got {self.cg_steps}: use FOMAML to solve for nothing"
            )
        if not 0 <= self.tolerance < 1:
            raise SettingsError(
                f"IMAML's tolerance must be 0 or more and below 1, got {self.tolerance}: use 0 to make every step"
            )

    def run(self, objective, meta, minibatches, state=None) -> Outcome:
        """(I + H/lambda)^{-1} g_k, ``(T, D)``."""
        if len(minibatches) < 2:
            raise ShapeError(
                f"IMAML needs at least two mini-batches a task, got {len(minibatches)}: the last one scores what the others "
                "train"
            )
        inner = self._inner(objective, meta)
        phi, state, _ = descend(inner, meta, minibatches[:-1], self.rule, state)
        query = objective.at(phi, minibatches[-1])
        loss, g = query.loss, query.grad
        del query  # its activations make room for those of the training loss
        train = inner.at(phi, minibatches[-2])
        direction = _solve(
            lambda v: train.hvp(v) / inner.strength, g, self.cg_steps, self.tolerance
        )
        return Outcome(direction, loss, state)

    def adapt(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Array:
        """Each task's parameters after one inner step on every mini-batch's regularised loss, ``(T, D)``."""
        return adapt(self._inner(objective, meta), meta, minibatches, self.rule, state)

    def iterates(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Sequence[Array]:
        """The parameters before the first regularised inner step and after each; the last is ``adapt``'s."""
        return unroll(
            self._inner(objective, meta), meta, minibatches, self.rule, "iterates", state
        ).iterates

    def _inner(self, objective: Differentiable, meta: Array) -> _Regularized:
        # A Python number: a NumPy one would upcast a float32 phi.
        return _Regularized(objective, meta, float(self.regularization))


def _solve(product: Callable[[Array], Array], g: Array, steps: int, tolerance: float) -> Array:
    """A^{-1} g of each task, ``(T, D)``, by conjugate gradients from 0 (Hestenes and Stiefel 1952); ``product(v)`` is A v.

    A task at rest takes steps of length zero, so nothing waits for the device to say which are. Both ways to rest are
    comparisons that a NaN fails: it goes on, and is seen in the direction. A sum is over one task's row: none sees another.
    """
    xp = array_module(g)
    solution, residual, along = xp.zeros_like(g), g, g
    square = _dots(g, g)
    enough = tolerance**2 * square.real
    live = ~(square.real <= enough)
    at_rest = 1.0  # the first step's length if A bends down along g: the solution is then g
    for _ in range(steps):
        bent = product(along)
        curvature = _dots(along, bent)
        live = live & ~(curvature.real <= 0)
        length = xp.where(live, square / xp.where(live, curvature, 1), at_rest)
        at_rest = 0.0
        solution = solution + length[:, None] * along
        residual = residual - length[:, None] * bent
        before, square = square, _dots(residual, residual)
        live = live & ~(square.real <= enough)
        turn = xp.where(live, square / xp.where(live, before, 1), 0.0)
        along = residual + turn[:, None] * along
    return solution


def _dots(a: Array, b: Array) -> Array:
    """<a, b> task by task, ``(T,)``, without a conjugate."""
    return (a * b).sum(axis=1)


@dataclass(frozen=True)
class _Regularized(Altered):
    """``objective`` plus lambda/2 |theta - phi|^2, for the ``strength`` lambda and a fixed ``centre`` phi."""

    centre: Array
    strength: float

    def at(self, phi: Array, batch: Batch) -> _RegularizedPoint:
        return _RegularizedPoint(self.objective.at(phi, batch), phi - self.centre, self.strength)


@dataclass(frozen=True)
class _RegularizedPoint:
    point: Point
    offset: Array
    strength: float

    @property
    def loss(self) -> Array:
        """L + lambda/2 |theta - phi|^2."""
        return self.point.loss + (self.strength / 2) * (self.offset * self.offset).sum(axis=-1)

    @property
    def grad(self) -> Array:
        """grad L + lambda (theta - phi)."""
        return self.point.grad + self.strength * self.offset

    def hvp(self, v: Array) -> Array:
        """(H + lambda I) v."""
        return self.point.hvp(v) + self.strength * v
