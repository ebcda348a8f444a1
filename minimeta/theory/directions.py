"""Floor 5: a gradient microscope: the directions of MAML, FOMAML, Reptile and a Taylor prediction, at one phi on one data.

Section 5.1 of the Reptile paper says what they are for small alpha; here is how far apart they are at the alpha and the
phi of a training. All come from one inner loop of SGD on mini-batches 1 .. k, whose gradients are g_1 .. g_k:

    maml      (I - alpha H_1) ... (I - alpha H_{k-1}) g_k                     equations (17)-(21)
    fomaml    g_k                                                             maml without its Hessians
    reptile   (g_1 + ... + g_k) / k = (phi - phi~) / (k alpha)                a step's mean: comparable with one gradient
    taylor    maml's power series in alpha, cut after alpha^n                 equations (22)-(24); taylor.py

For unit vectors u and v the cosine is u . v = 1 - |u - v|^2 / 2. The right side is what is computed: the difference from 1,
``apart``, then keeps its digits down to the square of rounding, where a cosine itself is 1. If two directions differ by
alpha^m w + O(alpha^(m+1)), and w_ is the part of w orthogonal to their common limit g, then to leading order

    1 - cosine = alpha^(2m) |w_|^2 / (2 |g|^2),

so from maml it falls like alpha^2 to fomaml, since maml - fomaml = -alpha sum_{j<k} Hbar_j gbar_k + O(alpha^2), and like
alpha^(2(n+1)) to taylor. To reptile it does not fall: at alpha = 0 that is the mean of all gbar_j, not gbar_k. The same
holds of directions averaged over tasks, where the limits of all four are samples of AvgGrad (equation 28).
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

from ..arrays.backend import Array, array_module
from ..errors import SettingsError
from ..objectives import Batch, Differentiable
from .taylor import expand, gradients


class Directions(NamedTuple):
    """What is compared, each ``(T, D)``; also the order of rows and columns in ``Measures``."""

    maml: Array
    fomaml: Array
    reptile: Array
    taylor: Array


class Measures(NamedTuple):
    """Of four directions, in the order of ``Directions``; of T times four with a leading axis of T.

    cosines         ``(4, 4)``: of every pair; nan where a direction is zero, which has none
    apart           ``(4, 4)``: 1 - cosine, with all digits where the cosine rounds to 1
    norms           ``(4,)``
    second_order    ``()``: |maml - fomaml| / |maml|, the share of the terms with a Hessian; nan where maml is zero
    """

    cosines: Array
    apart: Array
    norms: Array
    second_order: Array

    def cosine(self, one: str, other: str) -> Array:
        """Of two directions by name, such as ``cosine("maml", "fomaml")``."""
        return self.cosines[..., Directions._fields.index(one), Directions._fields.index(other)]


class Comparison(NamedTuple):
    """``of_mean``: of the directions averaged over the meta-batch, which an outer step uses. ``of_each``: of each task's,
    every array with a leading axis of T."""

    directions: Directions
    of_mean: Measures
    of_each: Measures

    @property
    def mean_of_each(self) -> Measures:
        """Means over tasks: nan where any task has no cosine."""
        return Measures(*(each.mean(axis=0) for each in self.of_each))

    @property
    def spread_of_each(self) -> Measures:
        """Standard deviations over tasks."""
        xp, pairs = (
            array_module(self.directions.maml),
            zip(self.of_each, self.mean_of_each, strict=True),
        )
        return Measures(*(xp.sqrt(((each - mean) ** 2).mean(axis=0)) for each, mean in pairs))


def compare_directions(
    objective: Differentiable,
    phi: Array,
    minibatches: Sequence[Batch],
    alpha: float,
    order: int = 1,
) -> Comparison:
    """Directions, cosines and norms at ``phi``, ``(D,) or (T, D)``, for an inner SGD of step ``alpha``.

    ``order``, 1 or 2, is the Taylor prediction's. Nothing of a training is changed: call it beside any meta-step, with
    the meta-batch of that step or, better, with one that is kept aside, always the same. It costs as much as two to four
    MAML directions; order 2, whose third derivatives take complex numbers, ten to thirty. The host does not wait for a
    device.

    Raises
    ------
    SettingsError
        if ``alpha`` is not one number, or ``order`` is neither 1 nor 2.
    """
    if not isinstance(alpha, Real):
        raise SettingsError(
            f"the series are in one step size: alpha must be a number, not {type(alpha).__name__}"
        )
    alpha = float(alpha)  # a NumPy number would set the precision
    series = expand(objective, phi, minibatches, order).maml
    maml, fomaml, reptile = gradients(objective, phi, minibatches, alpha)
    directions = Directions(maml, fomaml, reptile / len(minibatches), series(alpha))
    stacked = array_module(phi).stack(list(directions), axis=1)
    return Comparison(directions, measure(stacked.mean(axis=0)), measure(stacked))


def measure(directions: Array) -> Measures:
    """Of stacked directions, ``(n, D) or (T, n, D)``, maml and fomaml first; ``compare_directions`` has n = 4."""
    xp = array_module(directions)

    def length(v: Array) -> Array:
        return xp.sqrt((v * v).sum(axis=-1))

    def or_nan(lengths: Array) -> Array:
        """Zeros become nan, and whatever is divided by them, without a warning."""
        return xp.where(lengths == 0, xp.nan * lengths, lengths)

    norms = length(directions)
    units = directions / or_nan(norms)[..., None]
    rows = [
        ((units - units[..., i : i + 1, :]) ** 2).sum(axis=-1) / 2
        for i in range(directions.shape[-2])
    ]
    apart = xp.stack(rows, axis=-1)
    second_order = length(directions[..., 0, :] - directions[..., 1, :]) / or_nan(norms[..., 0])
    return Measures(1 - apart, apart, norms, second_order)
