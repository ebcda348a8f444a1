"""JAX as a worker of benchmarks/speed.py.

A whole step is in one jit, with a donated state and parameters as a tree. A
variant is a list of choices; the fastest choice depends on the work:

vmap | map          tasks side by side, or one after another (lax.scan over
tasks,
                    gradients added up)
scan | unroll       inner steps in a lax.scan, or written out
conv | im2col       XLA's convolution, which vmap over weights turns into a
                    grouped one; or slices and a matrix product
window | slices     max pooling by lax.reduce_window, or as the maximum of
                    strided slices
threads             as many threads as cores share the tasks, each with its own
                    compiled program
single              an operation uses one thread
checkpoint          (memory only) jax.checkpoint on the inner step
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise, product
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np
import timing
from jax import lax
from timing import Arrays, Program, Settings

Tree = Any
THREADS = len(os.sched_getaffinity(0))


def main() -> None:
    timing.serve(build, ("jax", "jaxlib"))


def build(settings: Settings, arrays: Arrays, variant: str) -> Program:
    if "single" in variant.split(","):  # read where JAX first computes
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    jax.config.update("jax_enable_x64", arrays["phi"].dtype == np.float64)
    work = Work(settings, arrays, set(variant.split(",")))
    return getattr(work, settings["kind"])()


class Work:
    """A case, its network and its inner loop."""

    def __init__(self, settings: Settings, arrays: Arrays, options: set[str]) -> None:
        self.settings, self.arrays, self.options = settings, arrays, options
        self.rule, self.layers = settings["rule"], settings["network"]["layers"]
        self.pool = ThreadPoolExecutor(THREADS) if "threads" in options else None
        # A scan over tasks needs tasks as the first axis; a scan over inner
        # steps under vmap needs them as the second.
        self.axis = 0 if "map" in options else 1
        batches = [(arrays[f"x_{i + 1}"], arrays[f"y_{i + 1}"]) for i in range(settings["k"])]
        split = settings["k"] - (settings["kind"] != "reptile" and settings["k"] > 1)
        self.support = tuple(
            jnp.asarray(np.stack(each, axis=1 - self.axis))
            for each in zip(*batches[:split], strict=True)
        )
        self.query = tuple(map(jnp.asarray, batches[-1]))

    def theta(self, phi: np.ndarray) -> Tree:
        """A fresh tree of parameters."""
        return [
            {name: jnp.array(value) for name, value in named.items()}
            for named in common.parameters(self.settings, phi)
        ]

    def flat(self, tree: Tree) -> np.ndarray:
        """The parameters as phi, ``(D,)``, or of a stack, ``(T, D)``."""
        names = [[each["name"] for each in layer["parameters"]] for layer in self.layers]
        parts = [np.asarray(tree[i][name]) for i, of_layer in enumerate(names) for name in of_layer]
        return np.concatenate([part.ravel() for part in parts])

    # The network.

    def predict(self, theta: Tree, x: jax.Array) -> jax.Array:
        for layer, own in zip(self.layers, theta, strict=True):
            x = self.apply(layer, own, x)
        return x

    def apply(self, layer: dict[str, Any], own: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        match layer["type"]:
            case "Dense":
                return x @ own["weight"] + own["bias"]
            case "Conv2D":
                conv = im2col if "im2col" in self.options else convolve
                return conv(x, own["weight"], layer["stride"]) + own["bias"]
            case "BatchNorm":
                mean = x.mean((0, 1, 2))
                centred = x - mean
                return (
                    centred
                    * (own["scale"] * lax.rsqrt((centred**2).mean((0, 1, 2)) + layer["eps"]))
                    + own["shift"]
                )
            case "MaxPool2D":
                return pool_slices(x) if "slices" in self.options else pool_window(x)
            case "ReLU":
                return jax.nn.relu(x)
            case "Flatten":
                return x.reshape(len(x), -1)
        raise NotImplementedError(layer["type"])

    def loss(self, theta: Tree, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        z, y = self.predict(theta, batch[0]), batch[1]
        if self.settings["loss"] == "MeanSquaredError":
            return jnp.mean((z - y) ** 2)
        return -jnp.mean(
            jnp.sum(jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype) * jax.nn.log_softmax(z), axis=-1)
        )

    # The inner loop.

    def descend(self, theta: Tree, batches: Tree) -> tuple[Tree, jax.Array]:
        """One task's final parameters, and the loss before the last step."""
        step = jax.checkpoint(self.inner_step) if "checkpoint" in self.options else self.inner_step
        carry = self.fresh(theta)
        if "unroll" in self.options:
            for i in range(len(batches[0])):
                carry, loss = step(carry, jax.tree.map(lambda each, i=i: each[i], batches))
            return carry[0], loss
        carry, losses = lax.scan(step, carry, batches)
        return carry[0], losses[-1]

    def fresh(self, theta: Tree) -> Tree:
        if self.rule["type"] == "SGD":
            return (theta,)
        return theta, jax.tree.map(jnp.zeros_like, theta), jnp.ones((), theta[-1]["bias"].dtype)

    def inner_step(self, carry: Tree, batch: Tree) -> tuple[Tree, jax.Array]:
        loss, g = jax.value_and_grad(self.loss)(carry[0], batch)
        rule = self.rule
        if rule["type"] == "SGD":
            return (jax.tree.map(lambda p, g: p - rule["lr"] * g, carry[0], g),), loss
        theta, v, decayed = carry  # every case has beta1 = 0: the first moment is the gradient
        decayed = decayed * rule["beta2"]
        v = jax.tree.map(lambda v, g: rule["beta2"] * v + (1 - rule["beta2"]) * g * g, v, g)
        correction = 1 / (1 - decayed)

        def move(p, g, v):
            return p - rule["lr"] * g / (jnp.sqrt(v * correction) + rule["eps"])

        return (jax.tree.map(move, theta, g, v), v, decayed), loss

    # The cases.

    def reptile(self) -> Program:
        epsilon = self.settings["outer"]["lr"]

        def adapted(theta: Tree, support: Tree, query: Tree) -> tuple[Tree, jax.Array]:
            return self.descend(theta, support)

        def move(state: Tree, mean: Tree) -> Tree:
            return (jax.tree.map(lambda p, mean: p + epsilon * (mean - p), state[0], mean),)

        return Program(
            lambda: ((self.theta(self.arrays["phi"]),), None),
            self.meta_step(partial(self.total, adapted), move),
            lambda state: {"phi": self.flat(state[0][0]), "loss": self.joined(state[1])},
            jax.block_until_ready,
        )

    def final_loss(self, theta: Tree, support: Tree, query: Tree) -> jax.Array:
        return self.loss(self.descend(theta, support)[0], query)

    def gradients(self, theta: Tree, support: Tree, query: Tree) -> tuple[Tree, jax.Array]:
        """The sum over tasks of their gradients, and their losses."""
        if self.axis == 1:

            def total_loss(theta):
                losses = jax.vmap(self.final_loss, (None, 1, 0))(theta, support, query)
                return losses.sum(), losses

            return jax.grad(total_loss, has_aux=True)(theta)

        def of_task(theta, support, query):
            loss, g = jax.value_and_grad(self.final_loss)(theta, support, query)
            return g, loss

        return self.total(of_task, theta, support, query)

    def maml(self) -> Program:
        outer = self.settings["outer"]

        def update(state: Tree, g: Tree) -> Tree:
            theta, m, v, t = state
            t = t + 1
            m = jax.tree.map(lambda m, g: outer["beta1"] * m + (1 - outer["beta1"]) * g, m, g)
            v = jax.tree.map(lambda v, g: outer["beta2"] * v + (1 - outer["beta2"]) * g * g, v, g)
            c1, c2 = 1 / (1 - outer["beta1"] ** t), 1 / (1 - outer["beta2"] ** t)

            def move(p, m, v):
                return p - outer["lr"] * (m * c1) / (jnp.sqrt(v * c2) + outer["eps"])

            return jax.tree.map(move, theta, m, v), m, v, t

        def start():
            theta = self.theta(self.arrays["phi"])
            zeros = [jax.tree.map(jnp.zeros_like, theta) for _ in range(2)]
            return (theta, *zeros, jnp.zeros((), self.arrays["phi"].dtype)), None

        def results(state):
            (theta, m, _, _), losses = state
            return {
                "phi": self.flat(theta),
                "loss": self.joined(losses),
                "direction": self.flat(m) / (1 - outer["beta1"]),
            }

        return Program(
            start, self.meta_step(self.gradients, update), results, jax.block_until_ready
        )

    def total(self, of_task, theta: Tree, support: Tree, query: Tree) -> tuple[Tree, jax.Array]:
        """The sum over tasks of the trees that ``of_task`` returns, and what it
        returns beside them."""
        if self.axis == 1:
            trees, losses = jax.vmap(of_task, (None, 1, 0))(theta, support, query)
            return jax.tree.map(lambda each: each.sum(0), trees), losses

        def add(total, of_one):
            tree, loss = of_task(theta, *of_one)
            return jax.tree.map(jnp.add, total, tree), loss

        return lax.scan(add, jax.tree.map(jnp.zeros_like, theta), (support, query))

    def meta_step(self, total, update) -> Callable[[Tree], Tree]:
        """A step of the state ``(theta, ...)``.

        ``total(theta, support, query)`` returns a sum over tasks, and their
        losses. ``update(state, mean)`` returns the next state.
        """
        tasks = self.settings["tasks"]

        def updated(state: Tree, *totals: Tree) -> Tree:
            return update(state, jax.tree.map(lambda *each: sum(each) / tasks, *totals))

        if self.pool is None:

            @partial(jax.jit, donate_argnums=0)
            def whole(state: Tree, support: Tree, query: Tree) -> tuple[Tree, jax.Array]:
                found, losses = total(state[0], support, query)
                return updated(state, found), losses

            return lambda state: whole(state[0], self.support, self.query)

        updated = jax.jit(updated, donate_argnums=0)
        run = self.on_shares(total)

        def step(state: tuple[Tree, Any]) -> tuple[Tree, Any]:
            totals, losses = zip(*run(state[0][0]), strict=True)
            return updated(state[0], *totals), losses

        return step

    def on_shares(self, function) -> Callable[[Tree], list[Any]]:
        """``function(theta, support, query)`` of each thread's tasks, by all
        threads at once."""
        edges = [self.settings["tasks"] * i // THREADS for i in range(THREADS + 1)]
        shares = [
            jax.tree.map(
                lambda each, i=i, j=j: each[:, i:j] if self.axis else each[i:j], self.support
            )
            for i, j in pairwise(edges)
        ]
        queries = [
            jax.tree.map(lambda each, i=i, j=j: each[i:j], self.query) for i, j in pairwise(edges)
        ]
        theta = self.theta(self.arrays["phi"])
        compiled = [
            (jax.jit(function).lower(theta, *data).compile(), data)
            for data in zip(shares, queries, strict=True)
        ]

        def run(theta: Tree) -> list[Any]:
            def one(share):
                program, data = share
                return jax.block_until_ready(program(theta, *data))

            return list(self.pool.map(one, compiled))

        return run

    def joined(self, losses: Any) -> np.ndarray:
        """``(T,)`` or ``(T, ...)``, from one array or one of each thread."""
        return np.concatenate(losses) if isinstance(losses, tuple | list) else np.asarray(losses)

    def evaluation(self) -> Program:
        def predictions(theta, support, query):
            def of_task(support, query):
                return self.predict(self.descend(theta, support)[0], query[0])

            if self.axis == 1:
                return jax.vmap(of_task, (1, 0))(support, query)
            return lax.map(lambda each: of_task(*each), (support, query))

        if self.pool is None:
            return self.computing(predictions, "prediction", np.asarray, self.support, self.query)
        theta, run = self.theta(self.arrays["phi"]), self.on_shares(predictions)
        return Program(
            lambda: None,
            lambda state: run(theta),
            lambda state: {"prediction": self.joined(state)},
            jax.block_until_ready,
        )

    def hvp(self) -> Program:
        batch = tuple(each[0] for each in self.query)
        v = self.theta(self.arrays["v"][0])

        def product(theta, batch, v):
            return jax.jvp(lambda theta: jax.grad(self.loss)(theta, batch), (theta,), (v,))[1]

        return self.computing(product, "hvp", self.row, batch, v)

    def memory(self) -> Program:
        def gradient(theta, support, query):
            return jax.grad(self.final_loss)(theta, support, query)

        support, query = (
            jax.tree.map(lambda each: each[0], part) for part in (self.support, self.query)
        )
        return self.computing(gradient, "maml", self.row, support, query)

    def row(self, tree: Tree) -> np.ndarray:
        return self.flat(tree)[None]

    def computing(self, function, name, read, *arguments) -> Program:
        """A program whose steps all call the compiled ``function``."""
        theta = self.theta(self.arrays["phi"])
        compiled = jax.jit(function).lower(theta, *arguments).compile()
        return Program(
            lambda: None,
            lambda state: compiled(theta, *arguments),
            lambda state: {name: read(state)},
            jax.block_until_ready,
        )


def convolve(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, weight, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def im2col(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """A convolution as a matrix product, which vmap turns into a batch."""
    kernel, _, inputs, outputs = weight.shape
    n, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), around(height, kernel, stride), around(width, kernel, stride), (0, 0)))
    high, wide = -(-height // stride), -(-width // stride)
    taps = [
        x[:, i : i + (high - 1) * stride + 1 : stride, j : j + (wide - 1) * stride + 1 : stride]
        for i, j in product(range(kernel), repeat=2)
    ]
    patches = jnp.concatenate(taps, axis=-1).reshape(-1, kernel * kernel * inputs)
    return (patches @ weight.reshape(-1, outputs)).reshape(n, high, wide, outputs)


def around(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pool_window(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")


def pool_slices(x: jax.Array) -> jax.Array:
    """Max pooling; reduce_window has a slow gradient, select-and-scatter."""
    x = jnp.pad(
        x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)), constant_values=-jnp.inf
    )
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


if __name__ == "__main__":
    main()
