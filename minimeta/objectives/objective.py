"""Floor 3: an objective answers one question: at this phi, on this mini-batch, what are the loss, the gradient, and the
product of the Hessian with a vector?

Everything above this floor sees only ``objective.at(phi, batch)`` and the ``Point`` it returns. ``Objective`` puts a
network and a loss behind that question; ``Quadratic``, ``Polynomial`` and ``Sphere`` have closed forms, and are how the
theory is checked exactly.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..arrays.backend import Array, array_module
from ..errors import ShapeError
from ..losses import Loss
from .network import Network, as_inputs

Batch = tuple[Array, Array]  # x: (T, N, *input), y: (T, N, *target)


@runtime_checkable
class Point(Protocol):
    """An objective at one phi on one mini-batch of each of T tasks."""

    @property
    def loss(self) -> Array:
        """``(T,)``."""

    @property
    def grad(self) -> Array:
        """``(T, D)``."""

    def hvp(self, v: Array) -> Array:
        """H v, ``(T, D)``, for ``v: (T, D)`` or ``(D,)``; may be called often."""


@runtime_checkable
class Differentiable(Protocol):
    """What an algorithm needs of an objective."""

    @property
    def size(self) -> int:
        """D."""

    def init(self, rng: np.random.Generator, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
        """A fresh phi, ``(D,)``."""

    def at(self, phi: Array, batch: Batch) -> Point:
        """The objective at ``phi: (D,) or (T, D)`` on ``batch``."""


@dataclass(frozen=True)
class Objective:
    """``loss`` of ``network``'s predictions. Data are cast to the dtype of phi, so phi alone sets the precision."""

    network: Network
    loss: Loss

    @property
    def size(self) -> int:
        """D, the number of parameters."""
        return self.network.size

    @property
    def head(self) -> slice:
        """The place in phi of the network's last layer that has parameters."""
        return self.network.head

    @property
    def context(self) -> slice:
        """The place in phi of the network's context parameters; empty without any."""
        return self.network.context

    @property
    def activations(self) -> int:
        """Numbers computed on the way to the loss of one example."""
        return self.network.activations

    @property
    def multiply_adds(self) -> int:
        """About how many the loss of one example takes."""
        return self.network.multiply_adds

    def init(self, rng: np.random.Generator, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
        """A fresh phi ``(D,)``: see Network.init."""
        return self.network.init(rng, dtype, xp)

    def at(self, phi: Array, batch: Batch) -> NetworkPoint:
        """The loss at ``phi: (D,) or (T, D)`` on ``(x, y)``; gradient and Hessian products when asked for.

        Raises
        ------
        ShapeError
            if phi, x or y do not fit the network and each other.
        """
        x, y = as_inputs(batch[0], phi.dtype), _targets(batch[1], phi.dtype)
        check_vectors("phi", phi, self.size, x.shape[0])
        return NetworkPoint(self.network, self.loss, phi, x, y)


class NetworkPoint:
    """A network's loss at one phi on one mini-batch. ``loss: (T,)`` is there at once; the rest on demand, from views of phi:
    do not change phi in place while its point is in use.

    The gradient is reverse mode: L = loss(network(phi, x)), so dphi = network.backward(loss.backward()).
    """

    def __init__(self, network: Network, loss: Loss, phi: Array, x: Array, y: Array) -> None:
        self._network, self._loss, self._x = network, loss, x
        self._theta = network.unpack(phi)
        prediction, self._caches = network.forward_cached(self._theta, x)
        self._scored = prediction, y
        self.loss, self._loss_cache = loss.forward(prediction, y)
        self._backward: tuple[Array, list[Array]] | None = None

    def under(self, loss: Loss) -> NetworkPoint:
        """The same predictions under another ``loss``: the forward pass is shared."""
        other = copy(self)
        other._loss, other._backward = loss, None
        other.loss, other._loss_cache = loss.forward(*self._scored)
        return other

    @property
    def _gradients(self) -> tuple[Array, list[Array]]:
        # Not functools.cached_property: before Python 3.12 its lock is one for all points, and threads would take turns.
        if self._backward is None:
            dz = self._loss.backward(self._loss_cache)
            self._backward = self._network.backward(self._theta, self._caches, dz, on_data=True)[1:]
        return self._backward

    @property
    def grad(self) -> Array:
        """dL/dphi of each task, ``(T, D)``."""
        return self._gradients[0]

    @property
    def input_grad(self) -> Array:
        """dL/dx of each task, of the shape of x. Not kept: a backward pass each time it is asked for."""
        return self._network.backward(
            self._theta, self._caches, self._loss.backward(self._loss_cache)
        )[0]

    def hvp(self, v: Array) -> Array:
        """H v = d/dh grad(phi + h v) at h = 0, for ``v: (T, D)`` or ``(D,)``, by forward-over-reverse.

        Push phi_dot = v through forward (tangents of all activations), then through backward (tangents of all
        gradients); the dot of dphi is H v. About twice the cost of the gradient; forward and backward are not repeated.
        """
        check_vectors("v", v, self._network.size, self._x.shape[0])
        network, theta, theta_dot = self._network, self._theta, self._network.unpack(v)
        x_dot = array_module(self._x).zeros_like(self._x)
        z_dot, caches_dot = network.forward_tangent(
            theta, theta_dot, self._caches, x_dot, on_data=True
        )
        dz_dot = self._loss.backward_tangent(self._loss_cache, z_dot)
        _, dys = self._gradients
        return network.backward_tangent(
            theta, theta_dot, self._caches, caches_dot, dys, dz_dot, on_data=True
        )[1]


@dataclass(frozen=True)
class Altered:
    """Base of an objective made of another, ``objective``, on the same phi; a subclass writes ``at``."""

    objective: Differentiable

    @property
    def size(self) -> int:
        """D."""
        return self.objective.size

    def init(self, rng: np.random.Generator, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
        """A fresh phi of ``objective``, ``(D,)``."""
        return self.objective.init(rng, dtype, xp)


@dataclass(frozen=True)
class _OnVectors:
    """What the objectives with closed forms share: phi is any vector of ``size`` D."""

    size: int

    def init(self, rng: np.random.Generator, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
        """Standard normal phi, ``(D,)``."""
        return xp.asarray(rng.standard_normal(self.size), dtype=dtype)


@dataclass(frozen=True)
class Quadratic(_OnVectors):
    """L(phi) = mean_n 1/2 (phi - c_n)^T A_n (phi - c_n): the objective whose every question has an exact answer.

    A mini-batch is ``x: (T, N, D, D)``, the symmetric matrices A_n, and ``y: (T, N, D)``, the centres c_n. With
    A = mean A_n and b = mean A_n c_n: grad = A phi - b and H = A everywhere.
    """

    def at(self, phi: Array, batch: Batch) -> QuadraticPoint:
        """The quadratic at ``phi: (D,) or (T, D)``."""
        matrices, centres = (as_inputs(data, phi.dtype) for data in batch)
        if matrices.shape[2:] != (self.size, self.size) or centres.shape != matrices.shape[:3]:
            raise ShapeError(
                f"Quadratic({self.size}) expects x (T, N, {self.size}, {self.size}) and y (T, N, {self.size}), "
                f"got {matrices.shape} and {centres.shape}"
            )
        check_vectors("phi", phi, self.size, matrices.shape[0])
        return QuadraticPoint(phi, matrices, centres)

    def descend(self, phi: Array, batch: Batch, lr: float, steps: int) -> Array:
        """Closed form of ``steps`` SGD steps on one fixed batch, ``(T, D)``.

        phi_{j+1} - m = (I - lr A)(phi_j - m) with A m = b, so phi_{k+1} = m + (I - lr A)^k (phi - m). A must be regular.
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


@dataclass(frozen=True)
class Polynomial(_OnVectors):
    """L(phi) = mean_n p_n(w_n . phi), p_n(u) = sum_d c_nd u^d: a sum of ridge polynomials, exact in every derivative.

    A mini-batch is ``x: (T, N, D)``, the directions w_n, and ``y: (T, N, degree + 1)``, the coefficients, constant first.
    With u_n = w_n . phi:  grad = mean p_n'(u_n) w_n,  H v = mean p_n''(u_n) (w_n . v) w_n, and so on.
    """

    def at(self, phi: Array, batch: Batch) -> PolynomialPoint:
        """The polynomial at ``phi: (D,) or (T, D)``."""
        directions, coefficients = (as_inputs(data, phi.dtype) for data in batch)
        if directions.shape[2:] != (self.size,) or coefficients.shape[:2] != directions.shape[:2]:
            raise ShapeError(
                f"Polynomial({self.size}) expects x (T, N, {self.size}) and y (T, N, degree + 1), "
                f"got {directions.shape} and {coefficients.shape}"
            )
        check_vectors("phi", phi, self.size, directions.shape[0])
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
        """p_n^(order)(u_n), ``(T, N)``, by Horner's rule on the differentiated coefficients."""
        value = 0 * self._u
        for power in reversed(range(order, self._coefficients.shape[-1])):
            factor = float(np.prod(np.arange(power - order + 1, power + 1)))
            value = value * self._u + factor * self._coefficients[..., power]
        return value

    def _onto(self, v: Array) -> Array:
        return (self._directions @ v[..., None])[..., 0]

    def _along(self, weights: Array) -> Array:
        return (weights[..., None] * self._directions).mean(axis=1)


@dataclass(frozen=True)
class Sphere(_OnVectors):
    """L(phi) = mean_n 1/2 (|phi - c_n| - r_n)^2: half the squared distance to spheres, the simplest curved manifolds.

    A mini-batch is ``x: (T, N, D)``, the centres c_n, and ``y: (T, N)``, the radii r_n >= 0. With rho_n = |phi - c_n| and
    the unit normal m_n = (phi - c_n) / rho_n, the nearest point of a sphere is P_n(phi) = c_n + r_n m_n, and

        grad = mean (rho_n - r_n) m_n = mean (phi - P_n(phi)),
        H v = mean (1 - r_n / rho_n) v + (r_n / rho_n) (m_n . v) m_n,

    since the derivative of m along v is (v - (m . v) m) / rho. A centre has no nearest point: there L has no gradient.
    """

    def at(self, phi: Array, batch: Batch) -> SpherePoint:
        """Half the squared distance at ``phi: (D,) or (T, D)``."""
        centres, radii = (as_inputs(data, phi.dtype) for data in batch)
        if centres.shape[2:] != (self.size,) or radii.shape != centres.shape[:2]:
            raise ShapeError(
                f"Sphere({self.size}) expects x (T, N, {self.size}) and y (T, N), got {centres.shape} and {radii.shape}"
            )
        check_vectors("phi", phi, self.size, centres.shape[0])
        return SpherePoint(phi, centres, radii)


class SpherePoint:
    """``Sphere`` at one phi."""

    def __init__(self, phi: Array, centres: Array, radii: Array) -> None:
        offset = phi[..., None, :] - centres
        # The root of the sum of squares, not a norm: a norm takes absolute values, and the complex step would miss it.
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


def check_vectors(name: str, v: Array, size: int, tasks: int) -> None:
    """Raise the ShapeError of a phi or v that is neither ``(D,)`` nor ``(T, D)`` for ``tasks`` tasks."""
    if v.shape not in ((size,), (tasks, size)):
        raise ShapeError(
            f"{name} must have shape ({size},) or, for the {tasks} tasks of x, ({tasks}, {size}), got {v.shape}"
        )


def _targets(data: Array, dtype: Any) -> Array:
    """Real targets in the precision of phi; integer targets are labels and stay integers."""
    return data.astype(dtype, copy=False) if data.dtype.kind == "f" else data
