"""higher as a worker of benchmarks/speed.py, for MAML.

It loops over tasks, each in an innerloop_ctx, as higher's examples do.
"""

from __future__ import annotations

import higher
import timing
import torch
import torch_network
from speed_torch_network import Network
from speed_torchopt import channels_first, outer_steps
from timing import Arrays, Program, Settings
from torch import Tensor


def build(settings: Settings, arrays: Arrays, variant: str) -> Program:
    torch.set_default_dtype(torch.from_numpy(arrays["phi"]).dtype)
    network = Network(settings, arrays, "contiguous")
    module = torch_network.network(settings | {"network": channels_first(settings)}, arrays["phi"])
    score, tasks = torch_network.criterion(settings), network.of_tasks()
    inner = torch.optim.SGD(module.parameters(), settings["rule"]["lr"])

    def gradient() -> Tensor:
        """Add the mean's gradient to ``grad``; return the losses."""
        losses = []
        for *support, query in tasks:
            with higher.innerloop_ctx(module, inner, copy_initial_weights=False) as (
                patched,
                steps,
            ):
                for x, y in support:
                    steps.step(score(patched(x), y))
                loss = score(patched(query[0]), query[1])
                (loss / len(tasks)).backward()
                losses.append(loss.detach())
        return torch.stack(losses)

    return outer_steps(settings, arrays, network, list(module.parameters()), gradient)


if __name__ == "__main__":
    timing.serve(build, ("higher", "torch"))
