"""Directions of MAML, FOMAML, Reptile and a Taylor series, compared at one phi.

Section 5.1 of the Reptile paper predicts the directions for small alpha. This
file measures how far apart they are at the alpha and the phi of a training run.
All directions come from one inner loop of SGD on mini-batches 1 .. k with
gradients g_1 .. g_k:

    maml      (I - alpha H_1) ... (I - alpha H_{k-1}) g_k, equations (17)-(21)
    fomaml    g_k, which is maml without its Hessians
    reptile   (g_1 + ... + g_k) / k = (phi - phi~) / (k alpha), the mean of the
              steps' gradients, which is comparable with one gradient
    taylor    maml's power series in alpha, cut after alpha^n, equations
              (22)-(24); taylor.py

For unit vectors u and v the cosine is u . v = 1 - |u - v|^2 / 2. The code
computes the right side. The difference from 1, ``apart``, then keeps its digits
down to the square of rounding, where the cosine itself rounds to 1. Let two
directions differ by alpha^m w + O(alpha^(m+1)), and let w_ be the part of w
orthogonal to their common limit g. Then to leading order

    1 - cosine = alpha^(2m) |w_|^2 / (2 |g|^2).

Between maml and fomaml, 1 - cosine falls like alpha^2, since maml - fomaml =
-alpha sum_{j<k} Hbar_j gbar_k + O(alpha^2). Between maml and taylor it falls
like alpha^(2(n+1)). Between maml and reptile it does not fall, because at alpha
= 0 reptile is the mean of all gbar_j, and maml is gbar_k. The same holds for
directions averaged over tasks, where the limits of all four directions are
samples of AvgGrad (equation 28).
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
    """The compared directions, each ``(T, D)``.

    ``Measures`` has its rows and columns in this order.
    """

    maml: Array
    fomaml: Array
    reptile: Array
    taylor: Array


class Measures(NamedTuple):
    """Measures of four directions, in the order of ``Directions``.

    For the directions of T tasks every array has a leading axis of T.

    cosines         ``(4, 4)``: the cosine of every pair; nan where a direction
                    is zero
    apart           ``(4, 4)``: 1 - cosine, with all digits where the cosine
                    rounds to 1
    norms           ``(4,)``
    second_order    ``()``: |maml - fomaml| / |maml|, the share of the terms
                    with a Hessian; nan where maml is zero
    """

    cosines: Array
    apart: Array
    norms: Array
    second_order: Array

    def cosine(self, one: str, other: str) -> Array:
        """The cosine of two directions, such as ``cosine("maml",
        "fomaml")``."""
        return self.cosines[..., Directions._fields.index(one), Directions._fields.index(other)]


class Comparison(NamedTuple):
    """The directions and their measures.

    ``of_mean`` measures the directions averaged over the meta-batch, which an
    outer step uses. ``of_each`` measures the directions of each task, so every
    array has a leading axis of T.
    """

    directions: Directions
    of_mean: Measures
    of_each: Measures

    @property
    def mean_of_each(self) -> Measures:
        """Means over tasks, nan where a task has a zero direction."""
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
    """Directions, cosines and norms at ``phi`` for an inner SGD of step
    ``alpha``.

    ``phi`` is ``(D,)`` or ``(T, D)``. ``order``, 1 or 2, is the order of the
    Taylor series. The function does not change the state of a training run.
    Call it beside any meta-step, with the meta-batch of that step or, better,
    with one fixed meta-batch set aside. It costs as much as two to four MAML
    directions. Order 2 costs ten to thirty, because its third derivatives use
    complex numbers. The host does not wait for a device.

    Raises
    ------
    SettingsError
        if ``alpha`` is not one number, or ``order`` is neither 1 nor 2.
    """
    if not isinstance(alpha, Real):
        raise SettingsError(
            f"the series are in one step size: alpha must be one number, not a "
            f"{type(alpha).__name__}"
        )
    alpha = float(alpha)  # a NumPy number would set the precision
    series = expand(objective, phi, minibatches, order).maml
    maml, fomaml, reptile = gradients(objective, phi, minibatches, alpha)
    directions = Directions(maml, fomaml, reptile / len(minibatches), series(alpha))
    stacked = array_module(phi).stack(list(directions), axis=1)
    return Comparison(directions, measure(stacked.mean(axis=0)), measure(stacked))


def measure(directions: Array) -> Measures:
    """The measures of n stacked directions, ``(n, D) or (T, n, D)``.

    maml and fomaml must be the first two. ``compare_directions`` has n = 4.
    """
    xp = array_module(directions)

    def length(v: Array) -> Array:
        return xp.sqrt((v * v).sum(axis=-1))

    def or_nan(lengths: Array) -> Array:
        """``lengths`` with nan for 0, so that no division by zero warns."""
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
