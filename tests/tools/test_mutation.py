"""The mutation proof: every mutant is caught, or known to be no error; and nothing is left out of it."""

import importlib.util
import json
from pathlib import Path

import pytest

import minimeta as mm
from minimeta import layers

_SPEC = importlib.util.spec_from_file_location(
    "mutation", Path(__file__).resolve().parents[2] / "tools" / "mutation.py"
)
mutation = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(mutation)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # mutants need not make sense
def test_every_mutant_is_caught_or_known_to_be_equivalent(tmp_path, capsys):
    out = tmp_path / "mutation.json"
    code = mutation.main(["--out", str(out)])
    assert code == 0, capsys.readouterr().out
    results = json.loads(out.read_text())
    assert results["provenance"]["minimeta"] == mm.__version__
    for name, counts in results["functions"].items():
        assert counts["tried"] >= 2, name
    survivors = {(survivor["function"], survivor["after"]) for survivor in results["survivors"]}
    assert survivors == set(mutation.EQUIVALENT), "EQUIVALENT names what does not survive"


def test_a_survivor_that_is_not_known_fails_the_proof(monkeypatch, capsys):
    monkeypatch.setattr(mutation, "EQUIVALENT", {})
    assert mutation.main(["--only", "kernels.product_sum"]) == 1
    assert "SURVIVES" in capsys.readouterr().out


def test_every_pass_of_every_layer_and_loss_is_mutated():
    mutated = {target.function for target in mutation.targets()}
    kinds = [
        getattr(layers, name) for name in layers.__all__ if isinstance(getattr(layers, name), type)
    ]
    for kind in [*kinds, mm.MeanSquaredError, mm.SoftmaxCrossEntropy, mm.Entropy, mm.Summed]:
        if kind is not layers.Layer:
            for name in set(mutation.PASSES) & set(vars(kind)):
                assert vars(kind)[name] in mutated, f"{kind.__name__}.{name}"


def test_a_function_is_as_before_when_it_has_been_judged():
    target = next(target for target in mutation.targets() if target.name == "ReLU.backward")
    before = target.function.__code__
    assert all(mutation.verdict(target, mutant.code) for mutant in mutation.mutants(target))
    assert target.function.__code__ is before
    with (
        pytest.raises(AssertionError, match=r"MaxPool2D.backward is refused as it is"),
        mutation.in_place(layers.MaxPool2D.backward, layers.ReLU.backward.__code__),
    ):
        mutation.prove("MaxPool2D.backward")
