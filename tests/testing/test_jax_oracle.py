"""The second oracle, JAX in float64.

Networks are written from the description of phi alone. Derivatives are by
autodiff.
"""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest

import minimeta as mm
from minimeta.inner import adapt
from minimeta.testing import assert_close

jax = pytest.importorskip("jax", reason="the second oracle needs JAX: pip install jax")
from jax import lax  # noqa: E402
from jax import numpy as jnp  # noqa: E402

jax.config.update("jax_enable_x64", True)
TOLERANCE = 1e-10


def _reader(phi):
    """A function that takes the next parameter of a given shape off phi."""
    position = 0

    def take(*shape):
        nonlocal position
        start, position = position, position + int(np.prod(shape))
        return phi[start:position].reshape(shape)

    return take


def _mlp(sizes, activation):
    """Predictions of one task from (phi, x)."""

    def forward(phi, x):
        take = _reader(phi)
        for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
            x = (activation(x) if layer else x) @ take(inputs, outputs) + take(outputs)
        return x

    return forward


def _convnet(channels, filters, ways, stride, pool):
    """Predictions of one task from (phi, x): four blocks, and a dense layer."""

    def forward(phi, x):
        take = _reader(phi)
        for inputs in (channels, filters, filters, filters):
            weight, bias, scale, shift = (
                take(3, 3, inputs, filters),
                take(filters),
                take(filters),
                take(filters),
            )
            x = lax.conv_general_dilated(
                x, weight, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = x + bias
            x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 0.001) * scale + shift
            if pool:
                x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
            x = jax.nn.relu(x)
        x = x.reshape(len(x), -1)
        return x @ take(x.shape[1], ways) + take(ways)

    return forward


def _mean_squared_error(z, y):
    return jnp.mean((z - y) ** 2)


def _cross_entropy(z, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1))


def _sgd(rule, phi, g, state, step):
    return phi - rule.lr * g, state


def _adam(rule, phi, g, state, step):
    """sqrt where v > 0 only: autodiff through sqrt(0) is not a number."""
    m, v = state
    m, v = rule.beta1 * m + (1 - rule.beta1) * g, rule.beta2 * v + (1 - rule.beta2) * g**2
    root = jnp.where(v > 0, jnp.sqrt(jnp.where(v > 0, v, 1) / (1 - rule.beta2**step)), 0)
    return phi - rule.lr * (m / (1 - rule.beta1**step)) / (root + rule.eps), (m, v)


def _iterates(loss, rule, phi, batches):
    """phi_1 .. phi_{k+1} of one task."""
    update, state, iterates = (
        _adam if isinstance(rule, mm.Adam) else _sgd,
        (jnp.zeros_like(phi),) * 2,
        [phi],
    )
    for step, batch in enumerate(batches, start=1):
        phi, state = update(rule, phi, jax.grad(loss)(phi, batch), state, step)
        iterates.append(phi)
    return iterates


def _expected(forward, loss_of, rule, phi, v, batches):
    """Everything for one task, by autodiff."""

    def loss(phi, batch):
        return loss_of(forward(phi, batch[0]), batch[1])

    def after_adaptation(phi):
        return loss(_iterates(loss, rule, phi, batches[:-1])[-1], batches[-1])

    def gradient(phi):
        return jax.grad(loss)(phi, batches[0])

    iterates = _iterates(loss, rule, phi, batches)
    return {
        "loss": loss(phi, batches[0]),
        "grad": gradient(phi),
        "hvp": jax.jvp(gradient, (phi,), (v,))[1],
        "MAML": jax.grad(after_adaptation)(phi),
        "FOMAML": jax.grad(loss)(iterates[-2], batches[-1]),
        "Reptile": phi - iterates[-1],
        "last loss": after_adaptation(phi),
        "adapted": iterates[-1],
    }


def _found(objective, rule, phi, v, batches):
    point = objective.at(phi, batches[0])
    maml, loss, *_ = mm.MAML(rule).direction(objective, phi, batches)
    return {
        "loss": point.loss,
        "grad": point.grad,
        "hvp": point.hvp(v),
        "MAML": maml,
        "FOMAML": mm.FOMAML(rule).direction(objective, phi, batches)[0],
        "Reptile": mm.Reptile(rule).direction(objective, phi, batches)[0],
        "last loss": loss,
        "adapted": adapt(objective, phi, batches, rule),
    }


def _agree(network, forward, classify, rule, sizes, tasks):
    """Compare all quantities on k random mini-batches of ``sizes``.

    phi is moved away from its zero biases.
    """
    rng = np.random.default_rng(0)
    phi = network.init(rng, np.float64)
    phi += 0.1 * rng.standard_normal(phi.shape)
    v = rng.standard_normal((tasks, phi.size))
    outputs = network.output_shape[0]
    x = [rng.standard_normal((tasks, n, *network.input_shape)) for n in sizes]
    y = [
        rng.integers(0, outputs, (tasks, n))
        if classify
        else rng.standard_normal((tasks, n, outputs))
        for n in sizes
    ]
    loss, jax_loss = (
        (mm.SoftmaxCrossEntropy(), _cross_entropy)
        if classify
        else (mm.MeanSquaredError(), _mean_squared_error)
    )
    # Not under jax.jit: operations compiled one by one serve all tests, whole
    # unrolled loops only one each.
    of_a_task = partial(_expected, forward, jax_loss, rule)
    wanted = [
        of_a_task(jnp.asarray(phi), v[t], [(x_i[t], y_i[t]) for x_i, y_i in zip(x, y, strict=True)])
        for t in range(tasks)
    ]
    got = _found(mm.Objective(network, loss), rule, phi, v, mm.Minibatches(x, y))
    for name, value in got.items():
        want = np.stack([each[name] for each in wanted])
        assert want.dtype == np.float64
        assert_close(value, want, TOLERANCE, name)


# With eps = 1e-8 the rounding error of gradients that are zero in exact
# arithmetic would be seen: see strategies.py.
RULES = {
    "sgd": mm.SGD(0.05),
    "adam": mm.Adam(0.01, eps=1e-3),
    "adam-momentum": mm.Adam(0.01, beta1=0.9, eps=1e-3),
}
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "softplus": jax.nn.softplus}


@rules
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("classify", [False, True], ids=["mse", "cross-entropy"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp(activation, classify, k, rule):
    sizes = [2, 7, 6, 3]
    forward = _mlp(sizes, ACTIVATIONS[activation])
    _agree(mm.mlp(sizes, activation), forward, classify, rule, [4] * (k - 1) + [6], tasks=3)


def test_mlp_through_adam_with_its_usual_eps():
    _agree(
        mm.mlp([2, 7, 3], "tanh"),
        _mlp([2, 7, 3], jnp.tanh),
        False,
        mm.Adam(0.01),
        [4, 4, 4],
        tasks=3,
    )


@rules
@pytest.mark.parametrize("k", [1, 2, 5])
def test_omniglot_convnet_with_few_filters(k, rule):
    _agree(
        mm.omniglot_convnet(5, 4),
        _convnet(1, 4, 5, 2, False),
        True,
        rule,
        [5] * (k - 1) + [7],
        tasks=2,
    )


@rules
@pytest.mark.parametrize("k", [1, 2, 5])
def test_mini_imagenet_convnet_with_few_filters(k, rule):
    _agree(
        mm.mini_imagenet_convnet(3, 4),
        _convnet(3, 4, 3, 1, True),
        True,
        rule,
        [3] * (k - 1) + [4],
        tasks=2,
    )


@rules
def test_omniglot_convnet_at_full_size(rule):
    _agree(mm.omniglot_convnet(5), _convnet(1, 64, 5, 2, False), True, rule, [5, 5, 5], tasks=2)


@rules
def test_mini_imagenet_convnet_at_full_size(rule):
    _agree(mm.mini_imagenet_convnet(5), _convnet(3, 32, 5, 1, True), True, rule, [5, 5, 5], tasks=1)
