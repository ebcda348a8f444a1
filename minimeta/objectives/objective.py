"""An objective made of a network and a loss."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays.backend import Array, array_module
from ..errors import SettingsError
from ..losses import Loss
from .network import Network, as_inputs
from .protocols import Batch, Cost, Examples, check_examples, check_float, check_vectors


@dataclass(frozen=True)
class Objective:
    """``loss`` of ``network``'s predictions.

    Data are cast to the dtype of phi, so phi alone sets the precision.

    Raises
    ------
    SettingsError
        if ``network`` is not a Network, or ``loss`` is not an instance of a
        Loss.
    """

    network: Network
    loss: Loss

    def __post_init__(self) -> None:
        for name, kind, example in (
            ("network", Network, "mlp([1, 40, 40, 1])"),
            ("loss", Loss, "MeanSquaredError()"),
        ):
            given = getattr(self, name)
            if not isinstance(given, kind):
                told = f"the class {given.__name__}" if isinstance(given, type) else f"{given!r}"
                raise SettingsError(
                    f"Objective(network, loss) needs a {name} such as {example}, got {told}"
                )

    @property
    def size(self) -> int:
        """D, the number of parameters."""
        return self.network.size

    def part(self, name: str) -> slice:
        """The slice of phi that holds the network's "head" or "context".

        The head is the last layer with parameters. The slice is empty if the
        network has no such part.
        """
        return {"head": self.network.head, "context": self.network.context}[name]

    def cost(self) -> Cost:
        """The work per example."""
        return Cost(self.network.activations, self.network.multiply_adds)

    def entropy(self) -> Loss:
        """The entropy of the predicted classes, averaged or summed as the loss
        is.

        Raises
        ------
        SettingsError
            if the loss predicts no classes.
        """
        return self.loss.entropy()

    def examples(self) -> Examples:
        """The shapes of an example's input and output."""
        output = self.network.output_shape
        classes = output[-1] if self.loss.classifies else None
        return Examples(self.network.input_shape, output, classes)

    def probabilities(self, z: Array) -> Array:
        """The class probabilities of the predictions z, of the shape of z.

        Raises
        ------
        SettingsError
            if the loss predicts no classes.
        """
        return self.loss.probabilities(z)

    def predict(self, phi: Array, x: Array) -> Array:
        """Predictions ``(T, N, *output)`` for ``x: (T, N, *input)``.

        ``phi`` is ``(D,)`` or ``(T, D)``.
        """
        return self.network.forward(phi, x)

    def init(self, rng: np.random.Generator, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
        """A fresh phi ``(D,)``, by ``Network.init``."""
        return self.network.init(rng, dtype, xp)

    def at(self, phi: Array, batch: Batch) -> NetworkPoint:
        """The point at ``phi: (D,) or (T, D)`` on ``batch = (x, y)``.

        The loss is computed at once, the gradient and Hessian products on
        demand.

        Raises
        ------
        ShapeError
            if phi, x or y does not fit the network or the others, or x holds no
            examples.
        SettingsError
            if phi is not an array of floating-point numbers.
        """
        check_float("phi", phi)
        x, y = as_inputs(batch[0], phi.dtype), _targets(batch[1], phi.dtype)
        check_vectors("phi", phi, self.size, x.shape[0])
        check_examples(x)
        return NetworkPoint(self.network, self.loss, phi, x, y)


class NetworkPoint:
    """A network's loss at one phi on one mini-batch.

    ``loss: (T,)`` is computed at once. Everything else is computed on demand
    from views of phi and of x, so change neither in place while their point is
    in use.

    The gradient uses reverse mode. L = loss(network(phi, x)), so dphi =
    network.backward(loss.backward()).
    """

    def __init__(self, network: Network, loss: Loss, phi: Array, x: Array, y: Array) -> None:
        self._network, self._loss, self._x = network, loss, x
        self._theta = network.theta(phi, x)
        prediction, self._caches = network.forward_cached(self._theta, x)
        self._scored = prediction, y
        self.loss, self._loss_cache = loss.forward(prediction, y)
        self._backward: tuple[Array, list[Array]] | None = None

    def under(self, loss: Loss) -> NetworkPoint:
        """The same predictions under another ``loss``, without a new forward
        pass."""
        other = copy(self)
        other._loss, other._backward = loss, None
        other.loss, other._loss_cache = loss.forward(*self._scored)
        return other

    @property
    def _gradients(self) -> tuple[Array, list[Array]]:
        # Before Python 3.12 functools.cached_property has one lock for all
        # points, and threads would take turns.
        if self._backward is None:
            dz = self._loss.backward(self._loss_cache)
            self._backward = self._network.backward(self._theta, self._caches, dz, on_data=True)[1:]
        return self._backward

    @property
    def grad(self) -> Array:
        """dL/dphi of each task, ``(T, D)``."""
        return self._gradients[0]

    def input_grad(self) -> Array:
        """dL/dx, in the shape of x, by a new backward pass at every call."""
        return self._network.backward(
            self._theta, self._caches, self._loss.backward(self._loss_cache)
        )[0]

    def hvp(self, v: Array) -> Array:
        """H v = d/dh grad(phi + h v) at h = 0, ``(T, D)``, by
        forward-over-reverse.

        ``v`` is ``(T, D)`` or ``(D,)``. The method pushes phi_dot = v through
        forward (tangents of all activations), then through backward (tangents
        of all gradients). The dot of dphi is H v. It costs about two gradients,
        because forward and backward are not repeated.

        Raises
        ------
        ShapeError
            if ``v`` is neither ``(D,)`` nor ``(T, D)``.
        """
        check_vectors("v", v, self._network.size, self._x.shape[0])
        network, theta = self._network, self._theta
        theta_dot = network.dot(theta, v)
        x_dot = array_module(self._x).zeros_like(self._x)
        z_dot, caches_dot = network.forward_tangent(
            theta, theta_dot, self._caches, x_dot, on_data=True
        )
        dz_dot = self._loss.backward_tangent(self._loss_cache, z_dot)
        _, dys = self._gradients
        return network.backward_tangent(
            theta, theta_dot, self._caches, caches_dot, dys, dz_dot, on_data=True
        )[1]


def _targets(data: Array, dtype: Any) -> Array:
    """Real targets in the dtype of phi. Integer targets are labels and stay
    integers."""
    return data.astype(dtype, copy=False) if data.dtype.kind == "f" else data
