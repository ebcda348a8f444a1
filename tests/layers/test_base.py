"""What the layers share: products and broadcasts that say the same as NumPy's own, only faster."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimeta.layers import base
from minimeta.testing import assert_same
from minimeta.testing.strategies import seeds
from minimeta.testing.strict import module as strict


@given(
    st.sampled_from([(2, 1960, 64), (1, 4410, 32), (1, 8191, 9), (2, 3, 40000), (3, 5, 2)]),
    st.booleans(),
    seeds,
)
def test_one_number_a_channel_is_broadcasting_to_the_last_bit(shape, shared, seed):
    rng = np.random.default_rng(seed)
    a, v = rng.standard_normal(shape), rng.standard_normal((1 if shared else shape[0], 1, shape[2]))
    for function, want in ((base.plus, a + v), (base.times, a * v)):
        assert_same(function(a, v), want, function.__name__)
        own = a.copy()
        assert_same(function(own, v, out=own), want, "in place")
        assert_same(own, want, "in place")
        assert_same(
            function(strict.asarray(a), strict.asarray(v)).get(), want, "on a strict module"
        )


@pytest.mark.parametrize(("count", "channels"), [(1960, 64), (70560, 32), (8191, 9)])
def test_rows_taken_together_divide_their_number(count, channels):
    together = base._rows_together(count, channels)
    assert count % together == 0 and together * channels <= 6144


@given(st.integers(1, 3), st.integers(1, 3), seeds)
def test_beside_and_sum_rows(tasks, others, seed):
    a, b = np.random.default_rng(seed).standard_normal((2, tasks, 4, 3))
    b = b[: 1 if others == 1 else tasks]
    both = base.beside(a, b)
    assert_same(both[..., :3], a, "[a b]")
    assert_same(both[..., 3:], np.broadcast_to(b, a.shape), "[a b]")
    # Another order of four additions.
    assert (
        np.abs(base.sum_rows(a) - a.sum(axis=1, keepdims=True)).max()
        <= 4 * np.finfo(float).eps * np.abs(a).sum()
    )
