"""Networks: one flat vector, views of the vector, and errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta import layers
from minimeta.testing import check_network
from minimeta.testing.strategies import networks, seeds


@given(networks(), seeds)
def test_unpack_gives_views_in_the_documented_order(network, seed):
    phi = np.random.default_rng(seed).standard_normal((2, network.size))
    flat = [
        theta[name].reshape(2, -1)
        for layer, theta in zip(network.layers, network.unpack(phi), strict=True)
        for name in layer.shapes
    ]
    assert np.array_equal(np.concatenate(flat, axis=1), phi)
    for theta in network.unpack(phi):
        assert all(np.shares_memory(value, phi) for value in theta.values())


@given(networks(), seeds)
def test_init_draws_the_same_on_every_dtype_and_only_from_its_generator(network, seed):
    draw = lambda dtype: network.init(np.random.default_rng(seed), dtype)  # noqa: E731
    assert draw(np.float64).shape == (network.size,)
    assert np.array_equal(draw(np.float64).astype(np.float32), draw(np.float32))


@given(networks(), st.booleans(), seeds)
def test_a_network_passes_as_one_layer(network, shared, seed):
    check_network(network, shared=shared, seed=seed)


def test_weights_start_glorot_uniform_biases_at_zero_scales_at_one():
    network = mm.omniglot_convnet(5)
    theta = network.unpack(network.init(np.random.default_rng(0), np.float64))
    weight = theta[3]["weight"]  # 3x3, 64 to 64: bound sqrt(6 / (9 * 128))
    bound = (6 / (9 * 128)) ** 0.5
    assert np.abs(weight).max() <= bound
    # A uniform variable's variance is bound^2 / 3; its sample's relative error
    # is about 1 / sqrt(n).
    assert weight.var() == pytest.approx(bound**2 / 3, rel=5 / weight.size**0.5)
    assert (
        not theta[3]["bias"].any()
        and (theta[4]["scale"] == 1).all()
        and not theta[4]["shift"].any()
    )


@pytest.mark.parametrize("stack", [(), (layers.Tanh(),)], ids=["no layers", "no parameters"])
def test_a_network_without_parameters_has_empty_gradients(stack):
    point = mm.Objective(mm.Network((3,), stack), mm.MeanSquaredError()).at(
        np.empty(0), (np.ones((2, 4, 3)),) * 2
    )
    assert point.grad.shape == point.hvp(np.empty(0)).shape == (2, 0)


def test_the_presets_have_the_papers_sizes():
    conv = lambda i, o: 9 * i * o + o + 2 * o  # noqa: E731
    assert mm.omniglot_convnet(5).size == conv(1, 64) + 3 * conv(64, 64) + 256 * 5 + 5
    assert mm.mini_imagenet_convnet(5).size == conv(3, 32) + 3 * conv(32, 32) + 1152 * 5 + 5
    film = 100 + 100 * 2 * 64 + 2 * 64
    assert mm.omniglot_convnet(5, context=100).size == mm.omniglot_convnet(5).size + film
    assert mm.mlp([1, 40, 40, 1]).size == 40 + 40 + 1600 + 40 + 40 + 1


def test_a_network_that_does_not_fit_together_names_the_layer():
    with pytest.raises(
        mm.ShapeError, match=r"layer 1: Dense\(inputs=4, outputs=1\) expects .*\(4,\).* got \(3,\)"
    ):
        mm.Network((2,), (layers.Dense(2, 3), layers.Dense(4, 1)))


def test_wrong_phi_and_x_are_refused():
    network = mm.mlp([2, 3, 1])
    phi = np.zeros(network.size)
    with pytest.raises(mm.ShapeError, match=r"phi must have shape \(13,\)"):
        network.forward(phi[:-1], np.zeros((1, 1, 2)))
    with pytest.raises(
        mm.ShapeError, match=r"x must have shape \(tasks, examples, 2\), got \(1, 1, 3\)"
    ):
        network.forward(phi, np.zeros((1, 1, 3)))
    objective = mm.Objective(network, mm.MeanSquaredError())
    with pytest.raises(mm.ShapeError, match="equally many tasks: phi .* holds 2, x .* holds 3"):
        network.forward(np.zeros((2, 13)), np.zeros((3, 1, 2)))
    batch = np.zeros((3, 1, 2)), np.zeros((3, 1, 1))
    with pytest.raises(
        mm.ShapeError,
        match=r"phi must have shape \(13,\) or, for the 3 tasks of x, \(3, 13\), got \(2, 13\)",
    ):
        objective.at(np.zeros((2, 13)), batch)
    with pytest.raises(mm.ShapeError, match=r"v must have shape \(13,\) or"):
        objective.at(phi, batch).hvp(phi[:-1])
    with pytest.raises(mm.ShapeError, match="stride"):
        layers.Conv2D(1, 1, stride=0)
    with pytest.raises(mm.SettingsError, match="at least two sizes"):
        mm.mlp([3])
    with pytest.raises(mm.SettingsError, match="activation"):
        mm.mlp([1, 2], activation="swish")


@given(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3)), st.integers(1, 4))
def test_a_convnet_takes_images_of_any_size(shape, ways):
    """Four strides of 2 leave ceil(side / 16) pixels of each side."""
    network = mm.convnet(shape, ways, filters=2)
    assert (network.input_shape, network.output_shape) == (shape, (ways,))
    x = np.random.default_rng(0).random((1, 2, *shape))
    assert network.forward(network.init(np.random.default_rng(1), np.float64), x).shape == (
        1,
        2,
        ways,
    )
    assert mm.convnet((28, 28, 1), ways, 4) == mm.omniglot_convnet(ways, 4)
