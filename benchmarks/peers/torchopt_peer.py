"""TorchOpt: torchopt.MetaSGD and torchopt.MetaAdam."""

from __future__ import annotations

import common
import torch_network
import torchopt


def of_a_task(problem, arrays, task, batches):
    rule = problem["rule"]

    def descend(module, score, batches):
        if rule["type"] == "SGD":
            optimizer = torchopt.MetaSGD(module, rule["lr"])
        else:
            optimizer = torchopt.MetaAdam(
                module, rule["lr"], (rule["beta1"], rule["beta2"]), rule["eps"]
            )
        for x, y in batches:
            optimizer.step(score(module(x), y))
        return module, list(module.parameters())

    return torch_network.of_the_module(problem, arrays, batches, descend)


if __name__ == "__main__":
    torch_network.float64_on_one_thread()
    common.main(torch_network.of_each_task(of_a_task), ("torchopt", "torch"))
