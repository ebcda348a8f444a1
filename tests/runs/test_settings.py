"""Settings: a tree of dataclasses, as flags and as JSON, old and new."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.algorithms import ALGORITHMS, COMBINERS, MEASURES
from minimeta.errors import SettingsError
from minimeta.fields import every_flag, flags_of, made_from, reader
from minimeta.inner import RULES, STORES
from minimeta.registry import Registry, setting
from minimeta.runs.experiment import Experiment
from minimeta.runs.presets import PRESETS
from minimeta.runs.settings import Settings
from minimeta.runs.task_settings import TASKS
from minimeta.runs.train import open_run

RESULTS = Path(__file__).resolve().parents[2] / "figures" / "results"
OWNERS = every_flag(Settings)
FIRST_EDITION = json.loads((RESULTS / "omniglot-5way" / "config.json").read_text())


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_json_and_flags(name):
    settings = PRESETS[name].settings
    text = json.dumps(settings.to_dict(), allow_nan=False)
    assert Settings.from_dict(json.loads(text)) == settings
    assert Settings().changed(**json.loads(json.dumps(settings.flags()))) == settings
    assert hash(settings.changed()) == hash(settings)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**22, -(10**22), 10**300, 10**400, 2**63 - 1, 2**63])
    | st.floats()
    | st.text()
    | st.sampled_from(["inf", "nan", "sgd", "maml", "8,x", *TASKS, *RULES]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "lr", "rule", "hidden"]) | st.text(), inner)
    ),
)


def _paths(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _paths(each, (*path, key))


@given(
    st.sampled_from([each.settings.to_dict() for each in PRESETS.values()] + [FIRST_EDITION]),
    st.data(),
)
def test_json_with_any_value_anywhere_is_settings_or_one_line(stored, data):
    stored = json.loads(json.dumps(stored))
    *outer, last = data.draw(st.sampled_from([path for path in _paths(stored) if path]))
    place = stored
    for key in outer:
        place = place[key]
    place[last] = data.draw(JSON_VALUES)
    told = "settings"
    try:
        flags = Settings.from_dict(stored).flags()
        assert not any(type(each) is int and abs(each) >= 2**63 for each in flags.values())
    except SettingsError as error:
        told = str(error)
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("flag", "value"), [("iterations", 2**63), ("seed", 10**22), ("epsilon", 10**400)]
)
def test_numbers_that_no_array_holds_are_refused(flag, value):
    with pytest.raises(SettingsError, match=f"{flag} must be a .*number"):
        Settings().changed(**{flag: value})
    assert Settings().changed(epsilon=10**22).outer.lr == 1e22


def test_numbers_that_are_not_finite_are_words():
    settings = PRESETS["sine-maml"].settings.changed(algorithm="adml")
    stored = settings.to_dict()["algorithm"]
    assert (stored["low"], stored["high"]) == ("-inf", "inf")
    assert Settings.from_dict(settings.to_dict()).algorithm.low == -math.inf


def test_every_name_of_every_registry_is_a_choice():
    for flag, names in (
        ("task", TASKS),
        ("algorithm", ALGORITHMS),
        ("inner", RULES),
        ("outer", RULES),
        ("bias", MEASURES),
    ):
        assert list(OWNERS[flag][0].field.registry) == list(names)
    assert OWNERS["combine"][0].field.choices == tuple(COMBINERS)
    assert OWNERS["store"][0].field.choices == tuple(STORES)


def test_every_flag_has_a_help_text():
    assert [flag for flag, owners in OWNERS.items() if not owners[0].field.help] == []


def test_the_flags_of_the_first_edition_are_all_there():
    assert set(FIRST_EDITION) <= set(OWNERS)


def test_a_change_of_class_keeps_what_both_classes_have():
    settings = PRESETS["sine-maml"].settings
    kept = settings.changed(algorithm="anil", store="iterates").changed(algorithm="adml")
    assert (kept.algorithm.store, kept.algorithm.rule) == ("iterates", mm.SGD(0.01))
    adam = settings.changed(inner="adam", inner_beta1=0.5)
    assert adam.algorithm.rule == mm.Adam(0.01, beta1=0.5)
    assert settings.changed(outer="sgd").outer == mm.SGD(0.001)
    # A class keeps values by flag, not by field: Meta-SGD's low is not ADML's
    # low.
    rates = PRESETS["sine-meta-sgd"].settings.changed(rate_low=0.01)
    assert rates.changed(algorithm="adml").algorithm.low == -math.inf


def test_an_outer_adam_has_its_own_decay():
    settings = Settings().changed(outer="adam", inner="adam")
    assert (settings.outer.beta1, settings.algorithm.rule.beta1) == (0.9, 0.0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"inner_lrr": 1}, "unknown setting 'inner_lrr': did you mean inner_lr?"),
        ({"colour": 1}, "unknown setting 'colour'"),
        ({"bias": "gini"}, "bias belongs to taml: leave it out, or set algorithm to taml"),
        (
            {"inner_beta1": 0.9},
            "inner_beta1 belongs to adam: leave it out, or set inner to adam",
        ),
        ({"algorithm": "maml", "inner_beta1": 0.9}, "set inner to adam"),
        ({"algorithm": "meta-sgd", "inner_lr": 0.1}, "meta-sgd reads rate_low, rate_high instead"),
        ({"algorithm": "taml", "bias": "entropy"}, "set algorithm to taml-entropy"),
        ({"algorithm": "taml", "bias": "range"}, "bias must be one of theil"),
        ({"algorithm": "mamal"}, "algorithm must be one of maml, .*must be registered first"),
        ({"k": 2.5}, "k must be a whole number, got 2.5"),
        ({"k": True}, "k must be a whole number, got True"),
        ({"part": 1, "task": "mini-imagenet"}, "part must be true or false, got 1"),
        ({"shots": "few"}, "shots must be a whole number or none, got 'few'"),
        ({"hidden": "8,x"}, "hidden must be numbers such as 64,64"),
        ({"hidden": [8, 0]}, "hidden must be 1 or more, got 0"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"epsilon": [0.1, 0.2]}, "the outer rule needs one step size"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64"),
        ({"context": 5}, "context parameters are for cavia; reptile adapts"),
    ],
)
def test_a_change_that_makes_no_sense_is_one_line(changes, told):
    with pytest.raises(SettingsError, match=told) as caught:
        Settings().changed(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda stored: stored | {"colour": 1}, "unknown settings: colour"),
        (lambda stored: stored | {"schedule": 5}, "schedule must be an object of settings"),
        (
            lambda stored: stored | {"algorithm": stored["algorithm"] | {"momentum": 1}},
            "unknown settings: algorithm.momentum",
        ),
        (lambda stored: stored | {"algorithm": {"rule": {}}}, "algorithm lacks its type"),
        (
            lambda stored: stored | {"algorithm": {"type": "mine"}},
            "algorithm must be one of .*, got 'mine'; a class of your own must be registered",
        ),
        (
            lambda stored: stored | {"algorithm": {"type": ["maml"]}},
            r"algorithm must be one of .*, got \['maml'\]",
        ),
        (lambda stored: stored | {"outer": {"type": "sgd", "lr": "x"}}, "epsilon must be a number"),
        (lambda stored: stored | {"training": {"seed": None}}, "seed must be a whole number"),
    ],
)
def test_json_that_makes_no_sense_is_one_line(change, told):
    with pytest.raises(SettingsError, match=told) as caught:
        Settings.from_dict(change(Settings().to_dict()))
    assert "\n" not in str(caught.value)


def test_json_may_leave_out_what_has_a_default():
    stored = {"algorithm": {"type": "maml"}, "training": {"iterations": 7}}
    assert Settings.from_dict(stored) == Settings().changed(algorithm="maml", iterations=7)


def test_a_user_may_learn_inner_rates_step_by_step():
    settings = Settings().changed(inner_lr=(0.1, 0.05, 0.05, 0.05, 0.01))
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    read = reader(OWNERS["inner_lr"][0].field)
    assert (read("0.1"), read("0.1,0.05")) == (0.1, (0.1, 0.05))


def test_two_settings_of_one_name_are_refused():
    kinds = Registry("kind")

    @kinds.register("one")
    @dataclass(frozen=True)
    class One:
        size: int = setting(1)

    @dataclass(frozen=True)
    class Tree:
        size: int = setting(2)
        kind: One = setting(One(), registry=kinds)

    with pytest.raises(SettingsError, match="two settings are called 'size'"):
        flags_of(Tree())


def test_an_algorithm_without_a_name_is_refused():
    @dataclass(frozen=True)
    class Nameless(mm.Reptile):
        pass

    with pytest.raises(
        SettingsError, match="Nameless is not a registered algorithm: give the class a name"
    ):
        Settings(algorithm=Nameless(mm.SGD(0.1)))


# The first edition.


def test_the_committed_run_of_the_first_edition_is_todays_preset():
    experiment, state = open_run(RESULTS / "omniglot-5way", data="nowhere")
    assert experiment.settings == PRESETS["omniglot-5way"].settings
    assert state.iteration == 100_000 and state.outer is None and state.inner.v.any()
    assert experiment.learner(state).meta.shape == (experiment.objective.size,)


@pytest.mark.parametrize(
    ("changes", "algorithm"),
    [
        ({"algorithm": "taml", "bias": "entropy"}, mm.EntropyTAML(mm.Adam(0.001))),
        ({"algorithm": "taml", "bias": "gini"}, mm.TAML(mm.Adam(0.001), measure=mm.Gini())),
        ({"algorithm": "fomaml"}, mm.FOMAML(mm.Adam(0.001), "step")),
        ({"algorithm": "meta-sgd"}, mm.MetaSGD()),
    ],
)
def test_settings_of_the_first_edition_are_read(changes, algorithm):
    assert Settings.from_dict(FIRST_EDITION | changes).algorithm == algorithm


def test_other_words_of_the_first_edition_are_read():
    sine = FIRST_EDITION | {"task": "sine", "hidden": "40,40", "outer": "adam", "shots": None}
    settings = Settings.from_dict(sine | {"grid": 0})
    assert (settings.task.hidden, settings.task.grid) == ((40, 40), None)
    assert settings.outer == mm.Adam(1.0, beta1=0.9)
    assert Settings.from_dict({"task": "sine", "algorithm": "fomaml"}).algorithm.update == "step"
    with pytest.raises(SettingsError, match="unknown settings: momentum"):
        Settings.from_dict(FIRST_EDITION | {"momentum": 1})


@pytest.mark.parametrize("name", PRESETS)
def test_a_learner_needs_no_data(name):
    experiment = Experiment(PRESETS[name].settings, data="nowhere")
    assert experiment.objective.size > 0
    meta = experiment.algorithm.init(experiment.objective, np.random.default_rng(0))
    assert meta.ndim == 1 and len(meta) >= experiment.objective.size


def test_no_hidden_layer_is_a_linear_model_in_both_editions():
    first_edition = Settings.from_dict({"task": "sine", "hidden": ""})
    for settings in (Settings().changed(hidden=[]), first_edition):
        assert settings.task.hidden == () and settings.task.objective().size == 2
        assert Settings.from_dict(settings.to_dict()).flags() == settings.flags()


@dataclass(frozen=True)
class Inner:
    size: int = setting(2)


@dataclass(frozen=True)
class Around:
    inner: Inner = setting(Inner(5), prefix="inner_")


def test_the_values_of_a_default_instance_are_its_own():
    assert made_from(Around, {}, {}) == Around()
    assert made_from(Around, {"inner_size": 7}, {}) == Around(Inner(7))
