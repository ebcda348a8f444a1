"""Layers that compute as one compute what they compute one by one."""

from inspect import isfunction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta import layers
from minimeta.arrays import threads
from minimeta.arrays.compiled import twins
from minimeta.layers.convnet import ConvNet
from minimeta.layers.joined import joined
from minimeta.layers.perceptron import Perceptron
from minimeta.layers.rectified_norm import RectifiedNorm
from minimeta.testing import assert_close, assert_same, check_layer, check_network
from minimeta.testing.comparing import TOLERANCE
from minimeta.testing.strategies import networks, seeds, small


@pytest.fixture
def compiled_kernels():
    """The twins, without which no layers are joined."""
    pytest.importorskip("numba")
    with twins(True):
        yield


sides = st.integers(1, 6)
images = st.tuples(sides, sides, st.integers(1, 9))


@pytest.mark.usefixtures("compiled_kernels")
@given(images, st.booleans(), small, small, st.booleans(), seeds)
def test_batch_norm_with_relu_passes_as_a_layer(shape, pooled, tasks, examples, shared, seed):
    layer = RectifiedNorm(shape[-1], pooled=pooled)
    check_layer(layer, shape, tasks=tasks, examples=examples, shared=shared, seed=seed)


@pytest.mark.usefixtures("compiled_kernels")
@given(small, small, small, st.booleans(), seeds)
def test_batch_norm_with_relu_takes_features(channels, tasks, examples, shared, seed):
    layer = RectifiedNorm(channels)
    check_layer(layer, (channels,), tasks=tasks, examples=examples, shared=shared, seed=seed)


@pytest.mark.usefixtures("compiled_kernels")
@pytest.mark.parametrize("layer", [layers.BatchNorm(3), RectifiedNorm(3)])
def test_a_derivative_of_one_value_is_of_rounding_and_no_finding(layer):
    for seed in range(20):
        check_layer(layer, (3,), tasks=1, examples=1, seed=seed)


@pytest.mark.usefixtures("either_kernels")
@given(networks(), st.booleans(), seeds)
def test_a_network_of_joined_layers_passes_as_one_layer(network, shared, seed):
    check_network(network, shared=shared, seed=seed)


def results_of(stack, thetas, thetas_dot, x, x_dot, dy, dy_dot):
    """The results of all passes through the layers ``stack``, in turn."""
    y, y_dot, caches = x, x_dot, []
    for layer, theta, theta_dot in zip(stack, thetas, thetas_dot, strict=True):
        y, cache = layer.forward(theta, y)
        y_dot, cache_dot = layer.forward_tangent(theta, theta_dot, cache, y_dot)
        caches.append((cache, cache_dot))
    named, dx, dx_dot = {"y": y, "y_dot": y_dot}, dy, dy_dot
    for i in reversed(range(len(stack))):
        given = thetas[i], thetas_dot[i], *caches[i], dx, dx_dot
        dx_dot, dtheta_dot = stack[i].backward_tangent(*given)
        dx, dtheta = stack[i].backward(thetas[i], caches[i][0], dx)
        for key in dtheta:
            named |= {f"d{key} of {i}": dtheta[key], f"d{key}_dot of {i}": dtheta_dot[key]}
    return named | {"dx": dx, "dx_dot": dx_dot}


@pytest.mark.usefixtures("compiled_kernels")
@given(images, st.booleans(), small, small, st.booleans(), seeds)
def test_batch_norm_with_relu_is_both_in_turn(shape, pooled, tasks, examples, shared, seed):
    rng, norm = np.random.default_rng(seed), layers.BatchNorm(shape[-1])
    theta, theta_dot = (
        {key: rng.standard_normal((1 if shared else tasks, *size)) for key, size in one.items()}
        for one in (norm.shapes, norm.shapes)
    )
    x, x_dot = rng.standard_normal((2, tasks, examples, *shape))
    stack = (norm, layers.MaxPool2D(), layers.ReLU()) if pooled else (norm, layers.ReLU())
    together = RectifiedNorm(shape[-1], pooled=pooled)
    dy, dy_dot = rng.standard_normal((2, tasks, examples, *together.output_shape(shape)))
    arrays, none = (x, x_dot, dy, dy_dot), ({},) * (len(stack) - 1)
    with twins(False):
        want = results_of(stack, (theta, *none), (theta_dot, *none), *arrays)
    with twins(True):
        got = results_of((together,), (theta,), (theta_dot,), *arrays)
    # A derivative that is zero, such as that of one value, is of rounding.
    floor = TOLERANCE * max(np.abs(each).max() for each in arrays)
    assert got.keys() == want.keys()
    for name in want:
        if np.abs(want[name]).max(initial=0) > floor:
            assert_close(got[name], want[name], TOLERANCE, name)
        else:
            assert np.abs(got[name]).max(initial=0) <= 2 * floor, name


def test_the_stages_of_the_papers_networks():
    def kinds(network):
        return [type(each).__name__ for each in joined(network.layers)]

    assert kinds(mm.mlp([1, 40, 40, 1])) == ["Perceptron"]
    assert kinds(mm.mlp([2, 3])) == ["Dense"]
    assert kinds(mm.mlp([1, 40, 1], "tanh")) == ["Dense", "Tanh", "Dense"]
    assert kinds(mm.omniglot_convnet(5)) == kinds(mm.mini_imagenet_convnet(5)) == ["ConvNet"]
    (stage,) = joined(mm.mini_imagenet_convnet(5).layers)
    assert len(stage.blocks) == 4 and all(norm.pooled for _, norm in stage.blocks)
    below = mm.omniglot_convnet(5).layers[:-1]
    assert [
        type(each).__name__ for each in joined((*below, layers.Dense(256, 4), layers.ReLU()))
    ] == ["ConvNet", "ReLU"]
    above = layers.Dense(256, 4), layers.ReLU(), layers.Dense(4, 2)
    assert [type(each).__name__ for each in joined((*below, *above))] == [
        "ConvNet",
        "Flatten",
        "Perceptron",
    ]
    apart = joined((layers.BatchNorm(2), layers.ReLU(), layers.BatchNorm(2), layers.MaxPool2D()))
    assert [type(each).__name__ for each in apart] == ["RectifiedNorm", "BatchNorm", "MaxPool2D"]


@st.composite
def convnets(draw):
    """One or two blocks, with a Dense layer above them or without."""
    shape = draw(images)
    layer = ConvNet((_block(draw, shape[-1]),))
    if draw(st.booleans()):
        outputs = layer.blocks[0][0].outputs
        layer = ConvNet((*layer.blocks, _block(draw, outputs)))
    if draw(st.booleans()):
        layer = ConvNet(layer.blocks, layers.Dense(int(np.prod(layer.output_shape(shape))), 2))
    return layer, shape


def _block(draw, inputs):
    outputs = draw(st.integers(1, 3))
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return layers.Conv2D(inputs, outputs, stride, kernel), RectifiedNorm(
        outputs, pooled=draw(st.booleans())
    )


def apart(layer):
    """The layers that a ConvNet stands for."""
    for each in layer.layers:
        if isinstance(each, RectifiedNorm):
            pool = (layers.MaxPool2D(),) if each.pooled else ()
            yield from (layers.BatchNorm(each.channels, each.eps), *pool, layers.ReLU())
        else:
            yield each


@pytest.mark.usefixtures("compiled_kernels")
@given(convnets(), small, small, st.booleans(), st.booleans(), seeds)
def test_a_convnet_is_its_layers_in_turn(given, tasks, examples, shared, on_data, seed):
    """To rounding, which a batch norm of few examples may multiply."""
    rng, (layer, shape) = np.random.default_rng(seed), given
    network = mm.Network(shape, tuple(apart(layer)))
    phi, phi_dot = rng.standard_normal((2, 1 if shared else tasks, network.size))
    x, x_dot = rng.standard_normal((2, tasks, examples, *shape))
    dy, dy_dot = rng.standard_normal((2, tasks, examples, *network.output_shape))
    x_dot = 0 * x_dot if on_data else x_dot
    results = []
    for on in (False, True):
        with twins(on):
            theta = network.theta(phi, x)
            y, caches = network.forward_cached(theta, x)
            given = theta, network.dot(theta, phi_dot), caches
            y_dot, dots = network.forward_tangent(*given, x_dot, on_data)
            dx, dphi, dys = network.backward(theta, caches, dy, on_data)
            dx_dot, dphi_dot = network.backward_tangent(*given, dots, dys, dy_dot, on_data)
            assert [type(each) for each in theta.stages] == [ConvNet] or not on
        results.append((y, y_dot, dphi, dphi_dot, *([] if on_data else [dx, dx_dot])))
    size = max(np.abs(each).max(initial=1) for each in results[0])
    for got, want in zip(*results, strict=True):
        assert got.shape == want.shape
        assert np.abs(got - want).max(initial=0) <= 1e-11 * size


@given(networks())
def test_stages_have_the_parameters_of_their_layers_in_order(network):
    assert sum(
        int(np.prod(shape)) for stage in joined(network.layers) for shape in stage.shapes.values()
    ) == (network.size)


class MyReLU(layers.ReLU):
    """A subclass may compute something else."""


class MyNorm(layers.BatchNorm):
    """As above."""


@pytest.mark.parametrize(
    "stack",
    [
        (layers.Dense(2, 2), MyReLU(), layers.Dense(2, 2)),
        (MyNorm(2), layers.ReLU()),
        (layers.BatchNorm(2), MyReLU()),
        (layers.ReLU(), layers.BatchNorm(2)),
        (layers.BatchNorm(2), layers.MaxPool2D(), MyReLU()),
        (layers.BatchNorm(2), layers.MaxPool2D()),
    ],
)
def test_other_layers_stay_as_they_are(stack):
    assert joined(stack) == stack


def answers(network, phi, batch, v):
    """Loss, gradient and Hessian times v, by name."""
    point = mm.Objective(network, mm.MeanSquaredError()).at(phi, batch)
    return {"loss": point.loss, "grad": point.grad, "hvp": point.hvp(v)}


def problem_of(network, tasks, seed, own=False):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tasks, 3, *network.input_shape))
    y = rng.standard_normal((tasks, 3, *network.output_shape))
    phi, v = rng.standard_normal((2, tasks, network.size)) / 2
    return (phi if own else phi[0]), (x, y), v


@given(networks(), st.booleans(), seeds)
def test_both_paths_give_the_same_loss_gradient_and_hessian_product(network, own, seed):
    """To rounding, which a batch norm of three examples may multiply by 1 /
    sqrt(eps)."""
    pytest.importorskip("numba")
    problem = problem_of(network, 2, seed, own)
    with twins(False):
        want = answers(network, *problem)
    with twins(True):
        got = answers(network, *problem)
    for name in want:
        assert_close(got[name], want[name], 32 * TOLERANCE, name)


@pytest.mark.usefixtures("either_kernels")
@given(networks(), st.booleans(), seeds)
def test_a_task_has_the_same_bits_alone_and_among_others(network, own, seed):
    phi, (x, y), v = problem_of(network, 3, seed, own)
    with threads.workers(1):
        among = answers(network, phi, (x, y), v)
        for t in range(3):
            one = slice(t, t + 1)
            alone = answers(network, phi[one] if own else phi, (x[one], y[one]), v[one])
            for name in among:
                assert_same(alone[name], among[name][one], name)


WIDTHS = st.lists(st.sampled_from([1, 2, 3, 8]), min_size=3, max_size=5).map(tuple)


def layers_of(widths):
    pairs = pairwise(widths)
    stack = [layer for n, m in pairs for layer in (layers.Dense(n, m), layers.ReLU())]
    return tuple(stack[:-1])


@given(
    WIDTHS,
    st.integers(1, 3),
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from([np.float32, np.float64, np.complex128]),
    st.sampled_from(["C", "F", "reversed"]),
    seeds,
)
def test_a_perceptron_is_its_layers_in_turn(widths, tasks, examples, shared, dtype, order, seed):
    """Also without an example, and from arrays in any layout.

    A sum of n terms has the rounding of n terms, and a layer sums at most eight
    products, or one of each example.
    """
    pytest.importorskip("numba")
    rng, layer = np.random.default_rng(seed), Perceptron(widths)

    def drawn(*shape):
        values = rng.standard_normal(shape).astype(dtype)
        if order == "F":
            return np.asfortranarray(values)
        return values if order == "C" else values[..., ::-1].copy()[..., ::-1]

    size = layer.shapes["phi"][0]
    phi, phi_dot = (drawn(1 if shared else tasks, size) for _ in range(2))
    x, x_dot = (drawn(tasks, examples, widths[0]) for _ in range(2))
    dy, dy_dot = (drawn(tasks, examples, widths[-1]) for _ in range(2))
    before = [each.copy() for each in (phi, phi_dot, x, x_dot, dy, dy_dot)]
    network = mm.Network((widths[0],), layers_of(widths))
    with twins(False):
        stack, *thetas = network.layers, network.unpack(phi), network.unpack(phi_dot)
        want = results_of(stack, *thetas, x, x_dot, dy, dy_dot)
    with twins(True):
        got = results_of((layer,), ({"phi": phi},), ({"phi": phi_dot},), x, x_dot, dy, dy_dot)
    for dot in ("", "_dot"):
        parts = [
            want.pop(f"d{key}{dot} of {i}").reshape(tasks, -1)
            for i, each in enumerate(stack)
            for key in each.shapes
        ]
        want[f"dphi{dot} of 0"] = np.concatenate(parts, axis=1)
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].dtype == dtype and got[name].shape == want[name].shape
        scale = max(1, np.abs(want[name]).max(initial=0))
        assert np.abs(got[name] - want[name]).max(initial=0) <= 1e3 * np.finfo(dtype).eps * scale
    for each, copy in zip((phi, phi_dot, x, x_dot, dy, dy_dot), before, strict=True):
        assert_same(each, copy, "an input after the passes")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Perceptron((2, 3, 1)), (2,)),
        (ConvNet(((layers.Conv2D(1, 2), RectifiedNorm(2)),), layers.Dense(12, 2)), (3, 2, 1)),
    ],
)
def test_joined_layers_take_the_gradient_that_they_are_given(layer, shape):
    """Their caches keep what backward made of another gradient."""
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    phi, phi_dot = ({"phi": rng.standard_normal((1, *layer.shapes["phi"]))} for _ in range(2))
    x, x_dot = rng.standard_normal((2, 2, 4, *shape))
    dy, other, dy_dot = rng.standard_normal((3, 2, 4, *layer.output_shape(shape)))
    results = []
    for first in (None, dy, other):
        _, cache = layer.forward(phi, x)
        _, cache_dot = layer.forward_tangent(phi, phi_dot, cache, x_dot)
        if first is not None:
            layer.backward(phi, cache, first)
        results.append(layer.backward_tangent(phi, phi_dot, cache, cache_dot, dy, dy_dot))
    for dx_dot, dphi_dot in results[1:]:
        assert_same(dx_dot, results[0][0], "dx_dot")
        assert_same(dphi_dot["phi"], results[0][1]["phi"], "dphi_dot")


def test_nan_goes_through_a_perceptron_as_through_its_layers():
    pytest.importorskip("numba")
    network, rng = mm.mlp([2, 3, 3, 1]), np.random.default_rng(0)
    phi, x = network.init(rng, np.float64), rng.standard_normal((2, 4, 2))
    x[1, 2, 0] = np.nan
    outputs = []
    for on in (False, True):
        with twins(on):
            outputs.append(network.forward(phi, x))
    assert np.array_equal(np.isnan(outputs[0]), np.isnan(outputs[1]))
    assert np.isnan(outputs[1][1, 2]).all()


@pytest.mark.parametrize("name", ["host_perceptron", "host_norm", "host_convnet"])
def test_every_pass_of_joined_layers_is_one_function(name):
    module = pytest.importorskip(f"minimeta.arrays.{name}")
    public = {
        name
        for name, each in vars(module).items()
        if isfunction(each) and each.__module__ == module.__name__ and name[0] != "_"
    }
    assert public == {"forward", "backward", "forward_tangent", "backward_tangent"}
