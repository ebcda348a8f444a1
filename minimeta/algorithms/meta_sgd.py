"""Meta-SGD (Li, Zhou, Chen and Li 2017): MAML that learns a step size for every parameter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..arrays.backend import array_module
from ..errors import SettingsError, ShapeError
from ..inner import SGD, InnerRule, Store
from ..registry import setting
from .base import ALGORITHMS, Algorithm, InnerProblem, Outcome, unrolled


@ALGORITHMS.register("meta-sgd")
@dataclass(frozen=True)
class MetaSGD(Algorithm):
    """The exact gradient of the loss after adaptation, with respect to phi and to the step sizes
    alpha, one a parameter.

    meta = (phi, alpha), ``(2D,)``. The inner step is phi_{j+1} = phi_j - alpha o g_j, on
    mini-batches 1 .. k-1, and F(phi, alpha) = L_k(phi_k). Let v_k = g_k, and
    v_j = dF/dphi_j = (I - H_j diag(alpha)) v_{j+1}, as ``pullback`` computes it step by
    step. A step's alpha enters through -alpha o g_j alone, so

        dF/dphi = v_1,        dF/dalpha = -sum_j g_j o v_{j+1}.

    For one inner step that is the paper's: dF/dalpha = -g_1 o g_2, larger where the two
    gradients disagree. alpha starts uniform in [``low``, ``high``] (the paper's
    [0.005, 0.1]) and may become negative. ``store``: see ``unroll``.
    """

    # Nothing passes from task to task: the rates are in meta.
    rule: InnerRule = field(init=False, default=SGD(0.0))
    low: float = setting(
        0.005, "Meta-SGD: step sizes start uniform in [RATE_LOW, RATE_HIGH]", flag="rate_low"
    )
    high: float = setting(0.1, "see rate_low", flag="rate_high")
    store: Store = setting("points", "see MAML's")
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high < float("inf"):
            raise SettingsError(
                "Meta-SGD's step sizes start in [low, high] (rate_low, rate_high): "
                f"0 <= low <= high is needed, got [{self.low}, {self.high}]"
            )

    def init(self, objective, rng, dtype=np.float32, xp=np):
        """A fresh phi and alpha, ``(2D,)``."""
        phi = objective.init(rng, dtype, xp)
        alpha = rng.uniform(self.low, self.high, objective.size)
        return xp.concatenate([phi, xp.asarray(alpha, dtype=dtype)])

    def problem(self, objective, meta):
        """phi, and SGD with the rates alpha."""
        if meta.shape != (2 * objective.size,):
            raise ShapeError(
                f"Meta-SGD's meta is phi and alpha, shape ({2 * objective.size},), got {meta.shape}"
            )
        return InnerProblem(objective, meta[: objective.size], SGD(meta[objective.size :]))

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """(dF/dphi, dF/dalpha), ``(T, 2D)``."""
        trajectory, query = unrolled(self, objective, meta, minibatches)
        loss, grad = query.loss, query.grad
        del query  # its activations make room for those of the pullback
        dphi, dalpha = trajectory.pullback(grad)
        return Outcome(array_module(meta).concatenate([dphi, dalpha], axis=1), loss, None)
