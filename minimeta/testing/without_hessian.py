"""An objective with its Hessian replaced by zero.

On it, a second-order method becomes its first-order approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.backend import Array, array_module
from ..objectives import Batch, Derived, Differentiable, Point


@dataclass(frozen=True)
class _FlatPoint:
    loss: Array
    grad: Array

    def hvp(self, v: Array) -> Array:
        """0 v."""
        return array_module(v).zeros_like(self.grad)


@dataclass(frozen=True)
class _WithoutHessian(Derived):
    def at(self, phi: Array, batch: Batch) -> Point:
        point = self.objective.at(phi, batch)
        return _FlatPoint(point.loss, point.grad)


def without_hessian(objective: Differentiable) -> Differentiable:
    """``objective`` with the same losses and gradients, and H = 0.

    MAML on the result is FOMAML on ``objective``.
    """
    return _WithoutHessian(objective)
