"""Reptile (Nichol, Achiam and Schulman 2018, algorithms 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import SettingsError
from ..inner import descend
from .base import ALGORITHMS, Algorithm, Outcome, require_minibatches


@ALGORITHMS.register("reptile")
@dataclass(frozen=True)
class Reptile(Algorithm):
    """Moves phi towards the parameters after k inner steps on a task.

    With phi~ = U^k(phi), the direction is phi - phi~. An outer SGD step of size
    epsilon is then the paper's

        phi <- phi + epsilon (phi~ - phi)                 (serial: one task),
        phi <- phi + epsilon mean_i (phi~_i - phi)        (batched, equation 5).

    For an inner SGD of step alpha, phi - phi~ = alpha (g_1 + ... + g_k), so the
    direction is alpha times the sum of all inner gradients. With k = 1 this is
    joint training (equations 6 and 7).
    """

    scores_on_last: ClassVar[bool] = False

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """phi - U^k(phi), ``(T, D)``."""
        require_minibatches(minibatches)
        descended, phi, rule = self.problem(objective, meta)
        adapted, state, loss = descend(descended, phi, minibatches, rule, state)
        return Outcome(phi - adapted, loss, state)

    def prepared(self, plan):
        """Reptile unchanged, if the last mini-batch is drawn like the others.

        Raises
        ------
        SettingsError
            if the last mini-batch is a separate set.
        """
        if plan.separate_tail:
            raise SettingsError(
                "reptile takes an inner step on every mini-batch, so it has no use for a separate "
                "tail: set tail to shared"
            )
        return super().prepared(plan)
