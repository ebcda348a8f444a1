"""Ridge polynomials: derivatives of every order in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays.backend import Array
from ..errors import ShapeError
from .network import as_inputs
from .on_vectors import OnVectors
from .protocols import Batch, check_examples, check_float, check_vectors


@dataclass(frozen=True)
class Polynomial(OnVectors):
    """L(phi) = mean_n p_n(w_n . phi), p_n(u) = sum_d c_nd u^d.

    This mean of ridge polynomials has every derivative in closed form. A
    mini-batch is ``x: (T, N, D)``, the directions w_n, and ``y: (T, N, degree +
    1)``, the coefficients c_nd, constant first. With u_n = w_n . phi,

        grad = mean p_n'(u_n) w_n,    H v = mean p_n''(u_n) (w_n . v) w_n,

    and so on for higher derivatives.
    """

    def at(self, phi: Array, batch: Batch) -> PolynomialPoint:
        """The polynomial at ``phi: (D,) or (T, D)``.

        Raises
        ------
        ShapeError
            if phi or ``batch`` has another shape, or ``batch`` no examples.
        SettingsError
            if phi is not an array of floating-point numbers.
        """
        check_float("phi", phi)
        directions, coefficients = (as_inputs(data, phi.dtype) for data in batch)
        if directions.shape[2:] != (self.size,) or coefficients.shape[:2] != directions.shape[:2]:
            raise ShapeError(
                f"Polynomial({self.size}) expects x (T, N, {self.size}) and y (T, N, degree + 1), "
                f"got {directions.shape} and {coefficients.shape}"
            )
        check_vectors("phi", phi, self.size, directions.shape[0])
        check_examples(directions)
        return PolynomialPoint(phi, directions, coefficients)


class PolynomialPoint:
    """``Polynomial`` at one phi."""

    def __init__(self, phi: Array, directions: Array, coefficients: Array) -> None:
        self._directions, self._coefficients = directions, coefficients
        self._u = (directions @ phi[..., None])[..., 0]
        self.loss = self._derivative(0).mean(axis=1)
        self.grad = self._along(self._derivative(1))

    def hvp(self, v: Array) -> Array:
        """mean p''(u) (w . v) w."""
        return self._along(self._derivative(2) * self._onto(v))

    def third(self, v: Array, w: Array) -> Array:
        """L'''[v, w] = mean p'''(u) (w_n . v)(w_n . w) w_n, ``(T, D)``."""
        return self._along(self._derivative(3) * self._onto(v) * self._onto(w))

    def _derivative(self, order: int) -> Array:
        """p_n^(order)(u_n), ``(T, N)``, by Horner's rule.

        Horner's rule runs on the differentiated coefficients.
        """
        value = 0 * self._u
        for power in reversed(range(order, self._coefficients.shape[-1])):
            factor = float(np.prod(np.arange(power - order + 1, power + 1)))
            value = value * self._u + factor * self._coefficients[..., power]
        return value

    def _onto(self, v: Array) -> Array:
        return (self._directions @ v[..., None])[..., 0]

    def _along(self, weights: Array) -> Array:
        return (weights[..., None] * self._directions).mean(axis=1)
