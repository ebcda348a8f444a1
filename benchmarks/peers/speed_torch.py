"""Eager PyTorch as a worker of benchmarks/speed.py.

It loops over tasks with in-place updates, and avoids all needless work. A
variant is a list of choices; the fastest choice depends on the work:

contiguous | channels-last | im2col     layout of images and weights
                                        (speed_torch_network.py)
fused | foreach | inplace               inner Adam: torch.optim.Adam's kinds, or
                                        written out with torch._foreach
threads                                 as many threads as cores share the
tasks, with
                                        operations on one thread; otherwise
                                        operations on PyTorch's default number
                                        of threads
compiled                                the loss and its gradient by
torch.compile,
                                        which needs a C++ compiler and has no
                                        second derivatives
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import timing
import torch
from speed_torch_network import LAYOUTS, Network
from timing import Arrays, Program, Settings
from torch import Tensor

Tensors = list[Tensor]
Batches = Sequence[tuple[Tensor, Tensor]]


def build(settings: Settings, arrays: Arrays, variant: str) -> Program:
    options = set(variant.split(","))
    (layout,) = options & set(LAYOUTS)
    network = Network(settings, arrays, layout)
    if "compiled" in options:
        network.loss = torch.compile(network.loss, fullgraph=True, dynamic=False)
    return PROGRAMS[settings["kind"]](network, settings, arrays, options)


class InPlace:
    """Adam with beta1 = 0, as in every case, in few operations on lists."""

    def __init__(self, parameters: Tensors, rule: dict[str, Any]) -> None:
        self.parameters, self.rule, self.steps = parameters, rule, 0
        self.v = [torch.zeros_like(each) for each in parameters]

    def reset(self) -> None:
        self.steps = 0

    @torch.no_grad()
    def step(self, g: Sequence[Tensor]) -> None:
        """phi' = phi - lr g / (sqrt(v') / c + eps), with c^2 the correction."""
        self.steps += 1
        beta2, lr, eps = (self.rule[name] for name in ("beta2", "lr", "eps"))
        if self.steps == 1:
            torch._foreach_zero_(self.v)
        torch._foreach_mul_(self.v, beta2)
        torch._foreach_addcmul_(self.v, g, g, 1 - beta2)
        denominator = torch._foreach_sqrt(self.v)
        torch._foreach_mul_(denominator, (1 - beta2**self.steps) ** -0.5)
        torch._foreach_add_(denominator, eps)
        torch._foreach_addcdiv_(self.parameters, g, denominator, -lr)


class Library:
    """torch.optim.Adam, whose state is reset for every task, not recreated."""

    def __init__(self, parameters: Tensors, rule: dict[str, Any], kind: str) -> None:
        self.parameters = parameters
        betas = rule["beta1"], rule["beta2"]
        self.adam = torch.optim.Adam(parameters, rule["lr"], betas, rule["eps"], **{kind: True})

    @torch.no_grad()
    def reset(self) -> None:
        for kept in self.adam.state.values():
            torch._foreach_zero_(list(kept.values()))

    def step(self, g: Sequence[Tensor]) -> None:
        for parameter, own in zip(self.parameters, g, strict=True):
            parameter.grad = own
        self.adam.step()


class Learner:
    """A learner that adapts one task after another in the same buffers."""

    def __init__(
        self, network: Network, settings: Settings, phi: np.ndarray, options: set[str]
    ) -> None:
        self.network = network
        self.parameters = [each.requires_grad_() for each in network.parameters(phi)]
        if "inplace" in options:
            self.adam: InPlace | Library = InPlace(self.parameters, settings["rule"])
        else:
            (kind,) = options & {"fused", "foreach"}
            self.adam = Library(self.parameters, settings["rule"], kind)

    def adapt(self, start: Tensors, batches: Batches) -> Tensor:
        """Step on each mini-batch; return the last loss before its step.

        ``parameters`` are updated in place.
        """
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, start)
        self.adam.reset()
        for batch in batches:
            loss = self.network.loss(self.parameters, batch)
            self.adam.step(torch.autograd.grad(loss, self.parameters))
        return loss.detach()


class Tasks:
    """A function ``run(f)``, which calls ``f(learner or nothing, its tasks)``.

    The calls cover all tasks, in one thread or in several.
    """

    def __init__(
        self, tasks: list[Batches], options: set[str], learner: Callable[[], Any] = lambda: None
    ) -> None:
        count = len(os.sched_getaffinity(0)) if "threads" in options else 1
        edges = [len(tasks) * i // count for i in range(count + 1)]
        self.shares = [(learner(), tasks[i:j]) for i, j in pairwise(edges)]
        self.pool = None
        if count > 1:
            torch.set_num_threads(1)
            self.pool = ThreadPoolExecutor(count)

    def run(self, function: Callable[[Any, list[Batches]], Any]) -> list[Any]:
        if self.pool is None:
            return [function(*share) for share in self.shares]
        return list(self.pool.map(lambda share: function(*share), self.shares))


def reptile(network: Network, settings: Settings, arrays: Arrays, options: set[str]) -> Program:
    tasks = Tasks(
        network.of_tasks(), options, lambda: Learner(network, settings, arrays["phi"], options)
    )
    phi, epsilon = network.parameters(arrays["phi"]), settings["outer"]["lr"]

    def of_share(learner: Learner, batches: list[Batches]) -> tuple[Tensors, Tensors]:
        total = [torch.zeros_like(each) for each in phi]
        losses = []
        for of_task in batches:
            losses.append(learner.adapt(phi, of_task))
            with torch.no_grad():
                torch._foreach_add_(total, learner.parameters)
        return total, losses

    def start() -> Tensors:
        torch._foreach_copy_(phi, network.parameters(arrays["phi"]))
        return []

    def step(state: Tensors) -> Tensors:
        shares = tasks.run(of_share)
        with torch.no_grad():
            torch._foreach_mul_(phi, 1 - epsilon)
            for total, _ in shares:
                torch._foreach_add_(phi, total, alpha=epsilon / settings["tasks"])
        return [loss for _, losses in shares for loss in losses]

    return Program(
        start, step, lambda losses: {"phi": network.flat(phi), "loss": torch.stack(losses).numpy()}
    )


def final_loss(network: Network, settings: Settings, start: Tensors, batches: Batches) -> Tensor:
    """The last mini-batch's loss after an SGD step on each other mini-batch.

    It is connected to ``start``.
    """
    theta = start
    for batch in batches[:-1]:
        g = torch.autograd.grad(network.loss(theta, batch), theta, create_graph=True)
        theta = torch._foreach_sub(theta, g, alpha=settings["rule"]["lr"])
    return network.loss(theta, batches[-1])


def maml(network: Network, settings: Settings, arrays: Arrays, options: set[str]) -> Program:
    tasks = Tasks(network.of_tasks(), options)
    phi = [each.requires_grad_() for each in network.parameters(arrays["phi"])]
    outer = settings["outer"]
    adam = torch.optim.Adam(
        phi, outer["lr"], (outer["beta1"], outer["beta2"]), outer["eps"], fused=True
    )

    def of_share(learner: None, batches: list[Batches]) -> tuple[Tensors, Tensors]:
        total, losses = [torch.zeros_like(each) for each in phi], []
        for of_task in batches:
            loss = final_loss(network, settings, phi, of_task)
            torch._foreach_add_(total, torch.autograd.grad(loss, phi))
            losses.append(loss.detach())
        return total, losses

    def start() -> Tensors:
        with torch.no_grad():
            torch._foreach_copy_(phi, network.parameters(arrays["phi"]))
        adam.state.clear()
        return []

    def step(state: Tensors) -> Tensors:
        shares = tasks.run(of_share)
        total = shares[0][0]
        for other, _ in shares[1:]:
            torch._foreach_add_(total, other)
        torch._foreach_div_(total, settings["tasks"])
        for parameter, own in zip(phi, total, strict=True):
            parameter.grad = own
        adam.step()
        return [loss for _, losses in shares for loss in losses]

    def results(losses: Tensors) -> Arrays:
        direction = network.flat([each.grad for each in phi])
        return {
            "phi": network.flat(phi),
            "direction": direction,
            "loss": torch.stack(losses).numpy(),
        }

    return Program(start, step, results)


def evaluation(network: Network, settings: Settings, arrays: Arrays, options: set[str]) -> Program:
    tasks = Tasks(
        network.of_tasks(), options, lambda: Learner(network, settings, arrays["phi"], options)
    )
    phi = network.parameters(arrays["phi"])

    def of_share(learner: Learner, batches: list[Batches]) -> Tensors:
        predictions = []
        for *support, (x, _) in batches:
            learner.adapt(phi, support)
            with torch.no_grad():
                predictions.append(network.predict(learner.parameters, x))
        return predictions

    def compute() -> Tensors:
        return [each for share in tasks.run(of_share) for each in share]

    return computing(compute, lambda predictions: {"prediction": torch.stack(predictions).numpy()})


def product(network: Network, settings: Settings, arrays: Arrays, options: set[str]) -> Program:
    phi = [each.requires_grad_() for each in network.parameters(arrays["phi"])]
    v = network.parameters(arrays["v"][0])
    batch = network.of_tasks()[0][0]

    def compute() -> Sequence[Tensor]:
        g = torch.autograd.grad(network.loss(phi, batch), phi, create_graph=True)
        return torch.autograd.grad(g, phi, v)

    return computing(compute, lambda hv: {"hvp": network.flat(hv)[None]})


def memory(network: Network, settings: Settings, arrays: Arrays, options: set[str]) -> Program:
    phi = [each.requires_grad_() for each in network.parameters(arrays["phi"])]
    (batches,) = network.of_tasks()
    return computing(
        lambda: torch.autograd.grad(final_loss(network, settings, phi, batches), phi),
        lambda g: {"maml": network.flat(g)[None]},
    )


def computing(compute: Callable[[], Any], results: Callable[[Any], Arrays]) -> Program:
    """A program whose steps are all the same."""
    return Program(lambda: None, lambda state: compute(), results)


PROGRAMS: dict[str, Callable[..., Program]] = {
    "reptile": reptile,
    "maml": maml,
    "evaluation": evaluation,
    "hvp": product,
    "memory": memory,
}

if __name__ == "__main__":
    timing.serve(build, ("torch",))
