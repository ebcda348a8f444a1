"""How a learner adapts to an unseen task, and is scored there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays.backend import Array
from ..registry import setting
from ..tasks import Minibatches, minibatches_of
from ..tasks.minibatches import Order

IMAGES, POINTS = 1, 100  # default queries: images of each class, points of a task


@dataclass(frozen=True)
class Scoring:
    """How a learner is scored on an unseen task.

    It adapts to ``shots`` examples of each class, by ``steps`` inner steps on
    mini-batches of ``size``. It is scored on ``queries`` other examples of each
    class.
    """

    shots: int = setting(10, "examples of each class to adapt on", least=1)
    steps: int = setting(32, "inner steps", least=1)
    size: int = setting(10, "examples in a mini-batch", least=1)
    order: Order = setting(
        "cycle", "cut mini-batches from shuffled passes, or draw each one independently"
    )
    queries: int | None = setting(
        None,
        f"examples of each class to score on; none: {IMAGES} image per class, or {POINTS} points",
        least=1,
    )

    def minibatches(self, rng: np.random.Generator, support: tuple[Array, Array]) -> Minibatches:
        """The mini-batches of ``support`` to adapt on, one per step."""
        return minibatches_of(rng, support, self.steps, self.size, self.order)
