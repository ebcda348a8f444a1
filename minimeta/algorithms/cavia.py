"""CAVIA (Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson 2019), earlier CAML: context adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import SettingsError
from ..objectives import part_of
from .base import ALGORITHMS, InnerProblem, only_on
from .maml import MAML


@ALGORITHMS.register("cavia")
@dataclass(frozen=True)
class CAVIA(MAML):
    """MAML whose inner loop moves the context parameters alone, and whose outer loop the rest.

    phi = (theta, c). Every task starts at c = 0. The inner step is
    c_{j+1} = c_j - alpha dL_j/dc; the shared theta stays. The direction is the exact
    gradient of L_k(theta, c_k(theta)) with respect to theta, through c_k, and 0 for c.
    The network holds its context parameters in a ``Context`` layer
    (``mlp(..., context=5)``) or a ``FiLM`` layer (``omniglot_convnet(context=100)``):
    the part "context" of phi.
    """

    least_k: ClassVar[int] = 2
    uses_context: ClassVar[bool] = True

    def problem(self, objective, meta):
        """phi with c = 0, and the rule with its rate on c alone."""
        rule, phi = only_on("context", self.rule, objective, meta), meta.copy()
        phi[..., part_of(objective, "context")] = 0
        return InnerProblem(objective, phi, rule)

    def direction(self, objective, meta, minibatches, state=None):
        """dF/dtheta, and 0 for c, ``(T, D)``."""
        outcome = super().direction(objective, meta, minibatches, state)
        outcome.direction[:, part_of(objective, "context")] = 0
        return outcome

    def prepared(self, plan):
        """Itself, where there is a context."""
        if part_of(plan.objective, "context") == slice(0, 0):
            raise SettingsError(
                "cavia adapts context parameters: set context to their number, such as 5 on sine "
                "waves, 100 on images"
            )
        return super().prepared(plan)
