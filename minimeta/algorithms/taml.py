"""TAML: task-agnostic meta-learning (Jamal, Qi and Shah 2018): MAML from an initialization that
favours no task."""

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
    """The exact gradient of MAML's objective plus ``weight`` times the inequality of the tasks'
    initial losses.

    With L_i(phi) task i's loss on its first mini-batch before any step, F_i(phi) its loss
    after adaptation and I one of the measures of inequality.py, the objective of a
    meta-batch of T tasks is

        (1/T) sum_i F_i(phi) + weight I(L_1(phi), ..., L_T(phi)),

    and by the chain rule its gradient is the mean over tasks of the directions

        dF_i/dphi + T weight (dI/dL_i) g_i,      g_i = dL_i/dphi,

    so combine them with ``mean``. ``direction`` gives the first summand, and ``couple``,
    which sees all T tasks, adds the second. A task whose loss is above the equal share
    gets more weight, and one below it less: its factor of g_i is negative. I is of
    degree 0: it compares losses, whatever their common size. I is 0 for one task, and
    for equal losses.

    Store "points" has L_i and g_i from the inner loop's first point; the other stores
    recompute that point. Where k = 1 the first mini-batch is the one that scores, and
    F_i = L_i. The losses must be positive: at a loss of exactly zero, measures with a
    logarithm or a negative power give a direction that is not finite; at a total of
    zero, all do.
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
                f"TAML's measure must be an inequality measure such as Theil(), got {self.measure!r}"
            )

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """dF_i/dphi, ``(T, D)``; and L_i and g_i for ``couple``."""
        trajectory, query = unrolled(self, objective, meta, minibatches, state)
        loss, grad = query.loss, query.grad
        del query  # its activations make room for the others
        initial = (loss, grad) if len(minibatches) == 1 else _loss_and_grad(trajectory.points[0])
        direction, _ = trajectory.pullback(grad, rates=False)
        return Outcome(direction, loss, trajectory.states[-1], initial)

    def couple(self, outcome: Outcome) -> Outcome:
        """dF_i/dphi + T weight (dI/dL_i) g_i."""
        direction, loss, state, (initial_loss, initial_grad) = outcome
        slopes = len(loss) * self.weight * self.measure.gradient(initial_loss)
        return Outcome(direction + slopes[:, None] * initial_grad, loss, state)

    def prepared(self, plan):
        """Itself, where several tasks are compared, and their mean is taken."""
        if plan.tasks < 2:
            raise SettingsError(
                "an inequality measure needs at least two tasks: set meta_batch to 2 or more"
            )
        if plan.combine is not mean:
            raise SettingsError(
                "an inequality weighs the tasks of a meta-batch itself, and its gradient is their "
                "mean: set combine to mean"
            )
        return super().prepared(plan)


@ALGORITHMS.register("taml-entropy")
@dataclass(frozen=True)
class EntropyTAML(MAML):
    """The exact gradient of MAML's objective, and of entropy that is high before adaptation and low
    after it.

    With H_j(phi) the mean entropy of the class probabilities that phi predicts for
    mini-batch j (its sum, where the loss is ``Summed``), a task's objective is

        F(phi) = L_k(phi_k) + weight (H_k(phi_k) - H_1(phi)),      phi_k = U^{k-1}(phi).

    The gradient of L_k + weight H_k at phi_k is pulled back, and weight dH_1/dphi is
    subtracted. The losses of the outcome are the plain L_k. The entropies are of the
    predictions whose losses are taken, and share their forward passes. A store other
    than "points" recomputes the first point.
    """

    weight: float = setting(
        0.1, "TAML: weight of the bias term beside the loss", flag="bias_weight", least=0
    )
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weight(self)

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """dF/dphi, ``(T, D)``."""
        entropy = _entropy_of(objective)
        if len(minibatches) < 2:
            raise ShapeError(
                f"EntropyTAML needs at least two mini-batches a task, got {len(minibatches)}: "
                "where nothing is adapted the two entropies cancel, so use MAML"
            )
        trajectory, query = unrolled(self, objective, meta, minibatches, state)
        loss, grad = query.loss, query.grad + self.weight * _under(query, entropy).grad
        del query  # its activations make room for the others
        before = _under(trajectory.points[0], entropy).grad
        direction, _ = trajectory.pullback(grad, rates=False)
        return Outcome(direction - self.weight * before, loss, trajectory.states[-1])

    def prepared(self, plan):
        """Itself, where classes are predicted."""
        _entropy_of(plan.objective)
        return super().prepared(plan)


def _entropy_of(objective: Differentiable) -> Loss:
    """The entropy beside the objective's loss."""
    try:
        return asked(objective, HasEntropy, "EntropyTAML needs an entropy of classes").entropy()
    except SettingsError as error:
        raise SettingsError(
            f"{error}; without classes use an inequality measure, TAML(measure=Theil())"
        ) from None


def _under(point: Point, loss: Loss) -> Point:
    """The point's predictions under another loss."""
    return asked(point, HasPredictions, "EntropyTAML needs a point's predictions").under(loss)


def _loss_and_grad(point: Point) -> tuple[Array, Array]:
    """A function of its own, so that no variable holds the point's activations."""
    return point.loss, point.grad


def _check_weight(algorithm: Any) -> None:
    """Raise the SettingsError of a weight that is not a number, 0 or more."""
    if as_number(algorithm, "weight") < 0:
        raise SettingsError(
            f"{type(algorithm).__name__}'s weight must be 0 or more, got {algorithm.weight:g}: "
            "use 0 for none, as MAML"
        )
