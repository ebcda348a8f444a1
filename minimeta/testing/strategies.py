"""Hypothesis strategies for layers, networks, objectives and inner rules.

Layers come with a shape that they take, objectives with data.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from .. import layers
from ..inner import SGD, Adam
from ..losses import MeanSquaredError, SoftmaxCrossEntropy
from ..objectives import (
    Network,
    Objective,
    Polynomial,
    Quadratic,
    mini_imagenet_convnet,
    mlp,
    omniglot_convnet,
)
from ..tasks import Minibatches

seeds = st.integers(0, 2**32 - 1)
small = st.integers(1, 5)
task_counts = st.integers(1, 4)
dtypes = st.sampled_from([np.float32, np.float64, np.complex128])
feature_shapes = st.one_of(st.tuples(small), st.tuples(st.integers(1, 7), st.integers(1, 7), small))


@st.composite
def layers_with_shapes(draw) -> tuple[layers.Layer, tuple[int, ...]]:
    """A layer and an input shape that it takes."""
    channels, height, width = draw(small), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    image = (height, width, channels)
    return draw(
        st.one_of(
            st.builds(lambda n: (layers.Dense(channels, n), (channels,)), small),
            st.builds(
                lambda n, stride, kernel: (layers.Conv2D(channels, n, stride, kernel), image),
                small,
                st.integers(1, 3),
                st.integers(1, 4),
            ),
            st.builds(lambda n: (layers.Context(n), (channels,)), small),
            st.builds(
                lambda n, shape: (layers.FiLM(channels, n), shape),
                small,
                st.sampled_from([image, (channels,)]),
            ),
            st.sampled_from(
                [(layers.BatchNorm(channels), image), (layers.BatchNorm(channels), (channels,))]
            ),
            st.just((layers.MaxPool2D(), image)),
            st.tuples(
                st.sampled_from(
                    [layers.ReLU(), layers.Tanh(), layers.Softplus(), layers.Flatten()]
                ),
                feature_shapes,
            ),
        )
    )


@st.composite
def networks(draw) -> Network:
    """A small MLP of any activation, or a preset of few filters."""
    sizes = draw(st.lists(small, min_size=2, max_size=4))
    activation, context = (
        draw(st.sampled_from(["relu", "tanh", "softplus"])),
        draw(st.integers(0, 2)),
    )
    dense = st.just(mlp(sizes, activation, context))
    presets = st.sampled_from(
        [omniglot_convnet(3, 2, context), mini_imagenet_convnet(3, 1, context)]
    )
    return draw(
        st.one_of(dense, dense, dense, dense, presets)
    )  # the presets cost a hundred times as much


@st.composite
def minibatches(
    draw, input_shape: tuple[int, ...], outputs: int, classify: bool = True, max_k: int = 5
) -> Minibatches:
    """k mini-batches of T tasks with float64 inputs of ``input_shape``.

    Targets are labels below ``outputs``, or ``outputs`` real numbers.
    """
    rng, k = np.random.default_rng(draw(seeds)), draw(st.integers(1, max_k))
    shape = (k, draw(task_counts), draw(small))
    y = rng.integers(0, outputs, shape) if classify else rng.standard_normal((*shape, outputs))
    return Minibatches(rng.standard_normal((*shape, *input_shape)), y)


@st.composite
def problems(
    draw, max_k: int = 5
) -> tuple[Objective | Quadratic | Polynomial, np.ndarray, Minibatches]:
    """An objective, a float64 phi ``(D,)`` and k mini-batches of T tasks.

    The last mini-batch may have another size.
    """
    rng = np.random.default_rng(draw(seeds))
    k, tasks, size, last = (
        draw(st.integers(1, max_k)),
        draw(task_counts),
        draw(st.integers(2, 4)),
        draw(st.integers(2, 4)),
    )
    sizes = [size] * (k - 1) + [last]
    kind = draw(st.sampled_from(["network", "network", "quadratic", "polynomial"]))
    if kind == "network":
        network = draw(networks())
        classify = len(network.input_shape) > 1 or draw(st.booleans())
        objective = Objective(network, SoftmaxCrossEntropy() if classify else MeanSquaredError())
        x = [rng.standard_normal((tasks, n, *network.input_shape)) for n in sizes]
        outputs = network.output_shape[0]
        y = [
            rng.integers(0, outputs, (tasks, n))
            if classify
            else rng.standard_normal((tasks, n, outputs))
            for n in sizes
        ]
    else:
        dim = draw(small)
        objective = Quadratic(dim) if kind == "quadratic" else Polynomial(dim)
        x, y = [], []
        for n in sizes:
            if kind == "quadratic":
                root = rng.standard_normal((tasks, n, dim, dim))
                x.append(root + root.swapaxes(2, 3))
                y.append(rng.standard_normal((tasks, n, dim)))
            else:
                x.append(rng.standard_normal((tasks, n, dim)) / dim)
                y.append(rng.standard_normal((tasks, n, draw(st.integers(1, 5)))))
    phi = objective.init(rng, np.float64)
    if kind == "network":
        # With a context of zero, the gradient of the context's weights is
        # exactly zero. There the slope of Adam's g / (|g| + eps) has a kink,
        # and a real difference fails. A large context may shift all outputs of
        # FiLM below 0. Then the batch norm above the ReLU sees a constant, and
        # returns rounding around 0, the kink of the next ReLU.
        phi[network.context] = 0.1 * rng.standard_normal(
            network.context.stop - network.context.start
        )
    return objective, phi, Minibatches(x, y)


rates = st.floats(1e-4, 0.1)
# Adam's derivative has a factor 1 / (sqrt(v) + eps), which multiplies the
# rounding error of gradients that are zero in exact arithmetic (a bias before a
# batch norm). An eps of 1e-3 keeps 13 digits. The usual 1e-8 would keep 8.
inner_rules = st.one_of(
    st.builds(SGD, rates),
    st.builds(SGD, st.lists(rates, min_size=5, max_size=5).map(tuple)),
    st.builds(
        Adam,
        rates,
        st.sampled_from([0.0, 0.5, 0.9]),
        st.sampled_from([0.9, 0.999]),
        st.sampled_from([1e-3, 1e-2]),
    ),
)
