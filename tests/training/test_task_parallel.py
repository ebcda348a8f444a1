"""Threads that share tasks: every step once, in order, with equal bits."""

import time
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import minimeta as mm
from minimeta.arrays import threads as host_threads
from minimeta.objectives import Derived, Quadratic
from minimeta.testing import assert_same
from minimeta.testing.strategies import inner_rules, problems
from minimeta.training.task_parallel import TaskParallel, wrap_around


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 17))
def test_the_plan_makes_every_step_once_in_equal_parts_and_no_task_on_two_threads_at_a_time(
    tasks, steps, threads
):
    shares, begun, finished, made = wrap_around(tasks, steps, threads), {}, {}, []
    for share in shares:
        start, stop = share.whole
        made += [task for task in range(start, stop) for _ in range(steps)]
        if share.first:
            task, now = share.first
            assert 0 < now < steps
            begun[task] = now  # from time 0 to now
    for share in shares:
        start, stop = share.whole
        length = (share.first[1] if share.first else 0) + steps * (stop - start)
        if share.last is not None:
            finished[share.last] = length  # the time from which on the task goes on
            length += steps - begun[share.last]
        even = tasks * steps / min(threads, tasks)
        assert abs(length - even) < 1 or (not begun and length <= 1.1 * even)
    assert begun.keys() == finished.keys()
    for task, from_then in finished.items():
        assert begun[task] <= from_then + 1  # lengths differ by one step at most
        made += [task] * steps
    assert sorted(made) == [task for task in range(tasks) for _ in range(steps)]


@pytest.mark.parametrize("algorithm", [mm.Reptile, mm.FOMAML, mm.MAML])
def test_a_task_that_is_cut_begins_first_and_ends_last(algorithm):
    """Three tasks of eight steps on two threads.

    One thread makes four steps of the middle task, then the last task. The
    other makes the first task, then four steps of the middle task.
    """
    rng, begun = np.random.default_rng(0), []

    @dataclass(frozen=True)
    class Noted(Derived):
        def at(self, phi, batch):
            begun.append(int(batch[1][0, 0, 0]))
            time.sleep(0.03 * (begun[-1] == 0))  # the other thread starts meanwhile
            return self.objective.at(phi, batch)

    x = rng.standard_normal((8, 3, 2, 2, 2))
    y = np.broadcast_to(np.arange(3.0)[:, None, None], (8, 3, 2, 2))
    batches, rule = mm.Minibatches(x + x.swapaxes(3, 4), y), mm.SGD(0.01)
    _outcome(algorithm(rule), (Noted(Quadratic(2)), np.zeros(2), batches), None, 2, 1)
    assert [begun.count(task) for task in (0, 1, 2)] == [8, 8, 8]
    of_one = [place for place, task in enumerate(begun) if task == 1]
    first_of_last = begun.index(2)
    assert sum(place < first_of_last for place in of_one) == 4
    last_of_first = max(place for place, task in enumerate(begun) if task == 0)
    assert sum(place > last_of_first for place in of_one) >= 4


def test_blas_stays_at_one_thread_until_the_last_has_left():
    """Two runs in one process: the last to end lifts the thread limit."""

    def threads():
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        assert threads() == {2}
        with ExitStack() as one, ExitStack() as other:
            one.enter_context(host_threads.workers(1))
            other.enter_context(host_threads.workers(1))
            one.close()
            assert threads() == {1}
            other.close()
            assert threads() == {2}


def _outcome(algorithm, problem, state, threads, together):
    objective, phi, batches = problem
    with host_threads.workers(threads) as starmap:
        return TaskParallel(starmap, threads, together, algorithm, objective).run(
            phi, batches, state
        )


@pytest.mark.usefixtures("either_kernels")
@given(
    problems(),
    inner_rules,
    st.sampled_from([mm.Reptile, mm.FOMAML, mm.MAML]),
    st.integers(2, 5),
    st.integers(1, 3),
    st.booleans(),
)
def test_the_outcome_is_the_same_to_the_last_bit_for_any_threads(
    problem, rule, algorithm, threads, together, carried
):
    state = None
    if carried:
        first = _outcome(mm.Reptile(rule), problem, None, 1, 100)
        state = rule.merge(None, first.state, problem[2].tasks)
    alone, shared = (
        _outcome(algorithm(rule), problem, state, *how) for how in ((1, 100), (threads, together))
    )
    assert_same(shared.direction, alone.direction, "direction")
    assert_same(shared.loss, alone.loss, "loss")
    if isinstance(rule, mm.Adam) and alone.state is not state and alone.state is not None:
        assert_same(shared.state.v, alone.state.v, "v")
        assert shared.state.steps == alone.state.steps


def test_an_error_in_one_part_reaches_the_caller():
    rng = np.random.default_rng(0)
    batches = mm.Minibatches(
        rng.standard_normal((3, 3, 2, 4, 4)), rng.standard_normal((3, 3, 2, 5))
    )  # no centres of a 4-vector
    with pytest.raises(mm.ShapeError, match="Quadratic"):
        _outcome(mm.Reptile(mm.SGD(0.1)), (Quadratic(4), np.zeros(4), batches), None, 2, 1)


@pytest.mark.usefixtures("either_kernels")
def test_more_threads_in_the_plan_than_run_end_all_the_same():
    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([1, 3, 1]), mm.MeanSquaredError())
    phi, reptile = objective.init(rng), mm.Reptile(mm.SGD(0.01))
    batches = mm.Sinusoid().sample(rng, 5, mm.MinibatchSchedule(k=3, size=4))

    def in_turn(function, arguments):
        return [function(*each) for each in arguments]

    shared = TaskParallel(in_turn, 3, 2, reptile, objective).run(phi, batches, None)
    want = reptile.direction(objective, phi, batches)
    assert_same(shared.direction, want.direction, "direction")


def test_an_interrupt_between_two_shares_keeps_no_thread_waiting():
    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([1, 3, 1]), mm.MeanSquaredError())
    phi, batches = objective.init(rng), mm.Sinusoid().sample(rng, 3, mm.MinibatchSchedule(2, 4))
    ended = []

    def interrupted(function, arguments):
        """Only the share that finishes the cut task starts."""
        waiting = Thread(target=lambda: ended.append(_error_of(function, *arguments[1])))
        waiting.start()
        interrupted.waiting = waiting
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TaskParallel(interrupted, 2, 2, mm.Reptile(mm.SGD(0.01)), objective).run(phi, batches, None)
    interrupted.waiting.join(30)
    assert ended == [CancelledError]


def _error_of(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        return type(error)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_state_without_a_task_axis_is_refused_for_any_threads(threads):
    class Remembering(mm.SGD):
        def step(self, phi, g, state=None, j=0):
            return super().step(phi, g)[0], g.sum(axis=0)

    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([1, 3, 1]), mm.MeanSquaredError())
    batches = mm.Sinusoid().sample(rng, 4, mm.MinibatchSchedule(k=1, size=2))
    problem = objective, objective.init(rng), batches
    with pytest.raises(mm.SettingsError, match="one row per task"):
        _outcome(mm.Reptile(Remembering(0.1)), problem, None, threads, 2)


def test_states_that_cannot_be_put_together_are_refused():
    class Counting(mm.SGD):
        def step(self, phi, g, state=None, j=0):
            return super().step(phi, g)[0], {"steps": 1}

    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([1, 1]), mm.MeanSquaredError())
    batches = mm.Sinusoid().sample(rng, 4, mm.MinibatchSchedule(k=1, size=2))
    with pytest.raises(mm.SettingsError, match="state"):
        _outcome(mm.Reptile(Counting(0.1)), (objective, objective.init(rng), batches), None, 2, 1)
