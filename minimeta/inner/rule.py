"""The contract of an inner update rule: a step, its adjoint and its tangent.

A rule is an immutable description. Its ``step`` number j, counted from 0 within
one task, maps parameters, gradient and state to

    (phi', s') = U_j(phi, g, s; lr).

Let F be a real function of (phi', s') with gradients a' = dF/dphi' and b' =
dF/ds'. The ``adjoint`` maps (a', b') to the gradients of the step's arguments:

    dF/dphi, dF/dg, dF/ds, dF/dlr = (dU/d(phi, g, s, lr))^T (a', b').

The ``tangent`` is the derivative along a direction, written with a dot:

    (phi'_dot, s'_dot) = (dU/d(phi, g, s, lr)) (phi_dot, g_dot, s_dot, lr_dot).

Adjoint and tangent treat g as independent of phi. The trajectory applies the
chain rule through g(phi). Adjoint and tangent are transposes of each other:

    <a', phi'_dot> + <b', s'_dot>
        = <dF/dphi, phi_dot> + <dF/dg, g_dot>
        + <dF/ds, s_dot> + <dF/dlr, lr_dot>.

A state is ``None`` before the first step. A rule with memory returns a state
made of arrays, numbers, ``None`` and (named) tuples of these. Arrays have a
leading task axis, numbers are equal in all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from math import isfinite
from typing import Any, NamedTuple, Protocol

from ..arrays.backend import Array, array_module
from ..errors import SettingsError
from ..registry import Registry

Rate = float | tuple[float, ...] | Array

RULES = Registry("inner rule")


class Adjoint(NamedTuple):
    """The gradients of F with respect to the arguments of a step.

    ``phi`` and ``g`` are ``(T, D)``. ``state`` has one gradient for each array
    of the state, in the same order, and is None for a state without arrays.
    ``lr()`` gives the gradient per element, ``(T, D)``, before the sum over the
    elements that share a rate.
    """

    phi: Array
    g: Array
    state: Any
    lr: Callable[[], Array]


class InnerRule(Protocol):
    """An update rule, as trajectories and algorithms use it.

    ``phi`` and ``g`` are ``(D,)`` or ``(T, D)``. ``j`` is the number of the
    step within a task, from 0. The learning rate ``lr`` has one of three forms.
    A number is one rate for all steps and parameters. A vector ``(D,)`` is one
    rate per parameter. A tuple of numbers, or an array ``(k, 1)`` or ``(k,
    D)``, is one entry per step.
    """

    @property
    def lr(self) -> Rate:
        """The learning rate."""

    def step(self, phi: Array, g: Array, state: Any = None, j: int = 0) -> tuple[Array, Any]:
        """phi', s'."""

    def adjoint(self, g: Array, state: Any, j: int, dphi: Array, dstate: Any = None) -> Adjoint:
        """The adjoint of ``step`` at (g, state).

        ``dphi`` and ``dstate`` are the gradients of phi' and s'.
        ``dstate=None`` stands for zero.
        """

    def tangent(
        self,
        g: Array,
        state: Any,
        j: int,
        phi_dot: Array,
        g_dot: Array,
        state_dot: Any = None,
        lr_dot: Rate | None = None,
    ) -> tuple[Array, Any]:
        """phi'_dot and s'_dot.

        ``state_dot`` has the form of ``Adjoint.state``, and ``lr_dot`` the form
        of ``lr``. None stands for zero.
        """

    def merge(self, shared: Any, states: Any, tasks: int) -> Any:
        """The state to continue with after a meta-batch.

        ``tasks`` parallel tasks went from the state ``shared`` to ``states``.
        """


def check_arguments(rule: Any) -> None:
    """Check the arguments of a rule against the bounds that its fields declare.

    ``lr`` may also be a tuple of numbers (one per step), or an array of one or
    two axes. The values of an array are not checked, because the host would
    have to wait for a device, and because learned rates may be negative. Of a
    complex number the real part is checked: the imaginary part of a complex
    step carries a derivative.

    Raises
    ------
    SettingsError
        if an argument is no such number or rate, or is out of bounds.
    """
    for each in fields(rule):
        value, bounds = getattr(rule, each.name), each.metadata
        axes = getattr(value, "ndim", 0) if each.name == "lr" else 0
        if axes > 2:
            raise SettingsError(
                f"{type(rule).__name__}'s lr must be a number, one number per step, or an array "
                f"(D,), (k, 1) or (k, D), got an array of shape {value.shape}"
            )
        if axes or (bounds.get("least") is None and bounds.get("below") is None):
            continue
        several = each.name == "lr" and isinstance(value, (tuple, list))
        for one in value if several else (value,):
            if several and getattr(one, "ndim", 0):
                continue  # ``rate_at`` refuses a tuple of vectors
            if not _is_within(one, bounds.get("least"), bounds.get("below")):
                raise SettingsError(
                    f"{type(rule).__name__}'s {each.name} must be a finite number"
                    + _told(", {:g} or more", bounds.get("least"))
                    + _told(", below {:g}", bounds.get("below"))
                    + f", got {value!r}"
                )


def _is_within(value: Any, least: float | None, below: float | None) -> bool:
    """Whether ``value`` is a finite number, ``least <= value < below``."""
    number = value.item() if getattr(value, "ndim", 1) == 0 else value
    if type(number) not in (int, float, complex):
        return False
    real = number.real
    return isfinite(real) and (least is None or real >= least) and (below is None or real < below)


def _told(words: str, bound: float | None) -> str:
    return "" if bound is None else words.format(bound)


def is_per_step(lr: Rate) -> bool:
    """Whether ``lr`` holds one rate per step."""
    return isinstance(lr, (tuple, list)) or getattr(lr, "ndim", 0) == 2


def rate_at(lr: Rate, j: int) -> float | Array:
    """The rate of step number ``j``, from 0.

    The rate is a Python number, or an array that broadcasts against ``(T, D)``.
    A NumPy scalar becomes a Python number, which takes the dtype of its factor.

    Raises
    ------
    SettingsError
        if ``lr`` holds no rate for step ``j``, or is a tuple of vectors.
    """
    if is_per_step(lr):
        if j >= len(lr):
            raise SettingsError(
                f"lr holds rates for {len(lr)} inner steps, but the inner loop takes step {j + 1}: "
                "give one rate per step"
            )
        if isinstance(lr, (tuple, list)) and getattr(lr[j], "ndim", 0):
            raise SettingsError(
                "lr is a tuple of arrays, but must be a tuple of numbers: give one vector per step "
                "as one array (k, D)"
            )
        lr = lr[j]
    return lr.item() if getattr(lr, "ndim", 1) == 0 else lr


class RateGradient:
    """dF/dlr, the sum of the steps' per-element gradients ``(T, D)``.

    The gradient of a shared rate is the sum over the elements that share it.
    """

    def __init__(self, lr: Rate) -> None:
        self._lr = lr
        self._steps: dict[int, Array] = {}

    def add(self, j: int, dlr: Array) -> None:
        """Add the gradient of step number ``j``, from 0."""
        if is_per_step(self._lr):
            self._steps[j] = self._over_parameters(dlr)
        else:
            self._steps[0] = self._steps[0] + dlr if self._steps else dlr

    def total(self, like: Array) -> Array:
        """The gradient, ``(T, *shape of lr)``.

        It is zero for the rates of steps that were not taken. ``like: (T, D)``
        sets the array module and the dtype.
        """
        xp = array_module(like)
        if is_per_step(self._lr):
            none = self._over_parameters(xp.zeros_like(like))
            return xp.stack([self._steps.get(j, none) for j in range(len(self._lr))], axis=1)
        return self._over_parameters(self._steps[0] if self._steps else xp.zeros_like(like))

    def _over_parameters(self, dlr: Array) -> Array:
        shape = getattr(self._lr, "shape", ())
        if shape and shape[-1] > 1:
            return dlr
        return dlr.sum(axis=1, keepdims=len(shape) > 0)


def with_parts(state: tuple, parts: Iterable[Any]) -> Any:
    """A tuple of the type of ``state``, plain or named, made of ``parts``."""
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def named_parts(state: tuple, name: str = "{}") -> list[tuple[str, Any]]:
    """The parts of a plain or named tuple, each with its field's name.

    A part of a plain tuple is called ``name``, with its place, from 0, in the
    place of "{}".
    """
    names = getattr(state, "_fields", None) or [name.format(i) for i in range(len(state))]
    return list(zip(names, state, strict=True))
