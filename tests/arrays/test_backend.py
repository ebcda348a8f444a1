"""The array-module switch.

No function mixes devices. Every pass runs on a module other than NumPy. Errors
say what to do.
"""

import builtins
import importlib.metadata
import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta import layers
from minimeta.arrays.backend import _probed, device_module, to_host
from minimeta.arrays.memory import peak_memory
from minimeta.errors import DeviceError
from minimeta.objectives import Objective
from minimeta.runs.provenance import provenance
from minimeta.testing import assert_same
from minimeta.testing.strategies import inner_rules, problems
from minimeta.testing.strict import StrictArray, no_waiting
from minimeta.testing.strict import module as strict
from minimeta.training.evaluation import Scoring, accuracy, adaptation_errors
from minimeta.training.learner import Learner
from minimeta.training.meta_training import MetaTraining


def _moved(minibatches):
    return mm.Minibatches(
        [strict.asarray(x) for x in minibatches.x], [strict.asarray(y) for y in minibatches.y]
    )


@pytest.mark.usefixtures("plain_kernels")
@given(problems(), inner_rules)
def test_every_algorithm_runs_on_a_strict_module_with_the_same_numbers(problem, rule):
    objective, phi, batches = problem
    there, batches_there = strict.asarray(phi), _moved(batches)
    algorithms = [
        mm.Reptile(rule),
        mm.FOMAML(rule),
        mm.FOMAML(rule, "step"),
        mm.MAML(rule),
        mm.MAML(rule, "iterates"),
    ]
    if isinstance(objective, Objective):  # it has inputs to attack
        algorithms.append(mm.ADML(rule))
    for algorithm in algorithms:
        direction, loss, *_ = algorithm.direction(objective, phi, batches)
        direction_there, loss_there, *_ = algorithm.direction(objective, there, batches_there)
        assert isinstance(direction_there, StrictArray) and isinstance(loss_there, StrictArray)
        assert_same(direction_there.get(), direction, type(algorithm).__name__)
        assert_same(loss_there.get(), loss, type(algorithm).__name__)


@pytest.mark.usefixtures("plain_kernels")
@given(problems(), inner_rules)
def test_rates_gradient_and_points_on_a_strict_module(problem, rule):
    objective, phi, batches = problem
    v = np.ones((batches.tasks, objective.size))
    here = mm.unroll(objective, phi, batches, rule).pullback(v)
    there = mm.unroll(objective, strict.asarray(phi), _moved(batches), rule).pullback(
        strict.asarray(v)
    )
    for a, b in zip(there, here, strict=True):
        assert_same(a.get(), b, "pullback")
    if isinstance(objective, Objective):
        point = objective.at(strict.asarray(phi), _moved(batches)[0])
        assert isinstance(point.input_grad(), StrictArray)


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("outer", [mm.SGD(0.1), mm.Adam(0.1, beta1=0.9)], ids=["sgd", "adam"])
def test_meta_training_and_evaluation_run_on_a_strict_module_with_the_same_numbers(outer):
    results = []
    for xp in (np, strict):
        training = MetaTraining(
            mm.Objective(mm.mlp([1, 5, 1]), mm.MeanSquaredError()),
            mm.MAML(mm.Adam(0.01)),
            mm.Sinusoid(),
            mm.MinibatchSchedule(2, 5, "separate"),
            outer,
            iterations=5,
            meta_batch=3,
            xp=xp,
            workers=1,
        )
        state = training.start()
        with training.stepper() as step:
            for _ in range(5):
                state, _ = step(state)
        learner = Learner(training.objective, training.algorithm, state.meta, state.inner)
        errors = adaptation_errors(learner, mm.Sinusoid(), Scoring(5, 3, 5), count=12, workers=1)
        results.append((to_host(state.meta), to_host(state.inner.v), errors.values))
    for here, there in zip(*results, strict=True):
        assert_same(there, here, "the run")


@pytest.mark.parametrize("rule", [mm.SGD(0.01), mm.Adam(0.01)], ids=["sgd", "adam"])
@pytest.mark.parametrize(
    "algorithm",
    [
        mm.Reptile,
        mm.FOMAML,
        mm.MAML,
        lambda rule: mm.MAML(rule, "checkpoints"),
        mm.ADML,
        mm.TAML,
        mm.EntropyTAML,
    ],
)
def test_a_meta_step_never_waits_for_the_device(algorithm, rule):
    images = strict.asarray(
        np.random.default_rng(0).integers(0, 2, (7, 6, 28, 28, 1), dtype=np.uint8)
    )
    network = mm.Network(
        (28, 28, 1),
        (layers.Conv2D(1, 2), layers.MaxPool2D(), *mm.omniglot_convnet(3, 2).layers[3:6]),
    )
    network = mm.Network(
        network.input_shape, (*network.layers, layers.Flatten(), layers.Dense(7 * 7 * 2, 3))
    )
    training = MetaTraining(
        mm.Objective(network, mm.SoftmaxCrossEntropy()),
        algorithm(rule),
        mm.FewShotImages(images, ways=3),
        mm.MinibatchSchedule(3, 4, shots=3),
        mm.Adam(0.1, beta1=0.9),
        iterations=5,
        meta_batch=2,
        xp=strict,
    )
    state = training.start()
    with training.stepper() as step, no_waiting():
        for _ in range(3):
            state, _ = step(state)
        with pytest.raises(TypeError, match="wait"):
            bool(state.meta[0] > 0)
        with pytest.raises(TypeError, match="mask"):
            state.meta[state.meta > 0]


@pytest.mark.usefixtures("plain_kernels")
def test_few_shot_images_are_gathered_where_they_live():
    images = np.random.default_rng(0).integers(0, 2, (7, 6, 28, 28, 1), dtype=np.uint8)
    schedule, scores = mm.MinibatchSchedule(3, 4, shots=3), []
    objective, algorithm = (
        mm.Objective(mm.omniglot_convnet(3, filters=2), mm.SoftmaxCrossEntropy()),
        mm.Reptile(mm.SGD(0.1)),
    )
    for xp in (np, strict):
        tasks = mm.FewShotImages(xp.asarray(images), ways=3)
        batches = tasks.sample(np.random.default_rng(1), 2, schedule, np.float64)
        phi = objective.init(np.random.default_rng(2), np.float64, xp)
        learner = Learner(objective, algorithm, phi)
        score = accuracy(learner, tasks, Scoring(2, 2, 3), count=10, workers=1)
        shares = [each.values for each in score]
        scores.append((to_host(batches.x), to_host(batches.y), *shares))
    for here, there in zip(*scores, strict=True):
        assert_same(there, here, "the sample")
    with pytest.raises(mm.SettingsError, match="the images are strict arrays"):
        tasks.sample(np.random.default_rng(1), 2, schedule, np.float64, xp=np)


@given(
    st.sampled_from(
        [
            np.exp,
            np.asarray,
            np.sum,
            lambda a: np.ones(2) * a,
            lambda a: a + np.ones(2),
            np.concatenate,
        ]
    )
)
def test_the_strict_module_refuses_numpy(function):
    with pytest.raises(TypeError):
        function(strict.ones(2))
    with pytest.raises(TypeError):
        strict.exp(np.ones(2))
    with pytest.raises(TypeError):
        strict.ones(2)[np.array([0])]


def test_array_module_refuses_what_is_no_array():
    with pytest.raises(TypeError, match="list"):
        mm.array_module([1.0])


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


@pytest.fixture
def _fresh():
    """The device is tried once a process; here, once a test."""
    _probed.cache_clear()
    yield
    _probed.cache_clear()


def _no_cupy(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "cupy":
            raise ImportError("No module named 'cupy'")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)


def _cupy_that_ends_in(monkeypatch, ones):
    cupy = ModuleType("cupy")
    cupy.ones = ones
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


def _installed(monkeypatch, *packages):
    found = [SimpleNamespace(name=name, version="14.2.0") for name in packages]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: found)


def _message():
    with pytest.raises(DeviceError) as error:
        device_module("gpu")
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.usefixtures("_fresh")
def test_a_gpu_without_cupy_names_both_extras(monkeypatch):
    _no_cupy(monkeypatch)
    _installed(monkeypatch, "numpy", "cupyx-something")
    assert re.search(
        r"No module named 'cupy'.*no package of CuPy.*'minimeta\[gpu\]' for CUDA 12, or "
        r"'minimeta\[gpu13\]' for CUDA 13",
        _message(),
    )


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize(
    "error",
    [
        CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"),
        CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient"),
        RuntimeError("CuPy failed to load libnvrtc.so.12: OSError:\n\n  libnvrtc.so.12: no\nfile"),
        ImportError("Failure finding libcublasLt.so.12\n"),
        MemoryError("Out of memory"),
        OSError(2, "of any kind"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_whatever_cupy_raises_is_one_line(monkeypatch, error):
    def ones(shape):
        raise error

    _cupy_that_ends_in(monkeypatch, ones)
    _installed(monkeypatch, "numpy", "cupy-cuda12x")
    message = _message()
    assert " ".join(f"{type(error).__name__}: {error}".split()) in message
    assert "cupy-cuda12x 14.2.0 is installed" in message and "minimeta[gpu]" in message


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize(
    ("packages", "told"),
    [
        (["cupy-cuda13x"], "'minimeta[gpu13]' adds the toolkit"),
        (["cupy"], "it needs no extra"),
        (["cupy-rocm-6-0"], "it needs no extra"),
        (
            ["cupy-cuda13x", "cupy-cuda12x"],
            "cupy-cuda12x 14.2.0 and cupy-cuda13x 14.2.0 overwrite each other: "
            "pip uninstall cupy-cuda12x cupy-cuda13x, then pip install 'minimeta[gpu]'",
        ),
    ],
)
def test_the_remedy_fits_the_cupy_that_is_installed(monkeypatch, packages, told):
    _no_cupy(monkeypatch)
    _installed(monkeypatch, *packages)
    assert told in _message()


class _Numbers:
    """An array of a device that computes ``product``."""

    def __init__(self, product):
        self.product = product

    def __add__(self, other):
        return self

    def __matmul__(self, other):
        return self

    def get(self):
        return np.full((2, 2), self.product)


@pytest.mark.usefixtures("_fresh")
def test_a_device_that_computes_something_else_is_refused(monkeypatch):
    _cupy_that_ends_in(monkeypatch, lambda shape: _Numbers(0.0))
    assert "computes [[0.0, 0.0], [0.0, 0.0]] where every number is 4" in _message()


@pytest.mark.usefixtures("_fresh")
def test_the_device_is_tried_once(monkeypatch):
    asked = []
    cupy = _cupy_that_ends_in(monkeypatch, lambda shape: asked.append(shape) or _Numbers(4.0))
    assert device_module("gpu") is device_module("gpu") is cupy
    assert asked == [(2, 2)] * 2


def test_threads_are_refused_on_a_gpu_in_one_line():
    message = r"^workers is 2, but threads do not share the work of a GPU: .*\(--workers\)$"
    objective = mm.Objective(mm.mlp([1, 4, 1]), mm.MeanSquaredError())
    with pytest.raises(mm.SettingsError, match=message):
        MetaTraining(
            objective,
            mm.MAML(mm.SGD(0.01)),
            mm.Sinusoid(),
            mm.MinibatchSchedule(2, 5),
            mm.SGD(0.1),
            iterations=5,
            xp=strict,
            workers=2,
        )
    learner = Learner(objective, mm.MAML(mm.SGD(0.01)), strict.ones(objective.size))
    with pytest.raises(mm.SettingsError, match=message):
        adaptation_errors(learner, mm.Sinusoid(), count=2, workers=2)


def test_the_device_comes_from_the_argument_then_the_environment(monkeypatch):
    monkeypatch.delenv("MINIMETA_DEVICE", raising=False)
    assert device_module() is np
    monkeypatch.setenv("MINIMETA_DEVICE", "tpu")
    assert device_module("cpu") is np
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        device_module()


@pytest.mark.gpu
@pytest.mark.parametrize(
    "network",
    [mm.omniglot_convnet(5), mm.mini_imagenet_convnet(5, 8)],
    ids=["omniglot", "mini-imagenet"],
)
def test_every_algorithm_on_a_gpu_agrees_with_the_cpu(cupy, network):
    """Adam has a large eps. Batch norm takes a bias before it away, so the
    bias's gradient is rounding, which a small eps would make a step of."""
    rng = np.random.default_rng(0)
    objective = mm.Objective(network, mm.SoftmaxCrossEntropy())
    phi = objective.init(rng, np.float64)
    x, y = rng.random((3, 2, 5, *network.input_shape)), rng.integers(0, 5, (3, 2, 5))
    rule = mm.SGD(0.1)
    others = [kind(rule) for kind in (mm.FOMAML, mm.MAML, mm.ADML, mm.TAML, mm.EntropyTAML)]
    for algorithm in (mm.Reptile(mm.Adam(0.01, eps=1e-3)), *others):
        here, *_ = algorithm.direction(objective, phi, mm.Minibatches(x, y))
        there, *_ = algorithm.direction(
            objective, cupy.asarray(phi), mm.Minibatches(cupy.asarray(x), cupy.asarray(y))
        )
        assert (
            np.abs(cupy.asnumpy(there) - here).max() <= 1e-9 * np.abs(here).max()
        )  # sums in another order, times three steps


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:cupyx.allow_synchronize will be removed")
@pytest.mark.parametrize(
    "algorithm",
    [mm.Reptile(mm.Adam(0.01)), mm.MAML(mm.SGD(0.1)), mm.TAML(mm.SGD(0.1))],
    ids=["Reptile", "MAML", "TAML"],
)
def test_a_meta_step_on_a_gpu_never_waits(cupy, algorithm):
    from cupyx import allow_synchronize

    images = cupy.zeros((5, 4, 28, 28, 1), dtype=np.uint8)
    training = MetaTraining(
        mm.Objective(mm.omniglot_convnet(3, filters=2), mm.SoftmaxCrossEntropy()),
        algorithm,
        mm.FewShotImages(images, ways=3),
        mm.MinibatchSchedule(3, 4, shots=3),
        mm.Adam(0.1, beta1=0.9),
        iterations=3,
        meta_batch=2,
        xp=cupy,
    )
    state = training.start()
    with training.stepper() as step, allow_synchronize(False):
        for _ in range(3):
            state, _ = step(state)
        with pytest.raises(RuntimeError):
            state.meta.get()


@pytest.mark.gpu
def test_provenance_on_a_gpu_names_cupy_cuda_and_the_card(cupy):
    made = provenance("cupy")
    assert made["cupy"] == cupy.__version__ and made["card"] and made["card_memory"] > 1 << 28
    for name in ("cuda_runtime", "cuda_driver"):
        assert int(made[name].partition(".")[0]) >= 12
    assert not {"cupy", "card"} & provenance().keys()


@pytest.mark.gpu
def test_peak_memory_on_a_gpu_is_that_of_the_device(cupy):
    held = cupy.zeros(1 << 20, dtype=np.float64)
    before = peak_memory(cupy)
    assert before >= held.nbytes
    del held
    assert peak_memory(cupy) == before
