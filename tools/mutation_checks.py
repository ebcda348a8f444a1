"""The checks of layers, kernels, losses, measures and objectives.

Each function gives the checks that judge one kind of code. A check takes no
argument and raises where the code is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import minimeta as mm
from minimeta import layers
from minimeta.algorithms import Inequality, agreement_weights, gradient_agreement
from minimeta.arrays import kernels
from minimeta.testing import (
    check_layer,
    check_loss,
    check_network,
    check_objective,
    complex_step,
)

Check = Callable[[], None]
# An objective, phi (D,), and k mini-batches of T = 2 tasks.
Problem = tuple[Any, np.ndarray, mm.Minibatches]


def agrees(function: Callable[[], np.ndarray], want: np.ndarray, tolerance: float = 1e-12) -> None:
    """Raise an AssertionError unless ``function`` returns ``want``."""
    error = np.abs(np.array(function()) - want)
    near = tolerance * (1 + np.abs(want).max())
    assert error.shape == want.shape and error.max() <= near, f"differs by {error.max():.1e}"


# Layers and kernels.


def of_layers(*cases: tuple[layers.Layer, tuple[int, ...]]) -> tuple[Check, ...]:
    """check_layer on every layer and input shape, with own and with shared
    parameters, and with one example."""
    return tuple(
        partial(check_layer, layer, shape, shared=shared, examples=examples)
        for layer, shape in cases
        for shared, examples in ((False, 3), (True, 3), (False, 1))
    )


def of_kernels() -> tuple[Check, ...]:
    """Each kernel by its plainest expression. No argument can be written to."""
    rng = np.random.default_rng(7)
    a, b, c = rng.standard_normal((3, 2, 5, 3, 4))
    f, v = rng.standard_normal((2, 2, 4))
    column, row = rng.standard_normal((2, 5, 1)), rng.standard_normal((2, 1, 4))
    matrix, mask = rng.standard_normal((2, 4, 4)), a > 0
    # Long enough for several of its rows to be taken as one.
    long = rng.standard_normal((2, 1 << 14, 4))
    for each in (a, b, c, f, v, column, row, matrix, mask, long):
        each.flags.writeable = False
    by_channel, shift, u = (
        f[:, None, None],
        v[:, None, None],
        a - a.mean(axis=(1, 2), keepdims=True),
    )
    sum_of, combination, product = (
        kernels.channel_sums,
        kernels.channel_combination,
        kernels.product_sum,
    )
    pairs = (a[:, :, 0], matrix), (column, row)
    cases: list[tuple[Callable[[], np.ndarray], np.ndarray]] = [
        (lambda: sum_of(a), a.sum(axis=(1, 2))),
        (lambda: sum_of(a[:, 0]), a[:, 0].sum(axis=1)),
        (lambda: kernels.channel_dots(a, b), (a * b).sum(axis=(1, 2))),
        (lambda: combination((1, a)), a.copy()),
        (lambda: combination((-1, a)), -a),
        (lambda: combination((0, a), (2.0, b)), 2 * b),
        (lambda: combination((1, a), shift=v), a + shift),
        (lambda: combination((1, a), (1, b), (f, c), shift=v), a + b + by_channel * c + shift),
        (lambda: combination((f, a), (2, b), shift=v), by_channel * a + 2 * b + shift),
        (lambda: combination((f, long), (1, long), shift=v), f[:, None] * long + long + v[:, None]),
        (lambda: product((column, row)), column @ row),
        (lambda: product((long, matrix), shift=v), long @ matrix + v[:, None]),
        (lambda: product((a[:, 0], matrix), shift=v), a[:, 0] @ matrix + v[:, None]),
        (lambda: product(*pairs), a[:, :, 0] @ matrix + column @ row),
        (lambda: kernels.masked(a, mask), np.where(mask, a, 0)),
        (lambda: kernels.dots_and_sums(a, b), np.array([(a * b).sum((1, 2)), a.sum((1, 2))])),
        (lambda: kernels.centred(a)[0], u),
        (lambda: kernels.centred(a)[1], (u * u).sum(axis=(1, 2))),
        (lambda: kernels.centred(a, b)[1], (u * b).sum(axis=(1, 2))),
    ]
    # Of length 5 and 3: two pairs or one, and one without a partner.
    for axis in (1, 2):
        cases += _pair_cases(a, axis, rng)
    return tuple(partial(agrees, function, want) for function, want in cases)


def _pair_cases(a: np.ndarray, axis: int, rng: np.random.Generator) -> list[tuple]:
    """A selection of pairs along ``axis``, and its transpose."""
    x = np.moveaxis(a, axis, 0)
    count = len(x) // 2
    second = rng.random((count, *x.shape[1:])) < 0.5
    chosen = np.where(second, x[1 : 2 * count : 2], x[: 2 * count : 2])
    spread = np.zeros_like(x)
    spread[1 : 2 * count : 2], spread[: 2 * count : 2] = chosen * second, chosen * ~second
    spread[2 * count :] = x[2 * count :]
    selected = np.moveaxis(np.concatenate([chosen, x[2 * count :]]), 0, axis)
    second, spread = np.moveaxis(second, 0, axis), np.moveaxis(spread, 0, axis)
    return [
        (partial(kernels.pair_selection, second, a, axis), selected),
        (partial(kernels.pair_selection_transpose, second, selected, axis), spread),
    ]


def of_normalization() -> tuple[Check, ...]:
    """The values by their definition."""
    rng = np.random.default_rng(12)
    x, (gamma, beta) = rng.standard_normal((2, 3, 5, 4, 2)), rng.standard_normal((2, 2, 2))
    theta, by_channel = {"scale": gamma, "shift": beta}, (slice(None), None, None, None)
    mean, variance = (each(x, axis=(1, 2, 3), keepdims=True) for each in (np.mean, np.var))
    want = gamma[by_channel] * (x - mean) / np.sqrt(variance + 0.1) + beta[by_channel]
    return (partial(agrees, lambda: layers.BatchNorm(2, 0.1).forward(theta, x)[0], want),)


# Losses.


def of_loss(loss: mm.MeanSquaredError | mm.SoftmaxCrossEntropy) -> tuple[Check, ...]:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 3, 4))
    classes = isinstance(loss, mm.SoftmaxCrossEntropy)
    target = rng.integers(0, 4, (2, 3)) if classes else rng.standard_normal(z.shape)
    return (partial(check_loss, loss, z, target),)


def of_summed() -> tuple[Check, ...]:
    """The value by its definition."""
    z, target = np.random.default_rng(0).standard_normal((2, 2, 3, 4))
    want = ((z - target) ** 2).mean(axis=2).sum(axis=1)
    return (partial(agrees, lambda: mm.Summed(mm.MeanSquaredError()).forward(z, target)[0], want),)


def of_entropy() -> tuple[Check, ...]:
    """The value by its definition, and the derivatives."""
    z = np.random.default_rng(0).standard_normal((2, 3, 4))
    p = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    want = -(p * np.log(p)).sum(axis=2).mean(axis=1)
    value = partial(agrees, lambda: mm.Entropy().forward(z, None)[0], want)
    return (value, partial(check_loss, mm.Entropy(), z, np.zeros((2, 3), int)))


# Inequality measures, and weights of tasks.

# Each measure written out, from x alone.
DEFINITIONS: dict[Inequality, Callable[[np.ndarray], Any]] = {
    mm.Theil(): lambda x: (x / x.mean() * np.log(x / x.mean())).mean(),
    mm.GeneralizedEntropy(-0.5): lambda x: (((x / x.mean()) ** -0.5).mean() - 1) / 0.75,
    mm.GeneralizedEntropy(3): lambda x: (((x / x.mean()) ** 3).mean() - 1) / 6,
    mm.Atkinson(0.5): lambda x: 1 - (x**0.5).mean() ** 2 / x.mean(),
    mm.Atkinson(1): lambda x: 1 - np.exp(np.log(x).mean()) / x.mean(),
    mm.Atkinson(3): lambda x: 1 - (x**-2).mean() ** -0.5 / x.mean(),
    mm.Gini(): lambda x: (
        ((x[:, None] - x) * np.sign((x[:, None] - x).real)).mean() / (2 * x.mean())
    ),
    mm.LogVariance(): lambda x: ((np.log(x) - np.log(x).mean()) ** 2).mean(),
}


def of_measures() -> tuple[Check, ...]:
    """Every measure's value, and its gradient by the complex step of its
    definition: of five numbers, with a tie, of one."""
    checks: list[Check] = []
    for x in (np.array([0.5, 3.0, 1.2, 0.7, 2.0]), np.array([2.0, 1.0, 2.0]), np.array([2.0])):
        for measure, value in DEFINITIONS.items():
            slopes = [complex_step(value, (x,), (unit,)) for unit in np.eye(len(x))]
            checks.append(partial(agrees, partial(measure.value, x), value(x)))
            checks.append(partial(agrees, partial(measure.gradient, x), np.array(slopes)))
    return tuple(checks)


def of_agreement() -> tuple[Check, ...]:
    """The weights by all pairs of tasks; of opposed tasks, and of one task."""
    checks: list[Check] = []
    directions = np.random.default_rng(8).standard_normal((4, 3))
    opposed = np.stack([directions[0], -directions[0]])
    for some in (directions, directions[:1], opposed):
        agreement = np.array([sum(g @ other for other in some) for g in some])
        size = np.abs(agreement).sum()
        weights = np.array([0.5, 0.5]) if some is opposed else agreement / size
        whole = sum(w * g for w, g in zip(weights, some, strict=True))
        checks.append(partial(agrees, partial(agreement_weights, some), weights))
        checks.append(partial(agrees, partial(gradient_agreement, some), whole))
    return tuple(checks)


# Objectives.


def perceptron(activation: str = "tanh", hidden: int = 3, context: int = 0) -> Problem:
    """With one ReLU, many examples find it at rest: their loss has slope 0."""
    rng = np.random.default_rng(1)
    network = mm.mlp([2, hidden, 2], activation, context)
    objective = mm.Objective(network, mm.MeanSquaredError())
    phi = objective.init(rng, np.float64)
    return objective, phi, mm.Minibatches(*rng.standard_normal((2, 3, 2, 4, 2)))


def classifier() -> Problem:
    rng = np.random.default_rng(6)
    objective = mm.Objective(mm.mlp([2, 3, 3], "tanh"), mm.SoftmaxCrossEntropy())
    phi = objective.init(rng, np.float64)
    x, y = rng.standard_normal((3, 2, 4, 2)), rng.integers(0, 3, (3, 2, 4))
    return objective, phi, mm.Minibatches(x, y)


def quadratic(size: int = 3, k: int = 3) -> Problem:
    rng = np.random.default_rng(2)
    root = rng.standard_normal((k, 2, 2, size, size))
    centres = rng.standard_normal((k, 2, 2, size))
    batches = mm.Minibatches(root + root.swapaxes(3, 4), centres)
    return mm.Quadratic(size), rng.standard_normal(size), batches


def polynomial() -> Problem:
    rng = np.random.default_rng(3)
    batches = mm.Minibatches(rng.standard_normal((3, 2, 4, 3)), rng.standard_normal((3, 2, 4, 6)))
    return mm.Polynomial(3), 0.3 * rng.standard_normal(3), batches


def of_quadratic() -> tuple[Check, ...]:
    objective, phi, batches = quadratic()
    matrices, centres = batches[0]

    def loss(phi):
        offset = phi[:, None] - centres
        return np.einsum("tni,tnij,tnj->tn", offset, matrices, offset).mean(axis=1) / 2

    return (partial(check_objective, objective, phi, batches[0], true_loss=loss),)


def of_sphere() -> tuple[Check, ...]:
    rng = np.random.default_rng(4)
    objective, phi = mm.Sphere(3), rng.standard_normal(3)
    centres, radii = rng.standard_normal((2, 2, 3)), rng.uniform(0.5, 2, (2, 2))

    def loss(phi):
        distance = np.linalg.norm(phi[:, None] - centres, axis=2) - radii
        return (distance**2).mean(axis=1) / 2

    return (partial(check_objective, objective, phi, (centres, radii), true_loss=loss),)


def of_polynomial() -> tuple[Check, ...]:
    """Of degree 5, there and where every u is 0; and a constant, whose
    derivatives are sums of nothing."""
    objective, phi, batches = polynomial()
    directions, coefficients = batches[0]

    def loss(phi):
        u = np.einsum("tnd,td->tn", directions, phi)
        return (coefficients * u[..., None] ** np.arange(6)).sum(axis=2).mean(axis=1)

    return (
        partial(check_objective, objective, phi, batches[0], true_loss=loss),
        partial(check_objective, objective, 0 * phi, batches[0], true_loss=loss),
        partial(check_objective, objective, phi, (directions, coefficients[..., :1])),
    )


def of_regularized(regularized: Callable[..., Any]) -> tuple[Check, ...]:
    """``regularized(objective, centre, strength)`` away from its centre."""
    checks: list[Check] = []
    for objective, phi, batches in (quadratic(), perceptron()):
        centre, strength = phi + 0.5 * np.cos(np.arange(len(phi))), 1.5

        def loss(rows, objective=objective, batch=batches[0], centre=centre):
            pull = ((rows - centre) ** 2).sum(axis=1)
            return objective.at(rows, batch).loss + 1.5 / 2 * pull

        made = regularized(objective, centre, strength)
        checks.append(partial(check_objective, made, phi, batches[0], true_loss=loss))
    return tuple(checks)


def of_network() -> tuple[Check, ...]:
    """An MLP, and one layer of each kind with parameters."""
    rng = np.random.default_rng(4)
    upper = layers.Softplus(), layers.Flatten(), layers.Dense(12, 3)
    network = mm.Network((3, 2, 1), (layers.Conv2D(1, 2), layers.BatchNorm(2), *upper))
    convnet = mm.Objective(network, mm.SoftmaxCrossEntropy())
    weights, images = convnet.init(rng, np.float64), rng.standard_normal((2, 4, 3, 2, 1))
    labels = rng.integers(0, 3, (2, 4))
    objective, phi, batches = perceptron()
    # Its lowest layer needs its own theta. Its second one gives no dx on data.
    linear = mm.Network((2,), (layers.BatchNorm(2), layers.Dense(2, 3), layers.Dense(3, 2)))
    return (
        partial(check_objective, objective, phi, batches[0]),
        partial(check_objective, convnet, weights, (images, labels)),
        *(
            partial(check_network, each, shared=shared)
            for each in (linear, objective.network, network)
            for shared in (False, True)
        ),
    )
