"""Checkpoints hold states of any structure, and read them back unchanged."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import minimeta as mm
from minimeta.errors import CheckpointError, SettingsError
from minimeta.inner import AdamState
from minimeta.runs.folder import RunFolder
from minimeta.testing import strict
from minimeta.training.meta_training import MetaState
from minimeta.training.states import Rules, packed_state, read_state


class Inner(NamedTuple):
    a: Any
    flag: bool


class State(NamedTuple):
    count: int
    rate: float
    pair: tuple
    nothing: Any


@dataclass(frozen=True)
class Odd:
    """A rule with a state of every kind."""

    lr: float = 0.1

    def step(self, phi, g, state=None, j=0):
        return phi, State(1, 0.5, (g, Inner(g * g, True)), None)


RULES = Rules(mm.Adam(0.1), Odd())
MOMENTS = AdamState(3, np.arange(4.0), np.ones(4))
ODD = State(7, 0.25, (np.arange(2.0), Inner(np.eye(2), False)), None)
META = np.arange(4.0)


def _same(one, other):
    assert type(one) is type(other)
    if isinstance(one, tuple):
        for a, b in zip(one, other, strict=True):
            _same(a, b)
    else:
        assert np.array_equal(one, other)


@pytest.mark.parametrize("inner", [None, ODD])
@pytest.mark.parametrize("outer", [None, MOMENTS])
def test_a_state_of_any_structure_is_read_back(tmp_path, outer, inner):
    folder, state = RunFolder(tmp_path), MetaState(5, META, outer, inner)
    folder.save(state, {}, RULES)
    _same(folder.load({}, RULES), state)
    there = folder.load({}, RULES, strict.module)
    assert isinstance(there.meta, strict.module.ndarray)
    with np.load(folder.checkpoint_path) as stored:
        assert not any("State" in name or "Inner" in name for name in stored.files)
        if inner is not None:
            assert {"inner.count", "inner.pair.0", "inner.pair.1.a"} <= set(stored.files)


def test_a_state_that_could_not_be_read_back_is_not_kept(tmp_path):
    folder, good = RunFolder(tmp_path), MetaState(5, META, MOMENTS, ODD)
    folder.save(good, {}, RULES)
    for bad in (ODD._replace(pair=(1.0,)), ODD._replace(count=0.5), (META,), MOMENTS):
        with pytest.raises(SettingsError, match="this state cannot be saved: "):
            folder.save(good._replace(inner=bad), {}, RULES)
    with pytest.raises(
        SettingsError, match=r"must consist of arrays, numbers.* got 'x' in inner.nothing"
    ):
        folder.save(good._replace(inner=ODD._replace(nothing="x")), {}, RULES)
    _same(folder.load({}, RULES), good)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda arrays: arrays.pop("outer.v"), "it lacks outer.v"),
        (lambda arrays: arrays.pop("iteration"), "it lacks iteration"),
        (lambda arrays: arrays.pop("inner.pair.1.a"), "it lacks inner.pair.1.a"),
        (lambda arrays: arrays.update(colour=META), "no state of the run's rules has colour"),
        (lambda arrays: arrays.update(iteration=np.array(-5)), "iteration must be 0 or more"),
        (lambda arrays: arrays.update(iteration=np.array(1.5)), "one number of type int"),
        (lambda arrays: arrays.update({"outer.steps": META}), "outer.steps must be one number"),
        (lambda arrays: arrays.update(meta=np.array("x")), "meta must hold numbers, got <U1"),
        (lambda arrays: arrays.update(meta=np.eye(2)), "meta a real vector"),
    ],
)
def test_arrays_that_are_no_state_are_told(change, told):
    arrays = packed_state(MetaState(5, META, MOMENTS, ODD))
    change(arrays)
    with pytest.raises(CheckpointError, match=told):
        read_state(arrays, RULES)


def test_checkpoints_of_the_first_edition_are_read():
    """The first format counted SGD's steps, and Adam's steps within a task."""
    counted = {"outer.steps": np.array(9), "inner.steps": np.array(5), "inner.here": np.array(5)}
    moments = {"inner.m": META, "inner.v": META}
    arrays = {"iteration": np.array(9), "meta": META} | counted | moments
    state = read_state(arrays, Rules(mm.SGD(0.1), mm.Adam(0.1)), first_format=True)
    _same(state, MetaState(9, META, None, AdamState(5, META, META)))
    fresh = {"iteration": np.array(0), "meta": META}
    state = read_state(fresh, Rules(mm.Adam(0.1), mm.Adam(0.1)), first_format=True)
    assert (state.outer, state.inner) == (None, None)


@dataclass(frozen=True)
class History:
    """A rule that keeps all its gradients: the shape of its state changes."""

    lr: float = 0.1

    def step(self, phi, g, state=None, j=0):
        before = () if state is None else state
        return phi - self.lr * g, (np.stack([*(before[0] if before else []), g[..., :]]),)

    def merge(self, shared, states, tasks):
        return (states[0][:, 0],)


def test_a_state_has_the_shapes_of_its_run(tmp_path):
    folder, meta = RunFolder(tmp_path), META.astype(np.float32)
    moments = AdamState(5, meta, np.ones_like(meta))
    rules = Rules(mm.Adam(0.1), mm.Adam(0.1)).at_sizes(meta, 4)
    state = MetaState(5, meta, moments, moments._replace(steps=35))
    folder.save(state, {}, rules)
    _same(folder.load({}, rules), state)
    wrong = [
        state._replace(meta=META),
        state._replace(meta=meta[:3]),
        state._replace(outer=None),
        state._replace(iteration=6),
        state._replace(iteration=0),
        state._replace(outer=moments._replace(m=META)),
        state._replace(inner=moments._replace(v=np.ones((1, 4), np.float32))),
        state._replace(inner=moments._replace(v=-np.ones_like(meta))),
        state._replace(inner=moments._replace(v=np.full_like(meta, np.nan))),
    ]
    for bad in wrong:
        with pytest.raises(SettingsError, match="this state cannot be saved"):
            folder.save(bad, {}, rules)
    folder.save(state._replace(inner=None), {}, rules)  # an algorithm without inner steps


def test_a_state_whose_shapes_change_or_are_not_known_may_have_any(tmp_path):
    folder, meta = RunFolder(tmp_path), META.astype(np.float32)
    for rules in (
        Rules(mm.SGD(0.1), History()).at_sizes(meta, 4),
        Rules(mm.SGD(0.1), Odd()).at_sizes(meta, None),
    ):
        inner = (np.ones((9, 4)),) if isinstance(rules.inner, History) else ODD
        folder.save(MetaState(5, meta, None, inner), {}, rules)
        _same(folder.load({}, rules), MetaState(5, meta, None, inner))
