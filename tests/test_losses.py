"""Losses: derivatives, exact cases, extreme logits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimeta import MeanSquaredError, ShapeError, SoftmaxCrossEntropy
from minimeta.testing import check_loss
from minimeta.testing.strategies import seeds, small


@given(small, small, st.lists(small, min_size=0, max_size=2), seeds)
def test_mean_squared_error_passes_and_value(tasks, examples, outputs, seed):
    z, target = np.random.default_rng(seed).standard_normal((2, tasks, examples, *outputs))
    check_loss(MeanSquaredError(), z, target, seed=seed)
    value, _ = MeanSquaredError().forward(z, target)
    assert np.allclose(value, [np.mean((a - b) ** 2) for a, b in zip(z, target, strict=True)], rtol=1e-14)


@given(small, small, st.integers(2, 6), st.floats(0.1, 2), seeds)
def test_cross_entropy_passes_and_value(tasks, examples, classes, scale, seed):
    # Logits of a few units: the complex step of the loss itself cancels where a class is certain.
    rng = np.random.default_rng(seed)
    z, target = scale * rng.standard_normal((tasks, examples, classes)), rng.integers(0, classes, (tasks, examples))
    check_loss(SoftmaxCrossEntropy(), z, target, seed=seed)
    p = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    want = -np.log(np.take_along_axis(p, target[..., None], axis=2)).mean(axis=(1, 2))
    # -log p cancels where p is near 1: absolute, at the scale of the logits.
    assert np.allclose(SoftmaxCrossEntropy().forward(z, target)[0], want, rtol=0, atol=1e-13 * scale)


@given(st.sampled_from([np.float32, np.float64]), st.integers(2, 6), seeds)
def test_cross_entropy_is_stable_for_logits_of_ten_thousand(dtype, classes, seed):
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (2, 3, classes)).astype(dtype)
    z, target = signs * dtype(1e4), rng.integers(0, classes, (2, 3))
    value, cache = SoftmaxCrossEntropy().forward(z, target)
    # Equal largest logits share the probability; the others have none.
    top = z == z.max(axis=2, keepdims=True)
    gap = (z.max(axis=2) - np.take_along_axis(z, target[..., None], axis=2)[..., 0]).astype(np.float64)
    assert np.allclose(value, (gap + np.log(top.sum(axis=2))).mean(axis=1), rtol=1e-6)
    dz = SoftmaxCrossEntropy().backward(cache)
    assert np.isfinite(dz).all() and np.abs(dz.sum(axis=2)).max() <= 1e-6
    assert np.isfinite(SoftmaxCrossEntropy().backward_tangent(cache, z)).all()
    assert value.dtype == dz.dtype == dtype


@given(st.integers(2, 6), st.floats(5, 30), seeds)
def test_cross_entropy_gradients_keep_their_digits_where_a_class_is_nearly_certain(classes, gap, seed):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((1, 1, classes)).astype(np.float32)
    z[..., 0] += np.float32(gap)
    z_dot = rng.standard_normal(z.shape).astype(np.float32)
    loss, target = SoftmaxCrossEntropy(), np.zeros((1, 1), dtype=int)
    single, double = (loss.forward(z.astype(dtype), target)[1] for dtype in (np.float32, np.float64))
    # exp of a float32 logit difference of up to 40: 40 * 6e-8.
    assert np.allclose(loss.backward(single), loss.backward(double), rtol=1e-5, atol=0)
    got, want = loss.backward_tangent(single, z_dot), loss.backward_tangent(double, z_dot.astype(np.float64))
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@given(st.integers(2, 6), st.floats(-1e3, 1e3), seeds)
def test_cross_entropy_ignores_a_shift_of_all_logits(classes, shift, seed):
    rng = np.random.default_rng(seed)
    z, target = rng.standard_normal((1, 4, classes)), rng.integers(0, classes, (1, 4))
    forward = SoftmaxCrossEntropy().forward
    assert np.allclose(forward(z, target)[0], forward(z + shift, target)[0], rtol=0, atol=1e-12)  # z + shift: 1e3 * 1e-16


@pytest.mark.parametrize("label", [-1, 3, 0.5])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises(ShapeError, match="integer targets from 0 to 2"):
        SoftmaxCrossEntropy().forward(np.zeros((1, 2, 3)), np.full((1, 2), label))


def test_wrong_targets_are_refused():
    with pytest.raises(ShapeError, match="MeanSquaredError"):
        MeanSquaredError().forward(np.zeros((1, 2, 3)), np.zeros((1, 2)))
    with pytest.raises(ShapeError, match="SoftmaxCrossEntropy"):
        SoftmaxCrossEntropy().forward(np.zeros((1, 2, 3)), np.zeros((1, 3), dtype=int))
