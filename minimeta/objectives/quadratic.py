"""Quadratics, whose derivatives and SGD iterates have closed forms."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.backend import Array, array_module
from ..errors import ShapeError
from .network import as_inputs
from .on_vectors import OnVectors
from .protocols import Batch, check_examples, check_float, check_vectors


@dataclass(frozen=True)
class Quadratic(OnVectors):
    """L(phi) = mean_n 1/2 (phi - c_n)^T A_n (phi - c_n).

    Derivatives and SGD iterates have closed forms. A mini-batch is ``x: (T, N,
    D, D)``, the symmetric matrices A_n, and ``y: (T, N, D)``, the centres c_n.
    With A = mean A_n and b = mean A_n c_n, grad = A phi - b, and H = A
    everywhere.
    """

    def at(self, phi: Array, batch: Batch) -> QuadraticPoint:
        """The quadratic at ``phi: (D,) or (T, D)``.

        Raises
        ------
        ShapeError
            if phi or ``batch`` has another shape, or ``batch`` no examples.
        SettingsError
            if phi is not an array of floating-point numbers.
        """
        check_float("phi", phi)
        matrices, centres = (as_inputs(data, phi.dtype) for data in batch)
        if matrices.shape[2:] != (self.size, self.size) or centres.shape != matrices.shape[:3]:
            raise ShapeError(
                f"Quadratic({self.size}) expects x (T, N, {self.size}, {self.size}) and "
                f"y (T, N, {self.size}), got {matrices.shape} and {centres.shape}"
            )
        check_vectors("phi", phi, self.size, matrices.shape[0])
        check_examples(matrices)
        return QuadraticPoint(phi, matrices, centres)

    def descend(self, phi: Array, batch: Batch, lr: float, steps: int) -> Array:
        """phi after ``steps`` SGD steps on one batch, ``(T, D)``, in closed
        form.

        With A m = b, phi_{j+1} - m = (I - lr A)(phi_j - m), so phi_{k+1} = m +
        (I - lr A)^k (phi - m). A must be regular.
        """
        xp = array_module(phi)
        hessian, linear = self._moments(tuple(as_inputs(data, phi.dtype) for data in batch))
        minimum = xp.linalg.solve(hessian, linear[..., None])[..., 0]
        power = xp.linalg.matrix_power(xp.eye(self.size, dtype=hessian.dtype) - lr * hessian, steps)
        return minimum + (power @ (phi - minimum)[..., None])[..., 0]

    @staticmethod
    def _moments(batch: Batch) -> tuple[Array, Array]:
        """A = mean A_n ``(T, D, D)`` and b = mean A_n c_n ``(T, D)``."""
        matrices, centres = batch
        return matrices.mean(axis=1), (matrices @ centres[..., None])[..., 0].mean(axis=1)


class QuadraticPoint:
    """``Quadratic`` at one phi."""

    def __init__(self, phi: Array, matrices: Array, centres: Array) -> None:
        offset = phi[..., None, :] - centres
        slopes = (matrices @ offset[..., None])[..., 0]
        self.loss = (offset * slopes).sum(axis=-1).mean(axis=1) / 2
        self.grad = slopes.mean(axis=1)
        self._hessian = matrices.mean(axis=1)

    def hvp(self, v: Array) -> Array:
        """A v."""
        return (self._hessian @ v[..., None])[..., 0]
