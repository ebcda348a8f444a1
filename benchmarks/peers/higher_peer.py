"""higher: innerloop_ctx around torch.optim.SGD or torch.optim.Adam."""

from __future__ import annotations

import common
import higher
import torch
import torch_network


def of_a_task(problem, arrays, task, batches):
    rule = problem["rule"]

    def descend(module, score, batches):
        if rule["type"] == "SGD":
            optimizer = torch.optim.SGD(module.parameters(), rule["lr"])
        else:
            optimizer = torch.optim.Adam(
                module.parameters(), rule["lr"], (rule["beta1"], rule["beta2"]), rule["eps"]
            )
        with higher.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (
            patched,
            steps,
        ):
            for x, y in batches:
                steps.step(score(patched(x), y))
        return patched, list(patched.parameters())

    return torch_network.of_the_module(problem, arrays, batches, descend)


if __name__ == "__main__":
    torch_network.float64_on_one_thread()
    common.main(torch_network.of_each_task(of_a_task), ("higher", "torch"))
