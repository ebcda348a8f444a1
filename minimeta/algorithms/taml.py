"""TAML: task-agnostic meta-learning (Jamal, Qi and Shah 2018): MAML from an initialization that favours no task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..arrays.backend import Array
from ..errors import SettingsError, ShapeError
from ..losses import Entropy, Loss, SoftmaxCrossEntropy, Summed
from ..objectives import Batch, Objective, Point
from .base import Outcome, unrolled
from .inequality import Inequality, Theil, as_number
from .maml import MAML


class Uncoupled(NamedTuple):
    """An outcome of some of a meta-batch's tasks, and their losses ``(T,)`` and gradients ``(T, D)`` before any step."""

    direction: Array
    loss: Array
    state: Any
    initial_loss: Array
    initial_grad: Array


@dataclass(frozen=True)
class TAML(MAML):
    """The exact gradient of MAML's objective plus ``weight`` times the inequality of the tasks' initial losses.

    With L_i(phi) task i's loss on its first mini-batch before any step, F_i(phi) its loss after adaptation and I one of the
    measures of inequality.py, the objective of a meta-batch of T tasks is

        (1/T) sum_i F_i(phi) + weight I(L_1(phi), ..., L_T(phi)),

    and by the chain rule its gradient is the mean over tasks, so combine with ``mean``, of the directions

        dF_i/dphi + T weight (dI/dL_i) g_i,      g_i = dL_i/dphi.

    A task whose loss is above what equality would make it is so weighed up, and one below it down, its g_i then negative.
    I is of degree 0: it compares losses, and does not mind how large they all are. It is 0 for one task, and for equal ones.

    Store "points" has L_i and g_i from the inner loop's first point; the others make that point again. Where k = 1 the
    first mini-batch is the one that scores, and F_i = L_i. The losses must be positive: at a loss of exactly zero, of the
    measures with a logarithm or a negative power in them, the direction is not finite; at a total of zero, of any.
    """

    measure: Inequality = field(default_factory=Theil)
    weight: float = 0.1

    def __post_init__(self) -> None:
        _check_weight(self)
        if not isinstance(self.measure, Inequality):
            raise SettingsError(
                f"TAML's measure must be an inequality measure such as Theil(), got {self.measure!r}"
            )

    def run(self, objective, meta, minibatches, state=None) -> Uncoupled:
        """dF_i/dphi, ``(T, D)``, and what ``couple`` needs."""
        trajectory, query = unrolled(self, objective, meta, minibatches, state)
        loss, grad = query.loss, query.grad
        del query  # its activations make room for the others
        initial = (loss, grad) if len(minibatches) == 1 else _loss_and_grad(trajectory.points[0])
        direction, _ = trajectory.pullback(grad, rates=False)
        return Uncoupled(direction, loss, trajectory.states[-1], *initial)

    def couple(self, outcome: Uncoupled) -> Outcome:
        """dF_i/dphi + T weight (dI/dL_i) g_i."""
        direction, loss, state, initial_loss, initial_grad = outcome
        slopes = len(loss) * self.weight * self.measure.gradient(initial_loss)
        return Outcome(direction + slopes[:, None] * initial_grad, loss, state)


@dataclass(frozen=True)
class EntropyTAML(MAML):
    """The exact gradient of MAML's objective, and of entropy that is high before adaptation and low after it.

    With H_j(phi) the mean entropy of the class probabilities that phi predicts for mini-batch j (its sum, where the loss is
    ``Summed``), a task's objective is

        F(phi) = L_k(phi_k) + weight (H_k(phi_k) - H_1(phi)),      phi_k = U^{k-1}(phi).

    The gradient of L_k + weight H_k at phi_k is pulled back; the direction is what comes of it, less weight dH_1/dphi. The
    losses that ``run`` gives are the plain L_k. The entropies are of the predictions whose losses are taken, and share
    their forward passes; with a store other than "points" the first point is made again.
    """

    weight: float = 0.1

    def __post_init__(self) -> None:
        _check_weight(self)

    def run(self, objective, meta, minibatches, state=None) -> Outcome:
        """dF/dphi, ``(T, D)``."""
        entropy = _entropy_beside(objective, minibatches)
        trajectory, query = unrolled(self, objective, meta, minibatches, state)
        loss, grad = query.loss, query.grad + self.weight * query.under(entropy).grad
        del query  # its activations make room for the others
        before = trajectory.points[0].under(entropy).grad
        direction, _ = trajectory.pullback(grad, rates=False)
        return Outcome(direction - self.weight * before, loss, trajectory.states[-1])


def _loss_and_grad(point: Point) -> tuple[Array, Array]:
    """A function of its own, so that no variable holds the point's activations."""
    return point.loss, point.grad


def _check_weight(algorithm: TAML | EntropyTAML) -> None:
    """Raise the SettingsError of a weight that is not a number, 0 or more."""
    if as_number(algorithm, "weight") < 0:
        raise SettingsError(
            f"{type(algorithm).__name__}'s weight must be 0 or more, got {algorithm.weight:g}: use 0 for none, as MAML"
        )


def _entropy_beside(objective: Any, minibatches: Sequence[Batch]) -> Loss:
    """The entropy, summed over a mini-batch or averaged as the objective's loss is.

    Raises
    ------
    SettingsError, ShapeError
        of an objective without classes, of too few mini-batches to adapt.
    """
    loss = getattr(objective, "loss", None)
    summed = isinstance(loss, Summed)
    if not (
        isinstance(objective, Objective)
        and isinstance(loss.loss if summed else loss, SoftmaxCrossEntropy)
    ):
        raise SettingsError(
            "EntropyTAML is for classification, an Objective with SoftmaxCrossEntropy(): use an inequality measure, "
            "TAML(measure=Theil()), which any positive loss has"
        )
    if len(minibatches) < 2:
        raise ShapeError(
            f"EntropyTAML needs at least two mini-batches a task, got {len(minibatches)}: where nothing is adapted the two "
            "entropies cancel, so use MAML"
        )
    return Summed(Entropy()) if summed else Entropy()
