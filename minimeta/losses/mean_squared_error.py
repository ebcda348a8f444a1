"""Mean squared error."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..arrays.backend import array_module
from ..errors import ShapeError
from .base import LOSSES, Loss


@LOSSES.register("MeanSquaredError")
@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """L = mean((z - target)^2) over the batch and the outputs.

    ``z: (T, N, *outputs)``; ``target`` has the shape of ``z``.

    Raises
    ------
    ShapeError
        if ``target`` has another shape.
    """

    def forward(self, z, target):
        """L = (1/n) sum((z - t)^2), n = the number of values in z[0]."""
        if target.shape != z.shape:
            raise ShapeError(
                f"MeanSquaredError expects targets of the predictions' shape {z.shape}, "
                f"got {target.shape}"
            )
        residual = (
            z - (target if target.dtype.kind == "c" else target.astype(z.dtype, copy=False))
        ).reshape(z.shape[0], -1)
        loss = array_module(z).einsum("tn,tn->t", residual, residual) / residual.shape[1]
        return loss, residual.reshape(z.shape)

    def backward(self, residual):
        """dz = (2/n) (z - t)."""
        return residual * (2 / math.prod(residual.shape[1:]))

    def backward_tangent(self, residual, z_dot):
        """dz_dot = (2/n) z_dot."""
        return z_dot * (2 / math.prod(residual.shape[1:]))
