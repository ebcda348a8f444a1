"""The arguments of the rules are checked where the rules are made."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm

RULES = {"SGD": mm.SGD, "Adam": mm.Adam}
wrong = st.one_of(
    st.sampled_from([np.nan, np.inf, -np.inf, -1, -1e-300, True, None, "0.1", 1 + 1j, mm.SGD]),
    st.floats(max_value=0, exclude_max=True),
).filter(lambda value: not (type(value) is complex and value.real >= 0))


@given(st.sampled_from([*RULES]), wrong, st.booleans(), st.booleans())
def test_a_rate_that_is_no_number_from_0_up_is_refused_at_once(name, value, in_tuple, replaced):
    given = (0.1, value) if in_tuple else value
    wanted = f"^{name}'s lr must be a finite number, 0 or more, got {re.escape(repr(given))}$"
    with pytest.raises(mm.SettingsError, match=wanted):
        dataclasses.replace(RULES[name](0.1), lr=given) if replaced else RULES[name](given)


@given(st.sampled_from(["beta1", "beta2"]), st.one_of(wrong, st.floats(1), st.just(np.ones(3))))
def test_a_decay_outside_0_to_1_is_refused_at_once(name, value):
    with pytest.raises(mm.SettingsError, match=f"^Adam's {name} must be .* below 1, got"):
        mm.Adam(0.1, **{name: value})


@pytest.mark.parametrize("value", [-1e-8, np.nan, np.inf, "1e-8", np.ones(3)])
def test_an_eps_that_is_no_number_from_0_up_is_refused_at_once(value):
    with pytest.raises(mm.SettingsError, match="^Adam's eps must be a finite number, 0 or more"):
        mm.Adam(0.1, eps=value)


@pytest.mark.parametrize("name", RULES)
def test_rates_have_at_most_two_axes(name):
    with pytest.raises(mm.SettingsError, match=r"got an array of shape \(1, 2, 3\)$"):
        RULES[name](np.ones((1, 2, 3)))


@given(st.sampled_from([*RULES]), st.data())
def test_every_form_of_a_rate_is_accepted_as_it_is(name, data):
    """Learned rates may be negative, and a rate may carry a complex step."""
    number = st.floats(0, 1e300)
    forms = [
        number,
        number.map(np.float64),
        number.map(np.asarray),
        number.map(lambda value: value + 1e-30j),
        st.integers(0, 10),
        st.lists(number).map(tuple),
        st.lists(number),
    ]
    for shape in ((3,), (2, 1), (2, 3)):
        forms.append(st.just(-np.ones(shape)))
        forms.append(st.just(np.ones(shape) * 1j))
    value = data.draw(st.one_of(forms))
    assert RULES[name](value).lr is value


def test_an_algorithm_without_a_rule_says_how_to_give_it_one():
    for rule, told in ((0.5, "0.5: use MAML(SGD(0.5))"), (mm.SGD, "SGD: use MAML(SGD(0.01))")):
        with pytest.raises(mm.SettingsError, match=re.escape(f"needs an inner rule, got {told}")):
            mm.MAML(rule)
