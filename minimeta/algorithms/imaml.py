"""iMAML: meta-learning with implicit gradients (Rajeswaran, Finn, Kakade and Levine 2019)."""

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
    """The gradient of the loss at a regularized optimum, from the optimum alone: no step of the way
    there is pulled back.

    Adaptation solves, with lambda = ``regularization`` > 0 pulling towards phi,

        theta* = argmin_theta  L(theta) + lambda/2 |theta - phi|^2,

    by inner steps on mini-batches 1 .. k-1. The last, k, scores it: F(phi) = L_k(theta*).
    With H the Hessian of L at theta*, the optimum's condition, and its derivative with
    respect to phi, are

        grad L(theta*) + lambda (theta* - phi) = 0,       (H + lambda I) dtheta*/dphi = lambda I,

    and H is symmetric, so with g_k the gradient of L_k at theta* the direction is

        dF/dphi = (dtheta*/dphi)^T g_k = (I + H/lambda)^{-1} g_k,

    by ``cg_steps`` of conjugate gradients (inner/conjugate_gradients.py), one Hessian
    product each. The direction is as exact as the inner solution (phi_k stands for
    theta*) and the solve are. A task's solve rests once its residual is at most
    ``tolerance`` |g_k|. A direction in which I + H/lambda is not positive definite ends
    a solve; where that is the first, the result is g_k, which is FOMAML.

    H is that of mini-batch k-1, at phi_k. Where each mini-batch is the whole training
    set, as in the paper, that is H. The mean over all k-1 would cost k-1 products a step
    and hold as many activations. That cost would grow with the inner loop, which the
    implicit gradient avoids. Of unequal mini-batches the last is a sample.
    """

    regularization: float = setting(1.0, "iMAML: lambda, the pull towards phi in the inner loop")
    cg_steps: int = setting(5, "iMAML: steps of conjugate gradients")
    tolerance: float = setting(
        1e-10,
        "iMAML: residual at which the conjugate gradients of a task rest",
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
                "use FOMAML to solve for nothing"
            )
        if not 0 <= self.tolerance < 1:
            raise SettingsError(
                f"iMAML's tolerance must be 0 or more and below 1, got {self.tolerance}: "
                "use 0 to make every step"
            )

    def problem(self, objective, meta):
        """The regularized objective, from phi, which is its centre."""
        # A Python number: a NumPy one would upcast a float32 phi.
        regularized = Regularized(objective, meta, float(self.regularization))
        return InnerProblem(regularized, meta, self.rule)

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """(I + H/lambda)^{-1} g_k, ``(T, D)``."""
        if len(minibatches) < 2:
            raise ShapeError(
                f"iMAML needs at least two mini-batches a task, got {len(minibatches)}: "
                "the last one scores what the others train"
            )
        last = len(minibatches) - 1
        regularized, phi, rule = self.problem(objective, meta)
        phi, state, _ = descend(regularized, phi, minibatches[:last], rule, state)
        query = objective.at(phi, minibatches[last])
        loss, g = query.loss, query.grad
        del query  # its activations make room for those of the training loss
        train = regularized.at(phi, minibatches[last - 1])
        direction = conjugate_gradients(
            lambda v: train.hvp(v) / regularized.strength, g, self.cg_steps, self.tolerance
        )
        return Outcome(direction, loss, state)


@dataclass(frozen=True)
class Regularized(Derived):
    """``objective`` plus lambda/2 |theta - phi|^2, for the ``strength`` lambda and a fixed
    ``centre`` phi."""

    centre: Array
    strength: float

    def at(self, phi: Array, batch: Batch) -> _RegularizedPoint:
        """The sum at ``phi: (D,) or (T, D)``."""
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
