"""Evaluation: how well does a learner adapt to unseen tasks?

Tasks come in chunks of fixed size. The random generator of chunk i is seeded by
(seed, i). So an evaluation on more tasks begins with the same tasks, and its
numbers do not depend on the number of threads that share the chunks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, get_args

import numpy as np

from ..arrays import threads
from ..arrays.backend import Array, array_module, to_host
from ..arrays.memory import refuse_beyond_memory
from ..errors import DivergenceError, SettingsError, ShapeError
from ..objectives import Differentiable, HasExamples
from ..tasks import Episode, EpisodeDistribution, ExampleTasks, Minibatches
from .learner import Learner, Mode, predictions
from .scoring import IMAGES, POINTS, Scoring
from .task_parallel import fitting_together

_EVALUATION = 2  # stream of random numbers under one seed; meta_training uses the first two
CHUNK = 10
_MOST = 10**8  # tasks, whose scores fill about a gigabyte

Progress = Callable[[Iterable], Iterable]


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Scores of tasks: ``values`` holds a number or a row per task.

    ``tasks`` identifies the tasks by a digest of the first of them. Scores of
    other tasks cannot be compared in pairs.
    """

    values: np.ndarray
    tasks: str | None = None

    @property
    def mean(self) -> np.ndarray:
        """Mean over tasks."""
        return self.values.mean(axis=0)

    @property
    def interval(self) -> np.ndarray:
        """Half the width of the 95% interval, 1.96 standard errors."""
        return 1.96 * self.values.std(axis=0, ddof=1) / len(self.values) ** 0.5

    def __sub__(self, other: Evaluation) -> Evaluation:
        """The differences task by task, whose interval is that of a paired
        comparison.

        Both evaluations must have scored the same tasks: the same distribution,
        seed, count, shots and queries.

        Raises
        ------
        ShapeError
            if the numbers of tasks or of inner steps differ.
        SettingsError
            if the tasks differ.
        """
        if None not in (self.tasks, other.tasks) and self.tasks != other.tasks:
            raise SettingsError(
                "a paired comparison needs scores of the same tasks: evaluate both with the same "
                "tasks, seed, shots and queries"
            )
        if self.values.shape != other.values.shape:
            raise ShapeError(
                "a paired comparison needs scores of the same tasks: got "
                f"{self.values.shape} and {other.values.shape} scores"
            )
        return Evaluation(self.values - other.values, self.tasks)

    def __repr__(self) -> str:
        pairs = zip(np.ravel(self.mean), np.ravel(self.interval), strict=True)
        told = ", ".join(f"{mean:.4g} +- {interval:.2g}" for mean, interval in pairs)
        return f"{told} (95% intervals over {len(self.values)} tasks)"


class Accuracy(NamedTuple):
    """The accuracies by mode; None for a mode that was not evaluated."""

    transductive: Evaluation | None = None
    inductive: Evaluation | None = None

    def __sub__(self, other: Accuracy) -> Accuracy:
        """The differences task by task, in every mode that both have."""
        pairs = zip(self, other, strict=True)
        return Accuracy(*(None if None in (a, b) else a - b for a, b in pairs))


def score(
    learner: Learner,
    tasks: EpisodeDistribution,
    scoring: Scoring,
    *,
    modes: Sequence[Mode] = get_args(Mode),
    **how: Any,
) -> Accuracy | Evaluation:
    """Score a learner on unseen tasks.

    The scores are accuracies where the objective predicts classes, else the
    loss after each inner step. ``modes`` applies to accuracies only. ``how``
    holds the other arguments of ``accuracy`` and ``adaptation_errors``.
    """
    objective = learner.objective
    refuse_beyond_memory(max(scoring.steps * scoring.size, scoring.shots + (scoring.queries or 0)))
    if isinstance(objective, HasExamples) and objective.examples().classes is not None:
        return accuracy(learner, tasks, scoring, modes=modes, **how)
    return adaptation_errors(learner, tasks, scoring, **how)


def accuracy(
    learner: Learner,
    tasks: EpisodeDistribution,
    scoring: Scoring = Scoring(),
    *,
    count: int = 1000,
    modes: Sequence[Mode] = get_args(Mode),
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = iter,
) -> Accuracy:
    """Share of query images classified correctly after adaptation, per task.

    Transductive: a task's query images are predicted in one batch, so they
    share batch-norm statistics. Inductive: each query image is predicted alone,
    in one batch with the task's support images.

    Raises
    ------
    SettingsError
        if ``count`` is less than 2, a mode is unknown, or ``workers`` is above
        1 on a GPU.
    DivergenceError
        if predictions after adaptation are not finite.
    """
    if not modes or not set(modes) <= set(get_args(Mode)):
        raise SettingsError(f"modes must be among {', '.join(get_args(Mode))}, got {modes!r}")
    meta = learner.meta
    xp = array_module(meta)
    fitting = fitting_together(learner.objective, scoring.size, meta.dtype) if xp is np else CHUNK
    groups = threads.even_chunks(CHUNK, -(-CHUNK // fitting))
    queries = scoring.queries or (POINTS if isinstance(tasks, ExampleTasks) else IMAGES)
    of = _digest(tasks, seed, scoring.shots, queries, xp)

    def scores_of(rng: np.random.Generator) -> np.ndarray:
        episode = tasks.episode(rng, CHUNK, scoring.shots, queries, dtype=meta.dtype, xp=xp)
        batches = scoring.minibatches(rng, episode.support)
        return np.concatenate(
            [score_of(episode.of_tasks(*group), batches.of_tasks(*group)) for group in groups]
        )

    def score_of(episode: Episode, batches: Minibatches) -> np.ndarray:
        phi = learner.adapt(batches)
        return np.stack(
            [_share_right(learner.objective, phi, episode, mode) for mode in modes], axis=1
        )

    values = _over_chunks(scores_of, count, seed, workers, xp, progress)
    return Accuracy(**{mode: Evaluation(values[:, i], of) for i, mode in enumerate(modes)})


def adaptation_errors(
    learner: Learner,
    tasks: EpisodeDistribution,
    scoring: Scoring = Scoring(),
    *,
    count: int = 1000,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = iter,
) -> Evaluation:
    """Loss on query points after 0, 1, ... inner steps, ``(count, steps + 1)``.

    Raises
    ------
    SettingsError
        if ``count`` is less than 2, or ``workers`` is above 1 on a GPU.
    DivergenceError
        if a loss is not finite.
    """
    objective, meta = learner.objective, learner.meta
    xp = array_module(meta)
    queries = POINTS if scoring.queries is None else scoring.queries
    of = _digest(tasks, seed, scoring.shots, queries, xp)

    def scores_of(rng: np.random.Generator) -> np.ndarray:
        episode = tasks.episode(rng, CHUNK, scoring.shots, queries, dtype=meta.dtype, xp=xp)
        iterates = learner.iterates(scoring.minibatches(rng, episode.support))
        return np.stack(
            [to_host(objective.at(phi, episode.query).loss) for phi in iterates], axis=1
        )

    return Evaluation(_over_chunks(scores_of, count, seed, workers, xp, progress), of)


def _generator(seed: int, chunk: int) -> np.random.Generator:
    """The random generator of a chunk of tasks."""
    return np.random.default_rng([seed, _EVALUATION, chunk])


def _digest(tasks: EpisodeDistribution, seed: int, shots: int, queries: int, xp: ModuleType) -> str:
    """A digest of the first tasks of an evaluation, whatever its dtype."""
    digest = hashlib.sha256()
    episode = tasks.episode(_generator(seed, 0), CHUNK, shots, queries, dtype=np.float32, xp=xp)
    for part in episode:
        for array in part:
            digest.update(np.ascontiguousarray(to_host(array)))
    return digest.hexdigest()[:12]


def _over_chunks(
    score: Callable[[np.random.Generator], np.ndarray],
    count: int,
    seed: int,
    workers: int | None,
    xp: ModuleType,
    progress: Progress,
) -> np.ndarray:
    """The first ``count`` rows of ``score`` over chunks of tasks."""
    if count < 2:
        raise SettingsError(f"an interval needs at least 2 tasks, got {count}: evaluate on more")
    if count > _MOST:
        raise SettingsError(f"count must be at most {_MOST}, got {count}")
    threads.check_workers(workers, xp)
    chunks = -(-count // CHUNK)
    at_once = workers or (threads.available_cores() if xp is np else 1)
    with threads.workers(min(at_once, chunks)) as starmap:
        batches = progress(range(i, min(i + at_once, chunks)) for i in range(0, chunks, at_once))
        with np.errstate(over="ignore", invalid="ignore"):  # reported by the error below
            rows = [
                rows
                for batch in batches
                for rows in starmap(score, [(_generator(seed, chunk),) for chunk in batch])
            ]
    # Scores just below the largest of float32 have squares beyond it.
    values = np.concatenate(rows)[:count].astype(np.float64)
    bad = int((~np.isfinite(values.reshape(count, -1))).any(axis=1).sum())
    if bad:
        raise DivergenceError(
            f"adaptation diverges on {bad} of {count} tasks: "
            "try a smaller inner step size or fewer steps"
        )
    return values


def _share_right(objective: Differentiable, phi: Array, episode: Episode, mode: Mode) -> np.ndarray:
    """Share of each task's query images classified correctly, ``(T,)``."""
    xp = array_module(phi)
    (support, _), (x, y) = episode
    logits = predictions(objective, phi, support, x, mode)
    right = (logits.argmax(axis=-1) == y).mean(axis=1)
    return to_host(xp.where(xp.isfinite(logits).all(axis=(1, 2)), right, xp.nan))
