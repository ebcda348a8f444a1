"""ANIL (Raghu, Raghu, Bengio and Vinyals 2020): almost no inner loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import ALGORITHMS, InnerProblem, only_on
from .maml import MAML


@ALGORITHMS.register("anil")
@dataclass(frozen=True)
class ANIL(MAML):
    """MAML whose inner loop moves the head alone: the parameters of the last layer.

    With M the 0/1 mask of the head, the inner step is phi_{j+1} = phi_j - alpha M g_j:
    an inner rule with the rates alpha on the head and 0 elsewhere. The direction is
    the exact gradient of the loss after that adaptation with respect to all of phi:
    the body learns features on which a head adapts well.
    """

    least_k: ClassVar[int] = 2

    def problem(self, objective, meta):
        """phi, and the rule with its rate on the head alone."""
        return InnerProblem(objective, meta, only_on("head", self.rule, objective, meta))
