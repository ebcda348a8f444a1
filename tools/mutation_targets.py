"""The functions that are mutated, and the checks that judge each.

The derivatives are here, and all code that carries a state, adapts, scores or
couples tasks. A function that defines something else is not here. A change
makes it another function, whose derivative may well be right. An example is
``kernels.patches`` (the pixels that a window sees). ``kernels._repeated`` is
not here either, because only large arrays take it. tests/arrays/test_kernels.py
compares it with plain broadcasting.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cached_property
from types import FunctionType
from typing import Any, NamedTuple

from mutation_algorithm_checks import (
    adam,
    adam_with_momentum,
    of_adams_steps,
    of_adaptation,
    of_adml,
    of_algorithm,
    of_anil,
    of_cavia,
    of_conjugate_gradients,
    of_entropy_taml,
    of_fgsm,
    of_fomaml,
    of_imaml,
    of_imaml_by_its_oracle,
    of_meta_sgd,
    of_rules,
    of_sgds_steps,
    of_taml,
    of_trajectories,
)
from mutation_checks import (
    Check,
    of_agreement,
    of_entropy,
    of_kernels,
    of_layers,
    of_loss,
    of_measures,
    of_network,
    of_normalization,
    of_polynomial,
    of_quadratic,
    of_regularized,
    of_sphere,
    of_summed,
)

import minimeta as mm
from minimeta import layers
from minimeta.algorithms import (
    MEASURES,
    adml,
    agreement_weights,
    gradient_agreement,
    imaml,
    inequality,
)
from minimeta.algorithms import base as algorithms_base
from minimeta.arrays import kernels
from minimeta.arrays.compiled import Compiled
from minimeta.inner import RateGradient, conjugate_gradients, stores, trajectory
from minimeta.layers import batch_norm, film
from minimeta.losses import softmax
from minimeta.objectives import (
    NetworkPoint,
    PolynomialPoint,
    QuadraticPoint,
    SpherePoint,
)
from minimeta.objectives import network as networks

PASSES = ("backward", "forward_tangent", "backward_tangent")


class Target(NamedTuple):
    """A function to mutate, and the checks that must catch its mutants."""

    name: str
    function: FunctionType
    checks: tuple[Check, ...]


def targets() -> list[Target]:
    """All derivative code of the library."""
    return [*_layers(), *_losses(), *_objectives(), *_inner_loop(), *_algorithms(), *_couplings()]


def each_of(owner: Any, names: str, checks: tuple[Check, ...]) -> Iterator[Target]:
    """The functions of a class or a module."""
    prefix = owner.__name__.rpartition(".")[2]
    for name in names.split():
        yield Target(f"{prefix}.{name}", function_of(owner, name), checks)


def function_of(owner: Any, name: str) -> FunctionType:
    """The plain function behind a method, static method or property."""
    found = inspect.getattr_static(owner, name)
    if isinstance(found, property):
        return found.fget
    if isinstance(found, cached_property):
        return found.func
    found = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    found = found.function if isinstance(found, Compiled) else found
    return inspect.unwrap(found)  # of the twin that a device has, and of a cache


def _layers() -> Iterator[Target]:
    """The passes of every layer, and the kernels and functions beneath them."""
    dense = of_layers(
        (layers.Dense(3, 2), (3,)), (layers.Dense(1, 4), (1,)), (layers.Dense(4, 1), (4,))
    )
    convolution = of_layers(
        (layers.Conv2D(2, 3), (3, 4, 2)),
        (layers.Conv2D(1, 2, 2), (5, 4, 1)),
        (layers.Conv2D(2, 1, 1, 2), (2, 3, 2)),
    )
    normalization = of_layers(
        (layers.BatchNorm(3), (2, 3, 3)), (layers.BatchNorm(2, eps=0.5), (2,))
    )
    pool = of_layers((layers.MaxPool2D(), (5, 4, 2)), (layers.MaxPool2D(), (4, 3, 1)))
    modulation = of_layers((layers.FiLM(2, 3), (2, 3, 2)), (layers.FiLM(3, 1), (3,)))
    by_layer = {
        layers.Dense: dense,
        layers.Conv2D: convolution,
        layers.BatchNorm: normalization,
        layers.MaxPool2D: pool,
        layers.Context: of_layers((layers.Context(2), (3,)), (layers.Context(1), (1,))),
        layers.FiLM: modulation,
        layers.ReLU: of_layers((layers.ReLU(), (4,)), (layers.ReLU(), (2, 3, 2))),
        layers.Flatten: of_layers((layers.Flatten(), (4,)), (layers.Flatten(), (2, 3, 2))),
        layers.Smooth: of_layers((layers.Tanh(), (4,)), (layers.Softplus(), (2, 3, 2))),
    }
    for layer, checks in by_layer.items():
        yield from each_of(layer, " ".join(PASSES), checks)
    yield from each_of(layers.Conv2D, "_matrix _rows _images _transpose _gradients", convolution)
    yield from each_of(batch_norm, "_pulled _moving_scales _pulled_dots _count", normalization)
    yield from each_of(batch_norm, "_scales", normalization + of_normalization())
    yield from each_of(layers.FiLM, "_halves", modulation)
    yield from each_of(film, "_matrices _beside _t", modulation)
    yield from each_of(layers.Tanh, "slope curvature", of_layers((layers.Tanh(), (4,))))
    yield from each_of(layers.Softplus, "slope curvature", of_layers((layers.Softplus(), (4,))))
    sums = "channel_sums channel_means channel_dots channel_combination product_sum _plus _shifted"
    yield from each_of(kernels, sums, of_kernels() + normalization + dense)
    yield from each_of(kernels, "patches_transpose beside", convolution + of_network())
    pairs = "masked pair_selection pair_selection_transpose _pairs _then"
    yield from each_of(kernels, pairs, of_kernels() + pool)
    yield from each_of(kernels, "dots_and_sums centred", of_kernels() + normalization)


def _losses() -> Iterator[Target]:
    cross_entropy = of_loss(mm.SoftmaxCrossEntropy())
    all_passes = "forward backward backward_tangent"
    yield from each_of(
        mm.MeanSquaredError, "backward backward_tangent", of_loss(mm.MeanSquaredError())
    )
    yield from each_of(mm.SoftmaxCrossEntropy, "backward backward_tangent", cross_entropy)
    yield from each_of(mm.Entropy, all_passes, of_loss(mm.Entropy()) + of_entropy())
    summed = of_loss(mm.Summed(mm.MeanSquaredError())) + of_summed()
    yield from each_of(mm.Summed, all_passes, summed)
    yield from each_of(softmax, "softmax centred from_likeliest", cross_entropy + of_entropy())


def _objectives() -> Iterator[Target]:
    network = of_network()
    yield from each_of(mm.Network, "backward forward_tangent backward_tangent", network)
    yield from each_of(networks, "_views _as_rows", network)
    yield from each_of(NetworkPoint, "_gradients grad input_grad hvp", network)
    yield from each_of(NetworkPoint, "under", of_entropy_taml())
    yield from each_of(QuadraticPoint, "__init__ hvp", of_quadratic())
    yield from each_of(SpherePoint, "__init__ hvp", of_sphere())
    yield from each_of(
        PolynomialPoint, "__init__ hvp third _derivative _onto _along", of_polynomial()
    )
    regularized = of_regularized(imaml.Regularized)
    yield from each_of(imaml.Regularized, "at", regularized)
    yield from each_of(imaml._RegularizedPoint, "loss grad hvp", regularized)


def _inner_loop() -> Iterator[Target]:
    """Rules, trajectories, their stores, and conjugate gradients."""
    trajectories = of_trajectories()
    by_adam = of_rules(adam, adam_with_momentum)
    by_sgd = of_rules(mm.SGD)
    yield from each_of(mm.SGD, "adjoint tangent", by_sgd)
    yield from each_of(mm.SGD, "step", of_sgds_steps() + by_sgd)
    yield from each_of(mm.Adam, "adjoint tangent _after _root_slope_divisor", by_adam)
    yield from each_of(mm.Adam, "step merge _corrections", of_adams_steps() + by_adam)
    yield from each_of(kernels, "adam_moments adam_update", of_adams_steps() + by_adam)
    yield from each_of(kernels, "sgd_update", of_sgds_steps() + by_sgd)
    yield from each_of(RateGradient, "add total _over_parameters", trajectories)
    yield from each_of(mm.Trajectory, "pullback pushforward", trajectories)
    steps = "_back_through _back_one _forth_through _forth_one"
    yield from each_of(trajectory, steps, trajectories)
    yield from each_of(stores.InnerLoop, "part points_at", trajectories)
    loops = of_algorithm(mm.Reptile) + of_fomaml() + of_algorithm(mm.MAML)
    yield from each_of(stores.InnerLoop, "end", loops + of_adaptation())
    yield from each_of(trajectory, "adapt descend unroll", loops + of_adaptation())
    yield from each_of(stores._Checkpoints, "_segment", trajectories)
    solves = of_conjugate_gradients() + of_imaml_by_its_oracle()
    yield Target("conjugate_gradients", conjugate_gradients, solves)


def _algorithms() -> Iterator[Target]:
    """Every direction, and every inner problem that is not the plain one."""
    maml = of_algorithm(lambda rule: mm.MAML(rule, "iterates"))
    yield from each_of(
        algorithms_base.Algorithm, "adapt iterates meta_gradient predict", maml + of_adaptation()
    )
    yield from each_of(mm.MAML, "direction", maml)
    yield from each_of(algorithms_base, "unrolled", maml)
    yield from each_of(algorithms_base, "only_on", of_anil() + of_cavia())
    yield from each_of(mm.FOMAML, "direction", of_fomaml())
    yield from each_of(mm.Reptile, "direction", of_algorithm(mm.Reptile))
    yield from each_of(mm.MetaSGD, "problem direction", of_meta_sgd())
    yield from each_of(mm.ANIL, "problem", of_anil())
    yield from each_of(mm.CAVIA, "problem direction", of_cavia())
    yield from each_of(mm.IMAML, "problem direction", of_imaml())
    yield from each_of(mm.ADML, "direction", of_adml())
    yield from each_of(adml, "fgsm", of_fgsm())
    yield from each_of(mm.TAML, "direction couple", of_taml())
    yield from each_of(mm.EntropyTAML, "direction", of_entropy_taml())


def _couplings() -> Iterator[Target]:
    """The functions of all tasks of a meta-batch."""
    measures = of_measures()
    for measure in MEASURES.values():
        yield from each_of(measure, "value gradient", measures)
    yield from each_of(mm.Atkinson, "_power_mean", measures)
    yield from each_of(mm.Gini, "_rank", measures)
    yield from each_of(mm.LogVariance, "_centred", measures)
    yield from each_of(inequality, "_relative", measures)
    for function in (gradient_agreement, agreement_weights):
        yield Target(function.__name__, function, of_agreement())
