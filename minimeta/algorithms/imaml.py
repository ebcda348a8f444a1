"""iMAML, meta-learning with implicit gradients.

Source: Rajeswaran, Finn, Kakade and Levine 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from ..arrays.backend import Array
from ..errors import SettingsError, ShapeError
from ..inner import conjugate_gradients, descend
from ..objectives import Batch, Derived, Point
from ..registry import setting
from .base import ALGORITHMS, Algorithm, InnerProblem, Outcome


@ALGORITHMS.register("imaml")
@dataclass(frozen=True)
class IMAML(Algorithm):
    """The gradient of the loss at a regularized optimum, from the optimum
    alone.

    No inner step is pulled back. Adaptation solves, with lambda =
    ``regularization`` > 0 pulling towards phi,

        theta* = argmin_theta  L(theta) + lambda/2 |theta - phi|^2,

    by inner steps on mini-batches 1 .. k-1. The last mini-batch, k, scores the
    solution: F(phi) = L_k(theta*). Let H be the Hessian of L at theta*. The
    optimality condition and its derivative with respect to phi are

        grad L(theta*) + lambda (theta* - phi) = 0,
        (H + lambda I) dtheta*/dphi = lambda I.

    H is symmetric. With g_k the gradient of L_k at theta*, the direction is
    therefore

        dF/dphi = (dtheta*/dphi)^T g_k = (I + H/lambda)^{-1} g_k.

    This system is solved by ``cg_steps`` steps of conjugate gradients
    (inner/conjugate_gradients.py), with one Hessian product per step. The
    direction is as exact as the solve and the inner solution phi_k, which
    stands for theta*. A task's solve stops once its residual is at most
    ``tolerance`` |g_k|. It also stops at a search direction in which I +
    H/lambda is not positive definite. If that is the first search direction,
    the result is g_k, which is FOMAML's.

    H is computed on mini-batch k-1, at phi_k. Where every mini-batch is the
    whole training set, as in the paper, this H is exact. Where mini-batches
    differ, this H is a sample. The mean over all k-1 mini-batches would take
    k-1 products per step and hold as many activations. That cost would grow
    with the length of the inner loop, and the implicit gradient exists to avoid
    it.
    """

    regularization: float = setting(1.0, "iMAML: lambda, the pull towards phi in the inner loop")
    cg_steps: int = setting(5, "iMAML: steps of conjugate gradients")
    tolerance: float = setting(
        1e-10,
        "iMAML: relative residual at which the conjugate gradients of a task stop",
        flag="cg_tolerance",
    )
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.regularization < inf:
            raise SettingsError(
                "iMAML's regularization (lambda) must be above 0 and finite, got "
                f"{self.regularization}: use about the largest curvature of the training loss, "
                "or MAML to adapt without a pull towards phi"
            )
        if self.cg_steps < 1:
            raise SettingsError(
                f"iMAML's cg_steps must be 1 or more, got {self.cg_steps}: "
                "use FOMAML to solve no system"
            )
        if not 0 <= self.tolerance < 1:
            raise SettingsError(
                f"iMAML's tolerance must be 0 or more and below 1, got {self.tolerance}: "
                "use 0 to take all cg_steps steps"
            )

    def problem(self, objective, meta):
        """The inner loop on the regularized objective, from its centre phi."""
        # A NumPy number would upcast a float32 phi; a Python number does not.
        regularized = Regularized(objective, meta, float(self.regularization))
        return InnerProblem(regularized, meta, self.rule)

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """(I + H/lambda)^{-1} g_k, ``(T, D)``."""
        if len(minibatches) < 2:
            raise ShapeError(
                f"iMAML needs at least two mini-batches per task, got {len(minibatches)}: "
                "the last mini-batch scores the adaptation on the others"
            )
        last = len(minibatches) - 1
        regularized, phi, rule = self.problem(objective, meta)
        phi, state, _ = descend(regularized, phi, minibatches[:last], rule, state)
        query = objective.at(phi, minibatches[last])
        loss, g = query.loss, query.grad
        del query  # frees its activations before the training loss allocates its own
        train = regularized.at(phi, minibatches[last - 1])
        direction = conjugate_gradients(
            lambda v: train.hvp(v) / regularized.strength, g, self.cg_steps, self.tolerance
        )
        return Outcome(direction, loss, state)


@dataclass(frozen=True)
class Regularized(Derived):
    """``objective`` plus lambda/2 |theta - phi|^2.

    ``strength`` is lambda, and ``centre`` is the fixed phi, ``(D,)``.
    """

    centre: Array
    strength: float

    def at(self, phi: Array, batch: Batch) -> _RegularizedPoint:
        """The regularized objective at theta = ``phi: (D,) or (T, D)``."""
        point = self.objective.at(phi, batch)
        return _RegularizedPoint(point, phi - self.centre, self.strength)


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
