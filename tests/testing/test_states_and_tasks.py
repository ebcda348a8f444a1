"""The test kit on states, merges, inner loops, losses and rows of tasks.

Each wrong rule or algorithm here is right by its derivatives alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

import minimeta as mm
from minimeta.inner import AdamState, Adjoint, adapt, descend
from minimeta.testing import CheckError, check_algorithm, check_network, check_objective, check_rule
from minimeta.testing.comparing import compare
from minimeta.testing.findings import Findings
from minimeta.testing.oracles import oracle
from minimeta.testing.self_check import FAMILY


def problem(k=3, tasks=2):
    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([2, 3, 2], "tanh"), mm.MeanSquaredError())
    batches = mm.Minibatches(*rng.standard_normal((2, k, tasks, 4, 2)))
    return objective, objective.init(rng, np.float64), batches


ADAM = mm.Adam(0.1, eps=1e-3)


def scored(algorithm, objective, batches):
    """The loss after adaptation."""

    def loss(meta):
        adapted = mm.adapt(objective, meta, batches[:-1], algorithm.rule)
        return objective.at(adapted, batches[-1]).loss

    return loss


def said(algorithm, tasks=2, **options):
    """What the kit says of ``algorithm``, given its true objective."""
    objective, phi, batches = problem(tasks=tasks)
    loss = scored(algorithm, objective, batches)
    true_objective = loss
    if isinstance(algorithm, mm.TAML):

        def true_objective(meta):
            initial = objective.at(meta, batches[0]).loss
            return loss(meta).mean() + algorithm.weight * algorithm.measure.value(initial)

    with pytest.raises(CheckError) as caught:
        check_algorithm(
            algorithm, objective, phi, batches, true_objective=true_objective, **options
        )
    return str(caught.value)


# The state of an algorithm.


class StateTooEarly(mm.MAML):
    def direction(self, objective, meta, minibatches, state=None):
        found = super().direction(objective, meta, minibatches, state)
        early = descend(*self.problem(objective, meta)[:2], minibatches[:-2], self.rule, state)[1]
        return found._replace(state=early)


class NoState(mm.MAML):
    def direction(self, objective, meta, minibatches, state=None):
        return super().direction(objective, meta, minibatches, state)._replace(state=None)


class FreshStart(mm.MAML):
    def direction(self, objective, meta, minibatches, state=None):
        return super().direction(objective, meta, minibatches)


class FreshDirection(mm.MAML):
    """The returned state is right, but the direction is that of a fresh
    start."""

    def direction(self, objective, meta, minibatches, state=None):
        right = super().direction(objective, meta, minibatches, state)
        return super().direction(objective, meta, minibatches)._replace(state=right.state)


class ForgetsTheStateInAdapt(mm.MAML):
    def adapt(self, objective, meta, minibatches, state=None):
        return super().adapt(objective, meta, minibatches)


STATES = {
    StateTooEarly: "the inner rule's state is the one after 1, expected the one after 2 or 3 of 3 "
    "inner steps, AdamState(steps=2, m=an array (2, 17), v=an array (2, 17))",
    NoState: "the inner rule's state is None, expected the one after 2 or 3 of 3 inner steps",
    FreshStart: "the inner rule's state from a carried state is AdamState(steps=2,",
    FreshDirection: "FreshDirection.direction: the direction from a carried state differs by",
    ForgetsTheStateInAdapt: "adapt: the adapted phi from a carried state differs by",
}


@pytest.mark.parametrize("kind", STATES, ids=lambda kind: kind.__name__)
def test_an_algorithm_that_loses_its_rules_state_is_told_so(kind):
    assert STATES[kind] in said(kind(ADAM))


def test_a_state_at_the_start_is_used():
    objective, phi, batches = problem()
    state = ADAM.merge(None, descend(objective, phi, batches, ADAM)[1], 2)
    for algorithm in (mm.MAML(ADAM), FreshStart(ADAM)):
        known = oracle(mm.MAML(ADAM), objective, batches, state)
        if isinstance(algorithm, FreshStart):
            with pytest.raises(CheckError, match="FreshStart.direction: the loss differs by"):
                check_algorithm(algorithm, objective, phi, batches, state=state, **known)
        else:
            check_algorithm(algorithm, objective, phi, batches, state=state, **known)


# Adaptation.


class OneStepShort(mm.MAML):
    def adapt(self, objective, meta, minibatches, state=None):
        return super().adapt(objective, meta, minibatches[:-1], state)


class IteratesOneStepShort(mm.MAML):
    def iterates(self, objective, meta, minibatches, state=None):
        return super().iterates(objective, meta, minibatches[:-1], state)


class AdaptsElsewhere(mm.MAML):
    """``adapt`` and ``iterates`` agree, but not with ``problem``."""

    def adapt(self, objective, meta, minibatches, state=None):
        return adapt(objective, meta, minibatches, mm.SGD(0.2), state)

    def iterates(self, objective, meta, minibatches, state=None):
        return mm.unroll(objective, meta, minibatches, mm.SGD(0.2), "iterates", state).iterates


def test_adaptation_is_the_inner_loop_of_problem():
    for rule in (mm.SGD(0.1), ADAM):
        text = said(OneStepShort(rule))
        assert "OneStepShort.adapt: the adapted phi differs by" in text
        assert "after all 3 steps of problem's inner loop, and is the one after 2" in text
        assert "gives 3 iterates of 3 inner steps" in said(IteratesOneStepShort(rule))
    text = said(AdaptsElsewhere(mm.SGD(0.1)))
    assert "AdaptsElsewhere.adapt: the adapted phi differs by" in text
    assert "AdaptsElsewhere.iterates: iterate 1 differs by" in text


# Losses and rows of a coupled objective.


class WrongLosses(mm.TAML):
    def couple(self, outcome):
        return super().couple(outcome)._replace(loss=2 * outcome.loss)


class InitialLosses(mm.TAML):
    def direction(self, objective, meta, minibatches, state=None):
        found = super().direction(objective, meta, minibatches, state)
        return found._replace(loss=found.coupling[0])


class Rolled(mm.TAML):
    def couple(self, outcome):
        right = super().couple(outcome)
        return right._replace(direction=np.roll(right.direction, 1, axis=0))


class RolledLosses(mm.TAML):
    def couple(self, outcome):
        right = super().couple(outcome)
        return right._replace(loss=np.roll(right.loss, 1))


class Reversed(mm.TAML):
    def couple(self, outcome):
        right = super().couple(outcome)
        return right._replace(direction=right.direction[::-1])


class RolledTooEarly(mm.TAML):
    def direction(self, objective, meta, minibatches, state=None):
        right = super().direction(objective, meta, minibatches, state)
        return right._replace(direction=np.roll(right.direction, 1, axis=0))


ROWS = {
    WrongLosses: "direction: the loss differs by 1.0e+00 relative from the last mini-batch's",
    InitialLosses: "direction: the loss differs by",
    Rolled: "couple: the direction with the tasks in another order differs by",
    RolledLosses: "couple: the loss with the tasks in another order differs by",
    Reversed: "couple: the direction with the tasks in another order differs by",
    RolledTooEarly: "direction: the direction of task 0 alone differs by",
}


@pytest.mark.parametrize("tasks", [2, 3, 4])
@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_losses_and_rows_of_a_coupled_objective_are_those_of_their_tasks(kind, tasks):
    assert ROWS[kind] in said(kind(mm.SGD(0.1), weight=2.0), tasks)
    if kind in (Rolled, Reversed, RolledTooEarly):
        text = said(kind(mm.SGD(0.1), weight=2.0), tasks, per_copy=True)
        assert "the direction of task 0 over T differs by" in text


class Shifted(mm.TAML):
    """The mean is right, and every order of the tasks is kept: only the
    derivatives by copies of meta tell."""

    def couple(self, outcome):
        right = super().couple(outcome)
        mean = right.direction.mean(axis=0)
        return right._replace(direction=0.5 * (right.direction + mean))


def test_copies_of_meta_give_each_tasks_own_direction():
    assert "Shifted.direction: the direction of task 1 over T differs by" in said(
        Shifted(mm.SGD(0.1)), per_copy=True
    )
    objective, phi, batches = problem(tasks=3)
    for algorithm in (mm.TAML(ADAM, weight=2.0), mm.TAML(ADAM, "iterates", mm.Gini(), 0.5)):
        known = oracle(algorithm, objective, batches)
        assert known["per_copy"]
        check_algorithm(algorithm, objective, phi, batches, **known)


@pytest.mark.parametrize("rule", [mm.SGD(0.1), ADAM, mm.Adam(0.05, 0.9, 0.99, 1e-2)], ids=repr)
@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_the_algorithms_of_the_package_pass_with_their_oracles(rule, tasks):
    objective, phi, batches = problem(tasks=tasks)
    last_step = mm.FOMAML(rule, update="step")
    adml = mm.ADML(rule, eps=0.2)
    others = mm.MAML(rule), mm.FOMAML(rule), mm.Reptile(rule), mm.TAML(rule), mm.ANIL(rule)
    for algorithm in (*others, last_step, adml, mm.IMAML(rule, 5.0, 40, 0.0)):
        tolerance = 1e-8 if isinstance(algorithm, mm.IMAML) else 1e-10
        known = oracle(algorithm, objective, batches)
        check_algorithm(algorithm, objective, phi, batches, tolerance=tolerance, **known)
        check_algorithm(algorithm, objective, phi, batches)


# Rules.


class ThisTaskOnly(mm.Adam):
    """Corrects the bias by the steps of this task, j + 1."""

    def step(self, phi, g, state=None, j=0):
        before = state or AdamState(0, 0.0, 0.0)
        m = self.beta1 * before.m + (1 - self.beta1) * g
        v = self.beta2 * before.v + (1 - self.beta2) * g * g
        root = np.sqrt(v / (1 - self.beta2 ** (j + 1)))
        step = m / (1 - self.beta1 ** (j + 1)) / (root + self.eps)
        return phi - self.lr * step, AdamState(before.steps + 1, m, v)


class ThisTaskOnlyThroughout(mm.Adam):
    """The same, with the derivatives of that step: the state counts other steps
    than the ones it was corrected by."""

    def _at(self, state, j):
        return None if state is None else state._replace(steps=j)

    def step(self, phi, g, state=None, j=0):
        phi, after = super().step(phi, g, self._at(state, j), j)
        return phi, after._replace(steps=1 if state is None else state.steps + 1)

    def adjoint(self, g, state, j, dphi, dstate=None):
        return super().adjoint(g, self._at(state, j), j, dphi, dstate)

    def tangent(self, g, state, j, *directions):
        return super().tangent(g, self._at(state, j), j, *directions)


class Restarting(ThisTaskOnlyThroughout):
    """The same, with a count that starts again with every task."""

    def step(self, phi, g, state=None, j=0):
        phi, after = super().step(phi, g, state, j)
        return phi, after._replace(steps=j + 1)


@pytest.mark.parametrize("kind", [ThisTaskOnly, ThisTaskOnlyThroughout, Restarting])
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_a_bias_that_is_corrected_by_this_tasks_steps_only_is_told(kind, beta1):
    with pytest.raises(CheckError) as caught:
        check_rule(kind(0.1, beta1, eps=1e-3))
    memory = "the memory of a rule whose tasks merge into a sequence belongs in its state"
    words = {
        ThisTaskOnly: memory,
        ThisTaskOnlyThroughout: memory,
        Restarting: "merge: steps of the merged state is 6, but that of the state after the same "
        "gradients with the tasks one after another",
    }
    assert words[kind] in str(caught.value)


def test_derivatives_are_checked_from_a_merged_state():
    with pytest.raises(CheckError, match=r"g differs by .*\(step 1 from a merged state\)"):
        check_rule(ThisTaskOnly(0.1, eps=1e-3), sequential=False)


def merging(tasks_left, start, count="all"):
    """Adam with another merge.

    ``tasks_left(i, tasks)`` is how many tasks decay what task i added, and
    ``start(tasks)`` how many decay the shared moments.
    """

    class Merging(mm.Adam):
        def merge(self, shared, states, tasks):
            if states is shared:
                return shared
            t, m, v = shared or (0, 0.0, 0.0)
            k = states.steps - t
            powers = np.array([tasks_left(i, tasks) for i in range(tasks)]) * k

            def merged(beta, old, new):
                weights = (float(beta) ** powers).astype(new.dtype)
                return weights @ (new - beta**k * old) + beta ** (k * start(tasks)) * old

            steps = {"all": k * tasks, "one": k}[count]
            return AdamState(
                t + steps, merged(self.beta1, m, states.m), merged(self.beta2, v, states.v)
            )

    return Merging


class Swapped(mm.Adam):
    def merge(self, shared, states, tasks):
        right = super().merge(shared, states, tasks)
        return right if right is shared else right._replace(m=right.v, v=right.m)


class SameFactor(mm.Adam):
    """m decays as v does."""

    def merge(self, shared, states, tasks):
        right = super().merge(shared, states, tasks)
        if right is shared:
            return right
        return right._replace(m=mm.Adam(0.1, self.beta2).merge(shared, states, tasks).m)


class MeanOfV(mm.Adam):
    def merge(self, shared, states, tasks):
        right = super().merge(shared, states, tasks)
        return right if right is shared else right._replace(v=states.v.mean(axis=0))


WRONG_MERGES = {
    "one power too many": merging(lambda i, tasks: tasks - i, lambda tasks: tasks),
    "one power too few": merging(lambda i, tasks: max(tasks - 2 - i, 0), lambda tasks: tasks),
    "no power": merging(lambda i, tasks: 0, lambda tasks: tasks),
    "the order reversed": merging(lambda i, tasks: i, lambda tasks: tasks),
    "the start decayed by one task": merging(lambda i, tasks: tasks - 1 - i, lambda tasks: 1),
    "the steps of one task": merging(lambda i, tasks: tasks - 1 - i, lambda tasks: tasks, "one"),
    "m and v swapped": Swapped,
    "m decayed as v": SameFactor,
    "the mean of v": MeanOfV,
}


@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("name", WRONG_MERGES)
def test_a_wrong_merge_is_told(name, beta1):
    with pytest.raises(CheckError, match=r"\.merge: .* the merged state"):
        check_rule(WRONG_MERGES[name](0.1, beta1, eps=1e-3))


def test_the_right_merge_written_in_the_same_way_passes():
    kind = merging(lambda i, tasks: tasks - 1 - i, lambda tasks: tasks)
    for beta1 in (0.0, 0.9):
        check_rule(kind(0.1, beta1, eps=1e-3), sequential=True)


class Velocity(NamedTuple):
    steps: int
    v: np.ndarray


@dataclass(frozen=True)
class Momentum:
    """A rule of a user: its tasks merge into their mean."""

    lr: float = 0.1
    decay: float = 0.9

    def step(self, phi, g, state=None, j=0):
        v = g if state is None else self.decay * state.v + g
        return phi - self._rate(j) * v, Velocity(1 if state is None else state.steps + 1, v)

    def _rate(self, j):
        return self.lr

    def adjoint(self, g, state, j, dphi, dstate=None):
        v = g if state is None else self.decay * state.v + g
        dv = -self._rate(j) * dphi + (0 if dstate is None else dstate[0])
        factor = self._rate(j) / np.where(np.asarray(self.lr) == 0, 1, self.lr)
        return Adjoint(dphi, dv, (self.decay * dv,), lambda: -v * dphi * factor)

    def tangent(self, g, state, j, phi_dot, g_dot, state_dot=None, lr_dot=None):
        v = g if state is None else self.decay * state.v + g
        v_dot = g_dot + (0 if state_dot is None else self.decay * state_dot[0])
        phi_dot = phi_dot - self._rate(j) * v_dot
        if lr_dot is not None:
            phi_dot = phi_dot - self._rate(j) / self.lr * lr_dot * v
        return phi_dot, (v_dot,)

    def merge(self, shared, states, tasks):
        if states is shared:
            return shared
        return Velocity(states.steps, states.v.mean(axis=0))


class Slowing(Momentum):
    """A rate that falls within a task."""

    def _rate(self, j):
        return self.lr * 0.5**j


class Sum(Momentum):
    """Sequential, by the velocities that the tasks added."""

    def merge(self, shared, states, tasks):
        if states is shared:
            return shared
        before, v = shared or (0, 0.0)
        k = states.steps - before
        weights = (self.decay ** (k * np.arange(tasks - 1, -1, -1))).astype(states.v.dtype)
        added = weights @ (states.v - self.decay**k * v)
        return Velocity(before + k * tasks, added + self.decay ** (k * tasks) * v)


class KeepsAnAxis(Momentum):
    def merge(self, shared, states, tasks):
        if states is shared:
            return shared
        return Velocity(states.steps, states.v.mean(axis=0, keepdims=True))


class LastTask(Momentum):
    def merge(self, shared, states, tasks):
        return shared if states is shared else Velocity(states.steps, states.v[-1])


class Median(Momentum):
    def merge(self, shared, states, tasks):
        return shared if states is shared else Velocity(states.steps, np.median(states.v, axis=0))


class StartsAnew(Momentum):
    def merge(self, shared, states, tasks):
        return None


class SumSlowing(Slowing, Sum):
    """Sequential, with a rate that falls within a task."""


@pytest.mark.parametrize(
    "kind",
    [Momentum, Slowing, Sum, SumSlowing, KeepsAnAxis, LastTask, Median, StartsAnew],
    ids=lambda kind: kind.__name__,
)
def test_a_users_rule_may_merge_in_its_own_way(kind):
    check_rule(kind())
    check_rule(kind(np.array([0.1, 0.2])))
    if kind in (Momentum, LastTask, Median, StartsAnew):
        with pytest.raises(CheckError, match=r"merge: .* (one after another|begins no sequence)"):
            check_rule(kind(), sequential=True)


class CrashesWithoutAStep(Momentum):
    def merge(self, shared, states, tasks):
        return Velocity(states.steps, states.v.mean(axis=0))


class KeepsTheTasks(Momentum):
    def merge(self, shared, states, tasks):
        return states


class HalvesOneTask(Momentum):
    def merge(self, shared, states, tasks):
        return shared if states is shared else Velocity(states.steps, states.v.mean(axis=0) / 2)


class Upcasts(Momentum):
    def merge(self, shared, states, tasks):
        if states is shared:
            return shared
        return Velocity(states.steps, states.v.astype(float).mean(axis=0))


class NeedsRows(Momentum):
    """A step that reads the shared velocity as that of the first parameter."""

    def step(self, phi, g, state=None, j=0):
        if state is not None and state.v.ndim == 1:
            state = state._replace(v=state.v[:1])
        return super().step(phi, g, state, j)


def test_what_every_merge_must_do_is_told():
    for kind, words in {
        CrashesWithoutAStep: r"merge raised AttributeError",
        KeepsTheTasks: r"merge: the merged state of \d tasks is Velocity\(steps=2, v=an array \(",
        HalvesOneTask: r"merge: v of the merged state of one task differs by 5.0e-01 relative from "
        "that of that task's state",
        Upcasts: r"merge: v of the merged state is float64 for inputs that are float32",
        NeedsRows: r"step 1 from a merged state|from an equal copy for each task",
    }.items():
        with pytest.raises(CheckError, match=words):
            check_rule(kind())


# Fresh parameters.


@dataclass(frozen=True)
class Drawn(mm.layers.Dense):
    how: str = "right"

    def init(self, rng):
        right = super().init(rng)
        return {
            "right": right,
            "no bias": {"weight": right["weight"]},
            "shape": right | {"bias": np.zeros(self.outputs + 1)},
            "precision": right | {"bias": right["bias"].astype(np.float32)},
            "infinite": right | {"bias": right["bias"] + np.inf},
            "another generator": right | {"bias": np.random.default_rng().random(self.outputs)},
        }[self.how]


BAD_INITS = {
    "no bias": r"init: the result names \{'weight'\}, expected",
    "shape": r"init: 'bias' has shape \(3,\), expected \(2,\)",
    "precision": "init: 'bias' is float32, expected a NumPy array of float64",
    "infinite": "init: 'bias' holds numbers that are not finite",
    "another generator": "init: 'bias' differs by .* from another one of the same seed",
}


@pytest.mark.parametrize("how", BAD_INITS)
def test_a_wrong_init_of_a_layer_is_told(how):
    mm.testing.check_layer(Drawn(3, 2))
    with pytest.raises(CheckError, match=BAD_INITS[how]):
        mm.testing.check_layer(Drawn(3, 2, how))


class OwnSeed(mm.Network):
    def init(self, rng, dtype=np.float32, xp=np):
        return super().init(np.random.default_rng(), dtype, xp)


class Backwards(mm.Network):
    def init(self, rng, dtype=np.float32, xp=np):
        return super().init(rng, dtype, xp)[::-1]


class Doubled(mm.Quadratic):
    def init(self, rng, dtype=np.float32, xp=np):
        return super().init(rng, np.float64, xp)


class OnTheHost(mm.MAML):
    def init(self, objective, rng, dtype=np.float32, xp=np):
        return objective.init(rng, dtype)


class DrawsByPrecision(mm.MAML):
    def init(self, objective, rng, dtype=np.float32, xp=np):
        return xp.asarray(rng.standard_normal(objective.size, dtype), dtype=dtype)


def test_a_wrong_init_of_a_network_an_objective_and_an_algorithm_is_told():
    layers = (mm.layers.Dense(2, 3), mm.layers.Tanh(), mm.layers.Dense(3, 1))
    check_network(mm.Network((2,), layers))
    with pytest.raises(CheckError, match="init: phi differs by .* from another phi of the same"):
        check_network(OwnSeed((2,), layers))
    with pytest.raises(CheckError, match="init: 'weight' in phi differs by .* that Dense draws"):
        check_network(Backwards((2,), layers))
    data = np.eye(2)[None, None], np.ones((1, 1, 2))
    with pytest.raises(CheckError, match="init: a float32 phi is float64"):
        check_objective(Doubled(2), np.ones(2), data)
    assert "init: meta made with another array module xp" in said(OnTheHost(mm.SGD(0.1)))
    assert "init: a float32 meta differs by" in said(DrawsByPrecision(mm.SGD(0.1)))


def test_the_members_of_the_family_make_fresh_parameters():
    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([2, 6, 3], "tanh", context=2), mm.SoftmaxCrossEntropy())
    x, y = rng.standard_normal((2, 2, 4, 2)), rng.integers(0, 3, (2, 2, 4))
    for algorithm in FAMILY.values():
        meta = algorithm.init(objective, rng, np.float64)
        check_algorithm(algorithm, objective, meta, mm.Minibatches(x, y))


# A pass that drops the imaginary part.


class RealForward(mm.layers.Tanh):
    def forward(self, theta, x):
        y, cache = super().forward(theta, x)
        return y.real + 0 * x, cache


class RealCache(mm.layers.Tanh):
    def forward(self, theta, x):
        y, _ = super().forward(theta, x)
        return y, (x.real, y.real)


class RealLoss(mm.MeanSquaredError):
    def forward(self, z, target):
        value, cache = super().forward(z, target)
        return value.real, cache


def test_the_pass_that_drops_an_imaginary_part_is_blamed_and_no_other():
    for layer, words in (
        (RealForward(), "RealForward.forward drops an imaginary part"),
        (RealCache(), "RealCache.backward drops an imaginary part"),
    ):
        with pytest.raises(CheckError) as caught:
            mm.testing.check_layer(layer)
        assert str(caught.value).startswith(words)
        assert ";" not in str(caught.value).partition("real difference;")[2]
    with pytest.raises(CheckError, match=r"^RealLoss.forward drops an imaginary part"):
        mm.testing.check_loss(RealLoss(), *np.random.default_rng(0).standard_normal((2, 2, 3, 1)))


def test_kinks_that_cancel_where_units_rest_at_zero_are_no_dropped_imaginary_part():
    """Two units of slope 1 on either side of 0, of which neither is active at
    0: a derivative of 0 there, and a slope of 1 on both sides."""

    def two_units(x):
        return np.where(x.real > 0, x, 0) + np.where(x.real < 0, x, 0)

    def dropping(x):
        return two_units(x.real)

    at, along = (np.zeros((1, 3)),), (np.ones((1, 3)),)
    with Findings("Units").reporting() as findings:
        given = "backward", "dx", np.zeros((1, 3)), "forward"
        compare(findings, *given, two_units, at, along, 1e-10)
        with pytest.raises(CheckError, match=r"Units.forward drops an imaginary part"):
            compare(findings, *given, dropping, at, along, 1e-10)
