"""Losses: derivatives, exact cases, extreme logits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimeta import (
    Entropy,
    MeanSquaredError,
    SettingsError,
    ShapeError,
    SoftmaxCrossEntropy,
    Summed,
)
from minimeta.testing import check_loss
from minimeta.testing.strategies import seeds, small


@given(small, small, st.lists(small, min_size=0, max_size=2), seeds)
def test_mean_squared_error_passes_and_value(tasks, examples, outputs, seed):
    z, target = np.random.default_rng(seed).standard_normal((2, tasks, examples, *outputs))
    check_loss(MeanSquaredError(), z, target, seed=seed)
    value, _ = MeanSquaredError().forward(z, target)
    assert np.allclose(
        value, [np.mean((a - b) ** 2) for a, b in zip(z, target, strict=True)], rtol=1e-14
    )


@given(small, small, st.integers(2, 6), st.floats(0.1, 2), seeds)
def test_cross_entropy_passes_and_value(tasks, examples, classes, scale, seed):
    # Logits of a few units: the complex step of the loss itself cancels where a
    # class is certain.
    rng = np.random.default_rng(seed)
    z, target = (
        scale * rng.standard_normal((tasks, examples, classes)),
        rng.integers(0, classes, (tasks, examples)),
    )
    check_loss(SoftmaxCrossEntropy(), z, target, seed=seed)
    p = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    want = -np.log(np.take_along_axis(p, target[..., None], axis=2)).mean(axis=(1, 2))
    # -log p cancels where p is near 1: absolute, at the scale of the logits.
    assert np.allclose(
        SoftmaxCrossEntropy().forward(z, target)[0], want, rtol=0, atol=1e-13 * scale
    )


@given(st.sampled_from([np.float32, np.float64]), st.integers(2, 6), seeds)
def test_cross_entropy_is_stable_for_logits_of_ten_thousand(dtype, classes, seed):
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], (2, 3, classes)).astype(dtype)
    z, target = signs * dtype(1e4), rng.integers(0, classes, (2, 3))
    value, cache = SoftmaxCrossEntropy().forward(z, target)
    # Equal largest logits share the probability; the others have none.
    top = z == z.max(axis=2, keepdims=True)
    gap = (z.max(axis=2) - np.take_along_axis(z, target[..., None], axis=2)[..., 0]).astype(
        np.float64
    )
    assert np.allclose(value, (gap + np.log(top.sum(axis=2))).mean(axis=1), rtol=1e-6)
    dz = SoftmaxCrossEntropy().backward(cache)
    assert np.isfinite(dz).all() and np.abs(dz.sum(axis=2)).max() <= 1e-6
    assert np.isfinite(SoftmaxCrossEntropy().backward_tangent(cache, z)).all()
    assert value.dtype == dz.dtype == dtype


@given(st.integers(2, 6), st.floats(5, 30), seeds)
def test_cross_entropy_gradients_keep_their_digits_where_a_class_is_nearly_certain(
    classes, gap, seed
):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((1, 1, classes)).astype(np.float32)
    z[..., 0] += np.float32(gap)
    z_dot = rng.standard_normal(z.shape).astype(np.float32)
    loss, target = SoftmaxCrossEntropy(), np.zeros((1, 1), dtype=int)
    single, double = (
        loss.forward(z.astype(dtype), target)[1] for dtype in (np.float32, np.float64)
    )
    # exp of a float32 logit difference of up to 40: 40 * 6e-8.
    assert np.allclose(loss.backward(single), loss.backward(double), rtol=1e-5, atol=0)
    got, want = (
        loss.backward_tangent(single, z_dot),
        loss.backward_tangent(double, z_dot.astype(np.float64)),
    )
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@given(st.integers(2, 6), st.floats(-1e3, 1e3), seeds)
def test_cross_entropy_ignores_a_shift_of_all_logits(classes, shift, seed):
    rng = np.random.default_rng(seed)
    z, target = rng.standard_normal((1, 4, classes)), rng.integers(0, classes, (1, 4))
    forward = SoftmaxCrossEntropy().forward
    assert np.allclose(
        forward(z, target)[0], forward(z + shift, target)[0], rtol=0, atol=1e-12
    )  # z + shift: 1e3 * 1e-16


logits = st.tuples(small, small, st.integers(1, 6), st.floats(0.1, 2), seeds).map(
    lambda drawn: drawn[3] * np.random.default_rng(drawn[4]).standard_normal(drawn[:3])
)


@given(logits, seeds)
def test_entropy_passes_and_value(z, seed):
    check_loss(Entropy(), z, np.zeros(z.shape[:2], int), seed=seed)
    p = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    value, cache = Entropy().forward(z, None)
    assert np.allclose(
        value, -(p * np.log(p)).sum(axis=2).mean(axis=1), rtol=0, atol=1e-14 * z.shape[2]
    )
    assert (value >= 0).all() and (value <= np.log(z.shape[2]) * (1 + 1e-14)).all()
    assert (
        np.abs(Entropy().backward(cache).sum(axis=2)).max() <= 1e-14
    )  # a shift of all logits changes nothing


@given(small, small, st.integers(1, 6), st.floats(-1e4, 1e4), seeds)
def test_entropy_is_largest_where_all_classes_are_equally_likely_and_bends_down_there(
    tasks, examples, classes, level, seed
):
    z = np.full((tasks, examples, classes), level)
    value, cache = Entropy().forward(z, None)
    assert np.allclose(value, np.log(classes), rtol=1e-14, atol=0)
    assert not Entropy().backward(cache).any()
    z_dot = np.random.default_rng(seed).standard_normal(z.shape)
    # H(z + h z_dot) = log C - h^2 Var(z_dot) / 2 + ..., the variance over
    # equally likely classes.
    bend = (z_dot * Entropy().backward_tangent(cache, z_dot)).sum(axis=(1, 2))
    assert np.allclose(bend, -z_dot.var(axis=2).mean(axis=1), rtol=1e-12, atol=1e-15)


@given(st.sampled_from([np.float32, np.float64]), st.integers(2, 6), seeds)
def test_entropy_is_stable_for_logits_of_ten_thousand(dtype, classes, seed):
    z = np.random.default_rng(seed).choice([-1e4, 1e4], (2, 3, classes)).astype(dtype)
    value, cache = Entropy().forward(z, None)
    top = (z == z.max(axis=2, keepdims=True)).sum(axis=2)
    assert np.allclose(value, np.log(top).mean(axis=1), rtol=1e-6)
    assert (
        not Entropy().backward(cache).any()
    )  # the likeliest are equally likely, the others have no probability
    assert np.isfinite(Entropy().backward_tangent(cache, z)).all()
    assert value.dtype == Entropy().backward(cache).dtype == dtype


@given(st.integers(2, 6), st.floats(5, 30), seeds)
def test_entropy_gradients_keep_their_digits_where_a_class_is_nearly_certain(classes, gap, seed):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((1, 1, classes)).astype(np.float32)
    z[..., 0] += np.float32(gap)
    z_dot = rng.standard_normal(z.shape).astype(np.float32)
    single, double = (
        Entropy().forward(z.astype(dtype), None)[1] for dtype in (np.float32, np.float64)
    )
    assert np.allclose(Entropy().backward(single), Entropy().backward(double), rtol=1e-5, atol=0)
    got = Entropy().backward_tangent(single, z_dot)
    want = Entropy().backward_tangent(double, z_dot.astype(np.float64))
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@given(logits, seeds)
def test_a_sum_is_the_losses_of_the_examples_alone_added_up(z, seed):
    rng = np.random.default_rng(seed)
    for loss, target in (
        (SoftmaxCrossEntropy(), rng.integers(0, z.shape[2], z.shape[:2])),
        (MeanSquaredError(), rng.standard_normal(z.shape)),
    ):
        check_loss(Summed(loss), z, target, seed=seed)
        alone = [loss.forward(z[:, n : n + 1], target[:, n : n + 1])[0] for n in range(z.shape[1])]
        assert np.allclose(Summed(loss).forward(z, target)[0], sum(alone), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("label", [-1, 3, 0.5])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises(ShapeError, match="integer targets from 0 to 2"):
        SoftmaxCrossEntropy().forward(np.zeros((1, 2, 3)), np.full((1, 2), label))


def test_wrong_targets_are_refused():
    with pytest.raises(ShapeError, match="MeanSquaredError"):
        MeanSquaredError().forward(np.zeros((1, 2, 3)), np.zeros((1, 2)))
    with pytest.raises(ShapeError, match="SoftmaxCrossEntropy"):
        SoftmaxCrossEntropy().forward(np.zeros((1, 2, 3)), np.zeros((1, 3), dtype=int))
    with pytest.raises(
        ShapeError, match=r"Entropy expects logits of shape \(T, N, classes\), got \(2, 3\)"
    ):
        Entropy().forward(np.zeros((2, 3)), None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_certain_class_leaves_the_others_share_and_not_zero(dtype):
    """-log p = log(1 + sum of the other classes' e^(z_c - z)).

    Where that sum is below rounding, -log p equals the sum, to rounding.
    """
    gap = 17.0 if dtype == np.float32 else 37.0
    z = np.array([[[gap, 0.0, 0.0]]], dtype)
    others = 2 * np.exp(-gap)
    loss, _ = SoftmaxCrossEntropy().forward(z, np.zeros((1, 1), int))
    entropy, _ = Entropy().forward(z, np.zeros((1, 1), int))
    eps = np.finfo(dtype).eps
    assert abs(loss[0] - others) <= 4 * eps * others  # two powers, a sum, a logarithm
    assert abs(entropy[0] - others * (1 + gap)) <= 8 * eps * others * (1 + gap)


def test_a_loss_of_classes_has_its_entropy_with_the_same_reduction():
    assert SoftmaxCrossEntropy().entropy() == Entropy()
    assert Summed(SoftmaxCrossEntropy()).entropy() == Summed(Entropy())
    assert Entropy().entropy() == Entropy()
    words = "MeanSquaredError predicts no classes, so it has no entropy: use SoftmaxCrossEntropy"
    for loss in (MeanSquaredError(), Summed(MeanSquaredError())):
        with pytest.raises(SettingsError, match=words):
            loss.entropy()


extremes = st.sampled_from([1.0, 0.5, 0.25, 1e-3, 1e-30, 0.0, -1e-30, -0.25, -0.5, -1.0])


@pytest.mark.skipif(
    np.finfo(np.longdouble).maxexp <= np.finfo(np.float64).maxexp,
    reason="the reference needs a type with larger exponents than float64",
)
@given(st.sampled_from([np.float32, np.float64]), st.integers(1, 5), st.data())
def test_entropy_is_finite_and_right_up_to_the_largest_logits_of_the_dtype(dtype, classes, data):
    """The formulas of the class, where no difference of logits overflows."""
    draw = st.lists(st.one_of(extremes, st.floats(-1, 1)), min_size=classes, max_size=classes)
    largest = data.draw(st.sampled_from([np.finfo(dtype).max, dtype(1e4), dtype(1)]))
    z = np.array([[data.draw(draw), data.draw(draw)]], dtype) * largest
    z_dot = np.array([[data.draw(draw), data.draw(draw)]], dtype)
    with np.errstate(over="ignore"):  # of the difference of two logits
        value, cache = Entropy().forward(z, None)
    got = value, Entropy().backward(cache), Entropy().backward_tangent(cache, z_dot)

    s = z.astype(np.longdouble)
    s = s - s.max(axis=2, keepdims=True)
    p = np.exp(s) / np.exp(s).sum(axis=2, keepdims=True)
    mean = (p * s).sum(axis=2, keepdims=True)
    w, u = s - mean, z_dot - (p * z_dot).sum(axis=2, keepdims=True)
    want = (
        (np.log(np.exp(s).sum(axis=2)) - mean[..., 0]).mean(axis=1),
        -p * w / 2,
        -p * (u * w + u - (p * u * w).sum(axis=2, keepdims=True)) / 2,
    )
    # A rounded s of -n has an error of n eps, and p relatively the same. Where
    # s < -104 in float32 (-746 in float64), p is 0. p s^2 is at most 1.
    eps = np.finfo(dtype).eps
    for one, other in zip(got, want, strict=True):
        assert one.dtype == dtype and np.isfinite(one).all()
        assert np.abs(one - other).max() <= 16 * classes * eps


def test_an_entropy_at_the_largest_logits_keeps_a_complex_step():
    """Two classes of three are equally likely: H = log 2, and moving one of the
    two by h changes H in second order only."""
    big = np.finfo(np.float64).max
    with np.errstate(over="ignore", invalid="ignore"):
        value, cache = Entropy().forward(np.array([[[big + 1e-30j, -big, big]]]), None)
    assert np.isfinite(value).all() and abs(value[0].real - np.log(2)) <= 1e-15
    assert abs(value[0].imag) <= 1e-45 and np.isfinite(Entropy().backward(cache)).all()


def test_losses_are_called_by_their_names():
    names = {
        MeanSquaredError(): "mean squared error",
        SoftmaxCrossEntropy(): "mean cross-entropy",
        Entropy(): "mean entropy",
        Summed(MeanSquaredError()): "summed squared error",
        Summed(SoftmaxCrossEntropy()): "summed cross-entropy",
    }
    assert {loss: loss.title for loss in names} == names
