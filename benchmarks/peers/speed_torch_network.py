"""A case's network and loss as functions of tensors, in plain PyTorch.

``layout`` is the memory layout of images and weights. "contiguous" and
"channels-last" use torch's own convolution. "im2col" always keeps channels
last, and writes the convolution as slices and a matrix product. torch.func.vmap
turns this product into a batch of matrix products; it turns torch's own
convolution into a grouped one, which is slow on the CPU.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import common
import numpy as np
import torch
import torch_network
from timing import Arrays, Settings
from torch import Tensor
from torch.nn import functional as F

LAYOUTS = ("contiguous", "channels-last", "im2col")


class Network:
    """The network and loss of a case, as functions of parameters."""

    def __init__(self, settings: Settings, arrays: Arrays, layout: str) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"layout {layout!r} is none of {LAYOUTS}")
        torch.set_default_dtype(torch.from_numpy(arrays["phi"]).dtype)
        self.settings, self.arrays, self.layout = settings, arrays, layout

    def parameters(self, phi: np.ndarray) -> list[Tensor]:
        """Fresh tensors in the order of ``phi: (D,)``."""
        values = [
            value for named in common.parameters(self.settings, phi) for value in named.values()
        ]
        if self.layout == "im2col":
            return [torch.from_numpy(value.copy()) for value in values]
        tensors = [
            torch.from_numpy(value.transpose(torch_network.ORDER[value.ndim]).copy())
            for value in values
        ]
        return [self.lay(each) for each in tensors]

    def flat(self, tensors: list[Tensor]) -> np.ndarray:
        """``(D,)``."""
        if self.layout == "im2col":
            return np.concatenate([each.detach().numpy().ravel() for each in tensors])
        return torch_network.flat(tensors)

    def lay(self, each: Tensor) -> Tensor:
        """Images or weights of a convolution in the layout; else unchanged."""
        if each.ndim != 4 or self.layout == "im2col":
            return each
        channels_last = self.layout == "channels-last"
        return each.contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """k pairs x, y of shape ``(T, N, ...)``, with images in the layout."""
        pairs = []
        for x, y in common.minibatches(self.settings, self.arrays, torch.from_numpy):
            if x.ndim == 5 and self.layout != "im2col":
                x = torch.stack([self.lay(of_task.permute(0, 3, 1, 2)) for of_task in x])
            pairs.append((x, y))
        return pairs

    def of_tasks(self) -> list[list[tuple[Tensor, Tensor]]]:
        """The k mini-batches of each task."""
        return [
            [(self.lay(x[t]), y[t]) for x, y in self.batches()]
            for t in range(self.settings["tasks"])
        ]

    def loss(self, parameters: list[Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        z = self.predict(parameters, batch[0])
        if self.settings["loss"] == "MeanSquaredError":
            return F.mse_loss(z, batch[1])
        return F.cross_entropy(z, batch[1])

    def predict(self, parameters: list[Tensor], x: Tensor) -> Tensor:
        own = iter(parameters)
        layers = self.settings["network"]["layers"]
        of_layers = [(layer, [next(own) for _ in layer["parameters"]]) for layer in layers]
        for layer, theta in of_layers:
            x = self.apply(layer, theta, x)
        return x

    def apply(self, layer: dict[str, Any], theta: list[Tensor], x: Tensor) -> Tensor:
        channels_first = self.layout != "im2col"
        match layer["type"]:
            case "Dense":
                return F.linear(x, *theta) if channels_first else torch.addmm(theta[1], x, theta[0])
            case "Conv2D":
                convolve = padded if channels_first else im2col
                return convolve(x, *theta, layer["stride"])
            case "BatchNorm":
                rows = x if channels_first else x.flatten(0, 2)
                return F.batch_norm(
                    rows, None, None, *theta, training=True, eps=layer["eps"]
                ).view_as(x)
            case "MaxPool2D":
                return F.max_pool2d(x, 2, ceil_mode=True) if channels_first else pool(x)
            case "ReLU":
                return F.relu(x)
            case "Flatten":
                return (x.permute(0, 2, 3, 1) if channels_first else x).flatten(1)
        raise NotImplementedError(layer["type"])


def padded(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Torch's convolution, which also pads where all sides are equal.

    This saves a copy.
    """
    top, bottom = torch_network.around(x.shape[2], weight.shape[2], stride)
    left, right = torch_network.around(x.shape[3], weight.shape[3], stride)
    if (top, left) == (bottom, right):
        return F.conv2d(x, weight, bias, stride, (top, left))
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride)


def im2col(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Convolution, ``x (N, height, width, in)``, ``weight (k, k, in, out)``."""
    kernel, _, inputs, outputs = weight.shape
    n, height, width, _ = x.shape
    down, across = (torch_network.around(size, kernel, stride) for size in (height, width))
    x = F.pad(x, (0, 0, *across, *down))
    high, wide = -(-height // stride), -(-width // stride)
    taps = [
        x[:, i : i + (high - 1) * stride + 1 : stride, j : j + (wide - 1) * stride + 1 : stride]
        for i, j in product(range(kernel), repeat=2)
    ]
    patches = torch.cat(taps, dim=-1).view(-1, kernel * kernel * inputs)
    return torch.addmm(bias, patches, weight.view(-1, outputs)).view(n, high, wide, outputs)


def pool(x: Tensor) -> Tensor:
    """2 x 2 maxima of ``x: (N, height, width, channels)``."""
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2), value=-torch.inf)
    rows = torch.maximum(x[:, ::2], x[:, 1::2])
    return torch.maximum(rows[:, :, ::2], rows[:, :, 1::2])
