"""Reptile (Nichol, Achiam and Schulman 2018, algorithms 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..inner import descend
from .base import Algorithm, Outcome, require_minibatches


@dataclass(frozen=True)
class Reptile(Algorithm):
    """Move phi towards the parameters that k inner steps on a task lead to.

    With phi~ = U^k(phi), the direction is phi - phi~, so that an outer SGD step of size epsilon is the paper's

        phi <- phi + epsilon (phi~ - phi)                 (serial: one task),
        phi <- phi + epsilon mean_i (phi~_i - phi)        (batched, equation 5).

    For an inner SGD of step alpha, phi - phi~ = alpha (g_1 + ... + g_k): the sum of all inner gradients. With k = 1 this is
    joint training (equations 6 and 7).
    """

    can_pause: ClassVar[bool] = True

    def run(self, objective, meta, minibatches, state=None, start=None) -> Outcome:
        """phi - U^k(phi), ``(T, D)``. ``start``: where inner steps on earlier mini-batches have led; phi itself without."""
        require_minibatches(minibatches)
        phi, rule = self.inner(objective, meta)
        adapted, state, loss = descend(
            objective, phi if start is None else start, minibatches, rule, state
        )
        return Outcome(phi - adapted, loss, state)
