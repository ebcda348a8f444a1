"""The comparison of directions.

The compared directions are the algorithms' directions. Their differences fall
as theory predicts.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.testing import assert_close, assert_same
from minimeta.testing.strategies import problems, rates, seeds
from minimeta.testing.strict import module as strict
from minimeta.testing.strict import no_waiting
from minimeta.theory.directions import Directions, measure

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "figures"))

import microscope as figure

ALPHAS = np.logspace(-4, -3, 6)
MAML, FOMAML, REPTILE, TAYLOR = range(4)


def _problem(kind, k, tasks=3):
    rng = np.random.default_rng(k)
    if kind == "quadratic":
        root = rng.standard_normal((k, tasks, 2, 4, 4))
        objective, x, y = (
            mm.Quadratic(4),
            root + root.swapaxes(3, 4),
            rng.standard_normal((k, tasks, 2, 4)),
        )
    else:
        objective = mm.Objective(mm.mlp([2, 6, 6, 2], kind), mm.MeanSquaredError())
        x, y = rng.standard_normal((2, k, tasks, 5, 2))
    return objective, objective.init(rng, np.float64), mm.Minibatches(x, y)


def _slope(values):
    return np.polyfit(np.log(ALPHAS), np.log(values), 1)[0]


@given(problems(), rates, st.sampled_from([1, 2]))
def test_the_directions_are_the_algorithms_and_their_series(problem, alpha, order):
    objective, phi, batches = problem
    found = mm.compare_directions(objective, phi, batches, alpha, order).directions
    for name, algorithm in (("maml", mm.MAML), ("fomaml", mm.FOMAML)):
        assert_same(
            getattr(found, name),
            algorithm(mm.SGD(alpha)).direction(objective, phi, batches)[0],
            name,
        )
    moved, *_ = mm.Reptile(mm.SGD(alpha)).direction(objective, phi, batches)
    rounding = 1e-15 * max(np.abs(phi).max(), np.abs(moved).max()) / alpha  # of phi - phi~
    assert (
        np.abs(found.reptile - moved / (alpha * len(batches))).max()
        <= 1e-12 * np.abs(found.reptile).max() + rounding
    )
    assert_same(
        found.taylor, mm.taylor.expand(objective, phi, batches, order).maml(alpha), "the series"
    )


@given(problems(), rates)
def test_cosines_are_symmetric_one_on_the_diagonal_and_at_most_one(problem, alpha):
    found = mm.compare_directions(*problem, alpha)
    for measures, stacked in (
        (found.of_mean, np.stack(found.directions).mean(axis=1)),
        (found.of_each, np.stack(found.directions, axis=1)),
    ):
        cosines, apart, norms, _ = measures
        known = (norms[..., None] > 0) & (norms[..., None, :] > 0)
        assert np.array_equal(np.isfinite(cosines), known)
        assert_same(cosines[known], cosines.swapaxes(-1, -2)[known], "exchanged cosines")
        assert (np.diagonal(apart, axis1=-2, axis2=-1)[norms > 0] == 0).all()
        assert (apart[known] >= 0).all() and (np.abs(cosines[known]) <= 1 + 1e-14).all()
        assert np.allclose(norms, np.linalg.norm(stacked, axis=-1), rtol=1e-13, atol=0)
        products = (stacked @ stacked.swapaxes(-1, -2))[known]
        assert np.allclose(
            cosines[known],
            products / (norms[..., None] * norms[..., None, :])[known],
            rtol=0,
            atol=1e-13,
        )


@given(problems(), rates, st.floats(-1e3, 1e3).filter(lambda factor: abs(factor) > 1e-3))
def test_cosines_do_not_depend_on_lengths_but_on_signs(problem, alpha, factor):
    stacked = np.stack(mm.compare_directions(*problem, alpha).directions, axis=1)
    here, there = measure(stacked), measure(stacked * np.array([1, factor, 1, 1])[:, None])
    signs = np.array([1, np.sign(factor), 1, 1])
    assert np.allclose(
        there.cosines, here.cosines * np.outer(signs, signs), rtol=0, atol=1e-13, equal_nan=True
    )


@given(problems(max_k=1), rates, st.sampled_from([1, 2]))
def test_with_one_minibatch_all_directions_are_one(problem, alpha, order):
    """Equations (6) and (7)."""
    found = mm.compare_directions(*problem, alpha, order)
    for direction in found.directions[1:]:
        assert_same(direction, found.directions.maml, "a direction at k = 1")
    for measures in (found.of_mean, found.of_each):
        assert (
            not np.nan_to_num(measures.apart).any()
            and not np.nan_to_num(measures.second_order).any()
        )


@given(st.integers(2, 5), st.integers(1, 4), rates, st.sampled_from([1, 2]), st.booleans(), seeds)
def test_without_a_hessian_only_reptile_differs_and_only_by_its_minibatches(
    k, dim, alpha, order, repeated, seed
):
    """For linear L_i, every g_i equals gbar_i.

    MAML, FOMAML and the series are gbar_k. Reptile is the mean of all gbar_i,
    which is also gbar_k where all mini-batches are equal.
    """
    rng = np.random.default_rng(seed)
    x, y = (
        rng.standard_normal((1 if repeated else k, 2, 3, dim)),
        rng.standard_normal((1 if repeated else k, 2, 3, 2)),
    )
    if repeated:
        x, y = np.repeat(x, k, axis=0), np.repeat(y, k, axis=0)
    objective, phi = mm.Polynomial(dim), rng.standard_normal(dim)
    gbar = (y[..., 1:] * x).mean(axis=2)
    found = mm.compare_directions(objective, phi, mm.Minibatches(x, y), alpha, order)
    assert_same(found.directions.maml, found.directions.fomaml, "MAML without Hessians")
    assert_same(found.directions.maml, found.directions.taylor, "MAML's series without Hessians")
    assert_close(found.directions.maml, gbar[-1], 1e-13, "MAML without Hessians")
    assert_close(found.directions.reptile, gbar.mean(axis=0), 1e-13, "Reptile without Hessians")
    assert (found.of_each.second_order == 0).all() and found.of_mean.second_order == 0
    if repeated:
        assert (found.of_each.apart < 1e-25).all()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("kind", ["quadratic", "tanh", "softplus"])
def test_the_series_and_fomaml_turn_to_maml_at_the_rates_of_section_5(kind, k, order):
    """The differences from MAML fall with the predicted powers of alpha.

    1 - cosine falls like alpha^(2(n+1)) for the series of order n, and like
    alpha^2 for FOMAML. The share of the terms with a Hessian falls like alpha.
    This holds for the mean direction and for each task's.
    """
    found = [mm.compare_directions(*_problem(kind, k), alpha, order) for alpha in ALPHAS]
    for of in ([each.of_mean for each in found], [each.mean_of_each for each in found]):
        assert _slope([each.apart[MAML, TAYLOR] for each in of]) == pytest.approx(
            2 * (order + 1), abs=0.2
        )
        assert _slope([each.apart[MAML, FOMAML] for each in of]) == pytest.approx(2, abs=0.1)
        assert _slope([each.second_order for each in of]) == pytest.approx(1, abs=0.1)
        assert of[0].apart[MAML, REPTILE] > 1e-3  # another direction even at alpha = 0


@given(st.integers(1, 4), rates, seeds)
def test_on_quadratics_the_cosines_are_those_of_the_closed_forms(dim, alpha, seed):
    """For k = 2 on quadratics, the series to second order equals g_MAML.

    g_MAML = (I - alpha A_1) g_2, with g_2 = A_2 (phi - alpha g_1) - b_2, is of
    degree 2 in alpha. Its difference from FOMAML is alpha A_1 g_2.
    """
    rng = np.random.default_rng(seed)
    root, c = rng.standard_normal((2, 3, 1, dim, dim)), rng.standard_normal((2, 3, 1, dim))
    x, phi = root + root.swapaxes(3, 4), rng.standard_normal(dim)
    a, b = x[:, :, 0], np.einsum("itde,ite->itd", x[:, :, 0], c[:, :, 0])
    g1 = a[0] @ phi - b[0]
    g2 = np.einsum("tde,te->td", a[1], phi - alpha * g1) - b[1]
    second = alpha * np.einsum("tde,te->td", a[0], g2)
    found = mm.compare_directions(mm.Quadratic(dim), phi, mm.Minibatches(x, c), alpha, order=2)
    want = Directions(g2 - second, g2, (g1 + g2) / 2, g2 - second)
    scale = (
        max(np.abs(each).max() for each in (g1, g2, b[0], b[1]))
        * max(1, np.abs(alpha * a).max())
        * dim
    )
    for name, got, expected in zip(Directions._fields, found.directions, want, strict=True):
        assert np.abs(got - expected).max() <= 1e-13 * scale, name
    share = np.linalg.norm(second, axis=1) / np.linalg.norm(want.maml, axis=1)
    sound = (found.of_each.norms > 1e-3 * scale).all(axis=1)
    assert np.allclose(found.of_each.second_order[sound], share[sound], rtol=1e-9, atol=1e-9)
    assert (found.of_each.apart[sound, MAML, TAYLOR] < 1e-18).all()
    cosine = (
        (g2 * want.maml).sum(axis=1)
        / np.linalg.norm(g2, axis=1)
        / np.linalg.norm(want.maml, axis=1)
    )
    assert np.allclose(
        found.of_each.cosine("fomaml", "maml")[sound], cosine[sound], rtol=0, atol=1e-9
    )


def test_apart_keeps_its_digits_where_the_cosine_is_one():
    found = measure(np.array([[3, 0], [2, 2e-12], [0, 1], [-1, 0]]))
    assert found.cosine("maml", "fomaml") == 1
    assert found.apart[MAML, FOMAML] == pytest.approx(5e-25, rel=1e-12)
    assert found.cosine("maml", "reptile") == pytest.approx(0, abs=1e-15)
    assert found.cosine("maml", "taylor") == -1


def test_means_and_spreads_over_tasks():
    found = mm.compare_directions(*_problem("tanh", 3), 0.1)
    alone = [
        mm.compare_directions(
            *problem[:2], [(x[i : i + 1], y[i : i + 1]) for x, y in problem[2]], 0.1
        ).of_mean
        for problem in [_problem("tanh", 3)]
        for i in range(3)
    ]
    for name in found.of_each._fields:
        values = np.stack([getattr(each, name) for each in alone])
        assert_close(getattr(found.of_each, name), values, 1e-12, name)
        assert_close(
            getattr(found.mean_of_each, name), values.mean(axis=0), 1e-12, f"mean of {name}"
        )
        assert_close(
            getattr(found.spread_of_each, name), values.std(axis=0), 1e-11, f"spread of {name}"
        )


def test_a_zero_direction_has_no_cosine_and_raises_nothing():
    objective, phi = mm.Quadratic(2), np.ones(2)
    eye = np.eye(2)[None, None]
    batches = [(eye, np.zeros((1, 1, 2))), (eye, np.full((1, 1, 2), 0.5))]
    with np.errstate(all="raise"):
        found = mm.compare_directions(
            objective, phi, batches, 0.5
        )  # the first step ends in the second's minimum
    assert_same(found.of_mean.norms[[MAML, FOMAML]], np.zeros(2), "MAML and FOMAML at a minimum")
    assert found.of_mean.norms[REPTILE] > 0 and found.of_mean.cosine("reptile", "reptile") == 1
    assert np.isnan(found.of_mean.cosines[MAML]).all() and np.isnan(found.of_mean.second_order)


@pytest.mark.usefixtures("plain_kernels")
@given(problems(max_k=2), rates, st.sampled_from([1, 2]))
def test_on_a_strict_module_the_numbers_are_the_same_and_nothing_waits(problem, alpha, order):
    objective, phi, batches = problem
    moved = mm.Minibatches(
        [strict.asarray(x) for x in batches.x], [strict.asarray(y) for y in batches.y]
    )
    with no_waiting():
        there = mm.compare_directions(objective, strict.asarray(phi), moved, alpha, order)
        mean_there, spread_there = there.mean_of_each, there.spread_of_each
    here = mm.compare_directions(objective, phi, batches, alpha, order)
    for one, other in (
        (there.directions, here.directions),
        (there.of_mean, here.of_mean),
        (there.of_each, here.of_each),
        (mean_there, here.mean_of_each),
        (spread_there, here.spread_of_each),
    ):
        for name, got, want in zip(other._fields, one, other, strict=True):
            assert np.array_equal(got.get(), want, equal_nan=True), name


@pytest.mark.parametrize("alpha", [0.1, np.float32(0.1), np.float64(0.1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_follows_phi(dtype, alpha):
    objective, phi, batches = _problem("tanh", 3)
    found = mm.compare_directions(objective, phi.astype(dtype), batches, alpha, 2)
    assert {each.dtype for part in found for each in part} == {np.dtype(dtype)}


def test_what_cannot_be_compared_is_refused():
    objective, phi, batches = _problem("tanh", 2)
    with pytest.raises(mm.SettingsError, match="alpha must be one number, not a ndarray"):
        mm.compare_directions(objective, phi, batches, np.full(phi.shape, 0.1))
    with pytest.raises(mm.SettingsError, match="order must be 1 or 2, got 3"):
        mm.compare_directions(objective, phi, batches, 0.1, order=3)
    with pytest.raises(mm.ShapeError, match="at least one mini-batch"):
        mm.compare_directions(objective, phi, [], 0.1)


@pytest.fixture(scope="module")
def seen():
    sine, settings = figure.STUDIES[0], figure.SINE.changed(iterations=10, hidden="5,5")
    return figure.compute(
        [
            replace(
                sine, settings=settings, seeds=(0, 1), tasks=3, looks=4, alphas=(1e-5, 1e-4, 1e-2)
            )
        ]
    )


def test_the_figure_shows_what_the_microscope_tells(seen):
    (study,) = seen["studies"]
    assert study["steps"] == [0, 1, 3, 10]
    training = figure.Experiment(
        figure.SINE.changed(iterations=10, hidden="5,5"), workers=1
    ).training
    rng, alpha = np.random.default_rng([0, figure.PROBE]), figure.SINE.algorithm.rule.lr
    probe, phi = (
        training.tasks.sample(rng, 3, training.schedule),
        training.start().meta.astype(float),
    )
    for order in (1, 2):
        found = mm.compare_directions(training.objective, phi, probe, alpha, order)
        for at in (study["looks"][0][0], study["ends"][0][0][2]):  # alpha is in both
            assert at["apart"][f"taylor{order}"] == pytest.approx(
                found.of_mean.apart[MAML, TAYLOR], rel=1e-4
            )
            assert at["norm"]["reptile"] == pytest.approx(found.of_mean.norms[REPTILE], rel=1e-4)
            assert at["task_cosine"]["fomaml"] == pytest.approx(
                found.mean_of_each.cosine("maml", "fomaml"), rel=1e-4
            )
            assert at["task_spread"]["fomaml"] == pytest.approx(
                found.spread_of_each.cosine("maml", "fomaml"), rel=1e-4
            )
            assert at["second_order"] == pytest.approx(found.of_mean.second_order, rel=1e-4)


def test_the_figure_is_drawn_from_the_json_file_always_the_same(seen, tmp_path):
    drawn = []
    for name in ("one", "two"):
        files = figure.draw(json.loads(json.dumps(seen)), tmp_path / f"{name}.json")
        assert [path.suffix for path in files] == [".png", ".pdf"]
        drawn.append([path.read_bytes() for path in files])
    assert drawn[0] == drawn[1]
