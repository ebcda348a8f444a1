"""Every layer's four passes are each other's derivatives and transposes."""

from dataclasses import dataclass
from inspect import isabstract

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from minimeta import MeanSquaredError, Network, Objective, ShapeError, layers
from minimeta.testing import (
    CheckError,
    assert_close,
    assert_same,
    check_layer,
    check_network,
    check_objective,
    complex_step,
)
from minimeta.testing.self_check import LAYERS
from minimeta.testing.strategies import dtypes, layers_with_shapes, seeds, small


@given(layers_with_shapes(), small, small, st.booleans(), seeds)
def test_passes_agree_with_the_complex_step(layer_and_shape, tasks, examples, shared, seed):
    layer, shape = layer_and_shape
    check_layer(layer, shape, tasks=tasks, examples=examples, shared=shared, seed=seed)


@given(layers_with_shapes(), dtypes, seeds)
def test_every_pass_keeps_the_dtype_of_its_inputs(layer_and_shape, dtype, seed):
    layer, shape = layer_and_shape
    rng = np.random.default_rng(seed)
    theta = {
        key: rng.standard_normal((2, *size)).astype(dtype) for key, size in layer.shapes.items()
    }
    x = rng.standard_normal((2, 3, *shape)).astype(dtype)
    y, cache = layer.forward(theta, x)
    dx, dtheta = layer.backward(theta, cache, y)
    y_dot, cache_dot = layer.forward_tangent(theta, theta, cache, x)
    dx_dot, dtheta_dot = layer.backward_tangent(theta, theta, cache, cache_dot, y, y)
    results = [y, dx, y_dot, dx_dot, *dtheta.values(), *dtheta_dot.values()]
    assert {result.dtype for result in results} == {np.dtype(dtype)}


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), small, small, seeds
)
def test_convolution_is_its_definition_with_tensorflows_same_padding(
    height, width, stride, kernel, inputs, outputs, seed
):
    rng = np.random.default_rng(seed)
    layer = layers.Conv2D(inputs, outputs, stride, kernel)
    weight, bias = (
        rng.standard_normal((kernel, kernel, inputs, outputs)),
        rng.standard_normal(outputs),
    )
    x = rng.standard_normal((height, width, inputs))
    y, _ = layer.forward({"weight": weight[None], "bias": bias[None]}, x[None, None])
    rows, columns = -(-height // stride), -(-width // stride)
    # TensorFlow's "SAME": total = max((out - 1) * stride + kernel - in, 0), the
    # smaller half before.
    top = max((rows - 1) * stride + kernel - height, 0) // 2
    left = max((columns - 1) * stride + kernel - width, 0) // 2
    want = np.tile(bias, (rows, columns, 1))
    for r, c, i, j in np.ndindex(rows, columns, kernel, kernel):
        row, column = r * stride + i - top, c * stride + j - left
        if 0 <= row < height and 0 <= column < width:
            want[r, c] += x[row, column] @ weight[i, j]
    assert_close(y[0, 0], want, 1e-13, "Conv2D.forward")  # sums of at most 80 terms


@given(st.integers(1, 9), st.integers(1, 9), small, seeds)
def test_max_pooling_is_the_maximum_of_what_each_window_sees(height, width, channels, seed):
    x = np.random.default_rng(seed).standard_normal((height, width, channels))
    y, _ = layers.MaxPool2D().forward({}, x[None, None])
    for r, c in np.ndindex(-(-height // 2), -(-width // 2)):
        window = x[2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
        assert np.array_equal(y[0, 0, r, c], window.max(axis=(0, 1)))


@given(small, small, st.floats(0.1, 100), st.floats(-100, 100), seeds)
def test_batch_norm_ignores_a_shift_and_gives_mean_zero_and_unit_variance(
    examples, channels, scale, shift, seed
):
    rng = np.random.default_rng(seed)
    layer = layers.BatchNorm(channels, eps=0.0)
    theta = {"scale": np.ones((1, channels)), "shift": np.zeros((1, channels))}
    x = rng.standard_normal((1, examples + 1, 5, channels))
    y, _ = layer.forward(theta, scale * x + shift)
    assert_close(
        y, layer.forward(theta, x)[0], 1e-10, "y"
    )  # shift/scale <= 1000 costs three digits of sixteen
    assert np.abs(y.mean(axis=(1, 2))).max() < 1e-11
    assert_close(y.var(axis=(1, 2)), np.ones((1, channels)), 1e-11, "variance of y")


@given(small, small, small, seeds)
def test_film_scales_and_shifts_each_channel_as_the_context_says_and_nothing_at_first(
    examples, channels, size, seed
):
    rng = np.random.default_rng(seed)
    layer, x = layers.FiLM(channels, size), rng.standard_normal((2, examples, 3, 2, channels))
    fresh = {key: value[None] for key, value in layer.init(rng).items()}
    assert_same(layer.forward(fresh, x)[0], x, "a fresh layer's y")
    theta = {key: rng.standard_normal((2, *shape)) for key, shape in layer.shapes.items()}
    want = np.empty_like(x)
    for task, channel in np.ndindex(2, channels):
        gamma, beta = (
            theta["context"][task] @ theta["weight"][task, :, place] + theta["bias"][task, place]
            for place in (channel, channels + channel)
        )
        want[task, ..., channel] = gamma * x[task, ..., channel] + beta
    assert_close(
        layer.forward(theta, x)[0], want, 1e-13, "y"
    )  # sums of at most 7 terms, which may cancel


@given(seeds)
def test_softplus_is_accurate_and_safe_for_any_size_of_input(seed):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.standard_normal(50) * 1e4, rng.standard_normal(50) * 10])[None, None]
    y, cache = layers.Softplus().forward({}, x)
    assert np.allclose(y, np.logaddexp(0, x), rtol=1e-14, atol=0)
    dx, _ = layers.Softplus().backward({}, cache, np.ones_like(x))
    with np.errstate(over="ignore"):
        assert np.allclose(
            dx, 1 / (1 + np.exp(-x)), rtol=1e-10, atol=1e-300
        )  # exp(x - y): |x| <= 5e4 costs five digits


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(),
        layers.Tanh(),
        layers.Softplus(),
        layers.MaxPool2D(),
        layers.BatchNorm(1),
        layers.FiLM(1, 2),
    ],
)
def test_a_nan_is_never_swallowed(layer):
    x = np.zeros((1, 1, 2, 2, 1))
    for place in np.ndindex(2, 2):
        poisoned = x.copy()
        poisoned[(0, 0, *place, 0)] = np.nan
        theta = {key: np.ones((1, *shape)) for key, shape in layer.shapes.items()}
        assert np.isnan(layer.forward(theta, poisoned)[0]).any()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(3, 2), (4,)),
        (layers.Dense(3, 2), (3, 3)),
        (layers.Conv2D(2, 3), (5, 5, 3)),
        (layers.Conv2D(2, 3), (5, 2)),
        (layers.BatchNorm(2), (5, 3)),
        (layers.MaxPool2D(), (4, 4)),
        (layers.FiLM(2, 4), (5, 4)),
        (layers.FiLM(2, 4), ()),
    ],
)
def test_a_wrong_shape_names_the_layer_what_it_expects_and_what_came(layer, shape):
    with pytest.raises(ShapeError) as caught:
        layer.output_shape(shape)
    assert type(layer).__name__ in str(caught.value) and str(shape) in str(caught.value)


def test_the_complex_step_is_exact_where_a_difference_is_not():
    x = np.array([0.7])
    assert complex_step(np.sin, (x,), (np.ones(1),)) == pytest.approx(np.cos(x), rel=1e-16)


class _Doubled(layers.Dense):
    """2 (x W + 1 b^T), which says nothing of data; a pass that it changes
    serves both."""

    def forward(self, theta, x):
        y, cache = super().forward(theta, x)
        return 2 * y, cache

    def backward(self, theta, cache, dy, on_data=False):
        return super().backward(theta, cache, 2 * dy)

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        y_dot, cache_dot = super().forward_tangent(theta, theta_dot, cache, x_dot)
        return 2 * y_dot, cache_dot

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=False):
        return super().backward_tangent(theta, theta_dot, cache, cache_dot, 2 * dy, 2 * dy_dot)


def test_a_layer_may_ignore_that_it_stands_on_data():
    check_layer(_Doubled(3, 2), (3,))


class _Above(layers.Layer):
    """y = 3 x, in passes that take no ``on_data``."""

    def forward(self, theta, x):
        return 3 * x, None

    def backward(self, theta, cache, dy):
        return 3 * dy, {}

    def forward_tangent(self, theta, theta_dot, cache, x_dot):
        return 3 * x_dot, None

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot):
        return 3 * dy_dot, {}


def test_a_layer_without_the_argument_works_anywhere_but_lowest_and_the_check_says_so():
    above = Network((3,), (layers.Dense(3, 2), _Above()))
    check_network(above)
    rng = np.random.default_rng(0)
    objective = Objective(above, MeanSquaredError())
    phi, (x, y) = objective.init(rng, np.float64), rng.standard_normal((2, 2, 4, 2))
    check_objective(objective, phi, (np.concatenate([x, x[..., :1]], axis=2), y))
    words = "takes no argument on_data: add on_data=False as the last one"
    with pytest.raises(CheckError, match=f"_Above.backward: {words}") as caught:
        check_layer(_Above(), (3,))
    assert "_Above.forward_tangent: takes no" in str(caught.value)
    with pytest.raises(
        CheckError, match=f"Network.backward: its lowest layer's _Above.backward {words}"
    ):
        check_network(Network((3,), (_Above(), layers.Dense(3, 2))))


@dataclass(frozen=True)
class _WrongOnData(layers.Dense):
    """A Dense layer whose ``wrong`` pass doubles its result with
    ``on_data``."""

    wrong: str = ""

    def _maybe(self, name, on_data, result):
        if self.wrong != name or not on_data:
            return result
        first, named = result
        if name == "forward_tangent":
            return 2 * first, named
        return first, {key: 2 * value for key, value in named.items()}

    def backward(self, theta, x, dy, on_data=False):
        return self._maybe("backward", on_data, super().backward(theta, x, dy, on_data))

    def forward_tangent(self, theta, theta_dot, x, x_dot, on_data=False):
        result = layers.Dense.forward_tangent(self, theta, theta_dot, x, x_dot, on_data)
        return self._maybe("forward_tangent", on_data, result)

    def backward_tangent(self, theta, theta_dot, x, x_dot, dy, dy_dot, on_data=False):
        whole = layers.Dense(self.inputs, self.outputs)
        result = whole.backward_tangent(theta, theta_dot, x, x_dot, dy, dy_dot, on_data)
        return self._maybe("backward_tangent", on_data, result)


@pytest.mark.parametrize("name", ["backward", "forward_tangent", "backward_tangent"])
def test_a_pass_that_is_wrong_on_data_alone_is_named(name):
    with pytest.raises(CheckError, match=rf"\.{name}: a result with on_data=True .* differs by"):
        check_layer(_WrongOnData(3, 2, wrong=name), (3,))


def test_max_pool_chooses_by_real_part_where_complex_numbers_tie():
    rng = np.random.default_rng(0)
    x, x_dot = (
        rng.integers(0, 2, (2, 3, 6, 5, 4)).astype(float),
        rng.standard_normal((2, 3, 6, 5, 4)),
    )
    pool = layers.MaxPool2D()
    _, cache = pool.forward({}, x)
    y_dot, _ = pool.forward_tangent({}, {}, cache, x_dot)
    assert np.allclose(
        np.imag(pool.forward({}, x + 1e-30j * x_dot)[0]) / 1e-30, y_dot, rtol=1e-15, atol=0
    )


CONCRETE = [
    kind
    for kind in (getattr(layers, name) for name in layers.__all__)
    if isinstance(kind, type) and not isabstract(kind)
]


@pytest.mark.parametrize("kind", CONCRETE, ids=lambda kind: kind.__name__)
def test_every_layer_is_drawn_and_checks_itself(kind):
    assert kind in {type(layer) for layer in LAYERS}
    drawing = settings(phases=[Phase.generate], database=None, max_examples=2000)
    # Raises where the strategy draws none of this kind.
    find(layers_with_shapes(), lambda drawn: type(drawn[0]) is kind, settings=drawing)
