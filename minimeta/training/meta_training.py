"""The outer loop.

Data flow in one direction: tasks, directions, one combined direction, one outer
step. All random numbers of iteration i come from a generator seeded by (seed,
i). So iteration i draws the same tasks however often the run was interrupted
before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..algorithms import Algorithm, mean
from ..arrays import threads
from ..arrays.backend import Array, array_module, to_host
from ..errors import DivergenceError, SettingsError
from ..inner import SGD, Adam
from ..objectives import Differentiable, cost_of
from ..tasks import Minibatches, MinibatchSchedule, TaskDistribution
from .task_parallel import TaskParallel, fitting_together

_INIT, _TASKS = 0, 1  # streams of random numbers under one seed


class MetaState(NamedTuple):
    """Everything that changes during meta-training, which a checkpoint
    holds."""

    iteration: int  # meta-steps done
    meta: Array  # (M,)
    outer: Any  # the outer rule's state
    inner: Any  # the inner rule's state, where it passes from task to task


@dataclass(frozen=True)
class MetaTraining:
    """The part of a meta-training run that does not change.

    The outer step is meta <- outer rule(meta, combine(directions)). Its step
    size falls linearly over n = ``iterations`` steps, from the outer rule's own
    epsilon to ``epsilon_final``: epsilon_i = (1 - i/n) epsilon + (i/n)
    epsilon_final, i = 0 .. n-1.

    With ``carry_inner_state`` the inner rule's state (Adam's moments) passes
    from one meta-batch to the next, merged over the tasks by the rule's
    ``merge``. ``workers`` threads share the tasks of a meta-batch. The numbers
    do not depend on ``workers``.

    Raises
    ------
    SettingsError
        if ``iterations`` or ``meta_batch`` is below 1, or if ``workers`` is
        above 1 on a GPU.
    """

    objective: Differentiable
    algorithm: Algorithm
    tasks: TaskDistribution
    schedule: MinibatchSchedule
    outer: SGD | Adam
    iterations: int
    epsilon_final: float = 0.0
    meta_batch: int = 5
    combine: Callable[[Array], Array] = mean
    carry_inner_state: bool = True
    seed: int = 0
    dtype: Any = np.float32
    xp: ModuleType = np
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.meta_batch < 1:
            raise SettingsError(
                "meta-training needs iterations >= 1 and meta_batch >= 1, "
                f"got {self.iterations} and {self.meta_batch}"
            )

        threads.check_workers(self.workers, self.xp)

    def start(self) -> MetaState:
        """The state before the first meta-step."""
        rng = np.random.default_rng([self.seed, _INIT])
        return MetaState(
            0, self.algorithm.init(self.objective, rng, self.dtype, self.xp), None, None
        )

    def epsilon_at(self, iteration: int) -> float:
        """The outer step size of meta-step ``iteration``, counted from 0.

        A constant step size is exact, so it does not depend on ``iterations``.
        """
        if self.outer.lr == self.epsilon_final:
            return self.outer.lr
        done = iteration / self.iterations
        return (1 - done) * self.outer.lr + done * self.epsilon_final

    def sample(self, iteration: int, tasks: int | None = None) -> Minibatches:
        """The meta-batch of meta-step ``iteration``, or one of ``tasks``
        tasks."""
        rng = np.random.default_rng([self.seed, _TASKS, iteration])
        count = self.meta_batch if tasks is None else tasks
        return self.tasks.sample(rng, count, self.schedule, self.dtype, self.xp)

    @contextmanager
    def stepper(self) -> Iterator[Callable[[MetaState], tuple[MetaState, Array]]]:
        """A context that holds the threads and gives the function of one
        meta-step.

        The function maps a state to the next state and the losses ``(T,)``.
        """
        count = self.workers or self._default_workers()
        with threads.workers(count) as starmap:
            parallel = TaskParallel(
                starmap, count, self._together(), self.algorithm, self.objective
            )

            def step(state: MetaState) -> tuple[MetaState, Array]:
                batches = self.sample(state.iteration)
                outcome = parallel.run(state.meta, batches, state.inner)
                epsilon = self.epsilon_at(state.iteration)
                # A rule checks its arguments, which takes as long as its step.
                rule = self.outer if epsilon == self.outer.lr else replace(self.outer, lr=epsilon)
                meta, outer = rule.step(
                    state.meta, self.combine(outcome.direction), state.outer, state.iteration
                )
                inner = None
                if self.carry_inner_state:
                    inner = self.algorithm.rule.merge(state.inner, outcome.state, self.meta_batch)
                return MetaState(state.iteration + 1, meta, outer, inner), outcome.loss

            yield step

    def _default_workers(self) -> int:
        if self.xp is not np:
            return 1
        work = cost_of(self.objective).multiply_adds
        return threads.default_workers(
            work * self.schedule.k * self.schedule.size * self.meta_batch, self.meta_batch
        )

    def _together(self) -> int:
        if self.xp is not np:
            return self.meta_batch
        return fitting_together(self.objective, self.schedule.size, self.dtype)


def checked_mean(losses: Sequence[Array], first_iteration: int) -> float:
    """The mean of the losses ``(T,)`` of consecutive meta-steps.

    ``first_iteration`` is the number of the first meta-step, counted from 1.

    Raises
    ------
    DivergenceError
        if a loss is not finite. The message names the first such meta-step.
    """
    means = to_host(array_module(losses[0]).stack(losses).mean(axis=1))
    bad = np.flatnonzero(~np.isfinite(means))
    if bad.size:
        raise DivergenceError(
            f"the loss is {means[bad[0]]} at meta-step {first_iteration + int(bad[0])}: "
            "try a smaller inner or outer step size"
        )
    return float(means.mean())
