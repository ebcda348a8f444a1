"""What an objective is: at one phi, on one mini-batch of each of T tasks, it
knows the loss, the gradient, and the product of the Hessian with a vector.

``Differentiable`` and ``Point`` are all that every algorithm needs. The other
protocols here name further answers. Some objectives have them, and some
algorithms ask for them: by a function of this file, which says in one line what
is missing, and never by looking for an attribute.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from ..arrays.backend import Array
from ..errors import SettingsError, ShapeError
from ..losses import Loss

Batch = tuple[Array, Array]  # x: (T, N, *input), y: (T, N, *target)
Answer = TypeVar("Answer")


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


class Differentiable(Protocol):
    """An objective, as algorithms see it."""

    @property
    def size(self) -> int:
        """D."""

    def init(self, rng: np.random.Generator, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
        """A fresh phi, ``(D,)``."""

    def at(self, phi: Array, batch: Batch) -> Point:
        """The objective at ``phi: (D,) or (T, D)`` on ``batch``."""


# Further answers of a point.


@runtime_checkable
class HasInputGradient(Protocol):
    """A point that knows the slope of its loss along the inputs."""

    def input_grad(self) -> Array:
        """dL/dx of each task, of the shape of x."""


@runtime_checkable
class HasThirdDerivative(Protocol):
    """A point with a closed third derivative."""

    def third(self, v: Array, w: Array) -> Array:
        """L'''[v, w], ``(T, D)``, for ``v`` and ``w``, ``(T, D)`` or ``(D,)``."""


@runtime_checkable
class HasPredictions(Protocol):
    """A point whose predictions can be scored by another loss."""

    def under(self, loss: Loss) -> Point:
        """The same predictions under ``loss``."""


# Further answers of an objective.


@runtime_checkable
class Predicting(Protocol):
    """An objective that scores predictions."""

    def predict(self, phi: Array, x: Array) -> Array:
        """Predictions ``(T, N, *output)`` for ``x: (T, N, *input)``."""


@runtime_checkable
class HasEntropy(Protocol):
    """An objective whose predictions may be probabilities of classes."""

    def entropy(self) -> Loss:
        """Their entropy, averaged or summed over a mini-batch as the loss is.

        Raises
        ------
        SettingsError
            if the loss predicts no classes.
        """


@runtime_checkable
class HasParts(Protocol):
    """An objective whose phi has named parts."""

    def part(self, name: str) -> slice:
        """The place in phi of the part ``name``, "head" or "context"; empty without one."""


@runtime_checkable
class HasCost(Protocol):
    """An objective that knows its work."""

    def cost(self) -> Cost:
        """The work for one example."""


class Cost(NamedTuple):
    """The work of a loss for one example: numbers that a forward pass computes, all of which a
    gradient holds, and multiply-adds that it takes."""

    activations: int
    multiply_adds: int


def part_of(objective: Differentiable, name: str) -> slice:
    """The place in phi of the part ``name`` of ``objective``; empty where it has none."""
    return objective.part(name) if isinstance(objective, HasParts) else slice(0, 0)


def cost_of(objective: Differentiable) -> Cost:
    """The work of ``objective`` for one example; of an objective that does not know, a guess: one
    multiply-add a parameter, and no activations."""
    return objective.cost() if isinstance(objective, HasCost) else Cost(0, objective.size)


def asked(answerer: Any, protocol: type[Answer], why: str, of: Any = None) -> Answer:
    """``answerer``, which has the answers of ``protocol``.

    Raises
    ------
    SettingsError
        if it has not. ``why`` says who asks, and for what; the message names ``of``, the
        objective of a point, or else ``answerer``.
    """
    if not isinstance(answerer, protocol):
        named = answerer if of is None else of
        raise SettingsError(f"{why}, and {named!r} has none: use Objective(network, loss)")
    return answerer


def check_vectors(name: str, v: Array, size: int, tasks: int) -> None:
    """Raise the ShapeError of a phi or v that is neither ``(D,)`` nor ``(T, D)`` for ``tasks`` tasks."""
    if v.shape not in ((size,), (tasks, size)):
        raise ShapeError(
            f"{name} must have shape ({size},) or, for the {tasks} tasks of x, ({tasks}, {size}), got {v.shape}"
        )
