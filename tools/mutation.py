"""The mutation proof: breaks every term of every hand-written derivative in turn, and shows that the kit catches it.

    python tools/mutation.py [--only NAME] [--out FILE.json]

A *mutant* is one function with one node of its syntax tree changed: a sign flipped, a summand or factor dropped or doubled,
an operand transposed, an axis, index, slice, power or constant shifted, a comparison turned, a dot forgotten. It takes the
place of the original's code while the public checks of ``minimeta.testing``, and nothing else, judge the library at small
random inputs. What raises is caught. A mutant that survives must stand in ``EQUIVALENT`` with the reason why it is no
error; otherwise the exit code is 1.

What defines a function rather than its derivative is not mutated (``kernels.patches``, which pixels a window sees;
``Adam._moments``): changed, it is another function, whose derivative may well be right. Nor is what only large arrays take
(``kernels._repeated``): tests/arrays/test_kernels.py compares it with plain broadcasting.
"""

from __future__ import annotations

import argparse
import ast
import copy
import inspect
import json
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import numpy as np

import minimeta as mm
from minimeta import layers
from minimeta.algorithms import MEASURES, Inequality, Outcome, adml, inequality
from minimeta.algorithms import base as algorithms_base
from minimeta.arrays import kernels
from minimeta.files import write_atomically
from minimeta.inner import RateGradient, trajectory
from minimeta.layers import batch_norm, film
from minimeta.losses import softmax
from minimeta.objectives import NetworkPoint, PolynomialPoint, QuadraticPoint, SpherePoint
from minimeta.runs.provenance import provenance
from minimeta.testing import (
    check_algorithm,
    check_layer,
    check_loss,
    check_network,
    check_objective,
    check_rule,
    check_trajectory,
    complex_step,
    without_hessian,
)

ROOT = Path(mm.__file__).resolve().parent.parent
PASSES = ("backward", "forward_tangent", "backward_tangent")
Check = Callable[[], None]


# What is mutated, and what judges it.


class Target(NamedTuple):
    """A function to mutate, and the checks that must catch it, the quickest first."""

    name: str
    function: FunctionType
    checks: tuple[Check, ...]


def targets() -> list[Target]:
    """All derivative code of the library."""
    by_layer = {
        layers.Dense: of_layers(
            (layers.Dense(3, 2), (3,)), (layers.Dense(1, 4), (1,)), (layers.Dense(4, 1), (4,))
        ),
        layers.Conv2D: of_layers(
            (layers.Conv2D(2, 3), (3, 4, 2)),
            (layers.Conv2D(1, 2, 2), (5, 4, 1)),
            (layers.Conv2D(2, 1, 1, 2), (2, 3, 2)),
        ),
        layers.BatchNorm: of_layers(
            (layers.BatchNorm(3), (2, 3, 3)), (layers.BatchNorm(2, eps=0.5), (2,))
        ),
        layers.MaxPool2D: of_layers(
            (layers.MaxPool2D(), (5, 4, 2)), (layers.MaxPool2D(), (4, 3, 1))
        ),
        layers.Context: of_layers((layers.Context(2), (3,)), (layers.Context(1), (1,))),
        layers.FiLM: of_layers((layers.FiLM(2, 3), (2, 3, 2)), (layers.FiLM(3, 1), (3,))),
        layers.ReLU: of_layers((layers.ReLU(), (4,)), (layers.ReLU(), (2, 3, 2))),
        layers.Flatten: of_layers((layers.Flatten(), (4,)), (layers.Flatten(), (2, 3, 2))),
        layers.Smooth: of_layers((layers.Tanh(), (4,)), (layers.Softplus(), (2, 3, 2))),
    }
    found = [
        Target(f"{layer.__name__}.{name}", function_of(layer, name), checks)
        for layer, checks in by_layer.items()
        for name in PASSES
    ]

    def add(owner: Any, names: str, checks: tuple[Check, ...]) -> None:
        prefix = owner.__name__.rpartition(".")[2]
        found.extend(
            Target(f"{prefix}.{name}", function_of(owner, name), checks) for name in names.split()
        )

    add(layers.Conv2D, "_matrix _rows _images _transpose _gradients", by_layer[layers.Conv2D])
    add(batch_norm, "_count", by_layer[layers.BatchNorm])
    add(layers.FiLM, "_halves", by_layer[layers.FiLM])
    add(film, "_matrices _beside _t", by_layer[layers.FiLM])
    add(layers.Tanh, "slope curvature", of_layers((layers.Tanh(), (4,))))
    add(layers.Softplus, "slope curvature", of_layers((layers.Softplus(), (4,))))
    add(
        kernels,
        "channel_sums channel_dots channel_combination product_sum _plus",
        of_kernels() + by_layer[layers.BatchNorm] + by_layer[layers.Dense],
    )
    add(kernels, "patches_transpose _beside", by_layer[layers.Conv2D])
    add(
        kernels,
        "masked pair_selection pair_selection_transpose _pairs _then",
        of_kernels() + by_layer[layers.MaxPool2D],
    )
    add(mm.MeanSquaredError, "backward backward_tangent", of_loss(mm.MeanSquaredError()))
    add(mm.SoftmaxCrossEntropy, "backward backward_tangent", of_loss(mm.SoftmaxCrossEntropy()))
    add(mm.Entropy, "forward backward backward_tangent", of_loss(mm.Entropy()) + of_entropy())
    add(
        mm.Summed,
        "forward backward backward_tangent",
        of_loss(mm.Summed(mm.MeanSquaredError())) + of_summed(),
    )
    add(
        softmax,
        "softmax centred from_likeliest",
        of_loss(mm.SoftmaxCrossEntropy()) + of_entropy(),
    )
    add(mm.Network, "backward forward_tangent backward_tangent _as_rows", of_network())
    add(NetworkPoint, "_gradients grad input_grad hvp", of_network())
    add(QuadraticPoint, "__init__ hvp", of_quadratic())
    add(SpherePoint, "__init__ hvp", of_sphere())
    add(PolynomialPoint, "__init__ hvp third _derivative _onto _along", of_polynomial())
    add(mm.SGD, "adjoint", of_rules(mm.SGD))
    add(mm.Adam, "adjoint", of_rules(adam) + of_rules(adam_with_momentum))
    add(RateGradient, "add total _over_parameters", of_trajectories())
    add(mm.Trajectory, "pullback", of_trajectories())
    add(trajectory, "_back_through _back_one _points_at", of_trajectories())
    add(trajectory._Segments, "run", of_trajectories())
    add(mm.MAML, "run", of_algorithm(lambda rule: mm.MAML(rule, "iterates"), loss_after_adaptation))
    add(
        algorithms_base,
        "unrolled",
        of_algorithm(lambda rule: mm.MAML(rule, "iterates"), loss_after_adaptation),
    )
    add(mm.ADML, "run", of_algorithm(adml_in_a_box, crossed_losses, (perceptron,)))
    add(
        adml,
        "fgsm",
        of_algorithm(adml_in_a_box, crossed_losses, (perceptron, partial(perceptron, "relu", 1))),
    )
    add(mm.MetaSGD, "run", of_meta_sgd())
    add(
        mm.FOMAML,
        "run",
        of_algorithm(mm.FOMAML, maml_without_hessian) + of_algorithm(fomaml_step, last_change),
    )
    add(mm.Reptile, "run", of_algorithm(mm.Reptile, whole_change))
    for measure in MEASURES.values():
        add(measure, "value gradient", of_measures())
    add(mm.Atkinson, "_power_mean", of_measures())
    add(mm.Gini, "_rank", of_measures())
    add(mm.LogVariance, "_centred", of_measures())
    add(inequality, "_relative", of_measures())
    add(mm.TAML, "run couple", of_taml())
    add(mm.EntropyTAML, "run", of_entropy_taml())
    add(NetworkPoint, "under", of_entropy_taml())
    return found


def function_of(owner: Any, name: str) -> FunctionType:
    """The plain function behind a method, static method or property."""
    found = inspect.getattr_static(owner, name)
    if isinstance(found, property):
        return found.fget
    if isinstance(found, cached_property):
        return found.func
    return found.__func__ if isinstance(found, staticmethod) else found


def of_layers(*cases: tuple[layers.Layer, tuple[int, ...]]) -> tuple[Check, ...]:
    """check_layer on every layer and input shape, with own and with shared parameters, and with one example."""
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
    long = rng.standard_normal((2, 1 << 14, 4))  # several rows of it are taken as one
    for each in (a, b, c, f, v, column, row, matrix, mask, long):
        each.flags.writeable = False
    by_channel, shift = f[:, None, None], v[:, None, None]
    sum_of, combination, product = (
        kernels.channel_sums,
        kernels.channel_combination,
        kernels.product_sum,
    )
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
        (lambda: product((a[:, :, 0], matrix), (column, row)), a[:, :, 0] @ matrix + column @ row),
        (lambda: kernels.masked(a, mask), np.where(mask, a, 0)),
    ]
    for axis in (1, 2):  # of length 5 and 3: two pairs or one, and one without a partner
        x = np.moveaxis(a, axis, 0)
        count = len(x) // 2
        second = rng.random((count, *x.shape[1:])) < 0.5
        chosen = np.where(second, x[1 : 2 * count : 2], x[: 2 * count : 2])
        spread = np.zeros_like(x)
        spread[1 : 2 * count : 2], spread[: 2 * count : 2] = chosen * second, chosen * ~second
        spread[2 * count :] = x[2 * count :]
        selected = np.moveaxis(np.concatenate([chosen, x[2 * count :]]), 0, axis)
        second, spread = np.moveaxis(second, 0, axis), np.moveaxis(spread, 0, axis)
        cases += [
            (partial(kernels.pair_selection, second, a, axis), selected),
            (partial(kernels.pair_selection_transpose, second, selected, axis), spread),
        ]
    return tuple(partial(_agrees, function, want) for function, want in cases)


def of_loss(loss: mm.MeanSquaredError | mm.SoftmaxCrossEntropy) -> tuple[Check, ...]:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 3, 4))
    target = (
        rng.integers(0, 4, (2, 3))
        if isinstance(loss, mm.SoftmaxCrossEntropy)
        else rng.standard_normal(z.shape)
    )
    return (partial(check_loss, loss, z, target),)


def of_summed() -> tuple[Check, ...]:
    """The value by its definition."""
    z, target = np.random.default_rng(0).standard_normal((2, 2, 3, 4))
    want = ((z - target) ** 2).mean(axis=2).sum(axis=1)
    return (partial(_agrees, lambda: mm.Summed(mm.MeanSquaredError()).forward(z, target)[0], want),)


def of_entropy() -> tuple[Check, ...]:
    """The value by its definition, and the derivatives."""
    z = np.random.default_rng(0).standard_normal((2, 3, 4))
    p = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    want = -(p * np.log(p)).sum(axis=2).mean(axis=1)
    value = partial(_agrees, lambda: mm.Entropy().forward(z, None)[0], want)
    return (value, partial(check_loss, mm.Entropy(), z, np.zeros((2, 3), int)))


def _agrees(function: Callable[[], np.ndarray], want: np.ndarray) -> None:
    error = np.abs(np.array(function()) - want)
    assert error.shape == want.shape and error.max() <= 1e-12 * (1 + np.abs(want).max()), (
        f"differs by {error.max():.1e}"
    )


# The measures written out, from x alone: what the library's are compared with.
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
    """Every measure's value, and its gradient by the complex step of its definition: of five numbers, with a tie, of one."""
    checks: list[Check] = []
    for x in (np.array([0.5, 3.0, 1.2, 0.7, 2.0]), np.array([2.0, 1.0, 2.0]), np.array([2.0])):
        for measure, value in DEFINITIONS.items():
            slopes = [complex_step(value, (x,), (unit,)) for unit in np.eye(len(x))]
            checks.append(partial(_agrees, partial(measure.value, x), value(x)))
            checks.append(partial(_agrees, partial(measure.gradient, x), np.array(slopes)))
    return tuple(checks)


Problem = tuple[
    Any, np.ndarray, mm.Minibatches
]  # an objective, phi (D,), k = 3 mini-batches of T = 2 tasks


def perceptron(activation: str = "tanh", hidden: int = 3) -> Problem:
    """With one ReLU, many examples find it at rest: their loss has slope 0."""
    rng = np.random.default_rng(1)
    objective = mm.Objective(mm.mlp([2, hidden, 2], activation), mm.MeanSquaredError())
    return (
        objective,
        objective.init(rng, np.float64),
        mm.Minibatches(*rng.standard_normal((2, 3, 2, 4, 2))),
    )


def quadratic(size: int = 3, k: int = 3) -> Problem:
    rng = np.random.default_rng(2)
    root = rng.standard_normal((k, 2, 2, size, size))
    centres = rng.standard_normal((k, 2, 2, size))
    return (
        mm.Quadratic(size),
        rng.standard_normal(size),
        mm.Minibatches(root + root.swapaxes(3, 4), centres),
    )


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
    """Of degree 5, there and where every u is 0; and a constant, whose derivatives are sums of nothing."""
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


def of_network() -> tuple[Check, ...]:
    """An MLP, and one layer of each kind with parameters."""
    rng = np.random.default_rng(4)
    stack = (
        layers.Conv2D(1, 2),
        layers.BatchNorm(2),
        layers.Softplus(),
        layers.Flatten(),
        layers.Dense(12, 3),
    )
    network = mm.Network((3, 2, 1), stack)
    convnet = mm.Objective(network, mm.SoftmaxCrossEntropy())
    images = (
        convnet.init(rng, np.float64),
        (rng.standard_normal((2, 4, 3, 2, 1)), rng.integers(0, 3, (2, 4))),
    )
    objective, phi, batches = perceptron()
    # Its lowest layer needs its own theta, and its second one gives no dx on data.
    linear = mm.Network((2,), (layers.BatchNorm(2), layers.Dense(2, 3), layers.Dense(3, 2)))
    return (
        partial(check_objective, objective, phi, batches[0]),
        partial(check_objective, convnet, *images),
        *(
            partial(check_network, each, shared=shared)
            for each in (linear, objective.network, network)
            for shared in (False, True)
        ),
    )


def adam(lr: Any) -> mm.Adam:
    return mm.Adam(lr, eps=1e-3)


def adam_with_momentum(lr: Any) -> mm.Adam:
    return mm.Adam(lr, 0.5, 0.9, 1e-2)


def rates_of_every_kind(size: int) -> list[Any]:
    """A number, one a parameter, and one per step in three ways; one step more than is made."""
    rng = np.random.default_rng(5)
    vector, rows, column = (rng.uniform(0.05, 0.2, shape) for shape in ((size,), (4, size), (4, 1)))
    return [0.1, vector, (0.1, 0.2, 0.15, 0.3), rows, column]


def of_rules(make: Callable[[Any], Any]) -> tuple[Check, ...]:
    return tuple(partial(check_rule, make(lr)) for lr in rates_of_every_kind(3))


def of_trajectories() -> tuple[Check, ...]:
    """k = 3, k = 0, and k = 3 from where another step ended; and k = 5, which checkpoints cut into three steps and two."""
    checks = []
    for problem in (perceptron, polynomial, partial(quadratic, 2), partial(quadratic, 1)):
        objective, phi, batches = problem()
        rows = np.tile(phi, (batches.tasks, 1))
        for make in (mm.SGD, adam, adam_with_momentum):
            for rule in map(make, rates_of_every_kind(objective.size)):
                _, state = rule.step(rows, rows + 1)
                checks += [
                    partial(check_trajectory, objective, start, some, rule, state=held)
                    for start, some, held in (
                        (phi, batches, None),
                        (rows, batches[:0], None),
                        (rows, batches, state),
                    )
                ]
    return (*checks, partial(check_trajectory, *quadratic(2, k=5), adam_with_momentum(0.1)))


def of_algorithm(
    make: Callable[[Any], Any],
    judge: Callable[..., dict[str, Any]],
    problems: tuple[Callable[[], Problem], ...] = (quadratic, perceptron),
) -> tuple[Check, ...]:
    """Through SGD and Adam, with a fresh state and with that of earlier tasks."""
    checks = []
    for problem in problems:
        objective, phi, batches = problem()
        for rule in (mm.SGD(0.1), adam(0.1), adam_with_momentum(0.1)):
            _, state = rule.step(np.tile(phi, (2, 1)), objective.at(phi + 1, batches[0]).grad)
            for start in (None, rule.merge(None, state, 2)):
                known = judge(objective, batches, rule, start)
                checks.append(
                    partial(
                        check_algorithm, make(rule), objective, phi, batches, state=start, **known
                    )
                )
    return tuple(checks)


def of_meta_sgd() -> tuple[Check, ...]:
    """With rates of both signs; the loss after adaptation with steps phi - alpha o g written out."""
    checks = []
    for problem in (quadratic, perceptron):
        objective, phi, batches = problem()
        meta = np.concatenate([phi, np.random.default_rng(5).uniform(-0.1, 0.2, objective.size)])

        def loss(meta, objective=objective, batches=batches):
            adapted, alpha = meta[: objective.size], meta[objective.size :]
            for batch in batches[:-1]:
                adapted = adapted - alpha * objective.at(adapted, batch).grad
            return objective.at(adapted, batches[-1]).loss

        checks.append(
            partial(check_algorithm, mm.MetaSGD(), objective, meta, batches, true_objective=loss)
        )
    return tuple(checks)


def of_taml() -> tuple[Check, ...]:
    """The whole meta-batch's objective, with three mini-batches and with one."""
    checks = []
    objective, phi, batches = perceptron()
    measure, weight = mm.GeneralizedEntropy(3), 2.0
    for some in (batches, batches[:1]):
        for rule in (mm.SGD(0.1), adam_with_momentum(0.1)):
            known = loss_after_adaptation(objective, some, rule, None)
            score, state = known["true_objective"], known["expected"]

            def whole(phi, some=some, score=score):
                return score(phi).mean() + weight * DEFINITIONS[measure](
                    objective.at(phi, some[0]).loss
                )

            def parts(phi, score=score, state=state):
                return Outcome(None, score(phi), state(phi).state)

            algorithm = mm.TAML(rule, "iterates", measure, weight)
            checks.append(
                partial(
                    check_algorithm,
                    algorithm,
                    objective,
                    phi,
                    some,
                    true_objective=whole,
                    expected=parts,
                )
            )
    return tuple(checks)


def of_entropy_taml() -> tuple[Check, ...]:
    """Each task's objective, its last loss and state."""
    checks = []
    rng = np.random.default_rng(6)
    objective = mm.Objective(mm.mlp([2, 3, 3], "tanh"), mm.SoftmaxCrossEntropy())
    entropy = mm.Objective(objective.network, mm.Entropy())
    phi = objective.init(rng, np.float64)
    batches = mm.Minibatches(rng.standard_normal((3, 2, 4, 2)), rng.integers(0, 3, (3, 2, 4)))
    for rule in (mm.SGD(0.5), adam_with_momentum(0.1)):
        known = loss_after_adaptation(objective, batches, rule, None)
        score, state = known["true_objective"], known["expected"]

        def whole(phi, rule=rule, score=score):
            after = mm.adapt(objective, phi, batches[:-1], rule)
            gap = entropy.at(after, batches[-1]).loss - entropy.at(phi, batches[0]).loss
            return (score(phi) + 2.0 * gap).mean()

        def parts(phi, score=score, state=state):
            return Outcome(None, score(phi), state(phi).state)

        algorithm = mm.EntropyTAML(rule, "iterates", 2.0)
        checks.append(
            partial(
                check_algorithm,
                algorithm,
                objective,
                phi,
                batches,
                true_objective=whole,
                expected=parts,
            )
        )
    return tuple(checks)


def fomaml_step(rule: Any) -> mm.FOMAML:
    return mm.FOMAML(rule, update="step")


def loss_after_adaptation(objective, batches, rule, state) -> dict[str, Any]:
    """MAML's objective F(phi) = L_k(U^{k-1}(phi)), and the state after those k-1 steps."""

    def loss(phi):
        return objective.at(mm.adapt(objective, phi, batches[:-1], rule, state), batches[-1]).loss

    def last_state(phi):
        return Outcome(
            None, None, mm.unroll(objective, phi, batches[:-1], rule, state=state).states[-1]
        )

    return {"true_objective": loss, "expected": last_state}


BOX = (0.3, -0.8, 0.9)  # eps, low, high: some inputs are clipped on either side, most are not


def adml_in_a_box(rule: Any) -> mm.ADML:
    return mm.ADML(rule, "iterates", *BOX)


def crossed_losses(objective, batches, rule, state) -> dict[str, Any]:
    """ADML's objective, the data attacked anew at every phi; and the state after the clean steps."""
    eps, low, high = BOX

    def attacked(phi):
        signs = [np.sign(objective.at(phi, batch).input_grad.real) for batch in batches]
        return mm.Minibatches(
            [np.clip(x + eps * sign, low, high) for x, sign in zip(batches.x, signs, strict=True)],
            batches.y,
        )

    def loss(phi):
        other = attacked(phi)
        return sum(
            objective.at(mm.adapt(objective, phi, some[:-1], rule, state), query[-1]).loss
            for some, query in ((batches, other), (other, batches))
        )

    return {
        "true_objective": loss,
        "expected": loss_after_adaptation(objective, batches, rule, state)["expected"],
    }


def maml_without_hessian(objective, batches, rule, state) -> dict[str, Any]:
    return {
        "expected": lambda phi: mm.MAML(rule).direction(
            without_hessian(objective), phi, batches, state
        )
    }


def last_change(objective, batches, rule, state) -> dict[str, Any]:
    """phi_k - phi_{k+1}."""

    def outcome(phi):
        way = mm.unroll(objective, phi, batches, rule, state=state)
        return Outcome(way.iterates[-2] - way.last, way.points[-1].loss, way.states[-1])

    return {"expected": outcome}


def whole_change(objective, batches, rule, state) -> dict[str, Any]:
    """phi_1 - phi_{k+1}."""

    def outcome(phi):
        way = mm.unroll(objective, phi, batches, rule, state=state)
        return Outcome(phi - way.last, way.points[-1].loss, way.states[-1])

    return {"expected": outcome}


# How a function is mutated.


def replacements(node: ast.AST, names: set[str]) -> Iterator[ast.AST]:
    """What is put in the place of one node, each an error of its own. ``names``: those of the function's variables."""
    match node:
        case ast.BinOp(left, op, right):
            yield from _of_operation(left, op, right)
        case ast.UnaryOp(ast.USub() | ast.Invert(), operand):
            yield operand
        case ast.Expr() | ast.Assign([ast.Subscript()]):
            yield ast.Pass()
        case ast.AugAssign(target, op, value):
            yield ast.Pass()
            yield from (ast.AugAssign(target, other, value) for other in _turned(op))
            yield ast.AugAssign(target, op, _doubled(value))
        case ast.Compare(left, [op], [right]):
            yield from (ast.Compare(left, [other], [right]) for other in _turned(op))
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            yield ast.Constant(value + 1)
            yield _number(value - 1)
        case ast.IfExp(_, body, orelse):
            yield body
            yield orelse
        case ast.If(_, body, orelse):
            yield ast.If(ast.Constant(True), body, orelse)
            yield ast.If(ast.Constant(False), body, orelse)
        case ast.Slice(lower, upper, step) if lower or upper or step:
            parts = {"lower": lower, "upper": upper, "step": step}
            yield from (ast.Slice(**(parts | {name: None})) for name in parts if parts[name])
        case ast.Subscript(value, index, context):
            yield from (ast.Subscript(value, other, context) for other in _shifted(index))
        case ast.Call(function, arguments):
            yield from _of_call(function, arguments, node)
        case ast.Dict(keys, values):
            for i, value in enumerate(values):
                yield from (
                    ast.Dict(keys, [*values[:i], other, *values[i + 1 :]])
                    for other in _scaled(value)
                )
        case ast.Return(value):
            yield from (ast.Return(other) for other in _results(value))
        case ast.Name(name, ast.Load()):
            other = name.removesuffix("_dot") if name.endswith("_dot") else f"{name}_dot"
            if other in names:
                yield ast.Name(other, ast.Load())


def _of_operation(left: ast.expr, op: ast.operator, right: ast.expr) -> Iterator[ast.expr]:
    """A sum or product: turned; with one side dropped, doubled or transposed."""
    whole = ast.BinOp(left, op, right)
    yield from (ast.BinOp(left, other, right) for other in _turned(op))
    yield left
    match op:
        case ast.Add():
            yield right
        case ast.Sub():
            yield ast.UnaryOp(ast.USub(), right)
        case ast.Mult():
            yield right
            yield _doubled(whole)
        case ast.Div():
            yield ast.BinOp(ast.Constant(1), op, right)
            yield _doubled(whole)
        case ast.MatMult():
            yield right
            yield _doubled(whole)
            yield ast.BinOp(_transposed(left), op, right)
            yield ast.BinOp(left, op, _transposed(right))
        case ast.Pow():
            yield right


def _of_call(function: ast.expr, arguments: list[ast.expr], node: ast.Call) -> Iterator[ast.expr]:
    """sum for mean; a swap of axes, a reversal or an elementary function left out."""
    match function:
        case ast.Attribute(value, ("sum" | "mean") as name, context):
            other = "mean" if name == "sum" else "sum"
            yield ast.Call(ast.Attribute(value, other, context), arguments, node.keywords)
        case ast.Attribute(value, "swapaxes" | "reshape"):
            yield value
        case ast.Name("range"):
            yield ast.Call(
                function,
                [*arguments[:-1], ast.BinOp(arguments[-1], ast.Sub(), ast.Constant(1))],
                [],
            )
        case ast.Name("reversed" | "product") | ast.Attribute(_, "exp" | "sqrt"):
            yield arguments[0]
    if isinstance(function, ast.Name) and function.id == "product":
        yield arguments[1]
        yield from (ast.Call(function, pair, []) for pair in _one_transposed(arguments))


def _one_transposed(pair: list[ast.expr]) -> Iterator[list[ast.expr]]:
    yield [_transposed(pair[0]), pair[1]]
    yield [pair[0], _transposed(pair[1])]


def _turned(op: ast.AST) -> list[ast.AST]:
    """The operators that ``op`` could be mistaken for."""
    pairs = [
        (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.FloorDiv, ast.Mod), (ast.Eq, ast.NotEq), (ast.Lt, ast.Gt),
        (ast.LtE, ast.GtE), (ast.Is, ast.IsNot), (ast.In, ast.NotIn), (ast.Lt, ast.LtE), (ast.Gt, ast.GtE),
    ]  # fmt: skip
    return [b() for x, y in pairs for a, b in ((x, y), (y, x)) if type(op) is a]


def _results(value: ast.expr | None) -> Iterator[ast.expr]:
    """A returned value, or one element of a returned tuple or record, with another sign or size."""
    match value:
        case ast.Tuple(elements, context):
            for i, element in enumerate(elements):
                yield from (
                    ast.Tuple([*elements[:i], other, *elements[i + 1 :]], context)
                    for other in _scaled(element)
                )
        case ast.Call(ast.Name("Adjoint" | "Outcome") as record, arguments, []):
            for i, argument in enumerate(arguments):
                for other in _scaled(argument):
                    yield ast.Call(record, [*arguments[:i], other, *arguments[i + 1 :]], [])
        case ast.expr():
            yield from _scaled(value)


def _scaled(value: ast.expr) -> Iterator[ast.expr]:
    if not isinstance(value, (ast.Constant, ast.Dict, ast.Tuple)):
        yield ast.UnaryOp(ast.USub(), value)
        yield _doubled(value)


def _shifted(index: ast.expr) -> Iterator[ast.expr]:
    """An index that is a variable, one off; alone or among others."""
    match index:
        case ast.Name():
            yield ast.BinOp(index, ast.Sub(), ast.Constant(1))
        case ast.Tuple(elements, context):
            for i, element in enumerate(elements):
                yield from (
                    ast.Tuple([*elements[:i], other, *elements[i + 1 :]], context)
                    for other in _shifted(element)
                )


def _doubled(value: ast.expr) -> ast.expr:
    """2.0 times, since 2 times a list only makes it longer."""
    return ast.BinOp(ast.Constant(2.0), ast.Mult(), value)


def _transposed(matrix: ast.expr) -> ast.expr:
    return ast.parse(f"({ast.unparse(matrix)}).swapaxes(-1, -2)", mode="eval").body


def _number(value: float) -> ast.expr:
    return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))


class Mutant(NamedTuple):
    """One function with one node changed."""

    target: Target
    line: int
    before: str  # the statement as it is
    after: str
    code: CodeType


def definition_of(target: Target) -> ast.FunctionDef:
    """The syntax tree of a function, without its decorators."""
    lines, first = inspect.getsourcelines(target.function)
    tree = ast.parse(textwrap.dedent("".join(lines)))
    ast.increment_lineno(tree, first - 1)
    definition = tree.body[0]
    definition.decorator_list = []
    return definition


def mutants(target: Target) -> Iterator[Mutant]:
    """Every mutant of a function, each once."""
    definition = definition_of(target)
    seen = {ast.unparse(definition)}
    for place in _places(definition):
        statement = _at(definition, place[0])
        names = set(target.function.__code__.co_varnames)
        for other in replacements(_at(definition, place[1]), names):
            changed = _with(definition, place[1], other)
            source = ast.unparse(changed)
            if source not in seen:
                seen.add(source)
                after = _at(changed, place[0])
                yield Mutant(
                    target,
                    statement.lineno,
                    _first_line(statement),
                    _first_line(after),
                    _code(changed, target),
                )


Way = tuple[tuple[str, int | None], ...]  # the way from a function's definition down to a node


def _places(definition: ast.FunctionDef) -> Iterator[tuple[Way, Way]]:
    """The ways to the nodes of a function's body, without its docstring; before each, that to the statement it is in."""

    def below(node: ast.AST, way: Way, statement: Way) -> Iterator[tuple[Way, Way]]:
        statement = way if isinstance(node, ast.stmt) else statement
        yield statement, way
        for name, value in ast.iter_fields(node):
            parts = enumerate(value) if isinstance(value, list) else [(None, value)]
            for i, part in parts:
                # In a reshape -1 stands for what is left; annotations compute nothing.
                inferred = isinstance(part, ast.UnaryOp) and _is_reshape(node)
                if isinstance(part, ast.AST) and name != "annotation" and not inferred:
                    yield from below(part, (*way, (name, i)), statement)

    documented = ast.get_docstring(definition) is not None
    for i in range(documented, len(definition.body)):
        yield from below(definition.body[i], (("body", i),), ())


def _is_reshape(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "reshape"
    )


def _at(node: ast.AST, way: Way) -> Any:
    for name, i in way:
        node = getattr(node, name) if i is None else getattr(node, name)[i]
    return node


def _with(definition: ast.FunctionDef, way: Way, other: ast.AST) -> ast.FunctionDef:
    """A copy of ``definition`` with ``other`` at the end of ``way``."""
    changed = copy.deepcopy(definition)
    parent, (name, i) = _at(changed, way[:-1]), way[-1]
    if i is None:
        setattr(parent, name, copy.deepcopy(other))
    else:
        getattr(parent, name)[i] = copy.deepcopy(other)
    return changed


def _first_line(statement: ast.stmt) -> str:
    return ast.unparse(statement).splitlines()[0]


def _code(definition: ast.FunctionDef, target: Target) -> CodeType:
    """Compiled as the library is, with annotations left alone, among the free variables that it has there (of ``super``)."""
    original = target.function.__code__
    around = ast.parse(f"def around({', '.join(original.co_freevars)}): pass").body[0]
    around.body = [definition]
    flags = original.co_flags & 0xFFF0000  # the module's future imports
    module = ast.fix_missing_locations(ast.Module([around], []))
    code = compile(module, original.co_filename, "exec", flags, dont_inherit=True)
    for name in ("around", definition.name):
        code = next(
            each for each in code.co_consts if isinstance(each, CodeType) and each.co_name == name
        )
    return code


# The proof.


@contextmanager
def in_place(function: FunctionType, code: CodeType) -> Iterator[None]:
    """``function`` runs ``code``, wherever it was imported to."""
    original = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = original


def verdict(target: Target, code: CodeType) -> str | None:
    """What the first check that refuses ``code`` says; None if all pass."""
    with in_place(target.function, code), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for check in target.checks:
            try:
                check()
            except (
                Exception
            ) as error:  # a CheckError, or what the mutant raises outside the checked call
                return f"{type(error).__name__}: {error}"
    return None


# Why a survivor is no error: for each reason, the functions and the statements that they then have.
REASONS: dict[str, dict[str, list[str]]] = {
    "the axis has length 1": {
        "FiLM.backward": [
            "return (dx, {'context': dc[:, -1], 'weight': dW, 'bias': s[:, 0]})",
            "return (dx, {'context': dc[:, 0], 'weight': dW, 'bias': s[:, -1]})",
        ],
        "FiLM.backward_tangent": [
            "return (dx_dot, {'context': dc_dot[:, -1], 'weight': dW_dot, 'bias': s_dot[:, 0]})",
            "return (dx_dot, {'context': dc_dot[:, 0], 'weight': dW_dot, 'bias': s_dot[:, -1]})",
        ],
        "FiLM._halves": [
            "return (both[:, -1, :self.channels], both[:, 0, self.channels:])",
            "return (both[:, 0, :self.channels], both[:, -1, self.channels:])",
        ],
        "kernels.channel_sums": ["return (_ones(a) @ a)[:, -1]"],
        "QuadraticPoint.__init__": ["slopes = (matrices @ offset[..., None])[..., -1]"],
        "SpherePoint.__init__": ["self.loss = ((distance - radii) ** 2)[..., -1].mean(axis=1) / 2"],
        "QuadraticPoint.hvp": ["return (self._hessian @ v[..., None])[..., -1]"],
        "PolynomialPoint.__init__": ["self._u = (directions @ phi[..., None])[..., -1]"],
        "Entropy.forward": ["return ((log_sum - mean)[..., -1].mean(axis=1), (p, shifted - mean))"],
        "PolynomialPoint._onto": ["return (self._directions @ v[..., None])[..., -1]"],
    },
    "this pass does not use theta, nor the cache": {
        "Context.backward_tangent": [
            "return self.backward(theta_dot, cache, dy_dot)",
            "return self.backward(theta, cache_dot, dy_dot)",
        ],
    },
    "this pass does not use theta": {
        "Dense.backward_tangent": ["return self.backward(theta_dot, x, dy_dot, on_data)"],
        "MaxPool2D.backward_tangent": ["return self.backward(theta_dot, cache, dy_dot)"],
    },
    "used twice in one pass, or in a function and its derivative alike: the two signs cancel": {
        "kernels._beside": [
            "return -parts[0]",
            "return -xp.concatenate([xp.broadcast_to(each, (tasks, *each.shape[1:])) for each in parts], axis=-1)",
        ],
    },
    "an optimization: it spares a copy, or work whose result is not used": {
        "kernels.channel_combination": [
            "if True:",
            "total, ours = (_plus(total, term, ours), False)",
        ],
        "kernels.product_sum": [
            "total = term if total is None else _plus(total, term, False)",
            "if False:",
            "if total.size > _LARGE:",
            "if total.size <= _LARGE:",
            "if True:",
        ],
        "kernels._plus": ["if False:", "if ours and total.dtype != term.dtype:"],
        "kernels._beside": ["if False:", "if len(parts) == 0:"],
        "kernels.channel_sums": ["if True:", "if a.ndim != 2:"],
        "kernels._then": [
            "return array_module(y).concatenate([y, rest], axis=axis)",
            "return array_module(y).concatenate([y, rest], axis=axis) if rest.shape[axis - 1] else y",
        ],
        "NetworkPoint._gradients": [
            "if True:",
            "self._backward = self._network.backward(self._theta, self._caches, dz, on_data=False)[1:]",
        ],
        "NetworkPoint.hvp": [
            "z_dot, caches_dot = network.forward_tangent(theta, theta_dot, self._caches, x_dot, on_data=False)"
        ],
        "Trajectory.pullback": [
            "dstate, dlr = (None, RateGradient(self.rule.lr))",
            "return (v, dlr.total(v))",
        ],
        "trajectory._back_one": ["if True:"],
        "MAML.run": ["direction, _ = trajectory.pullback(grad, rates=True)"],
        "TAML.run": ["direction, _ = trajectory.pullback(grad, rates=True)"],
        "EntropyTAML.run": ["direction, _ = trajectory.pullback(grad, rates=True)"],
    },
    "an optimization: with on_data a layer gives what it gives for x_dot = 0 (check_layer sees that)": {
        "Dense.forward_tangent": ["if True:"],
        "Dense.backward_tangent": ["if False:"],
        "Conv2D.backward": [
            "dx = self._transpose(cache, (dy, self._matrix(theta)))",
        ],
        "Conv2D.forward_tangent": ["patches_dot = patches(x_dot, self.kernel, self.stride)"],
        "Network.backward": [
            "if False:",
            "if on_data and i == -1:",
            "dy, dthetas[i] = self.layers[i].backward(theta[i], caches[i], dy, on_data=False)",
        ],
        "Network.forward_tangent": [
            "if False:",
            "if on_data and i == -1:",
            "x_dot, cache_dot = layer.forward_tangent(*given, on_data=False)",
        ],
    },
    "a default that is never read": {
        "kernels.channel_combination": ["total, ours = (None, True)"],
    },
    "would give an argument itself for a copy of it; test_kernels.py sees it": {
        "kernels.channel_combination": ["if False:"],
    },
    "pairs are pairs, of arrays of one module": {
        "kernels.patches_transpose": [
            "a, b = (_beside(each) for each in zip(*pairs, strict=False))"
        ],
        "kernels._beside": [
            "return parts[-1]",
            "xp, tasks = (array_module(parts[1]), max((each.shape[0] for each in parts)))",
            "xp, tasks = (array_module(parts[-1]), max((each.shape[0] for each in parts)))",
        ],
    },
    "for a network without parameters; test_network.py sees it": {
        "Network._as_rows": [
            "return xp.concatenate(parts, axis=1)",
            "return xp.concatenate(parts, axis=1) if parts else xp.empty((tasks, 1), dtype=like.dtype)",
            "return xp.concatenate(parts, axis=1) if parts else xp.empty((tasks, -1), dtype=like.dtype)",
        ],
    },
    "the arrays of a sum, and an array and its dot, have one shape": {
        "kernels.channel_combination": ["shape = terms[-1][1].shape"],
        "BatchNorm.backward_tangent": [
            "(u, r), (u_dot, r_dot), P = (cache, cache_dot, _count(dy_dot))",
        ],
    },
    "an optimization: where the inner axis has length 1, a * b is a @ b": {
        "kernels.product_sum": [
            "term = a @ b",
            "term = a * b if a.shape[-1] == 0 else a @ b",
        ],
    },
    "the probabilities sum to 1, so p_target is 1 less the others; only digits near 1 are lost, which test_losses.py sees": {
        "SoftmaxCrossEntropy.backward": ["others = p"],
    },
    "any shift of z_dot cancels in centred; only digits are lost where a class is certain, which test_losses.py sees": {
        "softmax.from_likeliest": [
            "return v + array_module(p).take_along_axis(v, likeliest, axis=-1)",
            "return v",
        ],
    },
    "an array of one axis: its first is its last": {
        "LogVariance.gradient": ["return 2 * self._centred(x) / (x.shape[-1] * x)"],
        "inequality._relative": [
            "if x.ndim != 1 or x.shape[-1] == 0:",
            "return (x / mu, x.shape[-1] * mu)",
        ],
    },
    "a quadratic's matrices are symmetric": {
        "QuadraticPoint.__init__": [
            "slopes = (matrices.swapaxes(-1, -2) @ offset[..., None])[..., 0]"
        ],
        "QuadraticPoint.hvp": ["return (self._hessian.swapaxes(-1, -2) @ v[..., None])[..., 0]"],
    },
    "twice zero": {
        "PolynomialPoint._derivative": ["value = 2.0 * (0 * self._u)"],
    },
    "where v^ is 0 so is m^, a factor of av (g^2 underflows where |g| < 1e-162): the divisor does not matter": {
        "Adam.adjoint": [
            "av = rate / (2 * c2) * step_m * m_hat / xp.where(root == 0, 2, root * denominator)",
        ],
    },
    "only makes one step more than is needed; test_trajectory.py counts them": {
        "_Segments.run": [
            "way = unroll(self.objective, phi, batches[:], self.rule, 'iterates', state)"
        ],
    },
    "at a bound, clipping to it changes nothing": {
        "adml.fgsm": [
            "x = xp.where(x.real <= low, float(low), x)",
            "return (xp.where(x.real >= high, float(high), x), batch[1])",
        ],
    },
    "refuses a box with no room; test_adml.py sees the refusal": {"adml.fgsm": ["pass"]},
    "refuses a v that does not fit; test_network.py sees the refusal": {
        "NetworkPoint.hvp": ["pass"]
    },
    "refuses another shape; test_inequality.py and test_losses.py see the refusal": {
        "inequality._relative": ["if False:", "if x.ndim != 1 or x.shape[0] == -1:"],
        "Entropy.forward": ["if False:"],
    },
    "refuses an empty meta-batch, which has no derivative; tests/algorithms see the refusal": {
        "base.unrolled": ["pass"],
        "ADML.run": ["pass"],
        "FOMAML.run": ["pass"],
        "Reptile.run": ["pass"],
    },
}
EQUIVALENT = {
    (name, after): reason
    for reason, of in REASONS.items()
    for name, statements in of.items()
    for after in statements
}


def prove(only: str = "") -> dict[str, Any]:
    """Every mutant of the targets whose name contains ``only``, tried: a JSON object of counts and survivors.

    ``by_number`` of those caught ran to the end and gave a wrong number; the others raised, or gave a wrong shape.
    """
    functions, survivors = {}, []
    for target in (target for target in targets() if only in target.name):
        said = verdict(target, _code(definition_of(target), target))
        assert said is None, f"{target.name} is refused as it is: {said}"
        counts = functions[target.name] = {"tried": 0, "caught": 0, "by_number": 0}
        for mutant in mutants(target):
            said = verdict(target, mutant.code)
            counts["tried"] += 1
            counts["caught"] += said is not None
            counts["by_number"] += said is not None and "differs by" in said
            if said is None:
                survivors.append(describe(mutant))
    total = {
        key: sum(counts[key] for counts in functions.values())
        for key in ("tried", "caught", "by_number")
    }
    return {"total": total, "functions": functions, "survivors": survivors}


def describe(mutant: Mutant) -> dict[str, Any]:
    """Where a survivor is, what it changes, and why it is no error, if it is none."""
    file = Path(mutant.target.function.__code__.co_filename).resolve().relative_to(ROOT)
    return {
        "function": mutant.target.name,
        "place": f"{file}:{mutant.line}",
        "before": mutant.before,
        "after": mutant.after,
        "equivalent": EQUIVALENT.get((mutant.target.name, mutant.after)),
    }


def print_report(results: dict[str, Any], seconds: float) -> None:
    for name, counts in results["functions"].items():
        print(f"{counts['caught']:4d} / {counts['tried']:4d}  {name}")
    total = results["total"]
    print(
        f"{total['caught']:4d} / {total['tried']:4d}  in all, {total['by_number']} by a wrong number; {seconds} s"
    )
    for survivor in results["survivors"]:
        print(
            f"\n{survivor['place']}  {survivor['function']}\n    {survivor['before']}\n    {survivor['after']}"
        )
        print(f"    {survivor['equivalent'] or 'SURVIVES, and is not known to be equivalent'}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", help="only functions whose name contains this, such as BatchNorm"
    )
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    results = prove(options.only)
    seconds = round(time.perf_counter() - started, 1)
    print_report(results, seconds)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report = {"provenance": provenance(), "seconds": seconds, **results}
        write_atomically(
            options.out, lambda file: file.write((json.dumps(report, indent=2) + "\n").encode())
        )
    return int(any(survivor["equivalent"] is None for survivor in results["survivors"]))


if __name__ == "__main__":
    sys.exit(main())
