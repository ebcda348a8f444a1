"""``minimeta check``, which checks the mathematics on this machine.

It tests this NumPy or CuPy and this BLAS. In float64, the complex step checks
the passes of every layer, every loss and network, MAML through SGD and Adam,
and the algorithms like MAML. FOMAML is checked against MAML with the Hessian
replaced by zero, Reptile against its definition, and iMAML against a solution
of its equations. The slopes of the Taylor remainders and the coefficients of
the expected updates are checked too. In float32 each direction is compared
with its float64 counterpart, which the float64 checks verify.

On a GPU the oracles stay on the host. ``_LayerThere`` and similar wrappers move
arguments to the device and results back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from .. import layers
from ..algorithms import (
    ADML,
    ANIL,
    CAVIA,
    FOMAML,
    IMAML,
    MAML,
    MEASURES,
    TAML,
    Algorithm,
    EntropyTAML,
    MetaSGD,
    Outcome,
    Reptile,
    agreement_weights,
)
from ..arrays.backend import to_host
from ..errors import SettingsError
from ..inner import SGD, Adam
from ..layers import Layer
from ..losses import Entropy, Loss, MeanSquaredError, SoftmaxCrossEntropy, Summed
from ..objectives import Network, Objective, mini_imagenet_convnet, mlp, omniglot_convnet
from ..tasks import Minibatches
from ..theory import taylor
from . import CheckError, check_algorithm, check_layer, check_loss, check_network
from .comparing import TOLERANCE
from .complex_step import tree_map
from .oracles import oracle

# Float32 rounding (6e-8), times a few hundred terms per sum, times the
# amplification of two or three inner steps.
SINGLE = 1e-3
SLOPE, COEFFICIENT = 0.1, 1e-3
LAYERS: tuple[Layer, ...] = (
    layers.Dense(3, 4),
    layers.Conv2D(2, 3),
    layers.Conv2D(2, 3, stride=2),
    layers.BatchNorm(3),
    layers.MaxPool2D(),
    layers.Context(2),
    layers.FiLM(3, 2),
    layers.ReLU(),
    layers.Tanh(),
    layers.Softplus(),
    layers.Flatten(),
)
NETWORKS: dict[str, Network] = {
    "mlp tanh": mlp([2, 8, 8, 3], "tanh"),
    "mlp relu": mlp([2, 8, 8, 3]),
    "omniglot": omniglot_convnet(3, filters=4),
    "mini-imagenet": mini_imagenet_convnet(3, filters=2),
}
# Float32 rounding may carry a value across a kink of ReLU or max pooling, which
# changes the result by more than rounding. So float32 uses smooth networks
# only.
SMOOTH: dict[str, Network] = {
    "mlp tanh": NETWORKS["mlp tanh"],
    "mlp softplus": mlp([2, 8, 8, 3], "softplus"),
    "convolution, batch norm, tanh": Network(
        (8, 8, 2),
        (
            layers.Conv2D(2, 4, stride=2),
            layers.BatchNorm(4),
            layers.Tanh(),
            layers.Flatten(),
            layers.Dense(64, 3),
        ),
    ),
}
# All members of the family run on one network with context parameters, which
# only CAVIA adapts alone. They take two inner steps.
CONTEXTUAL = mlp([2, 6, 3], "tanh", context=2)
FAMILY: dict[str, Algorithm] = {
    "Meta-SGD": MetaSGD(),
    "ANIL": ANIL(SGD(0.05)),
    "CAVIA": CAVIA(SGD(0.5)),
    "ADML": ADML(SGD(0.05)),
    **{
        f"TAML, {name}": TAML(SGD(0.05), measure=measure(), weight=0.5)
        for name, measure in MEASURES.items()
    },
    "TAML, entropy": EntropyTAML(SGD(0.05), weight=0.5),
    "iMAML": IMAML(SGD(0.05), regularization=5.0, cg_steps=2 * CONTEXTUAL.size, tolerance=0.0),
}
RULES = {
    "SGD": SGD(0.05),
    "Adam": Adam(0.01, eps=1e-3),
    "Adam with momentum": Adam(0.01, beta1=0.9, eps=1e-3),
}


@dataclass(frozen=True)
class Row:
    """One line of the report.

    It names the section and the item, gives the measured and the expected (or
    allowed) value, and says whether the item holds.
    """

    section: str
    item: str
    measured: str
    expected: str
    holds: bool


def run_checks(xp: ModuleType = np, dtype: str = "float64", deep: bool = False) -> Iterator[Row]:
    """The report for the array module ``xp``, line by line as it is computed.

    ``deep`` tries thirty times as many inputs.
    """
    seeds = range(30 if deep else 1)
    if dtype == "float32":
        yield from single_precision(xp, seeds)
        return
    yield from derivatives(xp, seeds)
    yield from family(xp, seeds)
    yield from slopes(xp, range(2, 9) if deep else (2, 5))
    yield from recovered(xp, range(2, 9) if deep else (2, 4))


def derivatives(xp: ModuleType, seeds: Iterable[int]) -> Iterator[Row]:
    """Checks layers, losses, networks and algorithms against the complex
    step."""
    for layer in LAYERS:
        there = _LayerThere(layer, xp)
        yield _judged(
            "layer", repr(layer), lambda seed, there=there: check_layer(there, seed=seed), seeds
        )
    for loss in (MeanSquaredError(), SoftmaxCrossEntropy(), Entropy(), Summed(MeanSquaredError())):
        yield _judged(
            "loss", type(loss).__name__, lambda seed, loss=loss: _check_loss(loss, xp, seed), seeds
        )
    for name, network in NETWORKS.items():
        there = _network_there(network, xp)
        yield _judged(
            "network",
            name,
            lambda seed, there=there: check_network(there, examples=4, seed=seed),
            seeds,
        )
    for name in NETWORKS:
        for rule in RULES:
            for kind in ("MAML", "FOMAML", "Reptile"):
                item = f"{kind} through {rule}, {name}"
                yield _judged(
                    "algorithm",
                    item,
                    lambda seed, a=(kind, name, rule): _check_algorithm(*a, xp, seed),
                    seeds,
                )


def family(xp: ModuleType, seeds: Iterable[int]) -> Iterator[Row]:
    """Checks the other algorithms, and the weights of gradient agreement.

    Each algorithm is checked against its own objective.
    """
    for name in FAMILY:
        yield _judged(
            "family", name, lambda seed, name=name: _check_of_family(name, xp, seed), seeds
        )
    yield _judged("family", "gradient agreement", lambda seed: _check_agreement(xp, seed), seeds)


def slopes(xp: ModuleType, ks: Iterable[int]) -> Iterator[Row]:
    """The remainder after order n of the Taylor series falls as alpha^(n +
    1)."""
    alphas = np.logspace(-4, -3, 5)
    for k in ks:
        objective, phi, batches = _problem("mlp tanh", k, xp, np.random.default_rng(k))
        measured = [taylor.gradients(objective, phi, batches, alpha) for alpha in alphas]
        for order in (1, 2):
            expansion = taylor.expand(objective, phi, batches, order)
            for name in ("maml", "fomaml", "reptile"):
                series = getattr(expansion, name)
                remainders = [
                    float(abs(getattr(m, name) - series(a)).max())
                    for m, a in zip(measured, alphas, strict=True)
                ]
                usable = np.isfinite(remainders).all() and min(remainders) > 0
                slope = np.polyfit(np.log(alphas), np.log(remainders), 1)[0] if usable else np.nan
                holds = abs(slope - order - 1) <= SLOPE
                item = f"{name}, k = {k}, after order {order}"
                yield Row("Taylor slope", item, f"{slope:.3f}", f"{order + 1} ± {SLOPE}", holds)


def recovered(xp: ModuleType, ks: Iterable[int]) -> Iterator[Row]:
    """c1 and c2 by regression of exact expected updates (equations 33-41).

    The regressors are AvgGrad and AvgGradInner.
    """
    alphas = np.linspace(0.00125, 0.01, 8)
    objective, phi, batches = _problem("mlp tanh", 2, xp, np.random.default_rng(0))
    averages = (
        taylor.avg_grad(objective, phi, batches),
        taylor.avg_grad_inner(objective, phi, batches),
    )
    for k in ks:
        every = taylor.sequences(batches, k)
        measured = [taylor.gradients(objective, phi, every, alpha) for alpha in alphas]
        for name in ("maml", "fomaml", "reptile"):
            updates = [getattr(each, name).mean(axis=0) for each in measured]
            want = taylor.coefficients(name, k)
            try:
                got = taylor.recover_coefficients(alphas, updates, *averages)
            except SettingsError as error:
                yield Row(
                    "c1, c2", f"{name}, k = {k}", str(error), f"{want.c1:g}, {want.c2:g}", False
                )
                continue
            holds = max(abs(got.c1 - want.c1), abs(got.c2 - want.c2)) <= COEFFICIENT
            yield Row(
                "c1, c2",
                f"{name}, k = {k}",
                f"{got.c1:.4f}, {got.c2:.4f}",
                f"{want.c1:g}, {want.c2:g} ± {COEFFICIENT}",
                holds,
            )


def single_precision(xp: ModuleType, seeds: Iterable[int]) -> Iterator[Row]:
    """Compares float32 directions with the same directions in float64.

    The measure is max |difference| / max |direction|.
    """

    def difference(algorithm: Algorithm, problem: tuple[Objective, Any, Minibatches]) -> float:
        objective, phi, batches = problem
        double, single = (
            to_host(algorithm.meta_gradient(objective, p, batches).direction)
            for p in (phi, phi.astype(np.float32))
        )
        if single.dtype != np.float32:
            raise CheckError(f"{type(algorithm).__name__} gives {single.dtype} for a float32 phi")
        return float(np.abs(single - double).max() / np.abs(double).max())

    for name in SMOOTH:
        for rule in RULES:
            for kind in ("MAML", "FOMAML", "Reptile"):
                item = f"{kind} through {rule}, {name}"

                def check(
                    seed: int, algorithm: Algorithm = _algorithm(kind, rule), name: str = name
                ) -> float:
                    return difference(algorithm, _problem(name, 4, xp, np.random.default_rng(seed)))

                yield _judged("float32", item, check, seeds, SINGLE)
    for name, algorithm in FAMILY.items():

        def check(seed: int, algorithm: Algorithm = algorithm) -> float:
            return difference(
                algorithm, _problem_of_family(algorithm, xp, np.random.default_rng(seed))
            )

        yield _judged("float32", name, check, seeds, SINGLE)


def _judged(
    section: str,
    item: str,
    check: Callable[[int], float],
    seeds: Iterable[int],
    tolerance: float = TOLERANCE,
) -> Row:
    """The worst result of a check over ``seeds``.

    The text of an exception becomes the text of the line.
    """
    try:
        worst = np.max([check(seed) for seed in seeds])
    except Exception as error:  # one broken part must not hide the others
        return Row(section, item, f"{type(error).__name__}: {error}", f"{tolerance:.0e}", False)
    return Row(section, item, f"{worst:.1e}", f"{tolerance:.0e}", worst <= tolerance)


def _problem(
    name: str, k: int, xp: ModuleType, rng: np.random.Generator
) -> tuple[Objective, Any, Minibatches]:
    """A network's cross-entropy, phi, and k mini-batches of two tasks.

    phi is moved away from the kinks at zero biases.
    """
    network = (NETWORKS | SMOOTH)[name]
    phi = network.init(rng, np.float64) + 0.01 * rng.standard_normal(network.size)
    x = rng.standard_normal((k, 2, 4, *network.input_shape))
    y = rng.integers(0, network.output_shape[0], (k, 2, 4))
    return (
        Objective(network, SoftmaxCrossEntropy()),
        xp.asarray(phi),
        Minibatches(xp.asarray(x), xp.asarray(y)),
    )


def _algorithm(kind: str, rule: str) -> Algorithm:
    return {"MAML": MAML, "FOMAML": FOMAML, "Reptile": Reptile}[kind](RULES[rule])


def _check_loss(loss: Loss, xp: ModuleType, seed: int) -> float:
    rng = np.random.default_rng(seed)
    z, target = rng.standard_normal((2, 2, 3, 4))
    if isinstance(loss, SoftmaxCrossEntropy):
        target = rng.integers(0, 4, (2, 3))
    return check_loss(_LossThere(loss, xp), z, target, seed=seed)


def _check_algorithm(kind: str, name: str, rule: str, xp: ModuleType, seed: int) -> float:
    """The direction is the gradient, or the direction, by the algorithm's
    definition."""
    problem = _problem(name, 4, np, np.random.default_rng(seed))
    return _check_direction(_algorithm(kind, rule), problem, xp, seed)


def _check_direction(
    algorithm: Algorithm, problem: tuple[Objective, Any, Minibatches], xp: ModuleType, seed: int
) -> float:
    objective, meta, batches = problem
    there = _AlgorithmThere(algorithm, xp)
    known = oracle(algorithm, objective, batches)
    if "expected" in known:  # without the state: it stays on the device
        expected = known["expected"]
        known["expected"] = lambda p: expected(p)._replace(state=None)
    return check_algorithm(there, objective, meta, batches, seed=seed, **known)


def _problem_of_family(
    algorithm: Algorithm, xp: ModuleType, rng: np.random.Generator
) -> tuple[Objective, Any, Minibatches]:
    """The contextual network's cross-entropy, meta, and three mini-batches.

    meta is moved away from its initial value. The mini-batches are of two
    tasks.
    """
    objective = Objective(CONTEXTUAL, SoftmaxCrossEntropy())
    meta = algorithm.init(objective, rng, np.float64)
    meta = meta + 0.1 * rng.standard_normal(meta.shape)
    x, y = rng.standard_normal((3, 2, 4, 2)), rng.integers(0, 3, (3, 2, 4))
    return objective, xp.asarray(meta), Minibatches(xp.asarray(x), xp.asarray(y))


def _check_of_family(name: str, xp: ModuleType, seed: int) -> float:
    problem = _problem_of_family(FAMILY[name], np, np.random.default_rng(seed))
    return _check_direction(FAMILY[name], problem, xp, seed)


def _check_agreement(xp: ModuleType, seed: int) -> float:
    """w_i = sum_j g_i . g_j / sum_k |sum_j g_k . g_j|, computed from all
    pairs."""
    g = np.random.default_rng(seed).standard_normal((5, 20)) + 1.0
    s = (g @ g.T).sum(axis=1)
    return float(np.abs(to_host(agreement_weights(xp.asarray(g))) - s / np.abs(s).sum()).max())


def _there(xp: ModuleType, tree: Any) -> Any:
    """A tree with its host arrays moved to the device."""
    return tree_map(lambda a: xp.asarray(a) if isinstance(a, np.ndarray) else a, tree)


def _here(tree: Any) -> Any:
    """A tree with its device arrays moved to the host."""
    return tree_map(to_host, tree)


@dataclass(frozen=True)
class _LayerThere(Layer):
    """``wrapped``, computed by the array module ``xp``, seen from the host.

    Caches stay on the device, and a dx that is None stays None.
    """

    wrapped: Layer
    xp: ModuleType

    @property
    def shapes(self):
        return self.wrapped.shapes

    def init(self, rng):
        return self.wrapped.init(rng)

    def output_shape(self, input_shape):
        return self.wrapped.output_shape(input_shape)

    def forward(self, theta, x):
        y, cache = self.wrapped.forward(*_there(self.xp, (theta, x)))
        return _here(y), cache

    def backward(self, theta, cache, dy, on_data=False):
        theta, dy = _there(self.xp, (theta, dy))
        return self._gradients(self.wrapped.backward(theta, cache, dy, on_data=on_data))

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        theta, theta_dot, x_dot = _there(self.xp, (theta, theta_dot, x_dot))
        y_dot, cache_dot = self.wrapped.forward_tangent(
            theta, theta_dot, cache, x_dot, on_data=on_data
        )
        return _here(y_dot), cache_dot

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=False):
        theta, theta_dot, dy, dy_dot = _there(self.xp, (theta, theta_dot, dy, dy_dot))
        return self._gradients(
            self.wrapped.backward_tangent(
                theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=on_data
            )
        )

    @staticmethod
    def _gradients(result):
        dx, dtheta = result
        return None if dx is None else _here(dx), _here(dtheta)


def _network_there(network: Network, xp: ModuleType) -> Network:
    return Network(network.input_shape, tuple(_LayerThere(layer, xp) for layer in network.layers))


@dataclass(frozen=True)
class _LossThere(Loss):
    """``loss``, computed by the array module ``xp``, seen from the host."""

    loss: Loss
    xp: ModuleType

    def forward(self, z, target):
        value, cache = self.loss.forward(*_there(self.xp, (z, target)))
        return _here(value), cache

    def backward(self, cache):
        return _here(self.loss.backward(cache))

    def backward_tangent(self, cache, z_dot):
        return _here(self.loss.backward_tangent(cache, _there(self.xp, z_dot)))


class _AlgorithmThere:
    """``algorithm``, computed by the array module ``xp``, seen from the
    host."""

    def __init__(self, algorithm: Algorithm, xp: ModuleType) -> None:
        self._algorithm, self._xp = algorithm, xp

    def direction(self, objective, meta, minibatches, state=None):
        there = self._moved(meta, minibatches)
        return _outcome_here(self._algorithm.direction(objective, *there, state))

    def couple(self, outcome):
        direction, loss, _, coupling = outcome
        direction, loss = _there(self._xp, (direction, loss))
        coupling = None if coupling is None else _there(self._xp, coupling)
        return _outcome_here(self._algorithm.couple(Outcome(direction, loss, None, coupling)))

    def adapt(self, objective, meta, minibatches, state=None):
        return _here(self._algorithm.adapt(objective, *self._moved(meta, minibatches), state))

    def _moved(self, meta, minibatches):
        there = [_there(self._xp, tuple(data)) for data in (minibatches.x, minibatches.y)]
        return _there(self._xp, meta), Minibatches(*there)


def _outcome_here(outcome: Outcome) -> Outcome:
    """An outcome on the host, without the rule's state, which stays on the
    device."""
    direction, loss, _, coupling = outcome
    coupling = None if coupling is None else _here(coupling)
    return Outcome(_here(direction), _here(loss), None, coupling)
