"""ANIL (Raghu, Raghu, Bengio and Vinyals 2020): almost no inner loop."""

from __future__ import annotations

from dataclasses import dataclass

from .base import only_on
from .maml import MAML


@dataclass(frozen=True)
class ANIL(MAML):
    """MAML whose inner loop moves the head alone: the parameters of the last layer, ``objective.head``.

    With M the 0/1 mask of the head, the inner step is phi_{j+1} = phi_j - alpha M g_j: an inner rule with the rates alpha on
    the head and 0 elsewhere. The direction is the exact gradient of the loss after that adaptation with respect to all of
    phi: the body learns features on which a head adapts well.
    """

    def inner(self, objective, meta):
        """phi, and the rule with its rate on the head alone."""
        return meta, only_on("head", self.rule, objective, meta)
