"""ANIL (Raghu, Raghu, Bengio and Vinyals 2020): almost no inner loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import ALGORITHMS, InnerProblem, only_on
from .maml import MAML


@ALGORITHMS.register("anil")
@dataclass(frozen=True)
class ANIL(MAML):
    """MAML whose inner loop moves only the head, the parameters of the last
    layer.

    With M the 0/1 mask of the head, the inner step is phi_{j+1} = phi_j - alpha
    M g_j. The inner rule thus has the rate alpha on the head and 0 elsewhere.
    The direction is the exact gradient, with respect to all of phi, of the loss
    after that adaptation. The body so learns features on which a head adapts
    well.

    ``problem`` raises a SettingsError where the objective has no head, or where
    the rule's rate is not one number.
    """

    least_k: ClassVar[int] = 2

    def problem(self, objective, meta):
        """The inner loop from phi by the rule with its rate on the head
        only."""
        return InnerProblem(objective, meta, only_on("head", self.rule, objective, meta))
