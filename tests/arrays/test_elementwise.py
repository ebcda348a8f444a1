"""A function under ``elementwise`` has one meaning: its own expression.

A stand-in for CuPy's compiler reads the text of a kernel as Python, where it
has the same meaning. So the text is tested on every machine.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimeta.arrays import kernels
from minimeta.arrays.backend import array_module
from minimeta.arrays.elementwise import compiles_kernels, elementwise
from minimeta.layers import batch_norm
from minimeta.testing import assert_same
from minimeta.testing.strategies import dtypes, seeds
from minimeta.testing.strict import StrictArray
from minimeta.testing.strict import module as strict


class ReadAsPython:
    """``ElementwiseKernel``, which counts the kernels that it starts."""

    started = 0

    def __init__(self, inputs, outputs, text, name):
        self._inputs = [each.split()[1] for each in inputs.split(", ")]
        self._outputs = [each.split()[1] for each in outputs.split(", ")]
        self._text = text

    def __call__(self, *arguments):
        type(self).started += 1
        host = [each.get() if isinstance(each, StrictArray) else each for each in arguments]
        dtype = next(each.dtype for each in host if isinstance(each, np.ndarray))
        known = {"T": dtype.type, "float64": float, "sqrt": np.sqrt}
        known |= dict(zip(self._inputs, host, strict=True))
        for line in self._text.split("; "):
            name, _, expression = line.partition(" = ")
            known[name] = eval(expression, known)
        shape = np.broadcast_shapes(*(np.shape(each) for each in host))
        made = [known[name] for name in self._outputs]
        assert all(each.shape == shape and each.dtype == dtype for each in made)
        made = tuple(map(strict.asarray, made))
        return made if len(made) > 1 else made[0]


@pytest.fixture
def compiler(monkeypatch):
    monkeypatch.setattr(strict, "ElementwiseKernel", ReadAsPython, raising=False)
    monkeypatch.setattr(ReadAsPython, "started", 0)
    return ReadAsPython


def both(function, *arguments):
    """The results on the host and on a module that compiles kernels."""
    there = [strict.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
    here, made = function(*arguments), function(*there)
    here, made = (each if isinstance(each, tuple) else (each,) for each in (here, made))
    return list(zip(here, (each.get() for each in made), strict=True))


def close(function, *arguments):
    """The results agree to the rounding of complex products, which NumPy fuses
    in some of its loops."""
    for here, there in both(function, *arguments):
        assert there.dtype == here.dtype and there.shape == here.shape
        assert np.allclose(there, here, rtol=16 * np.finfo(here.dtype).eps, atol=0)


NUMBERS_OF_A_CHANNEL = {
    batch_norm._scales: (2, [7, 1e-3]),
    batch_norm._pulled: (4, [7]),
    batch_norm._moving_scales: (4, [7]),
    batch_norm._pulled_dots: (8, [7]),
}


@pytest.mark.parametrize("function", NUMBERS_OF_A_CHANNEL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_the_numbers_of_a_channel_are_one_kernel(compiler, function, dtype):
    count, numbers = NUMBERS_OF_A_CHANNEL[function]
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(1, 2, (1 if i == 0 else 3, 4)).astype(dtype) for i in range(count)]
    close(function, *arrays, *numbers)
    assert compiler.started == 1


@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_a_step_of_adam_is_one_kernel(compiler, beta1, first, dtype):
    """Also where 1 - beta2 has few digits in float32."""
    rng = np.random.default_rng(1)
    phi, g, m, v = rng.uniform(1, 2, (4, 3, 5)).astype(dtype)
    m, v = (None, None) if first else (m, v)
    close(kernels.adam_update, phi[0], g, m, v, 0.01, beta1, 0.999, 1 - beta1, 1e-3, 1e-8)
    assert compiler.started == 1
    close(kernels.adam_moments, g, m, v, beta1, 0.999)


def test_adams_first_moment_without_memory_is_the_gradient_itself(compiler):
    g = strict.ones((2, 3))
    assert kernels.adam_moments(g, None, None, 0, 0.999)[0] is g


@given(
    dtypes,
    st.lists(st.sampled_from(["array", "shared", 1, 2.5]), min_size=1, max_size=4),
    st.booleans(),
    seeds,
)
def test_a_combination_is_one_kernel(dtype, factors, shifted, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict, "ElementwiseKernel", ReadAsPython, raising=False)
        rng = np.random.default_rng(seed)
        terms = [
            (
                rng.uniform(1, 2, (3 if f == "array" else 1, 4)).astype(dtype)
                if isinstance(f, str)
                else f,
                rng.uniform(1, 2, (3, 5, 2, 4)).astype(dtype),
            )
            for f in factors
        ]
        shift = rng.uniform(1, 2, (3, 4)).astype(dtype) if shifted else None

        def combined(shift, *given):
            pairs = zip(given[::2], given[1::2], strict=True)
            return kernels.channel_combination(*pairs, shift=shift)

        close(combined, shift, *(each for term in terms for each in term))


def test_a_combination_of_one_array_is_a_new_array(compiler):
    a = strict.ones((2, 3, 4))
    made = kernels.channel_combination((1, a))
    made += 1
    assert made is not a
    assert_same(a.get(), np.ones((2, 3, 4)), "the array")


def test_arrays_of_several_dtypes_are_computed_as_written(compiler):
    @elementwise
    def scaled(a, b):
        return a * b

    ((here, there),) = both(scaled, np.ones(3), 1j * np.ones(3))
    assert_same(there, here, "the product")
    assert compiler.started == 0


def test_every_operation_has_its_sign_and_its_order(compiler):
    @elementwise
    def mixed(a, b, count):
        root = array_module(a).sqrt(a / b)
        return (1 - root) * 2 / (3 + a) - (a - 1) / count, -(b / 2), 5 / b - (1 - count) * b

    rng = np.random.default_rng(2)
    close(mixed, *rng.uniform(1, 2, (2, 3, 5)), 7)
    assert compiler.started == 1


def test_numpy_and_the_strict_module_compile_no_kernels():
    assert not compiles_kernels(np.ones(1)) and not compiles_kernels(strict.ones(1))
