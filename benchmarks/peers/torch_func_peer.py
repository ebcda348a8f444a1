"""PyTorch itself: torch.func.functional_call, grad, jvp and vmap.

PyTorch has no functional optimizers, so inner steps are written out, as in its
own MAML examples.
"""

from __future__ import annotations

import common
import torch
import torch_network
from torch import nn
from torch.func import functional_call, grad, jvp, vmap


def descend(rule, loss, theta, batches):
    """Parameters by name after an inner step on each mini-batch."""
    m = v = {name: torch.zeros_like(value) for name, value in theta.items()}
    for t, batch in enumerate(batches, start=1):
        g = grad(loss)(theta, batch)
        if rule["type"] == "SGD":
            theta = {name: value - rule["lr"] * g[name] for name, value in theta.items()}
            continue
        m = {name: rule["beta1"] * m[name] + (1 - rule["beta1"]) * g[name] for name in g}
        v = {name: rule["beta2"] * v[name] + (1 - rule["beta2"]) * g[name] ** 2 for name in g}
        c1, c2 = 1 - rule["beta1"] ** t, 1 - rule["beta2"] ** t
        theta = {
            name: theta[name] - rule["lr"] * (m[name] / c1) / ((v[name] / c2).sqrt() + rule["eps"])
            for name in g
        }
    return theta


def of_a_task(problem, module, theta, v, batches):
    """All results of one task, parameters by name."""

    def score(z, y):
        # jvp of grad fails on mse_loss ("ZeroTensors are immutable"), so the
        # loss is written out.
        return (
            ((z - y) ** 2).mean()
            if problem["loss"] == "MeanSquaredError"
            else nn.functional.cross_entropy(z, y)
        )

    def loss(theta, batch):
        return score(functional_call(module, theta, (batch[0],)), batch[1])

    def final_loss(theta):
        return loss(descend(problem["rule"], loss, theta, batches[:-1]), batches[-1])

    first = grad(lambda theta: loss(theta, batches[0]))
    adapted = descend(problem["rule"], loss, theta, batches)
    return {
        "loss": loss(theta, batches[0]),
        "grad": first(theta),
        "hvp": jvp(first, (theta,), (v,))[1],
        "adapted": adapted,
        "final_loss": final_loss(theta),
        "reptile": {name: theta[name] - adapted[name] for name in theta},
        "fomaml": grad(loss)(descend(problem["rule"], loss, theta, batches[:-1]), batches[-1]),
        "maml": grad(final_loss)(theta),
    }


def solve(problem, arrays):
    module = torch_network.network(problem, arrays["phi"])
    theta = {name: value.detach() for name, value in module.named_parameters()}
    rows = [dict(torch_network.network(problem, row).named_parameters()) for row in arrays["v"]]
    v = {name: torch.stack([row[name].detach() for row in rows]) for name in theta}
    batches = common.minibatches(problem, arrays, torch.from_numpy)
    results = vmap(lambda v, batches: of_a_task(problem, module, theta, v, batches))(v, batches)
    return {
        name: value if torch.is_tensor(value) else _rows(value, problem["tasks"])
        for name, value in results.items()
    }


def _rows(named, tasks):
    """Parameters by name, with tasks as the first axis, as ``(T, D)``."""
    return [torch_network.flat([value[t] for value in named.values()]) for t in range(tasks)]


if __name__ == "__main__":
    torch_network.float64_on_one_thread()
    common.main(solve, ("torch",))
