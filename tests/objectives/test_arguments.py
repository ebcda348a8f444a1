"""Arguments of the wrong kind are refused where they are given, in a line."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm

NETWORK, LOSS = mm.mlp([1, 4, 1]), mm.MeanSquaredError()
OBJECTIVE = mm.Objective(NETWORK, LOSS)
ONE = np.ones((1, 1, 1))
CLOSED = {  # an objective and a batch of one example
    "network": (OBJECTIVE, (ONE, ONE)),
    "quadratic": (mm.Quadratic(1), (ONE[None], ONE)),
    "polynomial": (mm.Polynomial(1), (ONE, np.ones((1, 1, 3)))),
    "sphere": (mm.Sphere(1), (ONE, np.ones((1, 1)))),
}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: mm.Objective(LOSS, NETWORK), "needs a network such as mlp([1, 40, 40, 1]), got M"),
        (
            lambda: mm.Objective(NETWORK, mm.MeanSquaredError),
            "needs a loss such as MeanSquaredError(), got the class MeanSquaredError",
        ),
        (lambda: mm.mlp(3), "whole numbers such as [1, 40, 40, 1]"),
        (lambda: mm.mlp("12"), "whole numbers such as [1, 40, 40, 1]"),
        (lambda: mm.mlp([1, 40.0, 1]), "got [1, 40.0, 1]"),
        (lambda: mm.mlp([1, True]), "got [1, True]"),
        (lambda: mm.mlp([1, 1], context=0.5), "a whole number as context, got [1, 1] and 0.5"),
        (
            lambda: mm.Network(4, (mm.layers.Dense(4, 1),)),
            "input_shape must be a tuple of whole numbers, such as (4,) or (28, 28, 1), got 4",
        ),
        (lambda: mm.Network((4.0,), (mm.layers.Dense(4, 1),)), "got (4.0,)"),
        (lambda: mm.Network((4,), mm.layers.Dense(4, 1)), "layers must be a tuple"),
        (lambda: mm.Network((4,), (mm.layers.Tanh,)), "layer 0 of a Network must be a layer"),
        (lambda: mm.Network((4,), (mm.layers.Tanh(), None)), "layer 1 of a Network must be a"),
    ],
)
def test_an_object_of_the_wrong_kind_is_refused_in_a_line(make, told):
    with pytest.raises(mm.SettingsError, match=re.escape(told)) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_sizes_may_be_whole_numbers_of_numpy():
    assert mm.mlp(np.array([1, 4, 1])) == mm.mlp((1, 4, 1)) == mm.Network([1], NETWORK.layers)


@pytest.mark.parametrize("rng", [0, None, np.random.RandomState(0), np.random])
def test_what_draws_random_numbers_needs_a_generator(rng):
    draws = [
        lambda: NETWORK.init(rng),
        lambda: OBJECTIVE.init(rng),
        lambda: mm.Sphere(2).init(rng),
        lambda: mm.MAML(mm.SGD(0.1)).init(OBJECTIVE, rng),
        lambda: mm.MetaSGD().init(OBJECTIVE, rng),
        lambda: mm.MAML(mm.SGD(0.1)).init(rng, OBJECTIVE),
        lambda: mm.Sinusoid().sample(rng, 1, mm.MinibatchSchedule(1, 1)),
        lambda: mm.Sinusoid().episode(rng, 1, 1, 1),
        lambda: mm.FewShotImages(np.zeros((5, 2, 3, 3, 1)), 5).episode(rng, 1, 1, 1),
    ]
    for draw in draws:
        with pytest.raises(mm.SettingsError, match=r"need a numpy\.random\.Generator, got"):
            draw()


@given(st.sampled_from([*CLOSED]), st.sampled_from([np.int64, np.uint8, bool]))
def test_an_integer_phi_is_refused_and_cuts_off_no_fraction(name, dtype):
    objective, batch = CLOSED[name]
    phi = 2 * np.ones(objective.size)
    with pytest.raises(mm.SettingsError, match=f"phi must be .* got an array of {np.dtype(dtype)}"):
        objective.at(phi.astype(dtype), batch)
    with pytest.raises(mm.SettingsError, match="phi must be an array of floating-point numbers"):
        objective.at(phi.tolist(), batch)
    objective.at(phi.astype(np.complex64), batch)


def test_an_integer_phi_is_refused_by_predictions_and_algorithms():
    phi, meta = (np.ones(n * OBJECTIVE.size, int) for n in (1, 2))
    batches = [(ONE, ONE)] * 2
    calls = [
        lambda: OBJECTIVE.predict(phi, ONE),
        *(
            lambda algorithm=algorithm: algorithm(mm.SGD(0.1)).direction(OBJECTIVE, phi, batches)
            for algorithm in (mm.MAML, mm.FOMAML, mm.Reptile, mm.ANIL, mm.ADML, mm.TAML, mm.IMAML)
        ),
        lambda: mm.MetaSGD().direction(OBJECTIVE, meta, batches),
    ]
    for call in calls:
        with pytest.raises(mm.SettingsError, match="phi must be an array of floating-point"):
            call()


@pytest.mark.parametrize("name", CLOSED)
def test_an_empty_mini_batch_is_refused(name):
    """A mean over no examples is undefined."""
    objective, (x, y) = CLOSED[name]
    with pytest.raises(mm.ShapeError, match="a mini-batch needs at least one example per task"):
        objective.at(np.ones(objective.size), (x[:, :0], y[:, :0]))
