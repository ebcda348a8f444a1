"""The inequality measures: gradients, axioms, and values in closed form."""

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.algorithms import MEASURES, Atkinson, GeneralizedEntropy, Gini, LogVariance, Theil
from minimeta.testing import complex_step, real_difference
from minimeta.testing.strategies import seeds
from minimeta.testing.strict import module as strict
from minimeta.testing.strict import no_waiting

# Near its excluded orders 0 and 1 the generalized entropy loses digits, as does
# Atkinson's index near its limit 1.
alphas = st.floats(-2, 3).filter(lambda alpha: min(abs(alpha), abs(alpha - 1)) > 0.1)
epsilons = st.just(1.0) | st.floats(0.1, 3).filter(lambda epsilon: abs(epsilon - 1) > 0.1)
families = st.one_of(
    st.just(Theil()),
    st.builds(GeneralizedEntropy, alphas),
    st.builds(Atkinson, epsilons),
    st.just(Gini()),
)
measures = families | st.just(LogVariance())
numbers = st.lists(st.floats(0.05, 20), min_size=1, max_size=8).map(np.array)
unequal = numbers.filter(lambda x: x.max() > 1.01 * x.min())
every_measure = pytest.mark.parametrize(
    "measure", [kind() for kind in MEASURES.values()], ids=list(MEASURES)
)


def _close(got, want, x, tolerance=1e-10):
    """Whether gradients agree, at their own scale plus 1 / (T mu).

    Near equality of the numbers a gradient cancels.
    """
    return np.abs(got - want).max() <= tolerance * (np.abs(want).max() + 1 / x.sum())


@given(measures, numbers)
@example(Gini(), np.array([1.0, 2.0, 2.0, 3.0]))
@example(Atkinson(0), np.array([1.0, 2.0, 5.0]))
def test_the_gradient_is_the_complex_step_of_the_value(measure, x):
    gradient = measure.gradient(x)
    steps = np.array([complex_step(measure.value, (x,), (unit,)) for unit in np.eye(len(x))])
    assert gradient.shape == x.shape
    assert _close(gradient, steps, x)


@given(measures, unequal, seeds)
@example(Gini(), np.array([2.0, 1.0, 2.0, 3.0, 2.0]), 0)
def test_the_gradient_is_a_difference_of_real_values(measure, x, seed):
    """The second oracle, a real difference on both sides.

    It sees an absolute value, which the complex step does not. At Gini's kinks
    it is the mean of the slopes on the two sides, along any line.
    """
    gaps = np.diff(np.sort(x))
    assume(((gaps == 0) | (gaps > 1e-4)).all())  # a kink within the difference is on neither side
    directions = np.random.default_rng(seed).standard_normal((3, len(x))) * x
    for direction in (*np.diag(x), *directions):
        slope, _ = real_difference(measure.value, (x,), (direction,))
        assert abs(slope - measure.gradient(x) @ direction) <= 1e-5 * (
            1 + abs(measure.gradient(x) * x).max()
        )


@given(measures, st.floats(0.05, 20), st.integers(1, 9))
def test_equal_numbers_have_no_inequality_and_no_gradient(measure, x, tasks):
    x = np.full(tasks, x)
    assert abs(measure.value(x)) <= 1e-13
    assert np.abs(measure.gradient(x)).max() <= 1e-13 / x[0]


@given(measures, unequal)
def test_unequal_numbers_have_inequality(measure, x):
    assert measure.value(x) > 1e-9
    assert np.abs(measure.gradient(x) * x).max() > 1e-7


@given(measures, numbers, st.floats(1e-3, 1e3))
def test_a_common_scale_changes_nothing(measure, x, c):
    assert np.isclose(measure.value(c * x), measure.value(x), rtol=1e-10, atol=1e-13)
    assert _close(c * measure.gradient(c * x), measure.gradient(x), x)


@given(measures, numbers)
def test_eulers_theorem_of_degree_zero(measure, x):
    terms = x * measure.gradient(x)
    assert abs(terms.sum()) <= 1e-12 * (1 + np.abs(terms).max())


@given(measures, numbers, st.randoms(use_true_random=False))
def test_tasks_have_no_order(measure, x, random):
    order = random.sample(range(len(x)), len(x))
    assert np.isclose(measure.value(x[order]), measure.value(x), rtol=1e-10, atol=1e-13)
    assert _close(measure.gradient(x[order]), measure.gradient(x)[order], x)


@given(measures, numbers, st.integers(2, 4))
def test_replication_changes_nothing(measure, x, times):
    """The copies of a number share its gradient."""
    copies = np.tile(x, times)
    assert np.isclose(measure.value(copies), measure.value(x), rtol=1e-10, atol=1e-13)
    assert _close(times * measure.gradient(copies), np.tile(measure.gradient(x), times), x)


@given(families, unequal, st.floats(0.01, 1), st.data())
def test_a_transfer_from_a_larger_to_a_smaller_lowers_inequality(measure, x, fraction, data):
    """A transfer of up to half the difference does not reverse the order."""
    i, j = (data.draw(st.integers(0, len(x) - 1)) for _ in range(2))
    assume(x[i] < x[j])
    amount = fraction * (x[j] - x[i]) / 2
    after = x.copy()
    after[i] += amount
    after[j] -= amount
    assert measure.value(after) <= measure.value(x) * (1 + 1e-12) + 1e-13
    if x[j] > 1.1 * x[i] and fraction > 0.1:
        assert measure.value(after) < measure.value(x)


@given(families, numbers)
def test_larger_numbers_have_larger_derivatives(measure, x):
    """The transfer principle in terms of the gradient (Schur and Ostrowski).

    dL/dx_i is larger for a larger x_i.
    """
    rising = np.diff(measure.gradient(np.sort(x)))
    assert (rising >= -1e-12 * (np.abs(measure.gradient(x)).max() + 1 / x.sum())).all()


def test_the_variance_of_logarithms_breaks_the_transfer_principle():
    """A transfer from 100 to 20 raises the variance of logarithms.

    Both are more than e times the geometric mean, which is about 1.9.
    """
    before, after = np.array([1.0] * 10 + [20, 100]), np.array([1.0] * 10 + [40, 80])
    assert before.sum() == after.sum()
    assert LogVariance().value(after) > 1.05 * LogVariance().value(before)
    smaller, larger = LogVariance().gradient(before)[-2:]
    assert smaller > larger > 0
    for measure in (Theil(), GeneralizedEntropy(), Atkinson(), Gini()):
        assert measure.value(after) < measure.value(before)


@given(unequal, st.sampled_from([1e-2, -1e-2, 1e-3, -1e-3]))
def test_generalized_entropy_tends_to_theil_at_first_order(x, h):
    """(u^h - 1) / h = log u + h log(u)^2 / 2 + ..., so L(1 + h) = Theil + h
    (mean(u log(u)^2) / 2 - Theil) + O(h^2)."""
    u = x / x.mean()
    log, reach = np.log(u), np.abs(np.log(u)).max()
    near, theil = GeneralizedEntropy(1 + h), Theil().value(x)
    slope = (u * log * log).mean() / 2 - theil
    assert abs(near.value(x) - theil - h * slope) <= h * h * (1 + reach) ** 3 * 1.2 + 1e-12
    error = np.abs(near.gradient(x) - Theil().gradient(x)).max() * x.sum()
    assert error <= 1.2 * abs(h) * reach**2 + 1e-11


@given(unequal, st.sampled_from([1e-2, -1e-2, 1e-4, -1e-4]))
def test_atkinson_is_continuous_at_one(x, h):
    reach = np.abs(np.log(x / x.mean())).max()
    near, at = Atkinson(1 + h), Atkinson(1)
    assert abs(near.value(x) - at.value(x)) <= abs(h) * (1 + reach) ** 2 + 1e-11
    error = np.abs(near.gradient(x) - at.gradient(x)) * x
    assert error.max() <= abs(h) * (1 + reach) ** 3 + 1e-11


@given(epsilons.filter(lambda epsilon: epsilon != 1), numbers)
def test_atkinson_is_a_function_of_generalized_entropy(epsilon, x):
    alpha = 1 - epsilon
    m = 1 + alpha * (alpha - 1) * GeneralizedEntropy(alpha).value(x)
    assert np.isclose(Atkinson(epsilon).value(x), 1 - m ** (1 / alpha), rtol=1e-9, atol=1e-12)


@given(numbers)
def test_generalized_entropy_of_order_two_is_half_the_squared_coefficient_of_variation(x):
    assert np.isclose(
        GeneralizedEntropy(2).value(x), x.var() / (2 * x.mean() ** 2), rtol=1e-10, atol=1e-13
    )


@given(numbers)
def test_gini_is_half_the_mean_difference_over_the_mean(x):
    differences = np.abs(x[:, None] - x[None, :])
    assert np.isclose(Gini().value(x), differences.mean() / (2 * x.mean()), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("measure", "x", "value"),
    [
        (Theil(), [1, 3], 0.25 * math.log(0.5) + 0.75 * math.log(1.5)),
        (GeneralizedEntropy(2), [1, 3], 1 / 8),
        (GeneralizedEntropy(-1), [1, 3], 1 / 6),
        (Atkinson(0), [1, 4], 0),
        (Atkinson(0.5), [1, 4], 0.1),
        (Atkinson(1), [1, 4], 0.2),  # the geometric mean 2 over the mean 5/2
        (Atkinson(2), [1, 4], 0.36),  # the harmonic mean 8/5
        (Gini(), [1, 4], 0.3),
        (Gini(), [3, 1, 2, 5, 4], 4 / 15),  # (T - 1) / (3 T) of 1 .. T
        (LogVariance(), [1, 4], math.log(2) ** 2),
    ],
    ids=str,
)
def test_known_values(measure, x, value):
    assert math.isclose(measure.value(np.array(x, float)), value, rel_tol=1e-14, abs_tol=1e-15)


@pytest.mark.parametrize("tasks", [2, 5, 20])
def test_where_one_holds_all(tasks):
    """The upper bounds, approached where all numbers except one are nearly
    0."""
    x = np.full(tasks, 1e-300)
    x[tasks // 2] = 1
    assert math.isclose(Gini().value(x), 1 - 1 / tasks, rel_tol=1e-14)
    assert math.isclose(Theil().value(x), math.log(tasks), rel_tol=1e-14)
    assert math.isclose(GeneralizedEntropy(3).value(x), (tasks**2 - 1) / 6, rel_tol=1e-14)
    assert math.isclose(Atkinson(0.5).value(x), 1 - 1 / tasks, rel_tol=1e-14)
    assert math.isclose(Atkinson(1).value(x), 1, rel_tol=1e-14)


def test_gini_takes_the_middle_of_its_kink_at_a_tie():
    x, up = np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.0, 1.0, 0.0, 0.0])
    slopes = [(Gini().value(x + h * up) - Gini().value(x)) / h for h in (1e-6, -1e-6)]
    assert abs(slopes[0] - slopes[1]) > 0.01
    assert math.isclose(Gini().gradient(x)[1], sum(slopes) / 2, abs_tol=1e-6)


@every_measure
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_the_dtype_is_kept(measure, dtype):
    x = np.array([0.5, 1, 1, 4], dtype)
    tolerance = 1e3 * np.finfo(dtype).eps
    for method in (measure.value, measure.gradient):
        assert method(x).dtype == dtype
        assert np.allclose(
            method(x), method(x.real.astype(np.float64)), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("kind", [GeneralizedEntropy, Atkinson])
def test_a_setting_of_numpys_does_not_raise_the_precision(kind):
    measure = kind(np.float64(0.5))
    assert measure == kind(0.5)
    assert measure.gradient(np.array([1, 2], np.float32)).dtype == np.float32


@every_measure
def test_on_a_strict_module_the_numbers_are_the_same(measure):
    for each in (measure, Atkinson(1)):
        x = np.array([0.5, 1, 1, 4, 2.5])
        with no_waiting():
            value, gradient = each.value(strict.asarray(x)), each.gradient(strict.asarray(x))
        assert value.shape == () and value.get() == each.value(x)
        assert np.array_equal(gradient.get(), each.gradient(x))


@every_measure
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_another_shape_is_refused(measure, shape):
    for method in (measure.value, measure.gradient):
        with pytest.raises(mm.ShapeError, match="one number per task"):
            method(np.ones(shape))


@pytest.mark.parametrize(
    ("kind", "setting", "told"),
    [
        (GeneralizedEntropy, 1, r"use Theil\(\)"),
        (GeneralizedEntropy, 0, r"use Atkinson\(epsilon=1\)"),
        (GeneralizedEntropy, math.inf, "alpha must be a finite number, got inf"),
        (Atkinson, -0.5, "must be 0 or more, got -0.5"),
        (Atkinson, math.nan, "epsilon must be a finite number, got nan"),
        (Atkinson, "half", "epsilon must be a finite number, got 'half'"),
        (Atkinson, "2", "epsilon must be a finite number, got '2'"),
        (Atkinson, None, "epsilon must be a finite number, got None"),
    ],
)
def test_senseless_settings_are_refused(kind, setting, told):
    with pytest.raises(mm.SettingsError, match=told):
        kind(setting)


@given(unequal)
def test_the_limit_at_order_zero_is_ordered_as_atkinsons_index(x):
    """The claim of the error for alpha = 0.

    The limit of the generalized entropy is E = -mean log u, and Atkinson(1) is
    1 - exp(-E).
    """
    limit = -np.log(x / x.mean()).mean()
    assert np.isclose(GeneralizedEntropy(1e-6).value(x), limit, rtol=1e-3, atol=1e-8)
    assert np.isclose(Atkinson(1).value(x), 1 - np.exp(-limit), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_atkinson_keeps_its_digits_where_epsilon_is_close_to_one(dtype):
    """Atkinson's index differs from its limit by O(1 - epsilon).

    Where that difference is below rounding, the two agree to rounding.
    """
    x = np.array([0.5, 1.0, 4.0], dtype)
    limit, near = Atkinson(1.0), Atkinson(1 - np.finfo(dtype).eps / 8)
    assert abs(near.value(x) - limit.value(x)) <= 4 * np.finfo(dtype).eps
    assert np.abs(near.gradient(x) - limit.gradient(x)).max() <= 16 * np.finfo(dtype).eps


def test_atkinson_has_its_one_sided_slope_as_a_loss_vanishes():
    """For epsilon = 2 it is 1 - T / (mu sum 1/x): with x_1 -> 0 its slope tends
    to -T / mu."""
    for tiny in (1e-20, 1e-200):
        gradient = Atkinson(2.0).gradient(np.array([tiny, 1.0, 2.0]))
        rounding = (
            4 * np.finfo(float).eps * abs(np.log(tiny))
        )  # of the logarithm, which a power takes back
        assert np.allclose(gradient, [-3.0, 0.0, 0.0], rtol=rounding, atol=1e-14)
