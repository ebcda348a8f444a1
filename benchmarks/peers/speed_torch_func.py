"""torch.func as a worker of benchmarks/speed.py: grad and vmap over tasks.

A variant is a layout (speed_torch_network.py) and, for MAML, where the outer
gradient is taken:

outside     of the mean over vmapped tasks, without a gradient per task
inside      of each task, by vmap, before the mean. Second derivatives of batch
            norm are wrong outside (github.com/pytorch/functorch/issues/534) and
            right inside
compiled    with torch.compile, which needs a C++ compiler
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timing
import torch
from speed_torch_network import Network
from timing import Arrays, Program, Settings
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

Tensors = list[Tensor]
Batches = list[tuple[Tensor, Tensor]]


def build(settings: Settings, arrays: Arrays, variant: str) -> Program:
    layout, *options = variant.split(",")
    return PROGRAMS[settings["kind"]](Network(settings, arrays, layout), settings, arrays, options)


def maml(network: Network, settings: Settings, arrays: Arrays, options: list[str]) -> Program:
    lr, outer = settings["rule"]["lr"], settings["outer"]
    phi, batches = network.parameters(arrays["phi"]), network.batches()
    adam = torch.optim.Adam(
        phi, outer["lr"], (outer["beta1"], outer["beta2"]), outer["eps"], fused=True
    )

    def final_loss(theta: Tensors, batches: Batches) -> Tensor:
        for batch in batches[:-1]:
            g = grad(network.loss)(theta, batch)
            theta = [p - lr * own for p, own in zip(theta, g, strict=True)]
        return network.loss(theta, batches[-1])

    def mean_loss(theta: Tensors, batches: Batches) -> tuple[Tensor, Tensor]:
        losses = vmap(final_loss, (None, 0))(theta, batches)
        return losses.mean(), losses.detach()

    def outside(theta: Tensors, batches: Batches) -> tuple[Tensors, Tensor]:
        g, (_, losses) = grad_and_value(mean_loss, has_aux=True)(theta, batches)
        return g, losses

    def inside(theta: Tensors, batches: Batches) -> tuple[Tensors, Tensor]:
        g, losses = vmap(grad_and_value(final_loss), (None, 0))(theta, batches)
        return [each.mean(0) for each in g], losses

    gradient = outside if "outside" in options else inside
    if "compiled" in options:
        gradient = torch.compile(gradient, fullgraph=True, dynamic=False)

    def start() -> None:
        torch._foreach_copy_(phi, network.parameters(arrays["phi"]))
        adam.state.clear()

    def step(state: Any) -> Tensor:
        g, losses = gradient(phi, batches)
        for parameter, own in zip(phi, g, strict=True):
            parameter.grad = own
        adam.step()
        return losses

    def results(losses: Tensor) -> Arrays:
        direction = network.flat([each.grad for each in phi])
        return {"phi": network.flat(phi), "direction": direction, "loss": losses.numpy()}

    return Program(start, step, results)


def reptile(network: Network, settings: Settings, arrays: Arrays, options: list[str]) -> Program:
    rule, epsilon = settings["rule"], settings["outer"]["lr"]
    phi, batches = network.parameters(arrays["phi"]), network.batches()
    each_task = vmap(grad_and_value(network.loss), (0, 0))
    if "compiled" in options:
        each_task = torch.compile(each_task, fullgraph=True, dynamic=False)

    def start() -> None:
        torch._foreach_copy_(phi, network.parameters(arrays["phi"]))

    def step(state: Any) -> Tensor:
        """A step of Adam in place, with tasks as the first axis.

        Only the gradient is mapped over tasks. Every case has beta1 = 0.
        """
        theta = [each.expand(settings["tasks"], *each.shape).contiguous() for each in phi]
        v = [torch.zeros_like(each) for each in theta]
        for t, batch in enumerate(batches, start=1):
            g, losses = each_task(theta, batch)
            torch._foreach_mul_(v, rule["beta2"])
            torch._foreach_addcmul_(v, g, g, 1 - rule["beta2"])
            denominator = torch._foreach_sqrt(v)
            torch._foreach_mul_(denominator, (1 - rule["beta2"] ** t) ** -0.5)
            torch._foreach_add_(denominator, rule["eps"])
            torch._foreach_addcdiv_(theta, g, denominator, -rule["lr"])
        torch._foreach_lerp_(phi, [each.mean(0) for each in theta], epsilon)
        return losses

    return Program(start, step, lambda losses: {"phi": network.flat(phi), "loss": losses.numpy()})


PROGRAMS: dict[str, Callable[..., Program]] = {"maml": maml, "reptile": reptile}

if __name__ == "__main__":
    timing.serve(build, ("torch",))
