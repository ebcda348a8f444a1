"""TorchOpt as a worker of benchmarks/speed.py, MAML.

loop    torchopt.MetaSGD in a Python loop over tasks; the state is recovered
after
        each task, as in TorchOpt's few-shot example
vmap    torchopt.sgd, its functional optimizer, under torch.func.vmap
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timing
import torch
import torch_network
import torchopt
from speed_torch_network import Network
from timing import Arrays, Program, Settings
from torch import Tensor
from torch.func import grad, grad_and_value, vmap


def build(settings: Settings, arrays: Arrays, variant: str) -> Program:
    torch.set_default_dtype(torch.from_numpy(arrays["phi"]).dtype)
    return {"loop": loop, "vmap": vmapped}[variant](
        Network(settings, arrays, "contiguous"), settings, arrays
    )


def loop(network: Network, settings: Settings, arrays: Arrays) -> Program:
    module = torch_network.network(settings | {"network": channels_first(settings)}, arrays["phi"])
    score, tasks = torch_network.criterion(settings), network.of_tasks()
    phi = list(module.parameters())
    inner = torchopt.MetaSGD(module, lr=settings["rule"]["lr"])

    def gradient() -> Tensor:
        """Add the mean's gradient to ``grad``; return the losses."""
        module_start = torchopt.extract_state_dict(module, by="reference", detach_buffers=True)
        inner_start = torchopt.extract_state_dict(inner, by="reference")
        losses = []
        for *support, query in tasks:
            for x, y in support:
                inner.step(score(module(x), y))
            losses.append(score(module(query[0]), query[1]))
            torchopt.recover_state_dict(module, module_start)
            torchopt.recover_state_dict(inner, inner_start)
        together = torch.stack(losses)
        together.mean().backward()
        return together.detach()

    return outer_steps(settings, arrays, network, phi, gradient)


def channels_first(settings: Settings) -> dict[str, Any]:
    """The network's description, for images already in PyTorch's layout."""
    return settings["network"] | {"input_shape": settings["network"]["input_shape"][-1:]}


def vmapped(network: Network, settings: Settings, arrays: Arrays) -> Program:
    phi, batches = (
        [each.requires_grad_() for each in network.parameters(arrays["phi"])],
        network.batches(),
    )
    rule = torchopt.sgd(settings["rule"]["lr"])

    def final_loss(theta: list[Tensor], batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        state = rule.init(theta)
        for batch in batches[:-1]:
            updates, state = rule.update(grad(network.loss)(theta, batch), state, inplace=False)
            theta = torchopt.apply_updates(theta, updates, inplace=False)
        return network.loss(theta, batches[-1])

    def mean_loss(theta: list[Tensor]) -> tuple[Tensor, Tensor]:
        losses = vmap(final_loss, (None, 0))(theta, batches)
        return losses.mean(), losses.detach()

    def gradient() -> Tensor:
        g, (_, losses) = grad_and_value(mean_loss, has_aux=True)([each.detach() for each in phi])
        for parameter, own in zip(phi, g, strict=True):
            parameter.grad = own
        return losses

    return outer_steps(settings, arrays, network, phi, gradient)


def outer_steps(
    settings: Settings,
    arrays: Arrays,
    network: Network,
    phi: list[Tensor],
    gradient: Callable[[], Tensor],
) -> Program:
    """Meta-steps by torch.optim.Adam on the gradients of ``gradient``."""
    rule = settings["outer"]
    adam = torch.optim.Adam(
        phi, rule["lr"], (rule["beta1"], rule["beta2"]), rule["eps"], fused=True
    )

    def start() -> None:
        with torch.no_grad():
            torch._foreach_copy_(phi, network.parameters(arrays["phi"]))
        adam.state.clear()

    def step(state: Any) -> Tensor:
        adam.zero_grad()
        losses = gradient()
        adam.step()
        return losses

    def results(losses: Tensor) -> Arrays:
        direction = network.flat([each.grad for each in phi])
        return {"phi": network.flat(phi), "direction": direction, "loss": losses.numpy()}

    return Program(start, step, results)


if __name__ == "__main__":
    timing.serve(build, ("torchopt", "torch"))
