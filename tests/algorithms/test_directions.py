"""The directions of Reptile, FOMAML and MAML."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.algorithms import Outcome
from minimeta.inner import STORES, adapt
from minimeta.testing import assert_close, assert_same, check_algorithm, without_hessian
from minimeta.testing.strategies import inner_rules, problems, rates, seeds


def _check_maml(maml, objective, phi, batches):
    def loss_after_adaptation(phi):
        adapted = adapt(objective, phi, batches[:-1], maml.rule)
        return objective.at(adapted, batches[-1]).loss

    check_algorithm(maml, objective, phi, batches, true_objective=loss_after_adaptation)


@given(problems(), inner_rules)
def test_maml_is_the_gradient_of_the_loss_after_adaptation(problem, rule):
    objective, phi, batches = problem
    for store in STORES:
        _check_maml(mm.MAML(rule, store), objective, phi, batches)


@pytest.mark.parametrize("rule", [mm.SGD(0.1), mm.Adam(0.01, eps=1e-3)], ids=["sgd", "adam"])
@pytest.mark.parametrize(
    "network",
    [mm.omniglot_convnet(5), mm.mini_imagenet_convnet(5)],
    ids=["omniglot", "mini-imagenet"],
)
def test_maml_through_the_papers_networks_at_full_size(network, rule):
    rng = np.random.default_rng(1)
    objective = mm.Objective(network, mm.SoftmaxCrossEntropy())
    phi = objective.init(rng, np.float64)
    batches = mm.Minibatches(
        rng.random((3, 2, 2, *network.input_shape)), rng.integers(0, 5, (3, 2, 2))
    )
    _check_maml(mm.MAML(rule), objective, phi, batches)


@given(st.integers(1, 5), rates, st.sampled_from([0.0, 0.9]), seeds)
def test_maml_through_adam_with_its_usual_eps(k, lr, beta1, seed):
    """Without batch norm no gradient is zero in exact arithmetic, and 1 /
    (sqrt(v) + 1e-8) does no harm."""
    rng = np.random.default_rng(seed)
    objective = mm.Objective(mm.mlp([2, 5, 2], "tanh"), mm.MeanSquaredError())
    phi, rule = objective.init(rng, np.float64), mm.Adam(lr, beta1=beta1)
    batches = mm.Minibatches(rng.standard_normal((k, 2, 4, 2)), rng.standard_normal((k, 2, 4, 2)))
    _check_maml(mm.MAML(rule), objective, phi, batches)


@given(problems(), inner_rules)
def test_fomaml_is_maml_with_the_hessian_replaced_by_zero(problem, rule):
    objective, phi, batches = problem
    check_algorithm(
        mm.FOMAML(rule),
        objective,
        phi,
        batches,
        expected=lambda phi: mm.MAML(rule).direction(without_hessian(objective), phi, batches),
    )


@given(problems(), inner_rules)
def test_reptile_is_the_whole_change_and_fomamls_step_the_last(problem, rule):
    objective, phi, batches = problem

    def change(phi, since):
        way = mm.unroll(objective, phi, batches, rule)
        return Outcome(way.iterates[since] - way.last, way.points[-1].loss, way.states[-1])

    check_algorithm(mm.Reptile(rule), objective, phi, batches, expected=lambda phi: change(phi, 0))
    check_algorithm(
        mm.FOMAML(rule, update="step"),
        objective,
        phi,
        batches,
        expected=lambda phi: change(phi, -2),
    )


@given(problems(), rates)
def test_reptile_sums_the_inner_gradients_and_fomamls_step_is_the_last(problem, alpha):
    objective, phi, batches = problem
    rule = mm.SGD(alpha)
    grads = mm.unroll(objective, phi, batches, rule).grads
    reptile, *_ = mm.Reptile(rule).direction(objective, phi, batches)
    step, *_ = mm.FOMAML(rule, update="step").direction(objective, phi, batches)
    scale = 1 + abs(phi).max()  # phi - phi~ cancels: absolute, at the scale of phi
    assert np.allclose(reptile, alpha * sum(grads), rtol=1e-10, atol=1e-13 * scale)
    assert np.allclose(step, alpha * grads[-1], rtol=1e-10, atol=1e-13 * scale)


@pytest.mark.usefixtures("plain_kernels")  # whose steps round as the expressions here
@given(problems(max_k=1), rates)
def test_with_one_minibatch_every_algorithm_is_joint_training(problem, alpha):
    """Equations (6) and (7): the mean gradient of the tasks' losses at phi.

    For Reptile the direction is one SGD step on that mean loss.
    """
    objective, phi, batches = problem
    grad = objective.at(phi, batches[0]).grad
    rule = mm.SGD(alpha)
    joint = phi - mm.mean(alpha * grad)
    reptile, *_ = mm.Reptile(rule).direction(objective, phi, batches)
    assert_same(reptile, phi - (phi - alpha * grad), "Reptile")
    assert_close(phi - mm.mean(reptile), joint, 1e-14, "the outer step")
    for algorithm in (mm.FOMAML(rule), mm.MAML(rule)):
        assert_same(algorithm.direction(objective, phi, batches)[0], grad, type(algorithm).__name__)


@pytest.mark.usefixtures("plain_kernels")
@given(problems(), inner_rules, st.floats(0.01, 1))
def test_serial_reptile_is_batched_reptile_with_one_task(problem, rule, epsilon):
    objective, phi, batches = problem
    serial = batched = phi
    for task in range(batches.tasks):
        one = batches.of_tasks(task, task + 1)
        adapted = adapt(objective, serial, one, rule)[0]
        serial = serial + epsilon * (adapted - serial)  # algorithm 1
        direction, *_ = mm.Reptile(rule).direction(objective, batched, one)
        batched, _ = mm.SGD(epsilon).step(batched, mm.mean(direction))
    assert_same(batched, serial, "Reptile")


@given(problems(), inner_rules)
def test_losses_are_those_of_the_last_minibatch_before_a_step_on_it(problem, rule):
    objective, phi, batches = problem
    before = adapt(objective, phi, batches[:-1], rule)
    want = objective.at(before, batches[-1]).loss
    for algorithm in (mm.Reptile(rule), mm.FOMAML(rule), mm.MAML(rule)):
        assert_same(algorithm.direction(objective, phi, batches)[1], want, type(algorithm).__name__)


@pytest.mark.parametrize("algorithm", [mm.Reptile, mm.FOMAML, mm.MAML])
def test_no_minibatches_is_an_error(algorithm):
    with pytest.raises(mm.ShapeError, match="at least one mini-batch"):
        algorithm(mm.SGD(0.1)).direction(mm.Quadratic(2), np.zeros(2), mm.Minibatches([], []))
