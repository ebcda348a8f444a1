"""Schedules: the examples of every mini-batch."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.tasks.minibatches import draw_positions
from minimeta.testing.strategies import seeds, small


@given(small, st.integers(1, 12), st.integers(1, 6), st.integers(1, 12), seeds)
def test_cycling_passes_over_all_examples_before_any_repeats(tasks, examples, k, size, seed):
    positions = draw_positions(np.random.default_rng(seed), tasks, examples, k, size, "cycle")
    assert positions.shape == (k, tasks, size)
    for sequence in positions.swapaxes(0, 1).reshape(tasks, k * size):
        for start in range(0, k * size, examples):
            a_pass = sequence[start : start + examples]
            assert len(set(a_pass)) == len(a_pass) and set(a_pass) <= set(range(examples))


@given(small, st.integers(1, 12), st.integers(1, 6), st.integers(1, 12), seeds)
def test_replacement_draws_distinct_examples_for_each_minibatch(tasks, examples, k, size, seed):
    rng = np.random.default_rng(seed)
    if size > examples:
        with pytest.raises(mm.SettingsError, match="cannot be drawn"):
            draw_positions(rng, tasks, examples, k, size, "replacement")
        return
    positions = draw_positions(rng, tasks, examples, k, size, "replacement")
    assert positions.shape == (k, tasks, size)
    assert all(len(set(batch)) == size for batch in positions.reshape(-1, size))


def test_every_example_is_equally_likely_in_every_place():
    positions = draw_positions(np.random.default_rng(0), 20_000, 4, 2, 3, "cycle")
    counts = np.stack([(positions == example).mean(axis=1) for example in range(4)])
    assert np.abs(counts - 1 / 4).max() < 5 * (3 / 16 / 20_000) ** 0.5  # five standard errors


@given(
    st.integers(2, 5),
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 3),
    seeds,
)
def test_a_separate_tail_is_balanced_and_touched_by_no_other_minibatch(
    k, size, ways, shots, tail_shots, seed
):
    schedule = mm.MinibatchSchedule(k, size, "separate", shots=shots, tail_shots=tail_shots)
    *batches, tail = schedule.indices(np.random.default_rng(seed), 3, ways)
    each = shots + tail_shots
    assert len(batches) == k - 1 and tail.shape == (3, ways * tail_shots)
    assert (np.bincount(tail[0] // each, minlength=ways) == tail_shots).all()
    assert (tail % each >= shots).all()
    assert all((batch % each < shots).all() for batch in batches)


@given(
    st.integers(1, 5),
    st.integers(1, 8),
    st.sampled_from(["shared", "separate"]),
    st.integers(1, 4),
    seeds,
)
def test_by_default_no_example_is_used_twice(k, size, tail, ways, seed):
    assume(k > 1 or tail == "shared")
    indices = mm.MinibatchSchedule(k, size, tail).indices(np.random.default_rng(seed), 2, ways)
    for task in range(2):
        used = np.concatenate([batch[task] for batch in indices])
        assert len(set(used)) == len(used)


def test_minibatches_are_a_sequence_whose_last_may_be_larger():
    x, y = np.arange(120.0).reshape(3, 2, 4, 5), np.arange(24.0).reshape(3, 2, 4)
    batches = mm.Minibatches(x, y)
    assert len(batches) == 3 and batches.tasks == 2
    assert [part.shape for part in batches[-1]] == [(2, 4, 5), (2, 4)]
    first = batches[:-1]
    assert len(first) == 2 and np.array_equal(first.x, x[:2]) and np.array_equal(first.y, y[:2])
    ragged = mm.Minibatches([x[0], x[1], np.zeros((2, 9, 5))], [y[0], y[1], np.zeros((2, 9))])
    assert ragged.of_tasks(1, 2)[-1][0].shape == (1, 9, 5)
    assert len(list(ragged)) == 3


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((2, 3, 4)), np.zeros((3, 3, 4))),
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 5))),
        ([np.zeros((2, 3)), np.zeros((1, 3))], [np.zeros((2, 3)), np.zeros((1, 3))]),
    ],
)
def test_minibatches_that_disagree_are_refused(x, y):
    with pytest.raises(mm.ShapeError):
        mm.Minibatches(x, y)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"k": 0, "size": 1}, "k >= 1"),
        ({"k": 1, "size": 0}, "size >= 1"),
        ({"k": 1, "size": 1, "tail": "own"}, "tail must"),
        ({"k": 1, "size": 1, "order": "random"}, "order must"),
        ({"k": 1, "size": 1, "tail_shots": 2}, "separate tail"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(options, match):
    with pytest.raises(mm.SettingsError, match=match):
        mm.MinibatchSchedule(**options)


def test_a_repr_tells_sizes_and_no_data():
    x, y = np.zeros((3, 2, 4, 5), np.float32), np.zeros((3, 2, 4), np.int64)
    assert repr(mm.Minibatches(x, y)) == (
        "Minibatches(k=3, T=2, N=4, x: (3, 2, 4, 5) float32, y: (3, 2, 4) int64)"
    )
    ragged = mm.Minibatches([x[0], np.zeros((2, 9, 5), np.float32)], [y[0], np.zeros((2, 9))])
    assert repr(ragged) == (
        "Minibatches(k=2, T=2, N=[4, 9], x: [(2, 4, 5), (2, 9, 5)] float32, "
        "y: [(2, 4), (2, 9)] int64)"
    )
    assert repr(mm.Minibatches(x, y)[:0]) == "Minibatches(k=0)"
    assert repr(mm.Episode((x[0], y[0]), (x[1], y[1]))) == (
        "Episode(T=2, support: x (2, 4, 5) float32, y (2, 4) int64, "
        "query: x (2, 4, 5) float32, y (2, 4) int64)"
    )


@pytest.mark.parametrize("x", [[1, 2], [[[1.0]], [[2.0]]]])
def test_minibatches_that_are_no_arrays_are_refused(x):
    with pytest.raises(mm.ShapeError, match="mini-batch 0: x and y must be arrays .* got "):
        mm.Minibatches(x, x)


def test_the_help_defines_the_letters():
    for letter in ("T is the number of tasks", "k is the", "N is the number of examples"):
        assert letter in " ".join(mm.Minibatches.__doc__.split())
