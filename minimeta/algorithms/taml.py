"""TAML, task-agnostic meta-learning (Jamal, Qi and Shah 2018).

TAML is MAML from an initialization that favours no task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..arrays.backend import Array
from ..errors import SettingsError, ShapeError
from ..losses import Loss
from ..objectives import Differentiable, HasEntropy, HasPredictions, Point, asked
from ..registry import setting
from .base import ALGORITHMS, Outcome, mean, unrolled
from .inequality import MEASURES, Inequality, Theil, as_number
from .maml import MAML


@ALGORITHMS.register("taml")
@dataclass(frozen=True)
class TAML(MAML):
    """MAML plus ``weight`` times the inequality of the tasks' initial losses.

    The direction is the exact gradient of that objective. Let L_i(phi) be task
    i's loss on its first mini-batch before any step, F_i(phi) its loss after
    adaptation, and I one of the measures of inequality.py. The objective of a
    meta-batch of T tasks is

        (1/T) sum_i F_i(phi) + weight I(L_1(phi), ..., L_T(phi)).

    By the chain rule its gradient is the mean over tasks of the directions

        dF_i/dphi + T weight (dI/dL_i) g_i,      g_i = dL_i/dphi.

    The combiner must therefore be ``mean``. ``direction`` gives the first
    summand. ``couple``, which sees all T tasks, adds the second. A task whose
    loss is above the equal share gets more weight. A task below the equal share
    gets less, because its factor of g_i is negative. I is of degree 0, so the
    common size of the losses does not matter. I is 0 for one task, and for
    equal losses.

    With the store "points", L_i and g_i come from the inner loop's first point.
    The other stores recompute that point. Where k = 1 the first mini-batch is
    also the one that scores, and F_i = L_i.

    The losses must be positive. At a loss of exactly zero, measures with a
    logarithm or a negative power give a direction that is not finite. Where all
    losses are zero, every measure does.

    Raises
    ------
    SettingsError
        if ``weight`` is negative or not a finite number, if ``measure`` is not
        an inequality measure, or if ``rule`` is not an inner rule.
    """

    measure: Inequality = setting(
        Theil(),
        "TAML: the measure of unequal losses",
        flag="bias",
        registry=MEASURES,
        prefix="bias_",
    )
    weight: float = setting(
        0.1, "TAML: weight of the bias term beside the loss", flag="bias_weight", least=0
    )
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weight(self)
        if not isinstance(self.measure, Inequality):
            raise SettingsError(
                "TAML's measure must be an inequality measure such as Theil(), "
                f"got {self.measure!r}"
            )

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """dF_i/dphi, ``(T, D)``, with L_i and g_i as the coupling."""
        trajectory, query = unrolled(self, objective, meta, minibatches, state)
        loss, grad = query.loss, query.grad
        del query  # frees its activations before the pullback allocates its own
        initial = (loss, grad) if len(minibatches) == 1 else _loss_and_grad(trajectory.points[0])
        direction, _ = trajectory.pullback(grad, rates=False)
        return Outcome(direction, loss, trajectory.states[-1], initial)

    def couple(self, outcome: Outcome) -> Outcome:
        """dF_i/dphi + T weight (dI/dL_i) g_i, ``(T, D)``."""
        direction, loss, state, (initial_loss, initial_grad) = outcome
        slopes = len(loss) * self.weight * self.measure.gradient(initial_loss)
        return Outcome(direction + slopes[:, None] * initial_grad, loss, state)

    def prepared(self, plan):
        """TAML unchanged, for two or more tasks combined by their mean.

        Raises
        ------
        SettingsError
            if a meta-batch has one task, if the combiner is not ``mean``, or if
            k is below 2.
        """
        if plan.tasks < 2:
            raise SettingsError(
                f"an inequality measure needs at least two tasks, got {plan.tasks}: "
                "set meta_batch to 2 or more"
            )
        if plan.combine is not mean:
            raise SettingsError(
                "taml weighs the tasks of a meta-batch itself, and its gradient is the mean of "
                "their directions: set combine to mean"
            )
        return super().prepared(plan)


@ALGORITHMS.register("taml-entropy")
@dataclass(frozen=True)
class EntropyTAML(MAML):
    """MAML that favours high entropy before adaptation and low entropy after
    it.

    The direction is the exact gradient of that objective. Let H_j(phi) be the
    mean entropy of the class probabilities that phi predicts for mini-batch j
    (the sum, where the loss is ``Summed``). A task's objective is

        F(phi) = L_k(phi_k) + weight (H_k(phi_k) - H_1(phi)),
        phi_k = U^{k-1}(phi).

    The gradient of L_k + weight H_k at phi_k is pulled back, and weight
    dH_1/dphi is subtracted. The losses of the outcome are the plain L_k. Loss
    and entropy are taken of the same predictions, so they share one forward
    pass. A store other than "points" recomputes the first point.

    Raises
    ------
    SettingsError
        if ``weight`` is negative or not a finite number, or if ``rule`` is not
        an inner rule.
    """

    weight: float = setting(
        0.1, "TAML: weight of the bias term beside the loss", flag="bias_weight", least=0
    )
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weight(self)

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """dF/dphi, ``(T, D)``.

        Raises
        ------
        ShapeError
            if there are fewer than two mini-batches.
        SettingsError
            if the objective has no entropy of classes.
        """
        entropy = _entropy_of(objective)
        if len(minibatches) < 2:
            raise ShapeError(
                f"EntropyTAML needs at least two mini-batches per task, got {len(minibatches)}: "
                "without adaptation the two entropies cancel, so use MAML"
            )
        trajectory, query = unrolled(self, objective, meta, minibatches, state)
        loss, grad = query.loss, query.grad + self.weight * _under(query, entropy).grad
        del query  # frees its activations before the next points allocate theirs
        before = _under(trajectory.points[0], entropy).grad
        direction, _ = trajectory.pullback(grad, rates=False)
        return Outcome(direction - self.weight * before, loss, trajectory.states[-1])

    def prepared(self, plan):
        """EntropyTAML unchanged, if the objective predicts classes.

        Raises
        ------
        SettingsError
            if the objective has no entropy of classes, or if k is below 2.
        """
        _entropy_of(plan.objective)
        return super().prepared(plan)


def _entropy_of(objective: Differentiable) -> Loss:
    """The entropy of the classes that the objective predicts."""
    try:
        return asked(objective, HasEntropy, "EntropyTAML needs an entropy of classes").entropy()
    except SettingsError as error:
        raise SettingsError(
            f"{error}. Without classes, use an inequality measure: TAML(measure=Theil())"
        ) from None


def _under(point: Point, loss: Loss) -> Point:
    """The point's predictions, scored by another loss."""
    return asked(point, HasPredictions, "EntropyTAML needs a point's predictions").under(loss)


def _loss_and_grad(point: Point) -> tuple[Array, Array]:
    """The point's loss and gradient.

    As a function, it leaves no variable that holds the point's activations.
    """
    return point.loss, point.grad


def _check_weight(algorithm: Any) -> None:
    """Raise a SettingsError unless the weight is a finite number, 0 or more."""
    if as_number(algorithm, "weight") < 0:
        raise SettingsError(
            f"{type(algorithm).__name__}'s weight must be 0 or more, got {algorithm.weight:g}: "
            "use 0 for plain MAML"
        )
