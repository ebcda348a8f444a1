"""JAX: jax.grad, jax.jvp and jax.vmap; inner steps by JAX's own optimizers."""

from __future__ import annotations

import common
import jax
import jax.numpy as jnp
from jax import lax
from jax.example_libraries import optimizers

jax.config.update("jax_enable_x64", True)


def predict(problem, phi, x):
    """The network of one task."""
    for layer, theta in zip(
        problem["network"]["layers"], common.parameters(problem, phi), strict=True
    ):
        x = LAYERS[layer["type"]](layer, theta, x)
    return x


def conv(layer, theta, x):
    strides = (layer["stride"],) * 2
    y = lax.conv_general_dilated(
        x, theta["weight"], strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + theta["bias"]


def batch_norm(layer, theta, x):
    axes = tuple(range(x.ndim - 1))
    normal = (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + layer["eps"])
    return normal * theta["scale"] + theta["shift"]


LAYERS = {
    "Dense": lambda layer, theta, x: x @ theta["weight"] + theta["bias"],
    "Conv2D": conv,
    "BatchNorm": batch_norm,
    "MaxPool2D": lambda layer, theta, x: lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME"
    ),
    "ReLU": lambda layer, theta, x: jax.nn.relu(x),
    "Tanh": lambda layer, theta, x: jnp.tanh(x),
    "Softplus": lambda layer, theta, x: jax.nn.softplus(x),
    "Flatten": lambda layer, theta, x: x.reshape(len(x), -1),
}


def loss_of(problem, phi, batch):
    prediction, y = predict(problem, phi, batch[0]), batch[1]
    if problem["loss"] == "MeanSquaredError":
        return jnp.mean((prediction - y) ** 2)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(prediction), y[:, None], axis=1))


def optimizer(rule):
    if rule["type"] == "SGD":
        return optimizers.sgd(rule["lr"])
    return optimizers.adam(rule["lr"], rule["beta1"], rule["beta2"], rule["eps"])


def of_a_task(problem, phi, v, batches):
    """All results of one task, each by its definition."""

    def loss(phi, batch):
        return loss_of(problem, phi, batch)

    def descend(phi, batches):
        start, update, current = optimizer(problem["rule"])
        state = start(phi)
        for step, batch in enumerate(batches):
            state = update(step, jax.grad(loss)(current(state), batch), state)
        return current(state)

    def final_loss(phi):
        return loss(descend(phi, batches[:-1]), batches[-1])

    adapted = descend(phi, batches)
    first = jax.grad(lambda phi: loss(phi, batches[0]))
    return {
        "loss": loss(phi, batches[0]),
        "grad": first(phi),
        "hvp": jax.jvp(first, (phi,), (v,))[1],
        "adapted": adapted,
        "final_loss": final_loss(phi),
        "reptile": phi - adapted,
        "fomaml": jax.grad(loss)(descend(phi, batches[:-1]), batches[-1]),
        "maml": jax.grad(final_loss)(phi),
    }


def solve(problem, arrays):
    batches = common.minibatches(problem, arrays, jnp.asarray)
    # No jax.jit: it takes minutes to compile an unrolled problem that runs
    # once.
    each_task = jax.vmap(
        lambda v, batches: of_a_task(problem, jnp.asarray(arrays["phi"]), v, batches)
    )
    return each_task(jnp.asarray(arrays["v"]), batches)


if __name__ == "__main__":
    common.main(solve, ("jax", "jaxlib"))
