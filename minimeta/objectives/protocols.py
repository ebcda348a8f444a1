"""The contract of an objective.

At one phi, on one mini-batch of each of T tasks, an objective gives the loss,
the gradient, and the product of the Hessian with a vector. ``Differentiable``
and ``Point`` suffice for most algorithms. The other protocols of this file name
further answers that some objectives give and some algorithms need. An algorithm
asks for them by a function of this file, whose error names the missing answer,
and never by looking for an attribute.
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
        """H v, ``(T, D)``, for ``v: (T, D)`` or ``(D,)``. May be called many
        times."""


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
    """A point with the gradient of its loss with respect to the inputs."""

    def input_grad(self) -> Array:
        """dL/dx of each task, in the shape of x."""


@runtime_checkable
class HasThirdDerivative(Protocol):
    """A point with its third derivative in closed form."""

    def third(self, v: Array, w: Array) -> Array:
        """L'''[v, w], ``(T, D)``. ``v`` and ``w`` are ``(T, D)`` or
        ``(D,)``."""


@runtime_checkable
class HasPredictions(Protocol):
    """A point whose predictions can be scored by another loss."""

    def under(self, loss: Loss) -> Point:
        """The same predictions under ``loss``."""


# Further answers of an objective.


@runtime_checkable
class Predicting(Protocol):
    """An objective that gives predictions."""

    def predict(self, phi: Array, x: Array) -> Array:
        """Predictions ``(T, N, *output)`` for ``x: (T, N, *input)``."""


@runtime_checkable
class HasEntropy(Protocol):
    """An objective whose predictions may be probabilities of classes."""

    def entropy(self) -> Loss:
        """The entropy of the class probabilities.

        It is averaged or summed over a mini-batch as the loss is.

        Raises
        ------
        SettingsError
            if the loss predicts no classes.
        """


@runtime_checkable
class HasParts(Protocol):
    """An objective whose phi has named parts."""

    def part(self, name: str) -> slice:
        """The slice of phi that holds the part ``name``, "head" or "context".

        The slice is empty if phi has no such part.
        """


@runtime_checkable
class HasCost(Protocol):
    """An objective that knows the cost of its loss."""

    def cost(self) -> Cost:
        """The work per example."""


@runtime_checkable
class HasExamples(Protocol):
    """An objective that knows the shapes of its examples."""

    def examples(self) -> Examples:
        """The shapes of an example's input and output."""

    def probabilities(self, z: Array) -> Array:
        """The class probabilities of the predictions z, of the shape of z.

        Raises
        ------
        SettingsError
            if the loss predicts no classes.
        """


class Examples(NamedTuple):
    """The shapes of one example, without task and example axes.

    ``classes`` is the number of classes that the outputs are logits of, or None
    in regression.
    """

    input: tuple[int, ...]
    output: tuple[int, ...]
    classes: int | None


class Cost(NamedTuple):
    """The work of a loss per example.

    ``activations`` counts the numbers that a forward pass computes. A gradient
    holds all of them in memory. ``multiply_adds`` counts the multiply-adds of a
    forward pass.
    """

    activations: int
    multiply_adds: int


def part_of(objective: Differentiable, name: str) -> slice:
    """The slice of phi that holds the part ``name`` of ``objective``.

    The slice is empty if the objective has no such part.
    """
    return objective.part(name) if isinstance(objective, HasParts) else slice(0, 0)


def cost_of(objective: Differentiable) -> Cost:
    """The work of ``objective`` per example.

    For an objective without ``cost`` it is a guess of one multiply-add per
    parameter and no activations.
    """
    return objective.cost() if isinstance(objective, HasCost) else Cost(0, objective.size)


def asked(answerer: Any, protocol: type[Answer], why: str, of: Any = None) -> Answer:
    """``answerer``, after a check that it satisfies ``protocol``.

    Raises
    ------
    SettingsError
        if ``answerer`` does not satisfy ``protocol``. The message starts with
        ``why``, which names the caller and its need. It then names ``of``, the
        objective of a point, or ``answerer`` where ``of`` is None.
    """
    if not isinstance(answerer, protocol):
        named = answerer if of is None else of
        raise SettingsError(f"{why}, but {named!r} has none: use Objective(network, loss)")
    return answerer


def check_float(name: str, v: Any) -> None:
    """Raise a SettingsError unless ``v`` is an array of real or complex floats.

    Data are cast to the dtype of phi, so an integer phi would cut off their
    fractions.
    """
    kind = getattr(getattr(v, "dtype", None), "kind", None)
    if kind not in ("f", "c"):
        told = f"an array of {v.dtype}" if kind else f"a {type(v).__name__}"
        raise SettingsError(
            f"{name} must be an array of floating-point numbers, got {told}: "
            f"use np.asarray({name}, dtype=np.float64)"
        )


def check_examples(x: Array) -> None:
    """Raise a ShapeError if a mini-batch holds no examples."""
    if x.ndim > 1 and x.shape[1] == 0:
        raise ShapeError(
            f"a mini-batch needs at least one example per task, got x of shape {x.shape}"
        )


def check_generator(rng: Any) -> None:
    """Raise a SettingsError unless ``rng`` is a NumPy random generator."""
    if not isinstance(rng, np.random.Generator):
        is_seed = isinstance(rng, int)
        told = repr(rng) if is_seed or rng is None else f"a {type(rng).__name__}"
        raise SettingsError(
            f"random numbers need a numpy.random.Generator, got {told}: "
            f"use numpy.random.default_rng({rng if is_seed else 0})"
        )


def check_vectors(name: str, v: Array, size: int, tasks: int) -> None:
    """Raise a ShapeError unless ``v`` is ``(size,)`` or ``(tasks, size)``."""
    if v.shape not in ((size,), (tasks, size)):
        raise ShapeError(
            f"{name} must have shape ({size},) or, for the {tasks} tasks of x, ({tasks}, {size}), "
            f"got {v.shape}"
        )
