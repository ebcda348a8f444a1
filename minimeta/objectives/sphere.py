"""Squared distances to spheres, the simplest curved solution manifolds."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.backend import Array
from ..errors import ShapeError
from .network import as_inputs
from .on_vectors import OnVectors
from .protocols import Batch, check_examples, check_float, check_vectors


@dataclass(frozen=True)
class Sphere(OnVectors):
    """L(phi) = mean_n 1/2 (|phi - c_n| - r_n)^2.

    L is half the mean squared distance to spheres, the simplest curved
    manifolds. A mini-batch is ``x: (T, N, D)``, the centres c_n, and ``y: (T,
    N)``, the radii r_n >= 0. With rho_n = |phi - c_n| and the unit normal m_n =
    (phi - c_n) / rho_n, the nearest point of a sphere is P_n(phi) = c_n + r_n
    m_n, and

        grad = mean (rho_n - r_n) m_n = mean (phi - P_n(phi)),
        H v = mean (1 - r_n / rho_n) v + (r_n / rho_n) (m_n . v) m_n,

    since the derivative of m along v is (v - (m . v) m) / rho. At a centre
    there is no nearest point, and L has no gradient.
    """

    def at(self, phi: Array, batch: Batch) -> SpherePoint:
        """The objective at ``phi: (D,) or (T, D)``.

        Raises
        ------
        ShapeError
            if phi or ``batch`` has another shape, or ``batch`` no examples.
        SettingsError
            if phi is not an array of floating-point numbers.
        """
        check_float("phi", phi)
        centres, radii = (as_inputs(data, phi.dtype) for data in batch)
        if centres.shape[2:] != (self.size,) or radii.shape != centres.shape[:2]:
            raise ShapeError(
                f"Sphere({self.size}) expects x (T, N, {self.size}) and y (T, N), "
                f"got {centres.shape} and {radii.shape}"
            )
        check_vectors("phi", phi, self.size, centres.shape[0])
        check_examples(centres)
        return SpherePoint(phi, centres, radii)


class SpherePoint:
    """``Sphere`` at one phi."""

    def __init__(self, phi: Array, centres: Array, radii: Array) -> None:
        offset = phi[..., None, :] - centres
        # A norm takes absolute values, through which the complex step does not
        # pass, so this is the root of a sum of squares.
        distance = (offset * offset).sum(axis=-1, keepdims=True) ** 0.5
        radii = radii[..., None]
        self._normals, self._bend = offset / distance, radii / distance
        self.loss = ((distance - radii) ** 2)[..., 0].mean(axis=1) / 2
        self.grad = ((distance - radii) * self._normals).mean(axis=1)

    def hvp(self, v: Array) -> Array:
        """mean (1 - r / rho) v + (r / rho) (m . v) m."""
        v = v[..., None, :]
        along = (self._normals * v).sum(axis=-1, keepdims=True) * self._normals
        return ((1 - self._bend) * v + self._bend * along).mean(axis=1)
