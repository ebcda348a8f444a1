"""CAVIA (Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson 2019), earlier CAML: context adaptation."""

from __future__ import annotations

from dataclasses import dataclass

from .base import only_on
from .maml import MAML


@dataclass(frozen=True)
class CAVIA(MAML):
    """MAML whose inner loop moves the context parameters alone, and whose outer loop moves the rest.

    phi = (theta, c). Every task starts at c = 0; the inner step is c_{j+1} = c_j - alpha dL_j/dc, the shared theta stays.
    The direction is the exact gradient of L_k(theta, c_k(theta)) with respect to theta, through c_k, and 0 for c. The
    network holds its context parameters in a ``Context`` layer (``mlp(..., context=5)``) or a ``FiLM`` layer
    (``omniglot_convnet(context=100)``), at ``objective.context`` in phi.
    """

    def inner(self, objective, meta):
        """phi with c = 0, and the rule with its rate on c alone."""
        rule, phi = only_on("context", self.rule, objective, meta), meta.copy()
        phi[..., objective.context] = 0
        return phi, rule

    def run(self, objective, meta, minibatches, state=None):
        """dF/dtheta, and 0 for c, ``(T, D)``."""
        outcome = super().run(objective, meta, minibatches, state)
        outcome.direction[:, objective.context] = 0
        return outcome
