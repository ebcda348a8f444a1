"""The test kit: it passes correct code, catches errors, and names them."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given

import minimeta as mm
from minimeta.layers import Layer, expect_shape
from minimeta.testing import (
    CheckError,
    assert_close,
    check_algorithm,
    check_layer,
    check_loss,
    check_network,
    check_objective,
    check_rule,
    check_trajectory,
)
from minimeta.testing.self_check import LAYERS
from minimeta.testing.strategies import minibatches, seeds


@dataclass(frozen=True)
class Scale(Layer):
    """y = s x: right, unless a subclass breaks it."""

    features: int

    @property
    def shapes(self):
        return {"factor": (self.features,)}

    def init(self, rng):
        return {"factor": rng.standard_normal(self.features)}

    def output_shape(self, input_shape):
        expect_shape(self, f"({self.features},)", input_shape == (self.features,), input_shape)
        return input_shape

    def forward(self, theta, x):
        return x * theta["factor"][:, None], x

    def backward(self, theta, x, dy, on_data=False):
        return dy * theta["factor"][:, None], {"factor": (x * dy).sum(axis=1)}

    def forward_tangent(self, theta, theta_dot, x, x_dot, on_data=False):
        return x_dot * theta["factor"][:, None] + x * theta_dot["factor"][:, None], x_dot

    def backward_tangent(self, theta, theta_dot, x, x_dot, dy, dy_dot, on_data=False):
        dx_dot = dy_dot * theta["factor"][:, None] + dy * theta_dot["factor"][:, None]
        return dx_dot, {"factor": (x_dot * dy + x * dy_dot).sum(axis=1)}


@pytest.mark.parametrize("layer", [*LAYERS, Scale(3)], ids=repr)
@pytest.mark.parametrize("shared", [False, True])
def test_a_right_layer_passes_with_nothing_but_itself(layer, shared):
    check_layer(layer, shared=shared)


def _broken(**passes):
    return type("Broken", (Scale,), passes)(3)


def _said(layer, **options):
    with pytest.raises(CheckError) as caught:
        check_layer(layer, **options)
    return str(caught.value)


def test_a_dropped_term_is_named_and_so_are_the_passes_that_agree():
    said = _said(
        _broken(
            backward_tangent=lambda self, theta, td, x, xd, dy, dyd, on_data=False: (
                dyd * theta["factor"][:, None] + dy * td["factor"][:, None],
                {"factor": (x * dyd).sum(axis=1)},
            )
        )
    )
    assert "Broken.backward_tangent: dtheta_dot['factor'] differs by" in said
    assert "dx_dot" not in said
    assert said.endswith("; forward, backward, forward_tangent agree (inputs of shape (3,))")


def test_a_wrong_sign_is_named():
    said = _said(
        _broken(
            backward=lambda self, theta, x, dy, on_data=False: (
                -dy * theta["factor"][:, None],
                {"factor": (x * dy).sum(axis=1)},
            )
        )
    )
    assert "Broken.backward: dx differs by" in said
    assert "dtheta['factor']" not in said


DAMAGE = [
    ({"backward": None}, "Broken has no pass backward"),
    (
        {"backward": lambda self, theta, x, dy: (dy[:, :1], {"factor": dy.sum(axis=1)})},
        "backward: dx has shape (2, 1, 3), expected (2, 3, 3)",
    ),
    (
        {"backward": lambda self, theta, x, dy: (dy, {})},
        "backward: dtheta names {}, expected {'factor'}",
    ),
    ({"backward": lambda self, theta, x, dy: dy}, "backward must return (dx, dtheta), got ndarray"),
    (
        {"forward": lambda self, theta, x: (x * np.nan, x)},
        "forward: y holds numbers that are not finite",
    ),
    (
        {"forward": lambda self, theta, x: (np.multiply(x, 2, out=x), x)},
        "forward changes its input x in place",
    ),
    (
        {"backward": lambda self, theta, x, dy: 1 / 0},
        "backward raised ZeroDivisionError: division by zero",
    ),
    (
        {"forward": lambda self, theta, x: (x * theta["factor"].mean(axis=0), x)},
        "forward: a result of one task alone differs by",
    ),
    (
        {"forward": lambda self, theta, x: (x * theta["factor"][:, None] * np.ones(3), x)},
        "y is float64 for inputs that are float32",
    ),
    (
        {"forward": lambda self, theta, x: (np.abs(x) * theta["factor"][:, None], x)},
        "forward drops an imaginary part: its derivative by the complex step differs by",
    ),
]


@pytest.mark.parametrize(("passes", "words"), DAMAGE)
def test_damage_of_every_kind_is_reported_as_what_it_is(passes, words):
    assert words in _said(_broken(**passes))


def test_what_the_complex_step_cannot_see_a_real_difference_does():
    """y = x / (1 + |x|), with |x| taken for a constant: consistent for the
    complex step, and wrong."""
    softsign = {
        "shapes": property(lambda self: {}),
        "forward": lambda self, theta, x: (x / (1 + abs(x)), x),
        "backward": lambda self, theta, x, dy: (dy / (1 + abs(x)), {}),
        "forward_tangent": lambda self, theta, td, x, xd: (xd / (1 + abs(x)), xd),
        "backward_tangent": lambda self, theta, td, x, xd, dy, dyd: (dyd / (1 + abs(x)), {}),
    }
    assert "from a real difference" in _said(_broken(**softsign))


@dataclass(frozen=True)
class WrongLoss(mm.MeanSquaredError):
    def backward_tangent(self, cache, z_dot):
        return 2 * super().backward_tangent(cache, z_dot)


def test_a_wrong_loss_objective_and_algorithm_are_named():
    rng = np.random.default_rng(0)
    z, target = rng.standard_normal((2, 2, 3, 1))
    with pytest.raises(
        CheckError,
        match=r"WrongLoss.backward_tangent: dz_dot differs by 1.0e\+00.*; forward, backward agree",
    ):
        check_loss(WrongLoss(), z, target)
    objective = mm.Objective(mm.mlp([2, 3, 1], "tanh"), WrongLoss())
    phi, batches = (
        objective.init(rng, np.float64),
        mm.Minibatches(rng.standard_normal((3, 2, 4, 2)), rng.standard_normal((3, 2, 4, 1))),
    )
    with pytest.raises(CheckError, match=r"Objective.hvp: H v differs by"):
        check_objective(objective, phi, batches[0])

    def loss_after(p):
        return objective.at(mm.adapt(objective, p, batches[:-1], mm.SGD(0.1)), batches[-1]).loss

    with pytest.raises(CheckError, match=r"MAML.direction: the direction differs by"):
        check_algorithm(mm.MAML(mm.SGD(0.1)), objective, phi, batches, true_objective=loss_after)


@dataclass(frozen=True)
class WrongRule(mm.SGD):
    def adjoint(self, g, state, j, dphi, dstate=None):
        right = super().adjoint(g, state, j, dphi, dstate)
        return right._replace(g=-right.g)


@dataclass(frozen=True)
class WrongTangent(mm.Adam):
    def tangent(self, g, state, j, phi_dot, g_dot, state_dot=None, lr_dot=None):
        right = super().tangent(g, state, j, phi_dot, g_dot, state_dot, lr_dot)
        return right[0], (right[1][0], -right[1][1])


@dataclass(frozen=True)
class CountingFromOne(mm.SGD):
    """A wrong rule that uses the rate of the next step."""

    def tangent(self, g, state, j, *directions):
        return super().tangent(g, state, j + 1, *directions)


def test_a_wrong_network_rule_and_trajectory_are_named():
    network = mm.Network(
        (3,), (_broken(backward=lambda self, theta, x, dy: (dy, {"factor": (x * dy).sum(axis=1)})),)
    )
    with pytest.raises(CheckError, match=r"Network.backward: dx differs by"):
        check_network(network)
    with pytest.raises(
        CheckError, match=r"WrongRule.adjoint: g differs by .*; step, tangent agree \(step 1\)"
    ):
        check_rule(WrongRule(0.1))
    rng = np.random.default_rng(0)
    batches = mm.Minibatches(np.tile(np.eye(2), (3, 1, 1, 1, 1)), rng.standard_normal((3, 1, 1, 2)))
    with pytest.raises(
        CheckError, match=r"Trajectory.pullback: dphi differs by .*\(WrongRule, 3 steps\)"
    ):
        check_trajectory(mm.Quadratic(2), np.zeros(2), batches, WrongRule(0.1))
    with pytest.raises(CheckError, match=r"WrongTangent.tangent: state'_dot\[1\] differs by"):
        check_rule(WrongTangent(0.1, eps=1e-3))
    wrong, rates = WrongTangent(0.1, eps=1e-3), CountingFromOne((0.1, 0.2, 0.3, 0.4))
    for rule in (wrong, rates):
        with pytest.raises(CheckError, match=r"Trajectory.pushforward: J u differs by"):
            check_trajectory(mm.Quadratic(2), np.zeros(2), batches, rule)
    with pytest.raises(CheckError, match=r"CountingFromOne.tangent: phi'_dot differs by"):
        check_rule(rates)


def test_a_direction_loss_and_state_that_are_not_the_expected_are_named():
    rng = np.random.default_rng(0)
    batches = mm.Minibatches(np.tile(np.eye(2), (3, 1, 1, 1, 1)), rng.standard_normal((3, 1, 1, 2)))
    objective, phi, rule = mm.Quadratic(2), np.ones(2), mm.Adam(0.1, eps=1e-3)

    def expected(phi):
        return mm.FOMAML(rule).direction(objective, phi, batches)

    check_algorithm(mm.FOMAML(rule), objective, phi, batches, expected=expected)
    with pytest.raises(
        CheckError, match=r"the direction differs by .*; .*state differs by"
    ) as caught:
        check_algorithm(mm.Reptile(rule), objective, phi, batches, expected=expected)
    assert "the loss" not in str(caught.value)


@dataclass(frozen=True)
class _Spread(mm.Reptile):
    """Minus the gradient of mean L, plus that of weight times the variance of
    L, with one mini-batch."""

    factor: float = 1.0

    def direction(self, objective, meta, minibatches, state=None):
        point = objective.at(meta, minibatches[0])
        return mm.algorithms.Outcome(-point.grad, point.loss, None, (point.grad,))

    def couple(self, outcome):
        direction, loss, _, (grad,) = outcome
        return outcome._replace(
            direction=direction + self.factor * 2 * (loss - loss.mean())[:, None] * grad
        )


class _NeverCoupled(_Spread):
    def couple(self, outcome):
        return outcome


class _CoupledTooEarly(_Spread):
    def direction(self, objective, meta, minibatches, state=None):
        return super().couple(super().direction(objective, meta, minibatches, state))

    def couple(self, outcome):
        return outcome


def test_the_objective_of_a_whole_meta_batch_is_one_number_and_coupling_is_for_couple():
    rng = np.random.default_rng(0)
    objective, phi = (
        mm.Objective(mm.mlp([2, 3, 1], "tanh"), mm.MeanSquaredError()),
        rng.standard_normal(13),
    )
    batches = mm.Minibatches(rng.standard_normal((1, 3, 4, 2)), rng.standard_normal((1, 3, 4, 1)))

    def whole(p):
        loss = objective.at(p, batches[0]).loss
        return (loss * loss).mean() - loss.mean() ** 2 - loss.mean()

    check_algorithm(_Spread(mm.SGD(0.1)), objective, phi, batches, true_objective=whole)
    with pytest.raises(
        CheckError,
        match=r"_Spread.direction: the mean direction differs by \S+ relative from the derivative "
        r"of true_objective; couple, adapt, iterates agree",
    ):
        check_algorithm(_Spread(mm.SGD(0.1), 1.01), objective, phi, batches, true_objective=whole)
    with pytest.raises(CheckError, match=r"_NeverCoupled.direction: the mean direction differs by"):
        check_algorithm(_NeverCoupled(mm.SGD(0.1)), objective, phi, batches, true_objective=whole)
    with pytest.raises(
        CheckError,
        match=r"direction: the direction of task 0 alone differs by \S+ relative from that of "
        r"task 0 among all: it depends on the other tasks; .*; couple, adapt, iterates agree",
    ):
        check_algorithm(
            _CoupledTooEarly(mm.SGD(0.1)), objective, phi, batches, true_objective=whole
        )


class _Clipping(mm.Reptile):
    def direction(self, objective, meta, minibatches, state=None):
        for x, _ in minibatches:
            np.clip(x, -0.1, 0.1, out=x)
        return super().direction(objective, meta, minibatches, state)


def test_an_algorithm_that_damages_its_data_is_told_so():
    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([2, 3, 1], "tanh"), mm.MeanSquaredError())
    batches = mm.Minibatches(rng.standard_normal((2, 2, 4, 2)), rng.standard_normal((2, 2, 4, 1)))
    with pytest.raises(CheckError, match="_Clipping.direction changes its input x in place"):
        check_algorithm(_Clipping(mm.SGD(0.1)), objective, objective.init(rng, np.float64), batches)


def test_a_loss_that_turns_to_nan_in_the_complex_plane_is_told_so():
    class Loss(mm.MeanSquaredError):
        def forward(self, z, target):
            value, cache = super().forward(z, target)
            return (value * np.nan if z.dtype.kind == "c" else value), cache

    z, target = np.random.default_rng(0).standard_normal((2, 2, 3, 1))
    with pytest.raises(CheckError, match="not finite"):
        check_loss(Loss(), z, target)


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_loss(object(), np.ones((1, 2, 3)), np.ones((1, 2, 3))),
        lambda: check_objective(object(), np.ones(2), (np.ones((1, 1)), np.ones((1, 1)))),
        lambda: check_algorithm(
            object(),
            mm.Quadratic(2),
            np.ones(2),
            mm.Minibatches(np.ones((1, 1, 1, 2, 2)), np.ones((1, 1, 1, 2))),
        ),
        lambda: check_layer(Scale(3), input_shape=(4,)),
        lambda: check_layer(_broken(shapes=property(lambda self: {"factor": 3}))),
    ],
)
def test_what_is_not_even_the_right_kind_of_object_is_a_check_error(check):
    with pytest.raises(CheckError):
        check()


def test_a_layer_that_forgets_shared_parameters_is_caught_by_default():
    unshared = _broken(
        forward=lambda self, theta, x: (x * theta["factor"].reshape(len(x), 1, -1), x)
    )
    assert "forward raised ValueError" in _said(unshared)


@given(minibatches((2,), outputs=3), seeds)
def test_a_right_algorithm_passes_on_whatever_is_drawn(batches, seed):
    objective, rule = mm.Objective(mm.mlp([2, 4, 3], "tanh"), mm.SoftmaxCrossEntropy()), mm.SGD(0.1)
    phi = objective.init(np.random.default_rng(seed), np.float64)

    def loss_after(p):
        return objective.at(mm.adapt(objective, p, batches[:-1], rule), batches[-1]).loss

    check_algorithm(mm.MAML(rule), objective, phi, batches, true_objective=loss_after)


def test_closeness_to_what_is_not_finite_is_refused():
    with pytest.raises(AssertionError, match="not finite"):
        assert_close(np.ones(2), np.array([np.inf, 1.0]), 1e-10, "x")
