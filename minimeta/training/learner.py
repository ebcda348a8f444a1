"""A learner: meta-parameters, and the objects that adapt them to a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..algorithms import Algorithm
from ..arrays.backend import Array
from ..objectives import Batch, Differentiable


@dataclass(frozen=True, eq=False)
class Learner:
    """An algorithm at meta-parameters, for tasks of ``objective``.

    ``meta`` has the shape ``(M,)``. ``state`` is the state of the inner rule at
    the start of every task, such as Adam's moments from training; it never
    changes.
    """

    objective: Differentiable
    algorithm: Algorithm
    meta: Array = field(repr=False)
    state: Any = field(default=None, repr=False)

    def adapt(self, minibatches: Sequence[Batch]) -> Array:
        """Parameters after a step on every mini-batch, ``(T, D)``."""
        return self.algorithm.adapt(self.objective, self.meta, minibatches, self.state)

    def iterates(self, minibatches: Sequence[Batch]) -> Sequence[Array]:
        """Parameters before and after each step: ``(D,)`` or ``(T, D)``."""
        return self.algorithm.iterates(self.objective, self.meta, minibatches, self.state)

    def predict(self, minibatches: Sequence[Batch], x: Array) -> Array:
        """Predictions ``(T, N, *output)`` for ``x (T, N, *input)``, adapted."""
        return self.algorithm.predict(self.objective, self.meta, minibatches, x, self.state)
