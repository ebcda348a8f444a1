"""The networks of the vectors as PyTorch modules, and phi as their parameters.

The adapters built on PyTorch share this module.
"""

from __future__ import annotations

import common
import numpy as np
import torch
from torch import nn

# Permutations from the vectors' order of axes to PyTorch's, by the number of
# axes: (in, out) and (height, width, in, out).
ORDER = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_INVERSE = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def float64_on_one_thread():
    """Set PyTorch up for small problems in exact float64."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)


class SameConv2d(nn.Conv2d):
    """Conv2d with TensorFlow's padding for any stride."""

    def forward(self, x):
        top, bottom = around(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = around(x.shape[3], self.kernel_size[1], self.stride[1])
        return super().forward(nn.functional.pad(x, (left, right, top, bottom)))


def around(size, kernel, stride):
    """The padding before and after an axis."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class ChannelsFirst(nn.Module):
    def forward(self, x):
        return x.permute(0, 3, 1, 2)


class FlattenChannelsLast(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


LAYERS = {
    "Dense": lambda layer: nn.Linear(layer["inputs"], layer["outputs"]),
    "Conv2D": lambda layer: SameConv2d(
        layer["inputs"], layer["outputs"], layer["kernel"], layer["stride"]
    ),
    "BatchNorm": lambda layer: nn.BatchNorm2d(
        layer["channels"], layer["eps"], track_running_stats=False
    ),
    "MaxPool2D": lambda layer: nn.MaxPool2d(2, ceil_mode=True),
    "ReLU": lambda layer: nn.ReLU(),
    "Tanh": lambda layer: nn.Tanh(),
    "Softplus": lambda layer: nn.Softplus(threshold=1e9),  # the default is linear above 20
    "Flatten": lambda layer: FlattenChannelsLast(),
}


def network(problem, phi):
    """The module, holding ``phi: (D,)``."""
    first = [ChannelsFirst()] if len(problem["network"]["input_shape"]) == 3 else []
    module = nn.Sequential(
        *first, *(LAYERS[layer["type"]](layer) for layer in problem["network"]["layers"])
    )
    values = [value for named in common.parameters(problem, phi) for value in named.values()]
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(value.transpose(ORDER[value.ndim])))
    return module


def flat(tensors):
    """Tensors in the module's order as one phi ``(D,)``."""
    parts = [each.detach().numpy() for each in tensors]
    return np.concatenate([part.transpose(_INVERSE[part.ndim]).ravel() for part in parts])


def criterion(problem):
    """The loss of (prediction, y)."""
    return (
        nn.functional.mse_loss
        if problem["loss"] == "MeanSquaredError"
        else nn.functional.cross_entropy
    )


def of_each_task(of_a_task):
    """A ``solve`` for common.main from a function that solves one task.

    The function takes (problem, arrays, number of the task, its mini-batches).
    """

    def solve(problem, arrays):
        batches = common.minibatches(problem, arrays, torch.from_numpy)
        tasks = [
            of_a_task(problem, arrays, t, [(x[t], y[t]) for x, y in batches])
            for t in range(problem["tasks"])
        ]
        return {name: np.stack([each[name] for each in tasks]) for name in tasks[0]}

    return solve


def of_the_module(problem, arrays, batches, descend):
    """All results that an optimizer library for modules offers.

    There is no Hessian-vector product. ``descend(module, loss, batches)`` makes
    inner steps from the module's parameters. It returns a function from x to
    predictions, and the final parameters, both connected to the module's own.
    """
    module, score = network(problem, arrays["phi"]), criterion(problem)
    start = list(module.parameters())
    loss = score(module(batches[0][0]), batches[0][1])
    grad = flat(torch.autograd.grad(loss, start))
    x, y = batches[-1]
    predict, reached = descend(module, score, batches[:-1])
    final_loss = score(predict(x), y)
    fomaml = flat(torch.autograd.grad(final_loss, reached, retain_graph=True))
    maml = flat(torch.autograd.grad(final_loss, start))
    _, reached = descend(network(problem, arrays["phi"]), score, batches)
    adapted = flat(reached)
    return {
        "loss": loss.detach().numpy(),
        "grad": grad,
        "adapted": adapted,
        "final_loss": final_loss.detach().numpy(),
        "reptile": arrays["phi"] - adapted,
        "fomaml": fomaml,
        "maml": maml,
    }
