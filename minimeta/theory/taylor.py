"""The gradients of MAML, FOMAML and Reptile as power series in alpha.

Source: section 5.1 of the Reptile paper. The inner loop is SGD of step alpha on
mini-batches 1 .. k, phi_{i+1} = phi_i - alpha g_i. Let gbar_i, Hbar_i and
Tbar_i be the gradient, the Hessian and the third derivative of L_i at phi_1,
and let s_i = sum_{j<i} gbar_j. Then

    phi_i - phi_1 = -alpha s_i + alpha^2 sum_{j<i} Hbar_j s_j + O(alpha^3),

and expanding g_i = L_i'(phi_i) around phi_1 (equations 13-16, and one order
further),

    g_i = gbar_i - alpha Hbar_i s_i
        + alpha^2 (Hbar_i sum_{j<i} Hbar_j s_j + 1/2 Tbar_i[s_i, s_i])
        + O(alpha^3).

MAML's gradient is (I - alpha H_1) ... (I - alpha H_{k-1}) g_k with H_j =
L_j''(phi_j) = Hbar_j - alpha Tbar_j[s_j, .] + ... Multiplying out (equations
17-24, and one order further),

    g_MAML = gbar_k - alpha (Hbar_k s_k + sum_{j<k} Hbar_j gbar_k)
           + alpha^2 (Hbar_k sum_{j<k} Hbar_j s_j + 1/2 Tbar_k[s_k, s_k]
                      + sum_{j<k} Hbar_j Hbar_k s_k
                      + sum_{j<k} Tbar_j[s_j, gbar_k]
                      + sum_{i<j<k} Hbar_i Hbar_j gbar_k)
           + O(alpha^3).

FOMAML's gradient is g_k, and Reptile's, (phi - phi~) / alpha, is g_1 + ... +
g_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from ..arrays.backend import Array, array_module
from ..errors import SettingsError, ShapeError
from ..inner import SGD, unroll
from ..objectives import Batch, Differentiable, HasThirdDerivative, Point


@dataclass(frozen=True)
class Series:
    """A truncated power series in alpha.

    ``terms[n]``, ``(T, D)``, is the coefficient of alpha^n.
    """

    terms: tuple[Array, ...]

    def __call__(self, alpha: float) -> Array:
        """The value of the series at ``alpha``, ``(T, D)``."""
        return sum(alpha**n * term for n, term in enumerate(self.terms))


@dataclass(frozen=True)
class Expansion:
    """The series of the inner gradients g_1 .. g_k and of MAML's gradient."""

    inner: tuple[Series, ...]
    maml: Series

    @property
    def fomaml(self) -> Series:
        """g_k."""
        return self.inner[-1]

    @property
    def reptile(self) -> Series:
        """g_1 + ... + g_k."""
        return Series(
            tuple(
                sum(terms) for terms in zip(*(series.terms for series in self.inner), strict=True)
            )
        )


def expand(
    objective: Differentiable, phi: Array, minibatches: Sequence[Batch], order: int = 1
) -> Expansion:
    """The series to ``alpha^order`` at ``phi_1 = phi``, ``(D,) or (T, D)``.

    ``order`` is 1 or 2. No inner step is taken. Order 1 takes O(k)
    Hessian-vector products, all at phi. Order 2 also needs third derivatives,
    by ``third``.

    Raises
    ------
    SettingsError
        if ``order`` is neither 1 nor 2.
    """
    if order not in (1, 2):
        raise SettingsError(f"order must be 1 or 2, got {order}")
    _require_minibatches(minibatches)
    points = [objective.at(phi, batch) for batch in minibatches]
    gbar, hbar = [point.grad for point in points], [point.hvp for point in points]
    zero = array_module(phi).zeros_like(gbar[0])
    s = _running_sums(gbar, zero)
    hs = [h(s_i) for h, s_i in zip(hbar, s, strict=True)]  # Hbar_i s_i
    k_gbar = [h(gbar[-1]) for h in hbar[:-1]]  # Hbar_j gbar_k
    inner = [(g, -hs_i) for g, hs_i in zip(gbar, hs, strict=True)]
    maml: tuple[Array, ...] = (gbar[-1], -hs[-1] - sum(k_gbar, zero))
    if order == 2:
        r = _running_sums(hs, zero)  # sum_{j<i} Hbar_j s_j
        curved = [
            hbar[i](r[i]) + third(objective, phi, batch, s[i], s[i]) / 2
            for i, batch in enumerate(minibatches)
        ]
        inner = [(*terms, second) for terms, second in zip(inner, curved, strict=True)]
        second = curved[-1] + sum((h(hs[-1]) for h in hbar[:-1]), zero)
        for j, batch in enumerate(minibatches[:-1]):
            second = second + third(objective, phi, batch, s[j], gbar[-1])
            second = second + sum((h(k_gbar[j]) for h in hbar[:j]), zero)
        maml = (*maml, second)
    return Expansion(tuple(Series(terms) for terms in inner), Series(maml))


class Gradients(NamedTuple):
    """The gradients of the three algorithms at one alpha, each ``(T, D)``."""

    maml: Array
    fomaml: Array
    reptile: Array


def gradients(
    objective: Differentiable, phi: Array, minibatches: Sequence[Batch], alpha: float
) -> Gradients:
    """The measured gradients that ``expand`` predicts.

    All three come from one inner loop of SGD from ``phi``, ``(D,) or (T, D)``.
    Reptile's gradient is computed as the sum g_1 + ... + g_k. The sum equals
    (phi - phi~) / alpha, but that difference loses log10(1 / alpha) digits.
    """
    steps = unroll(objective, phi, minibatches[:-1], SGD(alpha))
    g_k = objective.at(steps.last, minibatches[-1]).grad
    return Gradients(
        maml=steps.pullback(g_k, rates=False)[0], fomaml=g_k, reptile=sum(steps.grads, g_k)
    )


def third(objective: Differentiable, phi: Array, batch: Batch, u: Array, v: Array) -> Array:
    """The third derivative L'''[u, v] at phi, ``(T, D)``.

    It is the derivative along u of the Hessian-vector product with v. A point
    with a closed form (``Polynomial``) computes it itself. For other points the
    complex step computes it, Im H(phi + i h u) v / h. This is exact to rounding
    and needs only the existing passes. A tangent of hvp would need two more
    passes for every layer.
    """
    point: Point = objective.at(phi, batch)
    if isinstance(point, HasThirdDerivative):
        return point.third(u, v)
    step = 1e-30 if phi.dtype.itemsize == 8 else 1e-15  # squared, below rounding
    return objective.at(phi + 1j * step * u, batch).hvp(v).imag / step


class Coefficients(NamedTuple):
    """c1 and c2 of an expected update (equations 33-41).

    The update is c1 AvgGrad - c2 alpha AvgGradInner + O(alpha^2).
    """

    c1: float
    c2: float


def coefficients(algorithm: str, k: int) -> Coefficients:
    """The paper's c1 and c2 of ``algorithm`` for k mini-batches (equations
    33-41).

    ``algorithm`` is ``"maml"``, ``"fomaml"`` or ``"reptile"``.

    Raises
    ------
    SettingsError
        if k is below 1, or the algorithm is another.
    """
    known = {"maml": (1, 2 * (k - 1)), "fomaml": (1, k - 1), "reptile": (k, k * (k - 1) / 2)}
    if k < 1:
        raise SettingsError(f"k must be 1 or more, got {k}")
    if algorithm not in known:
        raise SettingsError(f"coefficients are known for {', '.join(known)}, not {algorithm!r}")
    return Coefficients(*known[algorithm])


def recover_coefficients(
    alphas: Sequence[float],
    updates: Sequence[Array],
    avg_grad: Array,
    avg_grad_inner: Array,
    order: int | None = None,
) -> Coefficients:
    """The measured c1 and c2, by least squares.

    The fit is to expected updates u_m, ``(D,)``, at M step sizes alpha_m. An
    expected update is a power series in alpha. Its terms from alpha^2 to
    alpha^order are unknown vectors r_n, ``(D,)``. The fit assumes nothing about
    the r_n, so they cannot bias c1 and c2:

        u_m = c1 AvgGrad - c2 alpha_m AvgGradInner
            + sum_{n=2}^{order} alpha_m^n r_n + O(alpha^(order+1)).

    Let V = [alpha_m^n], ``(M, order - 1)``. For given c1 and c2, the best r_n
    remove exactly the part of the residual in the range of V, in each of the D
    components. The part of the residual orthogonal to V remains to be
    minimized. Let the rows of Q, ``(M - order + 1, M)``, be an orthonormal
    basis of the complement of that range, so Q V = 0. Then

        Q u = c1 (Q 1) AvgGrad^T - c2 (Q alpha) AvgGradInner^T.

    These are (M - order + 1) D equations in two unknowns. Where M = order + 1,
    the default, two rows remain. They are the value and the slope at alpha = 0
    of the polynomial through all u_m. Two errors remain. The truncation error
    grows like alpha^order. The rounding error, which the extrapolation
    multiplies, falls like 1 / alpha.

    Raises
    ------
    SettingsError
        if order is less than 1 or not below the number of step sizes, if the
        numbers of step sizes and updates differ, if the step sizes are not
        positive and distinct, or if an update, AvgGrad or AvgGradInner is not
        finite.
    """
    count = len(alphas)
    order = count - 1 if order is None else order
    if not 1 <= order < count or len(updates) != count:
        raise SettingsError(
            f"order must satisfy 1 <= order < M, with one update per step size, got order "
            f"{order}, M={count} step sizes and {len(updates)} updates"
        )
    xp, alpha = array_module(avg_grad), np.asarray(alphas, dtype=np.float64)
    if len(set(alpha)) != count or not (alpha > 0).all():
        raise SettingsError(
            f"the step sizes must be positive and different from each other, got {alpha.tolist()}"
        )
    if not all(bool(xp.isfinite(each).all()) for each in (avg_grad, avg_grad_inner, *updates)):
        raise SettingsError(
            "expected updates, AvgGrad and AvgGradInner must be finite: use smaller step sizes"
        )
    # Scaling the step sizes keeps the range of V and improves the condition.
    powers = (alpha / alpha.max())[:, None] ** np.arange(2, order + 1)
    complement = np.linalg.qr(powers, mode="complete")[0][:, order - 1 :].T
    value, slope = (xp.asarray(complement @ column)[:, None] for column in (np.ones(count), alpha))
    columns = xp.stack([(value * avg_grad).ravel(), (-slope * avg_grad_inner).ravel()], axis=1)
    measured = (xp.asarray(complement) @ xp.stack(list(updates))).ravel()
    c1, c2 = xp.linalg.lstsq(columns, measured, rcond=None)[0]
    return Coefficients(float(c1), float(c2))


def avg_grad(objective: Differentiable, phi: Array, minibatches: Sequence[Batch]) -> Array:
    """AvgGrad = E[gbar_1], ``(D,)`` (equation 28).

    The mean is exact over a finite set of tasks and their mini-batches.
    """
    _require_minibatches(minibatches)
    return sum(objective.at(phi, batch).grad.mean(axis=0) for batch in minibatches) / len(
        minibatches
    )


def avg_grad_inner(
    objective: Differentiable, phi: Array, minibatches: Sequence[Batch], distinct: bool = False
) -> Array:
    """AvgGradInner = E[Hbar_2 gbar_1], ``(D,)`` (equations 29-32).

    AvgGradInner = 1/2 E[d/dphi (gbar_1 . gbar_2)]. The mean is exact over all
    tasks and all ordered pairs of a task's mini-batches, in the sense of
    ``sequences``.
    """
    points = [objective.at(phi, batch) for batch in minibatches]
    pairs = list(choices(len(points), 2, distinct))
    return sum(points[j].hvp(points[i].grad).mean(axis=0) for i, j in pairs) / len(pairs)


def sequences(minibatches: Sequence[Batch], k: int, distinct: bool = False) -> list[Batch]:
    """Every ordered choice of k of a task's n mini-batches, as separate tasks.

    The result is k pairs of arrays ``(T n^k, N, ...)``. A mean over these tasks
    is the exact expectation over independent mini-batches. With ``distinct`` it
    is the expectation over mini-batches drawn without repetition (T n! / (n-k)!
    tasks).

    Raises
    ------
    ShapeError
        if the mini-batches differ in shape, or there are none.
    SettingsError
        if ``distinct`` and k > n.
    """
    _require_minibatches(minibatches)
    if len({tuple(data.shape for data in batch) for batch in minibatches}) > 1:
        raise ShapeError("sequences needs mini-batches of one shape, got several shapes")
    chosen = list(choices(len(minibatches), k, distinct))
    xp = array_module(minibatches[0][0])

    def column(i: int, part: int) -> Array:
        return xp.concatenate([minibatches[choice[i]][part] for choice in chosen])

    return [(column(i, 0), column(i, 1)) for i in range(k)]


def choices(n: int, k: int, distinct: bool):
    """The ordered choices of k of n, without repetition if ``distinct``."""
    if distinct and k > n:
        raise SettingsError(
            f"{k} distinct mini-batches cannot be chosen from {n}: use a smaller k or more "
            "mini-batches"
        )
    return permutations(range(n), k) if distinct else product(range(n), repeat=k)


def _require_minibatches(minibatches: Sequence[Batch]) -> None:
    if len(minibatches) == 0:
        raise ShapeError("a Taylor prediction needs at least one mini-batch per task, got 0")


def _running_sums(terms: Sequence[Array], zero: Array) -> list[Array]:
    """sum_{j<i} terms_j for each i."""
    sums = [zero]
    for term in terms[:-1]:
        sums.append(sums[-1] + term)
    return sums
