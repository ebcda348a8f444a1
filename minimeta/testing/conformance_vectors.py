"""Conformance vectors, for implementations in any language.

Conformance vectors are small problems with their exact results. A folder of
vectors holds

    index.json           the description of every problem: network, layout of
                         phi, loss, inner rule, shapes, checksums; and the
                         documentation
    index.json.sha256    the checksum of the index, as ``sha256sum`` writes it
    NAME.npz             one per problem: inputs and exact results, float64
                         (class labels int64)

docs/vectors.md specifies the format. ``write`` writes a folder, ``read`` opens
and verifies a folder, and ``grade`` compares results with a folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..algorithms import FOMAML, MAML, Reptile
from ..arrays import threads
from ..errors import SettingsError, VectorsError, reason_of
from ..files import MEBIBYTE, parsed_json, read_arrays, read_bytes, write_atomically
from ..inner import SGD, Adam
from ..losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from ..objectives import Network, Objective, mini_imagenet_convnet, mlp, omniglot_convnet
from ..tasks import Minibatches

FORMAT, VERSION = "minimeta vectors", 1
_LARGEST_INDEX, _LARGEST = 16 * MEBIBYTE, 256 * MEBIBYTE  # bytes
TOLERANCE = 1e-9
INDEX = "index.json"

RESULTS = {
    "loss": "(T,): L_1 at phi: the loss of each task's mini-batch 1.",
    "grad": "(T, D): the gradient of L_1 with respect to phi, at phi.",
    "hvp": "(T, D): the Hessian of L_1 at phi, times v.",
    "adapted": "(T, D): phi_{k+1}: each task's parameters after one inner step on each of its k "
    "mini-batches, in order.",
    "final_loss": "(T,): L_k at phi_k: the loss of mini-batch k before the step on it. Of Reptile, "
    "FOMAML and MAML alike.",
    "reptile": "(T, D): Reptile's direction, phi - phi_{k+1}.",
    "fomaml": "(T, D): FOMAML's direction, g_k: the gradient of L_k at phi_k.",
    "maml": "(T, D): MAML's direction: the gradient of L_k(phi_k) with respect to phi, through the "
    "k-1 inner steps.",
}

_DOCUMENTATION = {
    "words": "T tasks, k mini-batches, N_i examples in mini-batch i, D parameters. phi_1 = phi, "
    "g_i = the gradient of L_i "
    "at phi_i, phi_{i+1} = the inner step from phi_i with g_i. Tasks share phi and do not mix; the "
    "inner rule starts afresh "
    "for each.",
    "layout": "phi holds the parameters layer by layer, in a layer in the order listed (weight "
    "before bias, scale before "
    "shift), each in C order; 'offset' counts from 0.",
    "arrays": {
        "phi": "(D,): the initial parameters.",
        "v": "(T, D): the vector that the Hessian is multiplied by.",
        "x_i": "(T, N_i, *input): the inputs of mini-batch i, for i = 1 .. k; images are (height, "
        "width, channels).",
        "y_i": "(T, N_i, *output) of float64 for MeanSquaredError; (T, N_i) of int64, from 0, for "
        "SoftmaxCrossEntropy.",
    },
    "layers": {
        "Dense": "y = x W + b; weight (inputs, outputs), bias (outputs).",
        "Conv2D": "Cross-correlation of channels-last images, no flip; weight (height, width, "
        "inputs, outputs), bias "
        "(outputs). Padding as TensorFlow's 'same': ceil(size / stride) outputs, zeros around, the "
        "odd one below and right.",
        "BatchNorm": "y = scale (x - mean) / sqrt(variance + eps) + shift, mean and biased "
        "variance over the examples and "
        "pixels of one channel of one task's current mini-batch, always; derivatives go through "
        "both.",
        "MaxPool2D": "Largest value of each 2 x 2 window, stride 2; ceil(size / 2) outputs, "
        "windows at an odd edge are cut.",
        "ReLU": "max(x, 0), with derivative 0 at 0.",
        "Tanh": "tanh(x).",
        "Softplus": "log(1 + exp(x)).",
        "Flatten": "(height, width, channels) to one axis, in C order.",
    },
    "losses": {
        "MeanSquaredError": "mean of (prediction - y)^2 over the examples and the outputs.",
        "SoftmaxCrossEntropy": "mean over the examples of -log softmax(prediction)[y].",
    },
    "rules": {
        "SGD": "phi' = phi - lr g.",
        "Adam": "m' = beta1 m + (1 - beta1) g, v' = beta2 v + (1 - beta2) g^2, from m = v = 0; at "
        "step t = 1, 2, ...: "
        "phi' = phi - lr (m' / (1 - beta1^t)) / (sqrt(v' / (1 - beta2^t)) + eps). MAML "
        "differentiates through m' and v'. "
        "Where all gradients so far were 0, so is the derivative of sqrt(v').",
    },
    "results": RESULTS,
    "error": "max |got - want| / max |want| over a whole array.",
}


@dataclass(frozen=True)
class Problem:
    """A network, a loss, an inner rule, and the sizes of k mini-batches.

    The problem's name seeds its numbers. With ``dead_unit`` the first unit of
    an MLP never fires, so all gradients of that unit are exactly zero. Adam
    divides by the root of their mean square, and a naive derivative is 0 / 0.
    """

    name: str
    network: Network
    loss: Loss
    rule: SGD | Adam
    sizes: tuple[int, ...]
    tasks: int = 2
    dead_unit: bool = False

    def arrays(self) -> dict[str, np.ndarray]:
        """Inputs and exact results, by name.

        All parameters are moved away from their initial values, because a swap
        of two zero biases would go unnoticed.
        """
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        objective = Objective(self.network, self.loss)
        phi = objective.init(rng, np.float64)
        phi += 0.1 * rng.standard_normal(phi.shape)
        if self.dead_unit:
            phi[math.prod(self.network.layers[0].shapes["weight"])] = -100  # its bias
        batches = Minibatches(*zip(*(self._batch(rng, size) for size in self.sizes), strict=True))
        v = rng.standard_normal((self.tasks, self.network.size))
        inputs = {"phi": phi, "v": v}
        for i, (x, y) in enumerate(batches, start=1):
            inputs |= {f"x_{i}": x, f"y_{i}": y}
        return inputs | self._results(objective, phi, v, batches)

    def _batch(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        """A random mini-batch (x, y).

        x holds standard normal numbers, or pixels from 0 to 1. y is of the kind
        that the loss takes.
        """
        outputs = self.network.output_shape[0]
        draw = rng.random if len(self.network.input_shape) == 3 else rng.standard_normal
        x = draw((self.tasks, size, *self.network.input_shape))
        if isinstance(self.loss, SoftmaxCrossEntropy):
            return x, rng.integers(0, outputs, (self.tasks, size))
        return x, rng.standard_normal((self.tasks, size, outputs))

    def _results(
        self, objective: Objective, phi: np.ndarray, v: np.ndarray, batches: Minibatches
    ) -> dict[str, np.ndarray]:
        point = objective.at(phi, batches[0])
        reptile = Reptile(self.rule).direction(objective, phi, batches).direction
        fomaml, final_loss, *_ = FOMAML(self.rule).direction(objective, phi, batches)
        maml = MAML(self.rule).direction(objective, phi, batches).direction
        adapted = Reptile(self.rule).adapt(objective, phi, batches)
        results = (point.loss, point.grad, point.hvp(v), adapted, final_loss, reptile, fomaml, maml)
        return dict(zip(RESULTS, results, strict=True))

    def describe(self) -> dict[str, Any]:
        """The problem as JSON, without its arrays."""
        return {
            "network": _describe_network(self.network),
            "loss": type(self.loss).__name__,
            "rule": {"type": type(self.rule).__name__, **asdict(self.rule)},
            "tasks": self.tasks,
            "k": len(self.sizes),
            "sizes": list(self.sizes),
        }


def _describe_network(network: Network) -> dict[str, Any]:
    """The layers as JSON, with their sizes, shapes and parameter offsets in
    phi."""
    layers, shape, offset = [], network.input_shape, 0
    for layer in network.layers:
        entry = {"type": type(layer).__name__, **asdict(layer), "input_shape": list(shape)}
        shape = layer.output_shape(shape)
        entry |= {"output_shape": list(shape), "parameters": []}
        for name, of_parameter in layer.shapes.items():
            entry["parameters"].append(
                {"name": name, "offset": offset, "shape": list(of_parameter)}
            )
            offset += math.prod(of_parameter)
        layers.append(entry)
    return {"input_shape": list(network.input_shape), "size": network.size, "layers": layers}


_MSE, _XENT = MeanSquaredError(), SoftmaxCrossEntropy()
_OMNIGLOT, _MINI_IMAGENET = (
    omniglot_convnet(ways=5, filters=4),
    mini_imagenet_convnet(ways=3, filters=2),
)

# Adam's derivative has a factor 1 / (sqrt(v) + eps). The factor multiplies the
# rounding error of gradients that are zero in exact arithmetic, such as the
# gradient of a bias before a batch norm. With an eps of 1e-3 the convolutional
# problems keep 13 digits.
PROBLEMS = (
    Problem("linear-mse-sgd-k3", mlp([3, 2]), _MSE, SGD(0.05), (4, 4, 4)),
    Problem("relu-mse-sgd-k1", mlp([1, 8, 8, 1]), _MSE, SGD(0.02), (5,), tasks=1),
    Problem("relu-mse-sgd-k5", mlp([1, 8, 8, 1]), _MSE, SGD(0.02), (5, 5, 5, 5, 5), tasks=3),
    Problem("relu-xent-sgd-k2", mlp([4, 10, 3]), _XENT, SGD(0.1), (6, 6), tasks=3),
    Problem("relu-mse-adam-k3", mlp([2, 6, 2]), _MSE, Adam(0.01), (9, 9, 12)),
    Problem(
        "relu-mse-adam-dead-unit-k3", mlp([2, 6, 1]), _MSE, Adam(0.01), (4, 4, 4), dead_unit=True
    ),
    Problem("tanh-mse-sgd-k2", mlp([2, 6, 6, 2], "tanh"), _MSE, SGD(0.05), (4, 7)),
    Problem("tanh-mse-adam-k2", mlp([2, 6, 2], "tanh"), _MSE, Adam(0.01), (5, 5), tasks=3),
    Problem(
        "tanh-mse-adam-momentum-k5",
        mlp([1, 7, 7, 1], "tanh"),
        _MSE,
        Adam(0.01, beta1=0.9),
        (5, 5, 5, 5, 5),
    ),
    Problem(
        "tanh-xent-adam-k5", mlp([3, 6, 4], "tanh"), _XENT, Adam(0.01), (4, 4, 4, 4, 8), tasks=1
    ),
    Problem("softplus-mse-sgd-k3", mlp([2, 5, 5, 1], "softplus"), _MSE, SGD(0.03), (4, 4, 6)),
    Problem(
        "softplus-xent-adam-momentum-k3",
        mlp([3, 5, 3], "softplus"),
        _XENT,
        Adam(0.01, beta1=0.9),
        (5, 5, 9),
    ),
    Problem("omniglot-sgd-k2", _OMNIGLOT, _XENT, SGD(0.1), (5, 5)),
    Problem("omniglot-adam-k3", _OMNIGLOT, _XENT, Adam(0.01, eps=1e-3), (5, 5, 10)),
    Problem(
        "omniglot-adam-momentum-k5",
        _OMNIGLOT,
        _XENT,
        Adam(0.01, beta1=0.9, eps=1e-3),
        (5, 5, 5, 5, 5),
        tasks=1,
    ),
    Problem("mini-imagenet-sgd-k2", _MINI_IMAGENET, _XENT, SGD(0.05), (3, 3), tasks=1),
    Problem(
        "mini-imagenet-adam-k3", _MINI_IMAGENET, _XENT, Adam(0.01, eps=1e-3), (2, 2, 3), tasks=1
    ),
)


def write(folder: Path) -> tuple[int, int]:
    """Writes all vectors into a new ``folder``, the index last.

    Returns the number of problems and the number of bytes.

    Raises
    ------
    VectorsError
        if ``folder`` is not empty, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise VectorsError(
                f"{folder} is not empty, and nothing is overwritten: name a new folder"
            )
        # BLAS runs on one thread because the bits of a sum must not depend on
        # the number of cores.
        with threads.workers(1):
            entries = [_write_problem(folder, problem) for problem in PROBLEMS]
        index = {"format": FORMAT, "version": VERSION, "dtype": "float64", "tolerance": TOLERANCE}
        text = (
            json.dumps(index | {"documentation": _DOCUMENTATION, "problems": entries}, indent=1)
            + "\n"
        )
        _write_bytes(_checksum_path(folder), f"{_sha256(text.encode())}  {INDEX}\n".encode())
        _write_bytes(folder / INDEX, text.encode())
        return len(entries), sum(path.stat().st_size for path in folder.iterdir())
    except VectorsError:
        raise
    except OSError as error:
        raise VectorsError(f"{folder} cannot be written: {reason_of(error)}") from error


def read(folder: Path) -> dict[str, Any]:
    """The index of the vectors in ``folder``, after all checksums are verified.

    Raises
    ------
    VectorsError
        if anything is missing, truncated, altered, or of another version.
    """
    index = _read_index(folder)
    for entry in index["problems"]:
        _verified(folder / entry["file"], 2 * _bytes_of(entry) + MEBIBYTE, entry["sha256"])
    return index


def load(path: Path, limit: int = _LARGEST) -> dict[str, np.ndarray]:
    """All arrays of an npz by name. Nothing is unpickled.

    Raises
    ------
    VectorsError
        if the file is missing, cannot be read, or holds more than about
        ``limit`` bytes of arrays.
    """
    try:
        return read_arrays(path, limit)
    except FileNotFoundError as error:
        raise VectorsError(f"{path} is missing") from error
    except ValueError as error:
        raise VectorsError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise VectorsError(f"{path} cannot be read: {reason_of(error)}") from error


@dataclass(frozen=True)
class Grade:
    """The grade of one result of one problem.

    ``error`` is max|got - want| / max|want| where the result could be compared.
    Otherwise ``note`` says why it could not.
    """

    problem: str
    quantity: str
    status: Literal["pass", "fail", "missing"]
    error: float | None = None
    note: str = ""


def grade(folder: Path, results: Path, tolerance: float = TOLERANCE) -> list[Grade]:
    """Compares the npz files in ``results`` with the exact results in
    ``folder``.

    Each file in ``results`` has the name of a file of the vectors. A faulty
    result gets a failing grade and does not stop the others.

    Raises
    ------
    VectorsError
        if the vectors are damaged, or ``results`` holds nothing to compare.
    SettingsError
        if the tolerance is negative or not finite.
    """
    if not 0 <= tolerance < math.inf:
        raise SettingsError(f"tolerance must be 0 or more and finite, got {tolerance}")
    grades = []
    for entry in read(folder)["problems"]:
        limit = 4 * _bytes_of(entry)
        want = load(folder / entry["file"], limit)
        _check_arrays(folder / entry["file"], entry, want)
        grades += _grade_problem(entry["name"], want, results / entry["file"], limit, tolerance)
    if all(each.status == "missing" for each in grades):
        raise VectorsError(
            f"{results} holds no results: write one npz there for every npz in {folder}, with the "
            f"same name and the arrays {', '.join(RESULTS)}"
        )
    return grades


def report(grades: Sequence[Grade], tolerance: float) -> str:
    """The grades as text.

    The text is a table of errors by problem and result, then the results that
    could not be compared and why, then a count.
    """
    cells: dict[str, dict[str, str]] = {}
    for each in grades:
        shown = (
            "missing"
            if each.status == "missing"
            else ""
            if each.error is None
            else f"{each.error:.1e}"
        )
        cells.setdefault(each.problem, {})[each.quantity] = (
            f"{shown} FAIL".strip() if each.status == "fail" else shown
        )
    width = max(map(len, cells))
    lines = [f"{'':{width}}" + "".join(f"{name:>14}" for name in RESULTS)]
    lines += [
        f"{problem:{width}}" + "".join(f"{row[name]:>14}" for name in RESULTS)
        for problem, row in cells.items()
    ]
    lines += [f"{each.problem}: {each.quantity} {each.note}" for each in grades if each.note]
    counts = [
        sum(each.status == status for each in grades) for status in ("pass", "fail", "missing")
    ]
    return "\n".join(
        [
            *lines,
            "{} pass, {} fail, {} missing, at a tolerance of {:.0e}".format(*counts, tolerance),
        ]
    )


def _write_problem(folder: Path, problem: Problem) -> dict[str, Any]:
    """Writes a problem's npz and returns the problem's entry in the index."""
    arrays, file = problem.arrays(), io.BytesIO()
    np.savez(file, **arrays)
    path = folder / f"{problem.name}.npz"
    _write_bytes(path, file.getvalue())
    return {
        "name": problem.name,
        "file": path.name,
        "sha256": _sha256(file.getvalue()),
        **problem.describe(),
        "arrays": {
            name: {"dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in arrays.items()
        },
    }


def _read_index(folder: Path) -> dict[str, Any]:
    """The index, after its checksum is verified.

    Format and version are checked first, because another version may keep the
    checksum elsewhere.
    """
    path = folder / INDEX
    try:
        content = read_bytes(path, _LARGEST_INDEX)
        index = parsed_json(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VectorsError(f"{folder} is not a folder of vectors: it has no {INDEX}") from error
    except ValueError as error:
        raise VectorsError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise VectorsError(f"{path} cannot be read: {reason_of(error)}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise VectorsError(f"{path} is not an index of vectors (format {FORMAT!r} expected)")
    if index.get("version") != VERSION:
        raise VectorsError(
            f"{folder} holds vectors of version {index.get('version')!r}, not of version {VERSION}"
        )
    checksum = _verified(_checksum_path(folder), MEBIBYTE).decode("ascii", "replace")[:64]
    _check_sum(path, content, checksum)
    _check_index(path, index)
    return index


def _check_index(path: Path, index: Mapping[str, Any]) -> None:
    """Raise a VectorsError if the index lacks something that a reader uses."""
    problems = index.get("problems")
    if not isinstance(problems, list) or not problems:
        raise VectorsError(f"{path} is damaged: problems must be a list of objects")
    for place, entry in enumerate(problems):
        if fault := _fault_of(entry):
            raise VectorsError(f"{path} is damaged: problem {place} must have {fault}")


def _fault_of(entry: Any) -> str:
    """What an entry of the index lacks, or an empty text."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return "a name"
    file = entry.get("file")
    if not isinstance(file, str) or not re.fullmatch(r"[\w-][\w.-]*\.npz", file):
        return f"the name of an npz in this folder as its file, got {file!r}"
    if not isinstance(entry.get("sha256"), str):
        return "a checksum"
    arrays = entry.get("arrays")
    if not isinstance(arrays, dict) or not set(RESULTS) <= set(arrays):
        return f"the arrays {', '.join(RESULTS)}"
    for name, told in arrays.items():
        sizes = told.get("shape") if isinstance(told, dict) else None
        whole = isinstance(sizes, list) and all(type(size) is int and size >= 1 for size in sizes)
        if not whole or told.get("dtype") not in ("float64", "int64"):
            return f"a shape and a dtype of float64 or int64 for {name}"
    return ""


def _bytes_of(entry: Mapping[str, Any]) -> int:
    """The bytes of a problem's arrays, or the largest number that is read."""
    told = sum(8 * math.prod(told["shape"]) for told in entry["arrays"].values())
    return min(told, _LARGEST)


def _check_arrays(path: Path, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise a VectorsError if ``arrays`` are not those that the index tells."""
    found = {
        name: {"dtype": str(array.dtype), "shape": list(array.shape)}
        for name, array in arrays.items()
    }
    if found != entry["arrays"]:
        raise VectorsError(f"{path} is damaged: its arrays are not those of {INDEX}")
    if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise VectorsError(f"{path} is damaged: {bad[0]} holds numbers that are not finite")


def _verified(path: Path, limit: int, checksum: str | None = None) -> bytes:
    """The bytes of a file of vectors, ``limit`` or fewer. Their SHA-256 must be
    ``checksum``, if given."""
    try:
        content = read_bytes(path, limit)
    except FileNotFoundError:
        raise VectorsError(f"{path} is missing") from None
    except ValueError as error:
        raise VectorsError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise VectorsError(f"{path} cannot be read: {reason_of(error)}") from error
    if checksum is not None:
        _check_sum(path, content, checksum)
    return content


def _check_sum(path: Path, content: bytes, checksum: str) -> None:
    if _sha256(content) != checksum:
        raise VectorsError(
            f"{path} is damaged: its checksum is not the one noted when the file was written"
        )


def _grade_problem(
    name: str, want: Mapping[str, np.ndarray], path: Path, limit: int, tolerance: float
) -> list[Grade]:
    if not os.path.lexists(path):
        return [Grade(name, quantity, "missing") for quantity in RESULTS]
    try:
        got = load(path, limit)
    except VectorsError as error:
        return [
            Grade(name, quantity, "fail", note=f"cannot be read: {error}") for quantity in RESULTS
        ]
    return [
        _grade_array(name, quantity, want[quantity], got.get(quantity), tolerance)
        for quantity in RESULTS
    ]


def _grade_array(
    problem: str, quantity: str, want: np.ndarray, got: np.ndarray | None, tolerance: float
) -> Grade:
    if got is None:
        return Grade(problem, quantity, "missing")
    note = ""
    if got.dtype.kind not in "fiu":
        note = f"holds {got.dtype}, expected real numbers"
    elif got.shape != want.shape:
        note = f"has shape {got.shape}, expected {want.shape}"
    elif not np.isfinite(got).all():
        note = (
            f"holds {np.count_nonzero(~np.isfinite(got))} of {got.size} numbers that are not finite"
        )
    if note:
        return Grade(problem, quantity, "fail", note=note)
    error = float(np.abs(got - want).max() / np.abs(want).max())
    return Grade(problem, quantity, "pass" if error <= tolerance else "fail", error)


def _checksum_path(folder: Path) -> Path:
    return folder / f"{INDEX}.sha256"


def _write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
