"""The array-module switch.

No function mixes devices. Every pass runs on a module other than NumPy. Errors
say what to do.
"""

import builtins
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta import layers
from minimeta.arrays.backend import device_module, to_host
from minimeta.errors import DeviceError
from minimeta.objectives import Objective
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


def _no_cupy(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "cupy":
            raise ImportError("No module named 'cupy'")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)


def test_a_gpu_without_cupy_names_the_extra(monkeypatch):
    _no_cupy(monkeypatch)
    with pytest.raises(DeviceError, match=r"needs CuPy.*minimeta\[gpu\]"):
        device_module("gpu")


@pytest.mark.parametrize("count", [0, None])
def test_cupy_without_a_gpu_says_there_is_no_cuda_device(monkeypatch, count):
    class CUDARuntimeError(RuntimeError):
        pass

    def devices():
        if count is None:
            raise CUDARuntimeError("cudaErrorNoDevice")
        return count

    cupy = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(
        runtime=SimpleNamespace(getDeviceCount=devices, CUDARuntimeError=CUDARuntimeError)
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(DeviceError, match="no CUDA device"):
        device_module("gpu")


def test_the_device_comes_from_the_argument_then_the_environment(monkeypatch):
    monkeypatch.delenv("MINIMETA_DEVICE", raising=False)
    assert device_module() is np
    monkeypatch.setenv("MINIMETA_DEVICE", "tpu")
    assert device_module("cpu") is np
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        device_module()


def _has_gpu():
    try:
        return device_module("gpu") is not None
    except DeviceError:
        return False


@pytest.mark.gpu
@pytest.mark.skipif(not _has_gpu(), reason="no GPU here, or no CuPy")
@pytest.mark.parametrize(
    "network",
    [mm.omniglot_convnet(5), mm.mini_imagenet_convnet(5)],
    ids=["omniglot", "mini-imagenet"],
)
def test_every_algorithm_on_a_gpu_agrees_with_the_cpu(network):
    cupy = device_module("gpu")
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
