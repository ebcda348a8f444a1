"""Floor 6: how well does a meta-parameter vector adapt to tasks it has not seen?

Tasks come in chunks of fixed size, chunk i drawn from a generator seeded by (seed, i): the first n of more tasks are the
same n, and the numbers do not depend on how many threads share the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..algorithms import Algorithm
from ..arrays import threads
from ..arrays.backend import Array, array_module, to_host
from ..errors import DivergenceError, SettingsError
from ..objectives import Objective
from ..tasks import Episode, FewShotImages, Minibatches, Sinusoid, minibatches_of
from ..tasks.minibatches import Order
from .task_parallel import fitting_together

_EVALUATION = 2  # stream of random numbers under one seed: after meta_training's
CHUNK = 10


@dataclass(frozen=True)
class Adaptation:
    """How a task's parameters are adapted before they are scored: ``steps`` inner steps on mini-batches of ``size``."""

    steps: int = 50
    size: int = 5
    order: Order = "cycle"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """``values``: one number a task, or one row of numbers a task."""

    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean over tasks."""
        return self.values.mean(axis=0)

    @property
    def interval(self) -> np.ndarray:
        """Half the width of the 95% interval of the mean: 1.96 standard errors over tasks."""
        return 1.96 * self.values.std(axis=0, ddof=1) / len(self.values) ** 0.5


def accuracy(
    objective: Objective,
    algorithm: Algorithm,
    meta: Array,
    tasks: FewShotImages,
    *,
    count: int,
    shots: int,
    queries: int = 1,
    adaptation: Adaptation = Adaptation(),
    transductive: tuple[bool, ...] = (True, False),
    seed: int = 0,
    inner_state: Any = None,
    workers: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[bool, Evaluation]:
    """Share of query images classified right after adaptation, one number a task, for each way to predict.

    Transductive: a task's query images are predicted in one batch, so they share batch-norm statistics. Otherwise each is
    predicted alone, in one batch with the task's support images. ``inner_state`` is the inner rule's at the start of every
    task (Adam's moments from training), and is left as it is.

    Raises
    ------
    SettingsError
        if ``count`` is less than 2, which has no interval.
    DivergenceError
        if an adaptation ends in predictions that are not finite.
    """

    xp = array_module(meta)
    together = fitting_together(objective, adaptation.size, meta.dtype) if xp is np else CHUNK
    groups = threads.even_chunks(CHUNK, -(-CHUNK // together))

    def score(rng: np.random.Generator) -> np.ndarray:
        episode = tasks.episode(rng, CHUNK, shots, queries, dtype=meta.dtype)
        batches = minibatches_of(
            rng, episode.support, adaptation.steps, adaptation.size, adaptation.order
        )
        return np.concatenate(
            [score_of(episode.of_tasks(*group), batches.of_tasks(*group)) for group in groups]
        )

    def score_of(episode: Episode, batches: Minibatches) -> np.ndarray:
        phi = algorithm.adapt(objective, meta, batches, inner_state)
        return np.stack(
            [_share_right(objective, phi, episode, at_once) for at_once in transductive], axis=1
        )

    values = _over_chunks(score, count, seed, workers, xp, progress)
    return {at_once: Evaluation(values[:, i]) for i, at_once in enumerate(transductive)}


def adaptation_errors(
    objective: Objective,
    algorithm: Algorithm,
    meta: Array,
    tasks: Sinusoid,
    *,
    count: int,
    shots: int,
    queries: int = 100,
    adaptation: Adaptation = Adaptation(steps=32, size=10),
    seed: int = 0,
    inner_state: Any = None,
    workers: int | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Evaluation:
    """Loss on a task's query points after 0, 1, .. steps of adaptation: values ``(count, steps + 1)``."""

    def score(rng: np.random.Generator) -> np.ndarray:
        episode = tasks.episode(rng, CHUNK, shots, queries, dtype=meta.dtype, xp=array_module(meta))
        batches = minibatches_of(
            rng, episode.support, adaptation.steps, adaptation.size, adaptation.order
        )
        iterates = algorithm.iterates(objective, meta, batches, inner_state)
        return np.stack(
            [to_host(objective.at(phi, episode.query).loss) for phi in iterates], axis=1
        )

    return Evaluation(_over_chunks(score, count, seed, workers, array_module(meta), progress))


def _over_chunks(
    score: Callable[[np.random.Generator], np.ndarray],
    count: int,
    seed: int,
    workers: int | None,
    xp: ModuleType,
    progress: Callable[[Iterable], Iterable],
) -> np.ndarray:
    """The first ``count`` rows of ``score`` over chunks of tasks."""
    if count < 2:
        raise SettingsError(f"an evaluation needs at least 2 tasks for its interval, got {count}")
    chunks = -(-count // CHUNK)
    count_of_threads = workers or (threads.available_cores() if xp is np else 1)
    with threads.workers(min(count_of_threads, chunks)) as starmap:
        arguments = [
            (np.random.default_rng([seed, _EVALUATION, chunk]),) for chunk in range(chunks)
        ]
        batches = progress(
            arguments[i : i + count_of_threads] for i in range(0, chunks, count_of_threads)
        )
        with np.errstate(over="ignore", invalid="ignore"):  # told by the error below
            values = np.concatenate([rows for batch in batches for rows in starmap(score, batch)])[
                :count
            ]
    if not np.isfinite(values).all():
        raise DivergenceError(
            f"adaptation diverges on {int((~np.isfinite(values.reshape(count, -1))).any(axis=1).sum())} of {count} tasks: "
            "try a smaller inner step size, or fewer steps"
        )
    return values


def _share_right(objective: Objective, phi: Array, episode: Episode, at_once: bool) -> np.ndarray:
    """Share of each task's query images whose largest logit is the right one, ``(T,)`` on the host."""
    xp = array_module(phi)
    (support, _), (x, y) = episode
    if at_once:
        logits = objective.network.forward(phi, x)
    else:
        alone = [
            objective.network.forward(phi, xp.concatenate([support, x[:, i : i + 1]], axis=1))[
                :, -1:
            ]
            for i in range(x.shape[1])
        ]
        logits = xp.concatenate(alone, axis=1)
    right = (logits.argmax(axis=-1) == y).mean(axis=1)
    return to_host(xp.where(xp.isfinite(logits).all(axis=(1, 2)), right, xp.nan))
