"""TAML: its directions are the gradients of its two objectives.

The coupling of a meta-batch's tasks is the same for any number of threads.
"""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.algorithms import MEASURES
from minimeta.arrays import threads as host_threads
from minimeta.inner import STORES, adapt
from minimeta.runs.presets import PRESETS
from minimeta.testing import assert_close, assert_same, check_algorithm
from minimeta.testing.strategies import inner_rules, networks, problems, seeds, small, task_counts
from minimeta.testing.strict import module as strict
from minimeta.testing.strict import no_waiting
from minimeta.training.meta_training import MetaTraining
from minimeta.training.task_parallel import TaskParallel

ROUNDING = 1e-12  # of sums of a few hundred float64 terms
measures = st.sampled_from([kind() for kind in MEASURES.values()])
weights = st.floats(0, 10)
stores = st.sampled_from(STORES)


@st.composite
def positive(draw):
    """Positive definite quadratics, and polynomials (1 + b^2 + b u + u^2) + u^2
    (1 + c u + (1 + c^2) u^2)."""
    rng, dim = np.random.default_rng(draw(seeds)), draw(small)
    shape = (draw(st.integers(1, 4)), draw(task_counts), draw(st.integers(2, 4)))
    if draw(st.booleans()):
        root = rng.standard_normal((*shape, dim, dim))
        batches = mm.Minibatches(
            root @ root.swapaxes(-1, -2) + np.eye(dim), rng.standard_normal((*shape, dim))
        )
        return mm.Quadratic(dim), rng.standard_normal(dim), batches
    b, c = rng.standard_normal((2, *shape))
    coefficients = np.stack([1 + b**2, b, 2 + 0 * b, c, 1 + c**2], axis=-1)
    return (
        mm.Polynomial(dim),
        rng.standard_normal(dim),
        mm.Minibatches(rng.standard_normal((*shape, dim)) / dim, coefficients),
    )


@st.composite
def classified(draw, k=st.integers(2, 4), convnets=True):
    """A network of two classes or more with its data."""
    rng, network = np.random.default_rng(draw(seeds)), draw(networks())
    assume(network.output_shape[0] > 1 and (convnets or len(network.input_shape) == 1))
    objective, shape = (
        mm.Objective(network, mm.SoftmaxCrossEntropy()),
        (draw(k), draw(task_counts), draw(st.integers(2, 4))),
    )
    phi = objective.init(rng, np.float64)
    # A large context may silence a block, and rest the next ReLU at its kink.
    phi[network.context] = 0.1 * rng.standard_normal(network.context.stop - network.context.start)
    x, y = (
        rng.standard_normal((*shape, *network.input_shape)),
        rng.integers(0, network.output_shape[0], shape),
    )
    return objective, phi, mm.Minibatches(x, y)


def _has_losses(problem):
    """Whether the losses of a problem are positive.

    The cross-entropy of one class is 0, and a quadratic or polynomial of any
    sign may be negative.
    """
    objective, _, _ = problem
    network = getattr(objective, "network", None)
    return network is not None and (
        network.output_shape[0] > 1 or not isinstance(objective.loss, mm.SoftmaxCrossEntropy)
    )


with_losses = positive() | problems(max_k=4).filter(_has_losses)


def _after(objective, batches, rule):
    return lambda phi: objective.at(adapt(objective, phi, batches[:-1], rule), batches[-1]).loss


def _maml_and(bias, algorithm, objective, batches):
    """The definition: mean_i F_i(phi) + weight bias(phi)."""
    after = _after(objective, batches, algorithm.rule)
    return lambda phi: after(phi).mean() + algorithm.weight * bias(phi)


def _inequality(algorithm, objective, batches):
    return lambda phi: algorithm.measure.value(objective.at(phi, batches[0]).loss)


def _entropy(objective, phi, batch):
    """-sum p log p of the softmax, mean over examples and tasks."""
    z = objective.network.forward(phi, batch[0])
    z = z - z.real.max(axis=-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return -(np.exp(log_p) * log_p).sum(axis=-1).mean()


def _certainty(algorithm, objective, batches):
    def gap(phi):
        adapted = adapt(objective, phi, batches[:-1], algorithm.rule)
        return _entropy(objective, adapted, batches[-1]) - _entropy(objective, phi, batches[0])

    return gap


def _bias(algorithm, objective, phi, batches):
    """T weight (dI/dL_i) g_i alone."""
    outcome = algorithm.direction(objective, phi, batches)
    return algorithm.couple(outcome._replace(direction=0 * outcome.direction)).direction


@given(with_losses, inner_rules, stores, measures, weights)
def test_the_mean_direction_is_the_gradient_of_the_meta_batchs_objective(
    problem, rule, store, measure, weight
):
    objective, phi, batches = problem
    algorithm = mm.TAML(rule, store, measure, weight)
    objective_of_all = _maml_and(
        _inequality(algorithm, objective, batches), algorithm, objective, batches
    )
    check_algorithm(algorithm, objective, phi, batches, true_objective=objective_of_all)
    _, losses, *_ = algorithm.meta_gradient(objective, phi, batches)
    assert_close(losses, _after(objective, batches, rule)(phi), ROUNDING, "the losses")


@given(classified(), inner_rules, stores, weights)
def test_the_entropy_variant_is_the_gradient_of_its_objective(problem, rule, store, weight):
    objective, phi, batches = problem
    algorithm = mm.EntropyTAML(rule, store, weight)
    objective_of_all = _maml_and(
        _certainty(algorithm, objective, batches), algorithm, objective, batches
    )
    check_algorithm(algorithm, objective, phi, batches, true_objective=objective_of_all)
    _, losses, *_ = algorithm.meta_gradient(objective, phi, batches)
    assert_close(losses, _after(objective, batches, rule)(phi), ROUNDING, "the losses")


@pytest.mark.parametrize("rule", [mm.SGD(0.1), mm.Adam(0.01, eps=1e-3)], ids=["sgd", "adam"])
@pytest.mark.parametrize(
    "kind", [lambda rule, store: mm.TAML(rule, store, mm.Gini(), 2.0), mm.EntropyTAML]
)
@pytest.mark.parametrize("store", STORES)
def test_on_batch_norm_and_convolutions(rule, kind, store):
    rng, algorithm = np.random.default_rng(0), kind(rule, store)
    objective = mm.Objective(mm.omniglot_convnet(3, filters=2), mm.SoftmaxCrossEntropy())
    phi = objective.init(rng, np.float64)
    batches = mm.Minibatches(
        rng.standard_normal((3, 2, 3, 28, 28, 1)), rng.integers(0, 3, (3, 2, 3))
    )
    bias = (_inequality if isinstance(algorithm, mm.TAML) else _certainty)(
        algorithm, objective, batches
    )
    check_algorithm(
        algorithm,
        objective,
        phi,
        batches,
        true_objective=_maml_and(bias, algorithm, objective, batches),
    )


@given(with_losses, inner_rules, measures)
def test_with_weight_zero_it_is_maml(problem, rule, measure):
    objective, phi, batches = problem
    for got, want in zip(
        mm.TAML(rule, measure=measure, weight=0).meta_gradient(objective, phi, batches)[:2],
        mm.MAML(rule).meta_gradient(objective, phi, batches)[:2],
        strict=True,
    ):
        assert_same(got, want, "weight 0")


@given(classified(), inner_rules)
def test_with_weight_zero_the_entropy_variant_is_maml(problem, rule):
    objective, phi, batches = problem
    direction, losses, *_ = mm.EntropyTAML(rule, weight=0).meta_gradient(objective, phi, batches)
    want, want_losses, *_ = mm.MAML(rule).meta_gradient(objective, phi, batches)
    assert_same(direction, want, "direction")
    assert_same(losses, want_losses, "losses")


@given(with_losses, inner_rules, stores, measures, st.integers(1, 4))
def test_tasks_with_equal_losses_are_mamls(problem, rule, store, measure, times):
    objective, phi, batches = problem
    same = batches.of_tasks(0, 1)
    same = mm.Minibatches(
        *([np.repeat(each, times, axis=0) for each in data] for data in (same.x, same.y))
    )
    bias = _bias(mm.TAML(rule, store, measure, 1.0), objective, phi, same)
    point = objective.at(phi, same[0])
    assert np.abs(bias).max() <= ROUNDING * np.abs(point.grad / point.loss[:, None]).max()


@given(positive(), measures, st.integers(-20, 20))
def test_a_common_scale_of_the_initial_losses_changes_nothing(problem, measure, power):
    """dI/dL falls as g grows. Scaling by a power of two is exact."""
    objective, phi, batches = problem
    algorithm = mm.TAML(mm.SGD(0.01), measure=measure, weight=1.0)
    scaled = [
        2.0**power * each
        for each in (batches.y if isinstance(objective, mm.Polynomial) else batches.x)
    ]
    again = (
        mm.Minibatches(batches.x, scaled)
        if isinstance(objective, mm.Polynomial)
        else mm.Minibatches(scaled, batches.y)
    )
    got, want = (_bias(algorithm, objective, phi, each[:1]) for each in (again, batches))
    assert_same(got, want, "the bias")


@given(positive(), measures)
def test_the_task_with_the_largest_loss_is_weighed_up_and_that_with_the_smallest_down(
    problem, measure
):
    objective, phi, batches = problem
    point = objective.at(phi, batches[0])
    assume(point.loss.max() > 1.01 * point.loss.min())
    slopes = (
        _bias(mm.TAML(mm.SGD(0.01), measure=measure), objective, phi, batches) * point.grad
    ).sum(axis=1)
    assert slopes[point.loss.argmax()] > 0 > slopes[point.loss.argmin()]


@pytest.mark.usefixtures("either_kernels")
@given(with_losses, inner_rules, stores, measures, st.integers(1, 3), st.integers(1, 3))
def test_the_same_bits_for_any_threads(problem, rule, store, measure, threads, together):
    objective, phi, batches = problem
    algorithm = mm.TAML(rule, store, measure, 1.0)
    with host_threads.workers(threads) as starmap:
        shared = TaskParallel(starmap, threads, together, algorithm, objective).run(
            phi, batches, None
        )
        direction, losses, *_ = algorithm.meta_gradient(
            objective, phi, batches
        )  # here too with BLAS on one thread
    assert_same(shared.direction, direction, "direction")
    assert_same(shared.loss, losses, "loss")
    assert type(shared).__name__ == "Outcome"


@pytest.mark.usefixtures("either_kernels")
@pytest.mark.parametrize("inner", [mm.SGD(0.02), mm.Adam(0.01)], ids=["sgd", "adam"])
def test_meta_training_is_the_same_for_any_workers(inner):
    ends = []
    for workers in (1, 2, 3):
        training = MetaTraining(
            mm.Objective(mm.mlp([1, 5, 1]), mm.MeanSquaredError()),
            mm.TAML(inner, measure=mm.Atkinson()),
            mm.Sinusoid(),
            mm.MinibatchSchedule(3, 4),
            mm.SGD(0.01),
            iterations=5,
            meta_batch=5,
            workers=workers,
        )
        state = training.start()
        with training.stepper() as step:
            for _ in range(5):
                state, _ = step(state)
        assert state.meta.dtype == np.float32
        ends.append(state.meta)
    assert_same(ends[1], ends[0], "two workers")
    assert_same(ends[2], ends[0], "three workers")


@pytest.mark.usefixtures("plain_kernels")
@given(classified(k=st.integers(2, 3), convnets=False), inner_rules, stores, measures)
def test_on_a_strict_module_the_numbers_are_the_same_and_nothing_waits(
    problem, rule, store, measure
):
    objective, phi, batches = problem
    there = mm.Minibatches(
        [strict.asarray(x) for x in batches.x], [strict.asarray(y) for y in batches.y]
    )
    for algorithm in (mm.TAML(rule, store, measure), mm.EntropyTAML(rule, store)):
        with no_waiting():
            got = algorithm.meta_gradient(objective, strict.asarray(phi), there)
        want = algorithm.meta_gradient(objective, phi, batches)
        for a, b in zip(got[:2], want[:2], strict=True):
            assert_same(a.get(), b, type(algorithm).__name__)


@given(classified(k=st.integers(2, 3), convnets=False), st.floats(0.01, 1), stores)
def test_beside_a_sum_entropy_is_a_sum_too(problem, weight, store):
    """N times the loss and entropy, with 1/N of the inner step, gives N F.

    phi_k does not change.
    """
    objective, phi, batches = problem
    examples = batches.y[0].shape[1]
    assume(all(y.shape[1] == examples for y in batches.y))
    summed = mm.Objective(objective.network, mm.Summed(objective.loss))
    direction, loss, *_ = mm.EntropyTAML(mm.SGD(0.1), store, weight).meta_gradient(
        objective, phi, batches
    )
    of_sum, sum_of, *_ = mm.EntropyTAML(mm.SGD(0.1 / examples), store, weight).meta_gradient(
        summed, phi, batches
    )
    assert np.allclose(sum_of, examples * loss, rtol=1e-12)
    assert np.allclose(of_sum, examples * direction, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [mm.TAML, mm.EntropyTAML])
def test_single_precision_stays_single(kind):
    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([2, 3]), mm.SoftmaxCrossEntropy())
    batches = mm.Minibatches(rng.standard_normal((2, 3, 4, 2)), rng.integers(0, 3, (2, 3, 4)))
    direction, *_ = kind(mm.SGD(0.1), weight=np.float64(0.5)).meta_gradient(
        objective, objective.init(rng), batches
    )
    assert direction.dtype == np.float32


def test_adaptation_is_mamls():
    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([2, 3]), mm.SoftmaxCrossEntropy())
    phi, rule = objective.init(rng, np.float64), mm.Adam(0.1)
    batches = mm.Minibatches(rng.standard_normal((2, 3, 4, 2)), rng.integers(0, 3, (2, 3, 4)))
    for algorithm in (mm.TAML(rule), mm.EntropyTAML(rule)):
        assert_same(
            algorithm.adapt(objective, phi, batches),
            mm.MAML(rule).adapt(objective, phi, batches),
            "adapted",
        )


@pytest.mark.parametrize("kind", [mm.TAML, mm.EntropyTAML])
@pytest.mark.parametrize("weight", [-0.1, np.nan, np.inf, "1", None])
def test_senseless_weights_are_refused(kind, weight):
    with pytest.raises(
        mm.SettingsError, match=f"{kind.__name__}'s weight must be (0 or more|a finite number)"
    ):
        kind(mm.SGD(0.1), weight=weight)


def test_what_makes_no_sense_is_refused_with_what_to_use():
    objective = mm.Objective(mm.mlp([1, 2]), mm.MeanSquaredError())
    batches = mm.Minibatches(np.zeros((2, 1, 3, 1)), np.zeros((2, 1, 3, 2)))
    for regression in (objective, mm.Quadratic(4)):
        with pytest.raises(
            mm.SettingsError, match=r"use an inequality measure: TAML\(measure=Theil\(\)\)"
        ):
            mm.EntropyTAML(mm.SGD(0.1)).meta_gradient(regression, np.zeros(4), batches)
    classes = mm.Objective(objective.network, mm.SoftmaxCrossEntropy())
    for count in (0, 1):
        with pytest.raises(
            mm.ShapeError, match=f"two mini-batches per task, got {count}: .* use MAML"
        ):
            mm.EntropyTAML(mm.SGD(0.1)).meta_gradient(classes, np.zeros(4), batches[:count])
    with pytest.raises(mm.ShapeError, match="at least one mini-batch"):
        mm.TAML(mm.SGD(0.1)).meta_gradient(objective, np.zeros(4), batches[:0])
    with pytest.raises(mm.SettingsError, match=r"inequality measure such as Theil\(\), got <class"):
        mm.TAML(mm.SGD(0.1), measure=mm.Theil)


@given(measures)
def test_a_total_of_zero_gives_directions_that_are_not_finite(measure):
    objective = mm.Quadratic(2)
    batches = mm.Minibatches(np.tile(np.eye(2), (2, 3, 1, 1, 1)), np.zeros((2, 3, 1, 2)))
    with np.errstate(all="ignore"):
        direction, losses, *_ = mm.TAML(mm.SGD(0.1), measure=measure).meta_gradient(
            objective, np.zeros(2), batches
        )
    assert not np.isfinite(direction).any() and not losses.any()


TAML = PRESETS["sine-maml"].settings.changed(algorithm="taml")
IMAGES = PRESETS["omniglot-5way-maml"].settings.changed(algorithm="taml-entropy")


def test_settings_make_each_variant():
    for name, kind in MEASURES.items():
        settings = TAML.changed(bias=name, bias_weight=0.5, store="iterates")
        assert settings.algorithm == mm.TAML(mm.SGD(0.01), "iterates", kind(), 0.5)
    assert IMAGES.algorithm == mm.EntropyTAML(mm.SGD(0.4), "points", 0.1)
    assert IMAGES.changed(combine="agreement").training.combine == "agreement"
    # Entropy is a task's own.
    assert IMAGES.changed(meta_batch=1).training.meta_batch == 1


@pytest.mark.parametrize(
    ("settings", "changes", "told"),
    [
        (
            TAML,
            {"bias": "entropy"},
            "set algorithm to taml-entropy",
        ),
        (TAML, {"algorithm": "taml-entropy"}, "predicts no classes"),
        (TAML, {"combine": "agreement"}, "set combine to mean"),
        (TAML, {"meta_batch": 1, "combine": "agreement", "k": 1}, "set k to 2 or more"),
        (TAML, {"meta_batch": 1, "combine": "agreement"}, "set meta_batch"),
        (TAML, {"meta_batch": 1}, "set meta_batch to 2 or more"),
        (TAML, {"k": 1, "tail": "shared"}, "set k to 2 or more"),
        (IMAGES, {"k": 1, "tail": "shared", "tail_shots": None}, "set k to 2 or more"),
        (TAML, {"bias_weight": -1.0}, "bias_weight must be 0 or more"),
        (TAML, {"bias_weight": float("nan")}, "bias_weight must be 0 or more"),
        (TAML, {"bias_weight": float("inf")}, "bias_weight must be 0 or more"),
        (TAML, {"bias": "range"}, "bias must be one of theil"),
    ],
)
def test_senseless_settings_are_refused(settings, changes, told):
    with pytest.raises(mm.SettingsError, match=told):
        settings.changed(**changes)
