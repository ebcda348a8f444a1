"""The breakdown of a step: recording finds all operations."""

import sys
from pathlib import Path

import numpy as np
import pytest

import minimeta as mm
from minimeta.testing import assert_same

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import breakdown


def _noted(function, phi):
    breakdown.Noting.notes = []
    return np.asarray(function(phi.view(breakdown.Noting))), breakdown.Noting.notes


@pytest.mark.usefixtures("plain_kernels")  # operations of NumPy are noted
def test_noting_changes_no_bit_and_finds_every_product_of_a_gradient():
    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([2, 3, 4, 5]), mm.MeanSquaredError())
    phi, batch = objective.init(rng, np.float64), (rng.random((6, 7, 2)), rng.random((6, 7, 5)))

    def gradient(phi):
        return objective.at(phi, batch).grad

    got, notes = _noted(gradient, phi)
    assert_same(got, gradient(phi), "gradient")
    products = [note for note in notes if breakdown._is_product(note)]
    # Forward and dW of three layers, dx of the upper two; 6 tasks of 7
    # examples.
    assert len(products) == 8
    assert breakdown.multiply_adds(products) == 6 * 7 * (
        2 * (2 * 3 + 3 * 4 + 4 * 5) + 3 * 4 + 4 * 5
    )
    sums = [note for note in notes if note[0] is np.matmul and not breakdown._is_product(note)]
    assert len(sums) == 3  # the biases


def test_replayed_arrays_have_the_shapes_and_the_order_of_axes():
    a = np.zeros((2, 3, 4), np.float32).swapaxes(1, 2)
    like = breakdown._like(breakdown._form(a), np.random.default_rng(0))
    assert like.shape == a.shape and like.strides == a.strides and like.dtype == a.dtype
    assert breakdown._like(0.5, None) == 0.5
