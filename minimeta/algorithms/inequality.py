"""Inequality measures of positive numbers x_1 .. x_T, and their gradients.

TAML (Jamal, Qi and Shah 2018) measures how unequal the tasks' initial losses
are, and adds that measure to MAML's objective.

All measures use mu = mean_i x_i and u_i = x_i / mu, so mean_i u_i = 1. A
measure is 0 where all numbers are equal, and positive otherwise (except
Atkinson's with epsilon 0, which is always 0). It does not depend on the order
of the numbers, on their common scale, or on how often the whole list is
repeated. A measure is of degree 0 in x, so Euler's theorem gives <x, gradient>
= 0: scaling all losses neither helps nor harms. The gradients of the functions
of u use

    du_j/dx_i = (delta_ij - u_j / T) / mu,    so
    d/dx_i mean_j f(u_j) = (f'(u_i) - mean_j u_j f'(u_j)) / (T mu).

No function checks that all x_i > 0, because the host would have to wait for a
device. A loss of zero gives the values that its logarithms and powers give.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ..arrays.backend import Array, array_module
from ..errors import SettingsError, ShapeError
from ..registry import Registry, setting

MEASURES = Registry("inequality measure")


class Inequality(ABC):
    """Base of the measures. A subclass is a frozen dataclass."""

    @abstractmethod
    def value(self, x: Array) -> Array:
        """The inequality of ``x: (T,)``, a scalar of x's array module and
        dtype."""

    @abstractmethod
    def gradient(self, x: Array) -> Array:
        """The derivative of ``value`` with respect to each number, ``(T,)``."""


@MEASURES.register("theil")
@dataclass(frozen=True)
class Theil(Inequality):
    """Theil's index, from 0 to log T:

    value          L = mean_i u_i log u_i
    gradient   dL/dx_i = (log u_i - L) / (T mu)

    The gradient follows from the rule at the top of the file with f(u) = u log
    u and f'(u) = log u + 1. The ones cancel, since mean_j u_j = 1.
    """

    def value(self, x):
        """mean u log u."""
        u, _ = _relative(x)
        return (u * array_module(x).log(u)).mean()

    def gradient(self, x):
        """(log u - L) / (T mu)."""
        u, total = _relative(x)
        log = array_module(x).log(u)
        return (log - (u * log).mean()) / total


@MEASURES.register("generalized-entropy")
@dataclass(frozen=True)
class GeneralizedEntropy(Inequality):
    """The generalized entropy of order alpha, any number except 0 and 1:

    value          L = (m - 1) / (alpha (alpha - 1)),    m = mean_i u_i^alpha
    gradient   dL/dx_i = (u_i^(alpha - 1) - m) / ((alpha - 1) T mu)

    The gradient follows from the rule at the top of the file with f(u) =
    u^alpha and u f'(u) = alpha u^alpha. A large alpha weighs the largest
    numbers most, and a negative alpha the smallest. With alpha = 2, L is half
    the squared coefficient of variation. As alpha -> 1, L tends to ``Theil``.
    Close to 0 and 1 the differences above lose digits, about as many as the
    distance of alpha from 0 or 1 has leading zeros.

    Raises
    ------
    SettingsError
        if alpha is 0, 1 or not a finite number.
    """

    alpha: float = setting(2.0, "TAML: order of the generalized entropy")

    def __post_init__(self) -> None:
        alpha = as_number(self, "alpha")
        if alpha == 1:
            raise SettingsError(
                "generalized entropy divides by alpha - 1: for alpha = 1, its limit, use Theil()"
            )
        if alpha == 0:
            raise SettingsError(
                "generalized entropy divides by alpha: for alpha = 0 use Atkinson(epsilon=1), "
                "an increasing function of the limit"
            )

    def value(self, x):
        """(mean u^alpha - 1) / (alpha (alpha - 1))."""
        u, _ = _relative(x)
        return ((u**self.alpha).mean() - 1) / (self.alpha * (self.alpha - 1))

    def gradient(self, x):
        """(u^(alpha - 1) - m) / ((alpha - 1) T mu)."""
        u, total = _relative(x)
        return (u ** (self.alpha - 1) - (u**self.alpha).mean()) / ((self.alpha - 1) * total)


@MEASURES.register("atkinson")
@dataclass(frozen=True)
class Atkinson(Inequality):
    """Atkinson's index with inequality aversion epsilon >= 0.

    The index is one minus the ratio of a power mean to the mean. It lies from 0
    to 1.

    value          L = 1 - P,
                   P = (mean_i u_i^e)^(1 / e), e = 1 - epsilon, epsilon != 1,
                   P = exp(mean_i log u_i), its limit,          epsilon = 1
    gradient   dL/dx_i = (P - (P / u_i)^epsilon) / (T mu)

    The rule at the top of the file with m = P^e = mean_i u_i^e gives dm/dx_i =
    e (u_i^-epsilon - m) / (T mu). Then dP = P dm / (e m), where P / m =
    P^epsilon. For epsilon = 1, dP = P d(mean_j log u_j), and d/dx_i mean_j log
    u_j = (1 / u_i - 1) / (T mu).

    The larger epsilon is, the more the smallest numbers weigh. With epsilon = 0
    the index is indifferent: L = 0 for every x. P is computed from m - 1 =
    mean_i (exp(e log u_i) - 1), which keeps its digits as epsilon tends to 1.

    Raises
    ------
    SettingsError
        if epsilon is negative or not a finite number.
    """

    epsilon: float = setting(0.5, "TAML: aversion to inequality of Atkinson's index")

    def __post_init__(self) -> None:
        epsilon = as_number(self, "epsilon")
        if epsilon < 0:
            raise SettingsError(
                "Atkinson's epsilon, the aversion to inequality, must be 0 or more, "
                f"got {epsilon:g}"
            )

    def value(self, x):
        """1 - P."""
        u, _ = _relative(x)
        return 1 - self._power_mean(u)

    def gradient(self, x):
        """(P - (P / u)^epsilon) / (T mu)."""
        u, total = _relative(x)
        mean = self._power_mean(u)
        return (mean - (mean / u) ** self.epsilon) / total

    def _power_mean(self, u: Array) -> Array:
        """P, the power mean of u with exponent 1 - epsilon.

        For exponent 0 it is the geometric mean.
        """
        xp = array_module(u)
        e, log = 1 - self.epsilon, xp.log(u)
        if e == 0:
            return xp.exp(log.mean())
        return xp.exp(xp.log1p(xp.expm1(e * log).mean()) / e)


@MEASURES.register("gini")
@dataclass(frozen=True)
class Gini(Inequality):
    """The Gini coefficient, from 0 to 1 - 1/T.

    It is half the mean absolute difference of pairs, divided by the mean.

    value          L = sum_ij |x_i - x_j| / (2 T^2 mu) = mean_i r_i u_i / T,
                   r_i = sum_j sign(x_i - x_j)
    gradient   dL/dx_i = (r_i / T - L) / (T mu)

    The two forms of L agree since |x_i - x_j| = sign(x_i - x_j) (x_i - x_j),
    and both terms sum to sum_i r_i x_i. Between ties the r_i are constant, and
    the rule at the top of the file with f_i(u) = r_i u / T gives the gradient.
    At a tie x_i = x_j, L has a kink and no gradient. There sign(0) = 0 gives
    the mean of the slopes on the two sides of the kink along any line. Where
    all numbers are equal it gives zero.

    Signs are taken of real parts, because an absolute value has no complex
    step.
    """

    def value(self, x):
        """mean r u / T."""
        u, _ = _relative(x)
        return (self._rank(x) * u).mean()

    def gradient(self, x):
        """(r / T - L) / (T mu)."""
        u, total = _relative(x)
        rank = self._rank(x)
        return (rank - (rank * u).mean()) / total

    @staticmethod
    def _rank(x: Array) -> Array:
        """r_i / T, ``(T,)``, from all T^2 pairs: a meta-batch has few tasks."""
        real = x.real
        return array_module(x).sign(real[:, None] - real).mean(axis=1)


@MEASURES.register("log-variance")
@dataclass(frozen=True)
class LogVariance(Inequality):
    """The variance of logarithms.

    With l_i = log x_i, and lbar = mean_i l_i the logarithm of the geometric
    mean,

    value          L = mean_i (l_i - lbar)^2
    gradient   dL/dx_i = 2 (l_i - lbar) / (T x_i)

    The derivative through lbar has the factor mean_j (l_j - lbar) = 0. Where l
    > lbar + 1, (l - lbar) / x falls as x grows. So between two numbers above e
    times the geometric mean, a small transfer from the larger to the smaller
    *raises* L. No other measure here has this property.
    """

    def value(self, x):
        """mean (l - lbar)^2."""
        centred = self._centred(x)
        return (centred * centred).mean()

    def gradient(self, x):
        """2 (l - lbar) / (T x)."""
        return 2 * self._centred(x) / (x.shape[0] * x)

    @staticmethod
    def _centred(x: Array) -> Array:
        """l - lbar, computed from log u.

        The logarithms of u are smaller than those of x, and so are their
        rounding errors.
        """
        u, _ = _relative(x)
        log = array_module(x).log(u)
        return log - log.mean()


def _relative(x: Array) -> tuple[Array, Array]:
    """u = x / mu, ``(T,)``, and T mu. Raises a ShapeError unless x is
    ``(T,)``."""
    if x.ndim != 1 or x.shape[0] == 0:
        raise ShapeError(
            "an inequality measure expects one number per task, shape (T,) with T >= 1, "
            f"got shape {x.shape}"
        )
    mu = x.mean()
    return x / mu, x.shape[0] * mu


def as_number(owner: Any, name: str) -> float:
    """The setting ``name`` of ``owner``, replaced by a Python number.

    A NumPy number would carry its own precision into float32 arrays.

    Raises
    ------
    SettingsError
        if the setting is not a finite real number.
    """
    given = getattr(owner, name)
    if not isinstance(given, Real) or not math.isfinite(given):
        raise SettingsError(
            f"{type(owner).__name__}'s {name} must be a finite number, got {given!r}"
        )
    object.__setattr__(owner, name, float(given))  # frozen, and still under construction
    return float(given)
