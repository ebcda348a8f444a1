"""How threads share tasks: every step once, in order, and the same bits for any number of threads."""

from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import minimeta as mm
from minimeta.arrays import threads as host_threads
from minimeta.objectives import Quadratic
from minimeta.testing import assert_same
from minimeta.testing.strategies import inner_rules, problems
from minimeta.training.task_parallel import TaskParallel, by_tasks, wrap_around


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 17))
def test_the_wrap_around_plan_makes_every_step_once_in_equal_parts_and_no_task_on_two_threads_at_a_time(
    tasks, steps, threads
):
    shares, begun, finished, made = wrap_around(tasks, steps, threads), {}, {}, []
    for share in shares:
        (start, stop), first, last = share.whole, share.first, share.last
        length = (
            (first[1] if first else 0) + steps * (stop - start) + (steps - last[1] if last else 0)
        )
        made += [task for task in range(start, stop) for _ in range(steps)]
        if first:
            begun[first[0]] = first[1]  # from time 0 to this
        if last:
            finished[last[0]] = (
                last[1],
                length - (steps - last[1]),
            )  # steps made before; the time from which on it goes on
        assert abs(length - tasks * steps / min(threads, tasks)) < 1
    assert begun.keys() == finished.keys()
    for task, (before, from_then) in finished.items():
        assert 0 < before == begun[task] <= from_then + 1  # lengths differ by one step at most
        made += [task] * steps
    assert sorted(made) == [task for task in range(tasks) for _ in range(steps)]


@given(st.integers(1, 40), st.integers(1, 17))
def test_whole_tasks_are_shared_evenly(tasks, threads):
    lengths = [share.whole[1] - share.whole[0] for share in by_tasks(tasks, threads)]
    assert sum(lengths) == tasks and max(lengths) - min(lengths) <= 1


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
    with host_threads.workers(threads) as starmap:
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
        assert shared.state.steps == alone.state.steps and shared.state.here == alone.state.here


def test_an_error_in_the_first_steps_of_a_task_reaches_the_caller():
    rng = np.random.default_rng(0)
    batches = mm.Minibatches(
        rng.standard_normal((3, 3, 2, 4, 4)), rng.standard_normal((3, 3, 2, 5))
    )  # no centres of a 4-vector
    with pytest.raises(mm.ShapeError, match="Quadratic"):
        _outcome(mm.Reptile(mm.SGD(0.1)), (Quadratic(4), np.zeros(4), batches), None, 2, 1)


def test_a_plan_for_more_threads_than_there_are_ends_all_the_same():
    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([1, 3, 1]), mm.MeanSquaredError())
    phi = objective.init(rng)
    batches = mm.Sinusoid().sample(rng, 5, mm.MinibatchSchedule(k=3, size=4))
    in_turn = TaskParallel(
        lambda f, arguments: [f(*each) for each in arguments],
        3,
        2,
        mm.Reptile(mm.SGD(0.01)),
        objective,
    )
    want = mm.Reptile(mm.SGD(0.01)).run(objective, phi, batches)
    assert_same(in_turn.run(phi, batches, None).direction, want.direction, "direction")


def test_a_subclass_with_a_run_of_its_own_is_not_paused():
    class Halved(mm.Reptile):
        def run(self, objective, meta, minibatches, state=None):
            outcome = super().run(objective, meta, minibatches, state)
            return outcome._replace(direction=outcome.direction / 2)

    class Renamed(mm.Reptile):
        pass

    assert (
        mm.Reptile.can_pause
        and Renamed.can_pause
        and not Halved.can_pause
        and not mm.MAML.can_pause
    )


def test_states_that_cannot_be_put_together_are_refused():
    class Counting(mm.SGD):
        def step(self, phi, g, state=None):
            return super().step(phi, g)[0], {"steps": 1}

    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([1, 1]), mm.MeanSquaredError())
    batches = mm.Sinusoid().sample(rng, 4, mm.MinibatchSchedule(k=1, size=2))
    with pytest.raises(mm.SettingsError, match="state"):
        _outcome(mm.Reptile(Counting(0.1)), (objective, objective.init(rng), batches), None, 2, 1)
