"""The time that the matrix products of a case would take at the machine's peak.

The products of a network are those of its dense layers and of its convolutions,
as products over patches. Let M be their multiply-adds in a forward pass of one
example, and M_1 those of the lowest layer with products. Per example:

    forward                   M            x W
    gradient                  3 M - M_1    forward; dx = dy W^T, which the
                                           lowest layer does not need;
                                           dW = x^T dy
    Hessian-vector product    6 M - 4 M_1  at a known gradient:
                                           x W_dot + x_dot W,
                                           dy_dot W^T + dy W_dot^T,
                                           x^T dy_dot + x_dot^T dy.
                                           The lowest layer has x_dot = 0 and
                                           needs no dx_dot: x W_dot, x^T dy_dot

A step of a case takes, for each of its tasks, with n_j the examples of
mini-batch j of k:

    reptile      the gradient on all n_1 + ... + n_k
    maml         the same, and the Hessian-vector product on all but n_k
    evaluation   the gradient on all but n_k, and forward on n_k
    hvp          the gradient and the Hessian-vector product on n_1

The floor of a case is 2 multiply-adds / (peak * cores). ``peak`` is the speed
of one large float32 product on one core, and ``cores`` the number of threads
that minimeta uses. A step that computes these products as they stand cannot be
faster. A fast convolution, such as Winograd's, needs fewer.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import Case

from minimeta import Network
from minimeta.arrays import threads
from minimeta.layers import Conv2D, Dense

REPEATS = 15
SIDE = 1024


def forward_products(network: Network) -> list[int]:
    """Multiply-adds of each layer with products, for one example: the lowest
    layer first."""
    found, shape = [], network.input_shape
    for layer in network.layers:
        shape = layer.output_shape(shape)
        if isinstance(layer, Conv2D | Dense):
            found.append(math.prod(layer.shapes["weight"]) * math.prod(shape[:-1]))
    return found


def multiply_adds(case: Case) -> int:
    """The multiply-adds of all matrix products of a step.

    Raises
    ------
    ValueError
        if the case measures memory, not time.
    """
    lowest, *others = forward_products(case.network)
    total = lowest + sum(others)
    gradient, product = 3 * total - lowest, 6 * total - 4 * lowest
    sizes = [x.shape[1] for x, _ in case.minibatches()]
    before_last = sum(sizes[:-1])
    match case.kind:
        case "reptile":
            of_task = gradient * sum(sizes)
        case "maml":
            of_task = gradient * sum(sizes) + product * before_last
        case "evaluation":
            of_task = gradient * before_last + total * sizes[-1]
        case "hvp":
            of_task = (gradient + product) * sizes[0]
        case _:
            raise ValueError(f"a case of kind {case.kind!r} has no time")
    return case.tasks * of_task


def milliseconds(function: Callable[[], Any], seconds: float = 0.3) -> float:
    """Median over repeats of the mean time of a call, within ``seconds``."""
    function()
    started = time.perf_counter()
    function()
    count = max(1, int(seconds / REPEATS / (time.perf_counter() - started)))
    means = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(count):
            function()
        means.append(1e3 * (time.perf_counter() - started) / count)
    return statistics.median(means)


def peak() -> float:
    """Gigaflops of one large float32 matrix product on one core."""
    a = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
    with threads.workers(1):
        return 2 * SIDE**3 / milliseconds(lambda: a @ a) / 1e6


def floor(case: Case, cores: int, gigaflops: float) -> dict[str, Any]:
    """The JSON object of a case's floor at the peak ``gigaflops`` per core."""
    count = multiply_adds(case)
    return {
        "multiply_adds": count,
        "peak_gigaflops": round(gigaflops, 1),
        "cores": cores,
        "milliseconds": float(f"{2 * count / (gigaflops * cores) / 1e6:.5g}"),
    }
