"""The mutation proof: every mutant is caught, or known to be no error; and no
derivative, merge, adaptation or twin is left out of it."""

import ast
import json
import sys
from importlib.util import find_spec
from inspect import isclass
from pathlib import Path

import pytest

import minimeta as mm
from minimeta import layers
from minimeta.algorithms import ALGORITHMS, MEASURES, Algorithm
from minimeta.arrays.compiled import twins
from minimeta.inner import RULES

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import mutation
from mutants import in_place, mutants
from mutation_survivors import EQUIVALENT
from mutation_targets import PASSES, targets


def _of_the_library(registry):
    """The classes that no test has registered."""
    return [kind for kind in registry.values() if kind.__module__.startswith("minimeta.")]


LAYERS = [getattr(layers, name) for name in layers.__all__]
LAYERS = [kind for kind in LAYERS if isclass(kind) and kind is not layers.Layer]
LOSSES = [mm.MeanSquaredError, mm.SoftmaxCrossEntropy, mm.Entropy, mm.Summed]
DERIVATIVES = [
    *((kind, PASSES) for kind in [*LAYERS, *LOSSES]),
    *((kind, ("step", "adjoint", "tangent", "merge")) for kind in _of_the_library(RULES)),
    *((kind, ("direction", "problem", "couple")) for kind in _of_the_library(ALGORITHMS)),
    (Algorithm, ("adapt", "iterates", "meta_gradient", "predict")),
    *((kind, ("value", "gradient")) for kind in _of_the_library(MEASURES)),
]


def test_every_mutant_is_caught_or_known_to_be_equivalent(tmp_path, capsys):
    out = tmp_path / "mutation.json"
    which = [] if find_spec("numba") else ["--plain"]
    code = mutation.main(["--out", str(out), *which])
    assert code == 0, capsys.readouterr().out
    results = json.loads(out.read_text())
    assert results["provenance"]["minimeta"] == mm.__version__
    for name, counts in results["functions"].items():
        assert counts["tried"] >= 2, name
    survivors = {(survivor["function"], survivor["after"]) for survivor in results["survivors"]}
    known = {of for of in EQUIVALENT if not which or of[0] in results["functions"]}
    assert survivors == known, "EQUIVALENT names what does not survive"


def test_a_survivor_that_is_not_known_fails_the_proof(monkeypatch, capsys):
    monkeypatch.setattr(mutation, "EQUIVALENT", {})
    assert mutation.main(["--only", "kernels.product_sum", "--plain"]) == 1
    assert "SURVIVES" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "names"), DERIVATIVES, ids=[kind.__name__ for kind, _ in DERIVATIVES]
)
def test_every_derivative_of_a_class_is_mutated(kind, names):
    mutated = {target.function for target in targets()}
    for name in set(names) & set(vars(kind)):
        function = vars(kind)[name]
        nothing = not any(mutants(function))  # as in a merge that returns None
        assert function in mutated or nothing, f"{kind.__name__}.{name}"


def test_every_algorithm_and_every_rule_is_mutated():
    mutated = {target.name for target in targets()}
    for kind in _of_the_library(ALGORITHMS):
        owner = next(each for each in kind.__mro__ if "direction" in vars(each))
        assert f"{owner.__name__}.direction" in mutated
    for kind in _of_the_library(RULES):
        assert {f"{kind.__name__}.adjoint", f"{kind.__name__}.tangent"} <= mutated


# These make the call of BLAS, which the proof takes the place of; and refuse.
LEFT_OUT = {"host_blas.gemm_address", "host_blas._call"}
LEFT_OUT |= {f"{name}._expect" for name in ("host_norm", "host_perceptron")}
LEFT_OUT |= {"host_norm._expect_channels", "host_perceptron._lengths"}
TWINS = ["host_kernels", "host_norm", "host_perceptron", "host_rows", "host_blas"]


@pytest.mark.parametrize("name", TWINS)
def test_every_function_of_the_twins_is_mutated(name):
    pytest.importorskip("numba")
    from mutation_twins import targets

    text = (Path(mm.__file__).parent / "arrays" / f"{name}.py").read_text()
    tree = ast.parse(text).body
    owners = [(name, tree), *((each.name, each.body) for each in tree if hasattr(each, "bases"))]
    defined = {
        f"{owner}.{each.name}"
        for owner, body in owners
        for each in body
        if isinstance(each, ast.FunctionDef) and each.name != "__array_namespace__"
    }
    assert defined - LEFT_OUT <= {target.name for target in targets()}


def test_twins_that_are_compiled_are_not_mutated():
    pytest.importorskip("numba")
    with pytest.raises(RuntimeError, match="set NUMBA_DISABLE_JIT=1 before Python starts"):
        mutation.prove_twins()


def test_a_function_is_as_before_when_it_has_been_judged():
    target = next(target for target in targets() if target.name == "ReLU.backward")
    before = target.function.__code__
    with twins(False):
        assert all(mutation.verdict(target, mutant.code) for mutant in mutants(target.function))
    assert target.function.__code__ is before
    with (
        pytest.raises(AssertionError, match=r"MaxPool2D.backward is refused as it is"),
        in_place(layers.MaxPool2D.backward, layers.ReLU.backward.__code__),
    ):
        mutation.prove("MaxPool2D.backward")
