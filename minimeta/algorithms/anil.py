"""ANIL (Raghu, Raghu, Bengio and Vinyals 2020): almost no inner loop."""

from __future__ import annotations

from dataclasses import dataclass

from ..trajectory import adapt, unroll
from .base import only_on
from .maml import MAML


@dataclass(frozen=True)
class ANIL(MAML):
    """MAML whose inner loop moves the head alone: the parameters of the last layer, ``objective.head``.

    With M the 0/1 mask of the head, the inner step is phi_{j+1} = phi_j - alpha M g_j: an inner rule with the rates alpha on
    the head and 0 elsewhere. The direction is the exact gradient of the loss after that adaptation with respect to all of
    phi: the body learns features on which a head adapts well.
    """

    def run(self, objective, meta, minibatches, state=None):
        """dF/dphi, ``(T, D)``."""
        return MAML(self._head_only(objective, meta), self.store).run(objective, meta, minibatches, state)

    def adapt(self, objective, meta, minibatches, state=None):
        """Each task's parameters after one inner step of its head on every mini-batch, ``(T, D)``."""
        return adapt(objective, meta, minibatches, self._head_only(objective, meta), state)

    def iterates(self, objective, meta, minibatches, state=None):
        """The parameters before the first inner step and after each."""
        return unroll(objective, meta, minibatches, self._head_only(objective, meta), "iterates", state).iterates

    def _head_only(self, objective, meta):
        return only_on("head", self.rule, objective, meta)
