"""torch.func as a worker of benchmarks/speed.py: grad, vmap and jvp.

A variant is a layout (speed_torch_network.py), and choices:

outside     the outer gradient of MAML is that of the mean over vmapped tasks,
            without a gradient per task
inside      it is taken of each task, by vmap, before the mean. Second
            derivatives of batch norm are wrong outside
            (github.com/pytorch/functorch/issues/534) and right inside
loop        one task after another, without vmap. A step of Adam is then part of
            the function of a gradient, so that a compiler can fuse both
threads     a loop in which as many threads as cores share the tasks, with
            operations on one thread
compiled    with torch.compile, which needs a C++ compiler
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timing
import torch
from speed_torch import Tasks, computing
from speed_torch_network import Network
from timing import Arrays, Program, Settings
from torch import Tensor
from torch.func import grad, grad_and_value, jvp, vmap

Tensors = list[Tensor]
Batches = list[tuple[Tensor, Tensor]]


def build(settings: Settings, arrays: Arrays, variant: str) -> Program:
    layout, *options = variant.split(",")
    kind, looped = settings["kind"], {"loop", "threads"} & set(options)
    program = LOOPS[kind] if looped else PROGRAMS[kind]
    return program(Network(settings, arrays, layout), settings, arrays, set(options))


def maybe_compiled(function: Callable, options: set[str]) -> Callable:
    if "compiled" in options:
        return torch.compile(function, fullgraph=True, dynamic=False)
    return function


def final_loss(network: Network, theta: Tensors, batches: Batches) -> Tensor:
    """The last mini-batch's loss after an SGD step on each other mini-batch."""
    for batch in batches[:-1]:
        g = grad(network.loss)(theta, batch)
        lr = network.settings["rule"]["lr"]
        theta = [p - lr * own for p, own in zip(theta, g, strict=True)]
    return network.loss(theta, batches[-1])


def maml(network: Network, settings: Settings, arrays: Arrays, options: set[str]) -> Program:
    batches = network.batches()

    def of_task(theta: Tensors, batches: Batches) -> Tensor:
        return final_loss(network, theta, batches)

    def mean_loss(theta: Tensors, batches: Batches) -> tuple[Tensor, Tensor]:
        losses = vmap(of_task, (None, 0))(theta, batches)
        return losses.mean(), losses.detach()

    def outside(theta: Tensors, batches: Batches) -> tuple[Tensors, Tensor]:
        g, (_, losses) = grad_and_value(mean_loss, has_aux=True)(theta, batches)
        return g, losses

    def inside(theta: Tensors, batches: Batches) -> tuple[Tensors, Tensor]:
        g, losses = vmap(grad_and_value(of_task), (None, 0))(theta, batches)
        return [each.mean(0) for each in g], losses

    gradient = maybe_compiled(outside if "outside" in options else inside, options)
    return meta_steps(network, settings, arrays, lambda phi: gradient(phi, batches))


def maml_in_a_loop(
    network: Network, settings: Settings, arrays: Arrays, options: set[str]
) -> Program:
    tasks = Tasks(network.of_tasks(), options)

    def of_task(theta: Tensors, batches: Batches) -> tuple[Tensors, Tensor]:
        return grad_and_value(lambda theta: final_loss(network, theta, batches))(theta)

    of_task = maybe_compiled(of_task, options)

    def gradient(phi: Tensors) -> tuple[Tensors, Tensor]:
        def of_share(learner: None, share: list[Batches]) -> tuple[Tensors, Tensors]:
            total, losses = [torch.zeros_like(each) for each in phi], []
            for batches in share:
                g, loss = of_task(phi, batches)
                torch._foreach_add_(total, g)
                losses.append(loss)
            return total, losses

        (total, losses), *others = tasks.run(of_share)
        for other, more in others:
            torch._foreach_add_(total, other)
            losses += more
        return torch._foreach_div(total, settings["tasks"]), torch.stack(losses)

    return meta_steps(network, settings, arrays, gradient)


def meta_steps(
    network: Network,
    settings: Settings,
    arrays: Arrays,
    gradient: Callable[[Tensors], tuple[Tensors, Tensor]],
) -> Program:
    """Meta-steps by torch.optim.Adam; ``gradient`` returns losses too."""
    phi, outer = network.parameters(arrays["phi"]), settings["outer"]
    adam = torch.optim.Adam(
        phi, outer["lr"], (outer["beta1"], outer["beta2"]), outer["eps"], fused=True
    )

    def start() -> None:
        torch._foreach_copy_(phi, network.parameters(arrays["phi"]))
        adam.state.clear()

    def step(state: Any) -> Tensor:
        g, losses = gradient(phi)
        for parameter, own in zip(phi, g, strict=True):
            parameter.grad = own
        adam.step()
        return losses

    def results(losses: Tensor) -> Arrays:
        direction = network.flat([each.grad for each in phi])
        return {"phi": network.flat(phi), "direction": direction, "loss": losses.numpy()}

    return Program(start, step, results)


def reptile(network: Network, settings: Settings, arrays: Arrays, options: set[str]) -> Program:
    rule, epsilon = settings["rule"], settings["outer"]["lr"]
    phi, batches = network.parameters(arrays["phi"]), network.batches()
    each_task = maybe_compiled(vmap(grad_and_value(network.loss), (0, 0)), options)

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


class Learner:
    """A learner that adapts one task after another by Adam, beta1 = 0."""

    def __init__(self, network: Network, settings: Settings, options: set[str]) -> None:
        rule = settings["rule"]
        self.corrections = [
            torch.tensor((1 - rule["beta2"] ** t) ** -0.5) for t in range(1, settings["k"] + 1)
        ]

        def step(theta: Tensors, v: Tensors, correction: Tensor, batch: Any) -> Any:
            g, loss = grad_and_value(network.loss)(theta, batch)
            v = [rule["beta2"] * v + (1 - rule["beta2"]) * g * g for v, g in zip(v, g, strict=True)]
            theta = [
                p - rule["lr"] * g / (v.sqrt() * correction + rule["eps"])
                for p, g, v in zip(theta, g, v, strict=True)
            ]
            return theta, v, loss

        self.step = maybe_compiled(step, options)

    def adapt(self, phi: Tensors, batches: Batches) -> tuple[Tensors, Tensor]:
        """The last parameters, and the last loss before its step."""
        theta, v = phi, [torch.zeros_like(each) for each in phi]
        for correction, batch in zip(self.corrections, batches, strict=False):
            theta, v, loss = self.step(theta, v, correction, batch)
        return theta, loss


def reptile_in_a_loop(
    network: Network, settings: Settings, arrays: Arrays, options: set[str]
) -> Program:
    learner, epsilon = Learner(network, settings, options), settings["outer"]["lr"]
    tasks, phi = Tasks(network.of_tasks(), options), network.parameters(arrays["phi"])

    def of_share(_: None, share: list[Batches]) -> tuple[Tensors, Tensors]:
        total, losses = [torch.zeros_like(each) for each in phi], []
        for batches in share:
            theta, loss = learner.adapt(phi, batches)
            torch._foreach_add_(total, theta)
            losses.append(loss)
        return total, losses

    def start() -> Tensors:
        torch._foreach_copy_(phi, network.parameters(arrays["phi"]))
        return []

    def step(state: Tensors) -> Tensors:
        shares = tasks.run(of_share)
        torch._foreach_mul_(phi, 1 - epsilon)
        for total, _ in shares:
            torch._foreach_add_(phi, total, alpha=epsilon / settings["tasks"])
        return [loss for _, losses in shares for loss in losses]

    return Program(
        start, step, lambda losses: {"phi": network.flat(phi), "loss": torch.stack(losses).numpy()}
    )


def evaluation_in_a_loop(
    network: Network, settings: Settings, arrays: Arrays, options: set[str]
) -> Program:
    learner, tasks = Learner(network, settings, options), Tasks(network.of_tasks(), options)
    phi, predict = network.parameters(arrays["phi"]), maybe_compiled(network.predict, options)

    def of_share(_: None, share: list[Batches]) -> Tensors:
        return [predict(learner.adapt(phi, support)[0], x) for *support, (x, _) in share]

    def compute() -> Tensors:
        return [each for share in tasks.run(of_share) for each in share]

    return computing(compute, lambda predictions: {"prediction": torch.stack(predictions).numpy()})


def product(network: Network, settings: Settings, arrays: Arrays, options: set[str]) -> Program:
    phi, v = network.parameters(arrays["phi"]), network.parameters(arrays["v"][0])
    batch = network.of_tasks()[0][0]

    def forward_over_reverse(phi: Tensors, v: Tensors, batch: Any) -> Tensors:
        return jvp(lambda phi: grad(network.loss)(phi, batch), (phi,), (v,))[1]

    def reverse_over_reverse(phi: Tensors, v: Tensors, batch: Any) -> Tensors:
        def along_v(phi: Tensors) -> Tensor:
            g = grad(network.loss)(phi, batch)
            return sum((own * other).sum() for own, other in zip(g, v, strict=True))

        return grad(along_v)(phi)

    chosen = forward_over_reverse if "jvp" in options else reverse_over_reverse
    function = maybe_compiled(chosen, options)
    return computing(lambda: function(phi, v, batch), lambda hv: {"hvp": network.flat(hv)[None]})


PROGRAMS: dict[str, Callable[..., Program]] = {"maml": maml, "reptile": reptile, "hvp": product}
LOOPS: dict[str, Callable[..., Program]] = {
    "maml": maml_in_a_loop,
    "reptile": reptile_in_a_loop,
    "evaluation": evaluation_in_a_loop,
}

if __name__ == "__main__":
    timing.serve(build, ("torch",))
