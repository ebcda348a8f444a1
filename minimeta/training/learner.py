"""A learner: meta-parameters, and the objects that adapt them to a task."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np

from ..algorithms import Algorithm
from ..arrays.backend import Array, array_module, to_host
from ..errors import CheckpointError, DivergenceError, SettingsError, ShapeError
from ..files import read_arrays, write_new
from ..inner import InnerRule
from ..inner import adapt as adapt_by_rule
from ..objectives import Batch, Differentiable, HasExamples, Predicting, asked, part_of
from ..tasks import Minibatches
from ..tasks.minibatches import check_seed
from .learner_file import arrays_of, checked_inputs, parts_of
from .scoring import Scoring
from .user_arrays import Inputs, Targets, as_given, given_inputs, given_labels, given_values

Mode = Literal["transductive", "inductive"]
_MOST = 10**9  # inner steps, or examples in a mini-batch


class InnerPath(NamedTuple):
    """The way of the parameters through the inner loop.

    ``parameters`` is ``(steps + 1, D)``, and ``loss`` is ``(steps + 1,)``: the
    loss of all examples of the task, before the first step and after every
    step. For T tasks the shapes are ``(steps + 1, T, D)`` and ``(steps + 1,
    T)``.
    """

    parameters: np.ndarray
    loss: np.ndarray


class Fit(NamedTuple):
    """The tasks that a learner is adapted to."""

    inputs: Inputs
    targets: Targets
    support: Batch  # the same, on the device and in the dtype of meta
    minibatches: Minibatches
    phi: Array  # (T, D)


@dataclass(eq=False)
class Learner:
    """An algorithm at meta-parameters, for tasks of ``objective``.

    ``learner.fit(x, y)`` adapts to the examples of one task, or of many, as the
    learner's own algorithm does. ``learner.predict(x)`` then predicts further
    examples of the same tasks. The meta-parameters never change: every ``fit``
    starts from them.

    Parameters
    ----------
    objective, algorithm
        as for meta-training.
    meta
        the meta-parameters, ``(M,)``, whose dtype and device hold for all
        results.
    state
        the state of the inner rule at the start of every task, such as Adam's
        moments from training.
    scoring
        the steps and the mini-batches of ``fit``.
    inputs
        the range of the inputs in training, (lowest, highest).
    """

    objective: Differentiable
    algorithm: Algorithm
    meta: Array = field(repr=False)
    state: Any = field(default=None, repr=False)
    scoring: Scoring = Scoring()
    inputs: tuple[float, float] = (-inf, inf)
    _fit: Fit | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.algorithm, Algorithm):
            raise SettingsError(
                f"a Learner needs an algorithm, got {self.algorithm!r}: use MAML(SGD(0.01))"
            )
        shape, dtype = (getattr(self.meta, name, None) for name in ("shape", "dtype"))
        if shape is None or len(shape) != 1 or dtype not in (np.float32, np.float64):
            raise ShapeError(
                "meta must be an array (M,) of float32 or float64, got "
                f"{type(self.meta).__name__ if shape is None else f'{dtype} of shape {shape}'}"
            )
        self.inputs = checked_inputs(self.inputs)

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        steps: int | None = None,
        size: int | None = None,
        seed: int | np.random.Generator = 0,
    ) -> Learner:
        """Adapt to the examples of one task, or of many; return this learner.

        Parameters
        ----------
        x
            ``(N, *input)`` for one task, ``(T, N, *input)`` for T tasks. For
            one task, a last axis of length 1 may be left out.
        y
            in regression ``(N, *target)`` or ``(T, N, *target)``, where a
            target of length 1 may be left out. In classification ``(N,)`` or
            ``(T, N)``, whole numbers or words.
        steps
            inner steps; by default those of ``scoring``. 0 does not adapt.
        size
            examples in a mini-batch; by default that of ``scoring``, or N if N
            is smaller.
        seed
            the seed of the mini-batches, or a generator.

        Raises
        ------
        ShapeError
            if a shape fits neither one task nor many.
        SettingsError
            if numbers are not finite, or a task has too many classes.
        DivergenceError
            if the adapted parameters are not finite.
        """
        shapes = asked(self.objective, HasExamples, "fit needs the shapes of examples").examples()
        inputs = self._given(x, shapes.input)
        if shapes.classes is None:
            targets = given_values(y, inputs, shapes.output)
        else:
            targets = given_labels(y, inputs, shapes.classes)
        support = self._here(inputs.x), self._here(targets.y, labels=shapes.classes is not None)
        scoring = self._scoring(steps, size, inputs.x.shape[1])
        if not isinstance(seed, np.random.Generator):
            check_seed(seed)
        minibatches = scoring.minibatches(np.random.default_rng(seed), support)[:steps]
        self._fit = Fit(inputs, targets, support, minibatches, self._adapted(minibatches, support))
        return self

    @property
    def phi_(self) -> np.ndarray:
        """The adapted parameters, ``(D,)`` or ``(T, D)``."""
        fit = self._fitted()
        return as_given(fit.phi, fit.inputs.one)

    @property
    def classes_(self) -> np.ndarray:
        """The labels of the classes, sorted, ``(c,)`` or ``(T, c)``.

        Raises
        ------
        SettingsError
            if the learner predicts no classes.
        """
        fit = self._fitted()
        if fit.targets.classes is None:
            raise SettingsError("this learner predicts numbers, so it has no classes")
        return as_given(fit.targets.classes, fit.inputs.one)

    def predict(self, x: Any, *, transductive: bool = False) -> np.ndarray:
        """Predictions for further examples of the fitted tasks.

        ``x`` has the shape of ``fit``'s x, with any N. The result has the shape
        of ``fit``'s y: values in regression, labels in classification.

        In a network with batch norm, the examples of a batch share statistics.
        By default, each example is therefore predicted alone, in one batch with
        the examples of ``fit``, so that its prediction does not depend on the
        other examples. With ``transductive``, the examples of a task are
        predicted in one batch.

        Raises
        ------
        SettingsError
            before ``fit``, or if numbers are not finite.
        ShapeError
            if x has another shape.
        DivergenceError
            if predictions are not finite.
        """
        fit, z = self._fitted(), self._predictions(x, transductive)
        if fit.targets.classes is not None:
            chosen = z[..., : fit.targets.classes.shape[1]].argmax(axis=-1)
            z = np.take_along_axis(fit.targets.classes, chosen, axis=1)
        elif fit.targets.flat:
            z = z[..., 0]
        return as_given(z, fit.inputs.one)

    def predict_proba(self, x: Any, *, transductive: bool = False) -> np.ndarray:
        """The probability of every class, ``(N, c)`` or ``(T, N, c)``.

        The classes are in the order of ``classes_``. ``predict`` explains ``x``
        and ``transductive``, and names the errors.
        """
        fit, _ = self._fitted(), self.classes_
        z = self._predictions(x, transductive)[..., : fit.targets.classes.shape[1]]
        return as_given(self.objective.probabilities(z), fit.inputs.one)

    def path(self) -> InnerPath:
        """The parameters and the loss before and after every inner step of
        ``fit``."""
        fit = self._fitted()
        with np.errstate(all="ignore"):
            iterates = self.iterates(fit.minibatches)
            losses = [self.objective.at(phi, fit.support).loss for phi in iterates]
        xp, tasks = array_module(self.meta), len(fit.phi)
        rows = [xp.broadcast_to(phi, (tasks, phi.shape[-1])) for phi in iterates]
        path = InnerPath(*(to_host(xp.stack(each)) for each in (rows, losses)))
        return InnerPath(*(each[:, 0] for each in path)) if fit.inputs.one else path

    def save(self, path: str | os.PathLike) -> None:
        """Write the learner to a new file, which ``minimeta.load`` reads.

        The file holds the network, the loss, the algorithm and all numbers, so
        it can be read without the run and its data. The fitted tasks are not
        written. Layers, losses, algorithms and rules of one's own must be
        registered.

        Raises
        ------
        CheckpointError
            if the file exists already, or cannot be written.
        SettingsError
            if a part of the learner cannot be written.
        """
        arrays, new = arrays_of(self), _file(path)
        try:
            write_new(new, lambda file: np.savez(file, **arrays))
        except FileExistsError:
            raise CheckpointError(f"{path} exists already: name a new file") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def read(cls, path: str | os.PathLike, xp: ModuleType = np) -> Learner:
        """The learner in a file that ``save`` wrote, on the device of ``xp``.

        Raises
        ------
        CheckpointError
            if the file is missing, damaged, or no learner's.
        """
        given = _file(path)
        try:
            file = given.resolve()
            # The archive is not compressed, so it cannot unpack to more.
            arrays = read_arrays(file, limit=file.stat().st_size)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(f"{path} cannot be read: {reason}") from error
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        try:
            return cls(**parts_of(arrays, xp))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def adapt(self, minibatches: Sequence[Batch]) -> Array:
        """Parameters after a step on every mini-batch, ``(T, D)``."""
        return self.algorithm.adapt(self.objective, self.meta, minibatches, self.state)

    def iterates(self, minibatches: Sequence[Batch]) -> Sequence[Array]:
        """Parameters before and after each step: ``(D,)`` or ``(T, D)``."""
        return self.algorithm.iterates(self.objective, self.meta, minibatches, self.state)

    def _fitted(self) -> Fit:
        if self._fit is None:
            raise SettingsError("this learner is not adapted to a task yet: call fit(x, y) first")
        return self._fit

    def _given(self, x: Any, shape: tuple[int, ...], stacklevel: int = 3) -> Inputs:
        """The inputs, after a look at their range."""
        inputs = given_inputs(x, shape)
        (low, high), least, most = self.inputs, inputs.x.min(), inputs.x.max()
        if least < low or most > high:
            warnings.warn(
                f"x reaches from {least:g} to {most:g}, but the inputs of training lay between "
                f"{low:g} and {high:g}: check the scale of x",
                stacklevel=stacklevel,
            )
        return inputs

    def _here(self, array: np.ndarray, labels: bool = False) -> Array:
        """An array on the device of meta: labels as they are, the rest in its
        dtype."""
        with np.errstate(over="ignore"):  # reported once the loss is not finite
            return array_module(self.meta).asarray(array, dtype=None if labels else self.meta.dtype)

    def _scoring(self, steps: int | None, size: int | None, examples: int) -> Scoring:
        """The way to adapt, for ``steps`` of 1 or more."""
        for name, number in (("steps", steps), ("size", size)):
            least = 0 if name == "steps" else 1
            whole = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
            if number is not None and not (whole and least <= number <= _MOST):
                raise SettingsError(
                    f"{name} must be a whole number from {least} to {_MOST}, got {number!r}"
                )
        return replace(
            self.scoring,
            steps=max(1, self.scoring.steps if steps is None else steps),
            size=min(self.scoring.size, examples) if size is None else size,
        )

    def _adapted(self, minibatches: Minibatches, support: Batch) -> Array:
        """The adapted parameters, ``(T, D)``."""
        with np.errstate(all="ignore"):  # reported by the error below
            phi = self.adapt(minibatches)
        xp = array_module(phi)
        if not bool(xp.isfinite(phi).all()):
            raise DivergenceError(
                "the adapted parameters are not finite: use fewer steps, or check the scale of "
                "x and y"
            )
        return xp.broadcast_to(phi, (len(support[0]), phi.shape[-1]))

    def _predictions(self, x: Any, transductive: bool) -> np.ndarray:
        """The network's outputs ``(T, N, *output)``, on the host."""
        fit = self._fitted()
        inputs = self._given(x, self.objective.examples().input, stacklevel=4)
        if inputs.one != fit.inputs.one or len(inputs.x) != len(fit.phi):
            raise SettingsError(
                f"x must hold the {len(fit.phi)} tasks of fit, each with its own examples; "
                f"fit had x of shape {fit.inputs.x.shape[fit.inputs.one :]}, "
                f"and here x has shape {inputs.x.shape[inputs.one :]}"
            )
        mode: Mode = "transductive" if transductive else "inductive"
        with np.errstate(all="ignore"):
            z = predictions(self.objective, fit.phi, fit.support[0], self._here(inputs.x), mode)
        z = to_host(z)
        if not np.isfinite(z).all():
            raise DivergenceError("predictions are not finite: check the scale of x")
        return z


def _file(path: Any) -> pathlib.Path:
    """The path of a file.

    Raises
    ------
    CheckpointError
        if ``path`` names no file.
    """
    if isinstance(path, (str, os.PathLike)):
        file = pathlib.Path(path)
        if file.name and "\0" not in str(file):
            return file
    raise CheckpointError(f"{path!r} names no file")


def predictions(
    objective: Differentiable, phi: Array, support: Array, x: Array, mode: Mode
) -> Array:
    """Predictions ``(T, N, *output)`` for ``x (T, N, *input)`` at ``phi``.

    Transductive: a task's examples are predicted in one batch, so they share
    batch-norm statistics. Inductive: each example is predicted alone, in one
    batch with the task's ``support (T, n, *input)``.

    Raises
    ------
    SettingsError
        if the objective gives no predictions.
    """
    xp = array_module(phi)
    predict = asked(objective, Predicting, "accuracy needs predictions").predict
    if mode == "transductive":
        return predict(phi, x)
    alone = [
        predict(phi, xp.concatenate([support, x[:, i : i + 1]], axis=1))[:, -1:]
        for i in range(x.shape[1])
    ]
    return xp.concatenate(alone, axis=1)


def adapt(
    objective: Differentiable,
    meta: Array,
    minibatches: Sequence[Batch],
    how: Algorithm | InnerRule,
    state: Any = None,
) -> Array:
    """Each task's parameters after one inner step on every mini-batch,
    ``(T, D)``.

    ``how`` is the algorithm that ``meta`` was trained with. It adapts in its
    own way: CAVIA its context, ANIL its head, iMAML with its regularization.
    With a rule in its place, all parameters move.

    Raises
    ------
    SettingsError
        if ``how`` is a rule with one rate for all parameters, but the objective
        has context parameters: CAVIA adapts these alone.
    """
    if isinstance(how, Algorithm):
        return how.adapt(objective, meta, minibatches, state)
    if isinstance(how.lr, (int, float)) and part_of(objective, "context") != slice(0, 0):
        raise SettingsError(
            "this network has context parameters, which CAVIA adapts alone, but a rule moves all "
            "parameters: give adapt the algorithm in place of the rule"
        )
    return adapt_by_rule(objective, meta, minibatches, how, state)
