"""CAVIA, context adaptation, earlier called CAML.

Source: Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson 2019.
"""

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
    """MAML with the context adapted by the inner loop and the rest by the
    outer.

    phi = (theta, c), where c are the context parameters. Every task starts at c
    = 0. The inner step is c_{j+1} = c_j - alpha dL_j/dc, and the shared theta
    does not move. The direction is the exact gradient of L_k(theta, c_k(theta))
    with respect to theta, through c_k. For c the direction is 0.

    A network holds its context parameters in a ``Context`` layer (``mlp(...,
    context=5)``) or a ``FiLM`` layer (``omniglot_convnet(context=100)``). They
    are the part "context" of phi. ``problem`` raises a SettingsError where the
    objective has no such part, or where the rule's rate is not one number.
    """

    least_k: ClassVar[int] = 2
    uses_context: ClassVar[bool] = True

    def problem(self, objective, meta):
        """The inner loop from phi with c = 0, by the rule with its rate on c
        only."""
        rule, phi = only_on("context", self.rule, objective, meta), meta.copy()
        phi[..., part_of(objective, "context")] = 0
        return InnerProblem(objective, phi, rule)

    def direction(self, objective, meta, minibatches, state=None):
        """dF/dtheta, and 0 for c, ``(T, D)``."""
        outcome = super().direction(objective, meta, minibatches, state)
        outcome.direction[:, part_of(objective, "context")] = 0
        return outcome

    def prepared(self, plan):
        """CAVIA unchanged, if the objective has context parameters.

        Raises
        ------
        SettingsError
            if the objective has no context parameters, or k is below 2.
        """
        if part_of(plan.objective, "context") == slice(0, 0):
            raise SettingsError(
                "cavia adapts context parameters, but the network has none: set context to their "
                "number, such as 5 on sine waves or 100 on images, or build a network of your own "
                "with them, such as mlp([1, 40, 1], context=5)"
            )
        return super().prepared(plan)
