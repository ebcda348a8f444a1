"""Meta-SGD (Li, Zhou, Chen and Li 2017), which learns per-parameter step
sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..arrays.backend import array_module
from ..errors import SettingsError, ShapeError
from ..inner import SGD, InnerRule, Store
from ..objectives import check_generator
from ..registry import setting
from .base import ALGORITHMS, Algorithm, InnerProblem, Outcome, unrolled


@ALGORITHMS.register("meta-sgd")
@dataclass(frozen=True)
class MetaSGD(Algorithm):
    """MAML with one learned step size alpha per parameter.

    The direction is the exact gradient of the loss after adaptation, with
    respect to phi and to alpha. meta = (phi, alpha), ``(2D,)``. The inner step
    is phi_{j+1} = phi_j - alpha o g_j, on mini-batches 1 .. k-1, and F(phi,
    alpha) = L_k(phi_k). Let v_k = g_k. Let v_j = dF/dphi_j = (I - H_j
    diag(alpha)) v_{j+1}, which ``pullback`` computes step by step. A step
    depends on alpha only through -alpha o g_j, so

        dF/dphi = v_1,        dF/dalpha = -sum_j g_j o v_{j+1}.

    For one inner step this is the paper's dF/dalpha = -g_1 o g_2, which is
    larger where the two gradients disagree. alpha starts uniform in [``low``,
    ``high``] (the paper's [0.005, 0.1]) and may become negative. ``unroll``
    explains ``store``.

    Raises
    ------
    SettingsError
        unless 0 <= low <= high and high is finite.
    """

    # The rates are in meta, so the rule carries no state from task to task.
    rule: InnerRule = field(init=False, default=SGD(0.0))
    low: float = setting(
        0.005, "Meta-SGD: step sizes start uniform in [RATE_LOW, RATE_HIGH]", flag="rate_low"
    )
    high: float = setting(0.1, "Meta-SGD: upper end of the starting step sizes", flag="rate_high")
    store: Store = setting("points", "see MAML's")
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high < float("inf"):
            raise SettingsError(
                "Meta-SGD's step sizes start in [low, high] (rate_low, rate_high), which needs "
                f"0 <= low <= high < inf, got [{self.low}, {self.high}]"
            )

    def init(self, objective, rng, dtype=np.float32, xp=np):
        """A fresh phi and alpha, ``(2D,)``."""
        check_generator(rng)
        phi = objective.init(rng, dtype, xp)
        alpha = rng.uniform(self.low, self.high, objective.size)
        return xp.concatenate([phi, xp.asarray(alpha, dtype=dtype)])

    def problem(self, objective, meta):
        """The inner loop from phi by SGD with the rates alpha.

        Raises
        ------
        ShapeError
            if ``meta`` is not ``(2D,)``.
        """
        if meta.shape != (2 * objective.size,):
            raise ShapeError(
                f"Meta-SGD's meta holds phi and alpha, so its shape must be "
                f"({2 * objective.size},), got {meta.shape}: use MetaSGD.init"
            )
        return InnerProblem(objective, meta[: objective.size], SGD(meta[objective.size :]))

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """(dF/dphi, dF/dalpha), ``(T, 2D)``."""
        trajectory, query = unrolled(self, objective, meta, minibatches)
        loss, grad = query.loss, query.grad
        del query  # frees its activations before the pullback allocates its own
        dphi, dalpha = trajectory.pullback(grad)
        return Outcome(array_module(meta).concatenate([dphi, dalpha], axis=1), loss, None)
