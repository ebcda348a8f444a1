"""The points of an inner loop, stored or recomputed.

A second pass through an inner loop, backward or forward, needs phi_j, s_j and
the activations at phi_j. A store trades memory for time: it stores some of
these going forward, and recomputes the others. The numbers are the same, to the
bit. One step forward takes one gradient. One step backward takes one
Hessian-vector product, which costs about two gradients. The table counts copies
of phi, each with the rule's state, and the points whose activations are held.

    store          copies held at once   activations   gradients recomputed
                                         held          per step
    points         k                     of k          0
    iterates       k                     of 1          1
    checkpoints    2 sqrt(k)             of 1          2 - 1 / sqrt(k)

Checkpoints (Griewank 1992; Chen et al. 2016) divide the loop into segments of n
steps. The loop is the composition of its segments, so its pullback is the
composition of the segments' pullbacks, the last segment first. Only the k / n
starts of segments are stored. To pull back a segment, its n iterates are first
recomputed from its start, which takes one gradient for every iterate except the
first. The segment is then pulled back as with "iterates". Its iterates replace
the iterates of the segment pulled back before. So k / n + n iterates are held
at once. This number is least, 2 sqrt(k), at n = sqrt(k).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args

from ..arrays.backend import Array
from ..errors import SettingsError
from ..objectives import Batch, Differentiable, Point
from .rule import InnerRule

Store = Literal["points", "iterates", "checkpoints"]
STORES: tuple[Store, ...] = get_args(Store)
Item = TypeVar("Item")


class Segment(NamedTuple):
    """Consecutive points of an inner loop.

    ``states`` holds the rule's state before the step from each point. ``first``
    is the number of the segment's first step.
    """

    points: Sequence[Point]
    states: Sequence[Any]
    first: int


class Stored(NamedTuple):
    """An inner loop of k steps: k + 1 iterates and states, k points, segments.

    The segments hold the same points and states.
    """

    iterates: Sequence[Array]
    states: Sequence[Any]
    points: Sequence[Point]
    segments: Sequence[Segment]


class Recomputed(Sequence[Item], Generic[Item]):
    """A sequence that recomputes an item from its number at every access."""

    def __init__(self, length: int, item: Callable[[int], Item]) -> None:
        self._length, self._item = length, item

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i):
        places = range(self._length)[i]
        return [self._item(j) for j in places] if isinstance(i, slice) else self._item(places)


@dataclass(frozen=True)
class InnerLoop:
    """One step of ``rule`` on each of ``minibatches``, from step ``first``."""

    objective: Differentiable
    rule: InnerRule
    minibatches: Sequence[Batch]
    first: int = 0

    def part(self, start: int, stop: int) -> InnerLoop:
        """The steps from number ``start`` to ``stop`` (exclusive), counted from
        0."""
        batches = self.minibatches[start:stop]
        return InnerLoop(self.objective, self.rule, batches, self.first + start)

    def end(self, phi: Array, state: Any) -> tuple[Array, Any, Array | None]:
        """phi and state after the last step, and the last mini-batch's loss.

        The loss, ``(T,)``, is taken before the last step. It is None where
        there are no mini-batches. No iterate is stored.
        """
        loss = None
        for j, batch in enumerate(self.minibatches, start=self.first):
            point = self.objective.at(phi, batch)
            g, loss = point.grad, point.loss
            del point  # frees its activations before the next point allocates its own
            phi, state = self.rule.step(phi, g, state, j)
        return phi, state, loss

    def stored(self, phi: Array, state: Any, store: Store) -> Stored:
        """The loop from ``phi`` and ``state``, stored as ``store`` prescribes.

        Raises
        ------
        SettingsError
            if ``store`` is not one of ``STORES``.
        """
        if store not in STORES:
            raise SettingsError(f"store must be one of {', '.join(STORES)}, got {store!r}")
        if store == "checkpoints":
            return _Checkpoints.of(self, phi, state).stored()
        iterates, states, points = [phi], [state], []
        for j, batch in enumerate(self.minibatches, start=self.first):
            point = self.objective.at(iterates[-1], batch)
            phi, state = self.rule.step(iterates[-1], point.grad, states[-1], j)
            iterates.append(phi)
            states.append(state)
            if store == "points":
                points.append(point)
            del point  # frees its activations, unless stored, before the next point needs memory
        kept = points if store == "points" else self.points_at(iterates)
        return Stored(iterates, states, kept, [Segment(kept, states, self.first)])

    def points_at(self, iterates: Sequence[Array]) -> Sequence[Point]:
        """The points at all mini-batches, recomputed at every access."""
        batches = self.minibatches
        return Recomputed(len(batches), lambda j: self.objective.at(iterates[j], batches[j]))


@dataclass(frozen=True)
class _Checkpoints:
    """A loop in segments of ``length`` steps; the last segment may be shorter.

    It stores the ``starts`` of the segments and the ``end`` of the loop, each
    an iterate with its state.
    """

    loop: InnerLoop
    length: int
    starts: Sequence[tuple[Array, Any]]
    end: tuple[Array, Any]

    @classmethod
    def of(cls, loop: InnerLoop, phi: Array, state: Any) -> _Checkpoints:
        """The loop in segments of sqrt(k) steps, rounded up."""
        k = len(loop.minibatches)
        length = 1 + isqrt(max(k - 1, 0))
        starts = []
        for start in range(0, k, length):
            starts.append((phi, state))
            phi, state, _ = loop.part(start, start + length).end(phi, state)
        return cls(loop, length, starts, (phi, state))

    def stored(self) -> Stored:
        """Iterates, states, points and segments, all recomputed."""
        k = len(self.loop.minibatches)
        iterates, states = (
            Recomputed(k + 1, lambda j, which=which: self._at(j)[which]) for which in (0, 1)
        )
        segments = Recomputed(len(self.starts), self._segment)
        return Stored(iterates, states, self.loop.points_at(iterates), segments)

    def _segment(self, i: int) -> Segment:
        """Segment number ``i``, its iterates recomputed."""
        start = i * self.length
        part = self.loop.part(start, start + self.length)
        # The step on the last mini-batch leads to the next segment, so this
        # segment does not need it.
        way = part.part(0, len(part.minibatches) - 1).stored(*self.starts[i], "iterates")
        return Segment(part.points_at(way.iterates), way.states, part.first)

    def _at(self, j: int) -> tuple[Array, Any]:
        """Iterate and state number ``j``, recomputed from their segment's
        start."""
        if j == len(self.loop.minibatches):
            return self.end
        i = j // self.length
        return self.loop.part(i * self.length, j).end(*self.starts[i])[:2]
