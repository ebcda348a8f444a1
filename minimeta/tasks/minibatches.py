"""The meta-batch, and the schedule that cuts a task's examples into
mini-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, NamedTuple, overload

import numpy as np

from ..arrays.backend import Array, array_module
from ..errors import SettingsError, ShapeError
from ..registry import setting

Order = Literal["cycle", "replacement"]
Tail = Literal["shared", "separate"]


class Minibatches(Sequence[tuple[Array, Array]]):
    """A meta-batch: a sequence of k mini-batches (x_i, y_i), each of T tasks.

    T is the number of tasks, which are learned from side by side. k is the
    number of mini-batches of each task, in the order in which the inner loop
    takes them. N is the number of examples of a task in one mini-batch.

    Parameters
    ----------
    x, y
        arrays ``(k, T, N, *input)`` and ``(k, T, N, *target)``, or sequences of
        k arrays ``(T, N_i, ...)``. The mini-batches of a sequence may differ in
        N, such as a larger query set at the end.

    Raises
    ------
    ShapeError
        if x and y disagree on k, T or N, if a mini-batch is empty, or if a
        mini-batch is not an array.
    """

    def __init__(self, x: Array | Sequence[Array], y: Array | Sequence[Array]) -> None:
        if len(x) != len(y):
            raise ShapeError(
                "x and y must hold equally many mini-batches: "
                f"x holds {len(x)} mini-batches and y holds {len(y)}"
            )
        for i, (x_i, y_i) in enumerate(zip(x, y, strict=True)):
            if not (hasattr(x_i, "shape") and hasattr(y_i, "shape")):
                raise ShapeError(
                    f"mini-batch {i}: x and y must be arrays that start with (tasks, examples), "
                    f"got {type(x_i).__name__} and {type(y_i).__name__}"
                )
            if x_i.ndim < 2 or x_i.shape[:2] != y_i.shape[:2] or x_i.shape[0] != x[0].shape[0]:
                raise ShapeError(
                    f"mini-batch {i}: x and y must start with the same (tasks, examples), "
                    f"got {x_i.shape} and {y_i.shape} where x[0] is {x[0].shape}"
                )
            if 0 in x_i.shape[:2]:
                raise ShapeError(f"mini-batch {i} holds no examples: x has shape {x_i.shape}")
        self.x, self.y = x, y

    @classmethod
    def gather(
        cls, positions: Sequence[np.ndarray], take: Callable[[np.ndarray], tuple[Array, Array]]
    ) -> Minibatches:
        """The mini-batches at ``positions``, k host arrays ``(T, N_i)``.

        ``take`` maps positions ``(..., T, N)`` to (x, y). Where all
        mini-batches have one size, ``take`` is called once and the data are
        arrays ``(k, T, N, ...)``.
        """
        if len({each.shape for each in positions}) == 1:
            return cls(*take(np.stack(positions)))
        pairs = [take(each) for each in positions]
        return cls([x for x, _ in pairs], [y for _, y in pairs])

    def __repr__(self) -> str:
        """k, T, N, and the shapes and dtypes of x and y."""
        if not len(self):
            return "Minibatches(k=0)"
        sizes = [x.shape[1] for x in self.x]
        size = sizes[0] if len(set(sizes)) == 1 else sizes
        return (
            f"Minibatches(k={len(self)}, T={self.tasks}, N={size}, x: {_told(self.x)}, "
            f"y: {_told(self.y)})"
        )

    @property
    def tasks(self) -> int:
        """T, the number of tasks."""
        return self.x[0].shape[0]

    def __len__(self) -> int:
        """k, the number of mini-batches of each task."""
        return len(self.x)

    @overload
    def __getitem__(self, i: int) -> tuple[Array, Array]: ...
    @overload
    def __getitem__(self, i: slice) -> Minibatches: ...
    def __getitem__(self, i):
        return Minibatches(self.x[i], self.y[i]) if isinstance(i, slice) else (self.x[i], self.y[i])

    def of_tasks(self, start: int, stop: int) -> Minibatches:
        """The mini-batches of tasks ``start`` to ``stop`` (exclusive), as
        views."""
        return Minibatches([x[start:stop] for x in self.x], [y[start:stop] for y in self.y])


def _told(part: Array | Sequence[Array]) -> str:
    """The shape and the dtype of an array, or of each of a sequence."""
    if hasattr(part, "shape"):
        return f"{part.shape} {part.dtype}"
    shapes = ", ".join(str(each.shape) for each in part)
    return f"[{shapes}] {part[0].dtype}"


class Episode(NamedTuple):
    """A few-shot evaluation of T tasks.

    ``support`` and ``query`` are pairs of x ``(T, N, *input)`` and y ``(T, N,
    *target)``. T is the number of tasks. N is the number of examples of a task,
    which may differ between support and query.
    """

    support: tuple[Array, Array]
    query: tuple[Array, Array]

    def __repr__(self) -> str:
        """T, and the shapes and dtypes of support and query."""
        parts = (
            f"{name}: x {_told(x)}, y {_told(y)}"
            for name, (x, y) in zip(self._fields, self, strict=True)
        )
        return f"Episode(T={self.support[0].shape[0]}, {', '.join(parts)})"

    def of_tasks(self, start: int, stop: int) -> Episode:
        """The episode of tasks ``start`` to ``stop`` (exclusive), as views."""
        return Episode(*((x[start:stop], y[start:stop]) for x, y in self))


@dataclass(frozen=True)
class MinibatchSchedule:
    """The division of a task's examples into k mini-batches of ``size``.

    Parameters
    ----------
    k, size
        number of mini-batches of a task, and N, the number of a task's examples
        in each.
    tail
        ``"shared"``: the last mini-batch comes from the same pool of examples
        as the others. ``"separate"``: the last mini-batch is a separate set of
        ``tail_shots`` examples per class, which no other mini-batch contains.
    order
        ``"cycle"``: shuffle the pool, cut mini-batches in order, and reshuffle
        when the pool runs out. A mini-batch may straddle two passes.
        ``"replacement"``: draw a fresh random subset for each mini-batch.
    shots
        examples per class (points, in regression) in the pool. The default is
        just enough that no example repeats.
    tail_shots
        examples per class in a separate tail. The default is enough for
        ``size``.

    Raises
    ------
    SettingsError
        if a number is below 1, if ``tail`` or ``order`` has another value, or
        if ``tail_shots`` is set without a separate tail.
    """

    k: int = setting(
        help="mini-batches a task: Reptile's inner steps; MAML and FOMAML adapt on k-1 and score "
        "on the last",
        least=1,
    )
    size: int = setting(help="examples in a mini-batch", least=1)
    tail: Tail = setting("shared", "last mini-batch: from the same examples, or from held-out ones")
    order: Order = setting("cycle", "cut mini-batches from shuffled passes, or draw each one anew")
    shots: int | None = setting(
        None,
        "examples of each class (points, in regression) to cut mini-batches from; none: as many as "
        "the mini-batches hold",
        least=1,
    )
    tail_shots: int | None = setting(
        None, "examples of each class in a separate tail; none: enough for one mini-batch", least=1
    )

    def __post_init__(self) -> None:
        if self.k < 1 or self.size < 1:
            raise SettingsError(
                f"a schedule needs k >= 1 and size >= 1, got k={self.k}, size={self.size}"
            )
        if self.tail not in ("shared", "separate"):
            raise SettingsError(f"tail must be 'shared' or 'separate', got {self.tail!r}")
        _check_order(self.order)
        if any(count is not None and count < 1 for count in (self.shots, self.tail_shots)):
            raise SettingsError(
                f"shots and tail_shots must be 1 or more, got {self.shots} and {self.tail_shots}"
            )
        if self.tail == "separate" and self.k < 2:
            raise SettingsError(
                "a separate tail leaves nothing to adapt on where k is 1: set k to 2 or more"
            )
        if self.tail == "shared" and self.tail_shots is not None:
            raise SettingsError(
                f"tail_shots is {self.tail_shots}, but only a separate tail has tail_shots: "
                "set tail='separate', or tail_shots to None (--tail-shots none)"
            )

    @property
    def cut(self) -> int:
        """The number of mini-batches cut from the pool.

        It is k, or k - 1 with a separate tail.
        """
        return self.k - (self.tail == "separate")

    def shots_each(self, ways: int) -> tuple[int, int]:
        """(shots, tail_shots) per class for ``ways`` classes, defaults filled
        in."""
        shots = self.shots if self.shots is not None else -(-self.cut * self.size // ways)
        if self.tail == "shared":
            return shots, 0
        return shots, self.tail_shots if self.tail_shots is not None else -(-self.size // ways)

    def indices(self, rng: np.random.Generator, tasks: int, ways: int = 1) -> list[np.ndarray]:
        """k host arrays ``(T, N_i)`` of positions in a task's examples.

        A task's examples are numbered class by class. Each class has ``shots``
        examples of the pool, then ``tail_shots`` of the tail.
        """
        shots, tail_shots = self.shots_each(ways)
        first = (shots + tail_shots) * np.arange(ways)[:, None]
        pool = (first + np.arange(shots)).ravel()
        batches = [
            pool[positions]
            for positions in draw_positions(rng, tasks, len(pool), self.cut, self.size, self.order)
        ]
        if self.tail == "separate":
            tail = (first + shots + np.arange(tail_shots)).ravel()
            batches.append(np.broadcast_to(tail, (tasks, len(tail))))
        return batches


def draw_positions(
    rng: np.random.Generator, tasks: int, examples: int, k: int, size: int, order: Order = "cycle"
) -> np.ndarray:
    """The positions of k mini-batches of ``size`` among ``examples``.

    The result is ``(k, T, size)`` on the host. Every task draws its own
    positions.

    Raises
    ------
    SettingsError
        if there are no examples, or fewer than ``size`` with order
        "replacement".
    """
    _check_order(order)
    if k == 0:
        return np.empty((0, tasks, size), dtype=np.int64)
    if examples < 1 or (order == "replacement" and examples < size):
        raise SettingsError(
            f"mini-batches of {size} cannot be drawn ({order}) from {examples} examples: "
            "use a smaller size or more examples"
        )
    passes = k if order == "replacement" else -(-k * size // examples)
    shuffled = rng.permuted(np.tile(np.arange(examples), (tasks, passes, 1)), axis=2)
    if order == "replacement":
        return shuffled[:, :, :size].swapaxes(0, 1)
    return shuffled.reshape(tasks, -1)[:, : k * size].reshape(tasks, k, size).swapaxes(0, 1)


def check_counts(**counts: object) -> None:
    """Refuses arguments that count something, unless they are whole numbers of
    1 or more.

    Raises
    ------
    SettingsError
        if one of ``counts`` is not.
    """
    for name, count in counts.items():
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise SettingsError(f"{name} must be a whole number, 1 or more, got {count!r}")


def check_seed(seed: object) -> None:
    """Refuses a seed that is not a whole number of 0 or more.

    Raises
    ------
    SettingsError
        if it is not.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise SettingsError(f"seed must be a whole number, 0 or more, got {seed!r}")


def _check_order(order: str) -> None:
    if order not in ("cycle", "replacement"):
        raise SettingsError(f"order must be 'cycle' or 'replacement', got {order!r}")


def minibatches_of(
    rng: np.random.Generator,
    examples: tuple[Array, Array],
    k: int,
    size: int,
    order: Order = "cycle",
) -> Minibatches:
    """k mini-batches of ``size`` cut from a given set of examples.

    ``examples`` is x ``(T, n, *input)`` and y ``(T, n, *target)``.
    """
    x, y = examples
    xp = array_module(x)
    rows = xp.arange(x.shape[0])[:, None]

    def take(positions: np.ndarray) -> tuple[Array, Array]:
        there = xp.asarray(positions)
        return x[rows, there], y[rows, there]

    return Minibatches.gather(list(draw_positions(rng, *x.shape[:2], k, size, order)), take)
