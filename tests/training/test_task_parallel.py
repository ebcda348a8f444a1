"""How threads share tasks: every step once, in order, and the same bits for any number of threads."""

import time
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
from minimeta.testing.strategies import inner_rules, problems, seeds
from minimeta.training.task_parallel import TaskParallel, Turns, parts_of, wrap_around


@given(st.integers(1, 40), st.integers(1, 17), st.integers(1, 12))
def test_parts_cover_all_tasks_alike_in_length_and_none_is_too_long(tasks, threads, together):
    threads = min(threads, tasks)
    parts = parts_of(tasks, threads, together)
    assert [task for start, stop in parts for task in range(start, stop)] == list(range(tasks))
    lengths = [stop - start for start, stop in parts]
    assert max(lengths) - min(lengths) <= 1 and max(lengths) <= max(together, 1)
    assert len(parts) >= threads
    # Where threads do not divide the tasks the last parts must be shared.
    assert (len(parts) % threads == 0) == (tasks % threads == 0) or len(parts) == tasks


@given(st.integers(1, 40), st.integers(1, 17), st.integers(1, 40))
def test_with_pauses_all_threads_end_together(parts, threads, points):
    """Parts in order, each by the thread that is free first; a part that has paused goes last."""
    threads = min(parts, threads)
    starts = wrap_around(parts, threads, points)
    assert sorted(start.part for start in starts) == list(range(parts))
    queue = [(0, points, pause) for _, pause in starts]  # ready, left, pause
    free, made = [0] * threads, 0
    while queue:
        ready, left, pause = queue.pop(0)
        thread = free.index(min(free))
        now = left if pause is None else pause
        assert 0 < now <= left
        free[thread] = max(free[thread], ready) + now
        made += now
        if now < left:
            queue.append((free[thread], left - now, None))
            queue.sort(key=lambda each: each[0])
    assert made == parts * points
    # A pause falls on a whole point, and so does the end.
    assert max(free) <= parts * points / threads + 2


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 12), seeds)
def test_turns_are_never_more_than_asked_for_and_every_thread_ends(count, threads, passes, seed):
    turns, inside, most, ended = Turns(count), [], [], []

    def work(number):
        for _ in range(1 + (seed + number) % 3):
            with turns.one():
                for _ in range(passes):
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)
                    turns.pass_on()
        ended.append(number)

    started = [Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert sorted(ended) == list(range(threads))
    assert max(most, default=0) <= count


def test_a_turn_is_passed_to_the_thread_that_has_waited_longest():
    turns, order, waiting = Turns(1), [], []

    def work(number):
        with turns.one():
            for _ in range(3):
                order.append(number)
                turns.pass_on()

    with turns.one():
        for number in range(3):
            waiting.append(Thread(target=work, args=(number,)))
            waiting[-1].start()
            while len(turns._waiting) <= number:
                time.sleep(0.001)
    for thread in waiting:
        thread.join()
    assert order == [0, 1, 2] * 3


def test_parts_that_do_not_divide_among_the_threads_go_forward_together():
    """Three tasks on two threads: none waits until another has ended."""
    rng, begun = np.random.default_rng(0), []

    @dataclass(frozen=True)
    class Noted(Derived):
        def at(self, phi, batch):
            begun.append(float(batch[1][0, 0, 0]))
            time.sleep(0.05)  # the third thread is there before the first pauses
            return self.objective.at(phi, batch)

    x = rng.standard_normal((8, 3, 2, 2, 2))
    y = np.broadcast_to(np.arange(3.0)[:, None, None], (8, 3, 2, 2))
    batches, rule = mm.Minibatches(x + x.swapaxes(3, 4), y), mm.SGD(0.01)
    _outcome(mm.Reptile(rule), (Noted(Quadratic(2)), np.zeros(2), batches), None, 2, 1)
    first, last = ({task: at(begun, task) for task in (0.0, 1.0, 2.0)} for at in (_first, _last))
    assert max(first.values()) < min(last.values())


def _first(sequence, item):
    return sequence.index(item)


def _last(sequence, item):
    return len(sequence) - 1 - sequence[::-1].index(item)


def test_blas_stays_at_one_thread_until_the_last_has_left():
    """As where two runs are in one process: its limit is lifted by the last that ends, not by the first."""

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
    with host_threads.workers(threads, waiting=threads - 1) as starmap:
        return TaskParallel(starmap, threads, together, algorithm, objective).run(
            phi, batches, state
        )


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


def test_states_that_cannot_be_put_together_are_refused():
    class Counting(mm.SGD):
        def step(self, phi, g, state=None, j=0):
            return super().step(phi, g)[0], {"steps": 1}

    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([1, 1]), mm.MeanSquaredError())
    batches = mm.Sinusoid().sample(rng, 4, mm.MinibatchSchedule(k=1, size=2))
    with pytest.raises(mm.SettingsError, match="state"):
        _outcome(mm.Reptile(Counting(0.1)), (objective, objective.init(rng), batches), None, 2, 1)
