"""Conformance vectors.

They are reproducible. Their files alone agree with the complex step. Every kind
of damage gives a one-line error.
"""

import hashlib
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import minimeta as mm
from minimeta.cli import main
from minimeta.testing import assert_close, complex_step
from minimeta.testing import conformance_vectors as vectors


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors") / "new"
    assert main(["vectors", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy of the vectors that a test may damage."""
    return shutil.copytree(written, tmp_path / "vectors")


@pytest.fixture
def results(folder, tmp_path):
    """Right results of two problems, by an implementation that does not offer
    MAML."""
    out = tmp_path / "results"
    out.mkdir()
    for name in ("linear-mse-sgd-k3.npz", "tanh-mse-sgd-k2.npz"):
        arrays = vectors.load(folder / name)
        np.savez(
            out / name,
            **{quantity: arrays[quantity] for quantity in vectors.RESULTS if quantity != "maml"},
        )
    return out


def _change(path, **changes):
    np.savez(path, **(vectors.load(path) | changes))


def _grades(folder, results, name="linear-mse-sgd-k3"):
    return {each.quantity: each for each in vectors.grade(folder, results) if each.problem == name}


def test_its_own_results_have_no_error(written):
    grades = vectors.grade(written, written)
    assert len(grades) == len(vectors.PROBLEMS) * len(vectors.RESULTS)
    assert all(each.status == "pass" and each.error == 0 for each in grades)
    assert sum(path.stat().st_size for path in written.iterdir()) < 5e6


def test_the_same_bits_on_every_run(written, tmp_path):
    vectors.write(tmp_path / "again")
    names = sorted(path.name for path in written.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all(
        (written / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names
    )


def test_the_index_tells_all_that_the_files_hold(written):
    index = vectors.read(written)
    assert {entry["file"] for entry in index["problems"]} == {
        path.name for path in written.glob("*.npz")
    }
    for entry in index["problems"]:
        arrays = vectors.load(written / entry["file"])
        found = {
            name: {"dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in arrays.items()
        }
        assert found == entry["arrays"]
        assert hashlib.sha256((written / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
        last = [each for layer in entry["network"]["layers"] for each in layer["parameters"]][-1]
        assert (
            last["offset"] + np.prod(last["shape"])
            == len(arrays["phi"])
            == entry["network"]["size"]
        )
        used = {layer["type"] for layer in entry["network"]["layers"]}
        assert used <= set(index["documentation"]["layers"])
        assert (
            entry["loss"] in index["documentation"]["losses"]
            and entry["rule"]["type"] in index["documentation"]["rules"]
        )


def test_the_page_for_implementers_names_all_there_is(written):
    page = (Path(__file__).resolve().parents[2] / "docs" / "vectors.md").read_text()
    index = vectors.read(written)
    documented = index["documentation"]
    names = {
        *documented["results"],
        *documented["layers"],
        *documented["losses"],
        *documented["rules"],
        *index,
    }
    names |= {key for entry in index["problems"] for key in entry}
    assert not [name for name in names if f"`{name}`" not in page and f'"{name}"' not in page]
    assert f"{len(index['problems'])} problems" in page


def _from_files(folder, entry):
    """Objective, rule, arrays and mini-batches, from the index and the npz
    alone."""
    described = []
    for layer in entry["network"]["layers"]:
        told = {"type", "input_shape", "output_shape", "parameters"}
        sizes = {name: value for name, value in layer.items() if name not in told}
        described.append(getattr(mm.layers, layer["type"])(**sizes))
    network = mm.Network(entry["network"]["input_shape"], described)
    rule = getattr(mm, entry["rule"]["type"])(
        **{name: x for name, x in entry["rule"].items() if name != "type"}
    )
    arrays = vectors.load(folder / entry["file"])
    batches = [(arrays[f"x_{i}"], arrays[f"y_{i}"]) for i in range(1, entry["k"] + 1)]
    return mm.Objective(network, getattr(mm, entry["loss"])()), rule, arrays, batches


@pytest.mark.parametrize("name", [problem.name for problem in vectors.PROBLEMS])
def test_results_are_right_by_the_complex_step(written, name):
    """The oracle uses only the forward pass and single inner steps.

    It uses no Hessian product and no adjoint.
    """
    entry = next(each for each in vectors.read(written)["problems"] if each["name"] == name)
    objective, rule, arrays, batches = _from_files(written, entry)
    phi, u = arrays["phi"], np.random.default_rng(0).standard_normal((5, len(arrays["phi"])))

    def end(phi):
        state = None
        for batch in batches[:-1]:
            phi, state = rule.step(phi, objective.at(phi, batch).grad, state)
        return phi, state

    def slopes(loss, phi):
        """The derivative of each task's loss along the rows of u, ``(T,
        5)``."""
        return np.stack(
            [complex_step(loss, (phi,), (np.broadcast_to(row, phi.shape),)) for row in u], axis=1
        )

    phi_k, state = end(phi)
    last = objective.at(phi_k, batches[-1])
    after = rule.step(phi_k, last.grad, state)[0]
    rows = np.broadcast_to(phi, arrays["v"].shape)
    rows_k = np.broadcast_to(phi_k, rows.shape)
    checks = {
        "loss": (arrays["loss"], objective.at(phi, batches[0]).loss, 1e-13),
        "final_loss": (arrays["final_loss"], last.loss, 1e-13),
        "adapted": (arrays["adapted"], after, 1e-13),
        "reptile": (arrays["reptile"], phi - after, 1e-10),
        "grad": (
            arrays["grad"] @ u.T,
            slopes(lambda phi: objective.at(phi, batches[0]).loss, phi),
            1e-12,
        ),
        "hvp": (
            arrays["hvp"],
            complex_step(lambda phi: objective.at(phi, batches[0]).grad, (rows,), (arrays["v"],)),
            1e-12,
        ),
        "fomaml": (
            arrays["fomaml"] @ u.T,
            slopes(lambda phi: objective.at(phi, batches[-1]).loss, rows_k),
            1e-12,
        ),
        "maml": (
            arrays["maml"] @ u.T,
            slopes(lambda phi: objective.at(end(phi)[0], batches[-1]).loss, phi),
            1e-10,
        ),
    }
    assert set(checks) == set(vectors.RESULTS)
    for quantity, (got, want, tolerance) in checks.items():
        assert_close(got, want, tolerance, quantity)


def test_problems_cover_what_they_promise(written):
    entries = vectors.read(written)["problems"]
    assert {entry["k"] for entry in entries} == {1, 2, 3, 5} and {
        entry["tasks"] for entry in entries
    } == {1, 2, 3}
    assert {entry["rule"].get("beta1") for entry in entries} == {None, 0.0, 0.9}
    assert {len(set(entry["sizes"])) for entry in entries} == {1, 2}
    dead = vectors.load(written / "relu-mse-adam-dead-unit-k3.npz")
    assert (dead["grad"] == 0).all(
        axis=0
    ).sum() == 4  # its two weights, its bias, and the weight that reads it


def test_partial_results_pass_and_what_is_not_there_is_missing(folder, results, capsys):
    assert main(["vectors", str(folder), "--verify", str(results)]) == 0
    printed = capsys.readouterr().out
    assert (
        f"14 pass, 0 fail, {8 * len(vectors.PROBLEMS) - 14} missing, at a tolerance of 1e-09"
        in printed
    )
    assert _grades(folder, results)["maml"].status == "missing"


def test_a_small_error_fails_or_passes_by_the_tolerance(folder, results, capsys):
    path = results / "linear-mse-sgd-k3.npz"
    _change(path, grad=vectors.load(path)["grad"] * (1 + 1e-7))
    assert main(["vectors", str(folder), "--verify", str(results)]) == 1
    printed, told = capsys.readouterr()
    assert (
        "1.0e-07 FAIL" in printed
        and told == f"minimeta: 1 of {8 * len(vectors.PROBLEMS)} results fail: {results}\n"
    )
    assert main(["vectors", str(folder), "--verify", str(results), "--tolerance", "1e-6"]) == 0


@pytest.mark.parametrize(
    ("grad", "note"),
    [
        (np.zeros((2, 3)), "has shape (2, 3), expected (2, 8)"),
        (np.zeros(16), "has shape (16,), expected (2, 8)"),
        (np.full((2, 8), np.nan), "holds 16 of 16 numbers that are not finite"),
        (np.full((2, 8), np.inf), "holds 16 of 16 numbers that are not finite"),
        (np.zeros((2, 8), complex), "holds complex128, expected real numbers"),
        (np.full((2, 8), "0"), "holds <U1, expected real numbers"),
    ],
)
def test_what_cannot_be_compared_fails_and_says_why(folder, results, capsys, grad, note):
    _change(results / "linear-mse-sgd-k3.npz", grad=grad)
    grades = _grades(folder, results)
    assert grades["grad"].status == "fail" and grades["loss"].status == "pass"
    assert main(["vectors", str(folder), "--verify", str(results)]) == 1
    assert f"linear-mse-sgd-k3: grad {note}\n" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no archive", "truncated", "npy", "pickled"])
def test_results_that_cannot_be_read_fail(folder, results, tmp_path, content):
    path = results / "linear-mse-sgd-k3.npz"
    if content == "truncated":
        content = path.read_bytes()[:-100]
    elif content == "npy":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
        content = path.read_bytes()
    elif content == "pickled":
        np.savez(path, grad=np.array([{}], dtype=object))
        content = path.read_bytes()
    path.write_bytes(content)
    grades = _grades(folder, results)
    assert all(each.status == "fail" and "cannot be read" in each.note for each in grades.values())
    assert _grades(folder, results, "tanh-mse-sgd-k2")["loss"].status == "pass"


def _truncate(name, keep):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def _alter(name):
    def damage(folder):
        content = bytearray((folder / name).read_bytes())
        content[-5 if name.endswith("npz") else content.index(b"0.05") + 3] ^= 4
        (folder / name).write_bytes(content)

    return damage


def _new_version(folder):
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"version": 2}))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (shutil.rmtree, "is not a folder of vectors: it has no index.json"),
        (
            lambda folder: (folder / "index.json").unlink(),
            "is not a folder of vectors: it has no index.json",
        ),
        (lambda folder: (folder / "index.json.sha256").unlink(), "index.json.sha256 is missing"),
        (
            lambda folder: (folder / "omniglot-sgd-k2.npz").unlink(),
            "omniglot-sgd-k2.npz is missing",
        ),
        (lambda folder: (folder / "index.json").write_text("[]"), "is not an index of vectors"),
        (lambda folder: (folder / "index.json").write_bytes(b"\xff"), "index.json is damaged"),
        (_truncate("index.json", 1000), "index.json is damaged"),
        (_truncate("index.json.sha256", 10), "index.json is damaged: its checksum"),
        (_truncate("omniglot-sgd-k2.npz", 1000), "omniglot-sgd-k2.npz is damaged: its checksum"),
        (_truncate("omniglot-sgd-k2.npz", 0), "omniglot-sgd-k2.npz is damaged: its checksum"),
        (_alter("omniglot-sgd-k2.npz"), "omniglot-sgd-k2.npz is damaged: its checksum"),
        (_alter("index.json"), "index.json is damaged: its checksum"),
        (_new_version, "holds vectors of version 2, not of version 1"),
    ],
)
def test_every_damage_is_one_line(folder, results, capsys, damage, line):
    damage(folder)
    with pytest.raises(mm.VectorsError):
        vectors.read(folder)
    assert main(["vectors", str(folder), "--verify", str(results)]) == 1
    printed, told = capsys.readouterr()
    assert not printed and told.startswith("minimeta: ") and told.count("\n") == 1 and line in told


def _rehash(folder, change):
    """Change the index, and note its new checksum."""
    index = json.loads((folder / "index.json").read_text())
    text = json.dumps(change(index) or index)
    (folder / "index.json").write_text(text)
    (folder / "index.json.sha256").write_text(
        f"{hashlib.sha256(text.encode()).hexdigest()}  index.json\n"
    )


def _without(*path):
    def change(index):
        *outer, last = path
        for key in outer:
            index = index[key]
        del index[last]

    return change


def _with(value, *path):
    def change(index):
        *outer, last = path
        for key in outer:
            index = index[key]
        index[last] = value

    return change


CHANGES = [_without("problems", 0, key) for key in ("name", "file", "sha256", "arrays")]
CHANGES += [_without("problems"), _without("problems", 0, "arrays", "maml")]
CHANGES += [_without("problems", 0, "arrays", "loss", key) for key in ("shape", "dtype")]
CHANGES += [_with(value, "problems") for value in (None, [], {}, [None], [[]], "x")]
CHANGES += [
    _with(value, "problems", 0, "file")
    for value in ("../index.npz", "/etc/passwd", "", ".npz", "a/b.npz", 7, None, "a\nb.npz")
]
CHANGES += [
    _with(value, "problems", 0, "arrays", "loss", "shape")
    for value in (None, [-1], [0], ["x"], [True], 3, [10**30], [1])
]
CHANGES += [_with(7, "problems", 0, "arrays", "loss"), _with([], "problems", 0, "arrays")]
CHANGES += [lambda index: [index], lambda index: index | {"version": []}]


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_with_a_right_checksum_and_wrong_content_is_one_line(
    folder, results, capsys, change
):
    _rehash(folder, change)
    assert main(["vectors", str(folder), "--verify", str(results)]) == 1
    printed, told = capsys.readouterr()
    assert not printed and told.startswith("minimeta: ") and told.count("\n") == 1


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"format": NaN}', b'{"a": 1, "a": 2}', b"1" * 5000]
)
def test_an_index_of_any_shape_is_one_line(folder, results, capsys, text):
    (folder / "index.json").write_bytes(text)
    assert main(["vectors", str(folder), "--verify", str(results)]) == 1
    printed, told = capsys.readouterr()
    assert not printed and told.count("\n") == 1 and "index.json is damaged" in told


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_is_not_waited_for(folder, results, make):
    path = results / "linear-mse-sgd-k3.npz"
    path.unlink()
    make(path)
    for grade in _grades(folder, results).values():
        assert grade.status == "fail" and "where a file is expected" in grade.note
    for name in ("index.json", "index.json.sha256", "linear-mse-sgd-k3.npz"):
        (folder / name).rename(folder / "kept")
        make(folder / name)
        with pytest.raises(mm.VectorsError, match="where a file is expected"):
            vectors.read(folder)
        os.rmdir(folder / name) if make is os.mkdir else os.unlink(folder / name)
        (folder / "kept").rename(folder / name)
    vectors.read(folder)


def test_results_that_unpack_to_far_more_are_not_unpacked(folder, results):
    np.savez_compressed(results / "linear-mse-sgd-k3.npz", grad=np.zeros(10**7))
    tracemalloc.start()
    grades = _grades(folder, results)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
    assert all("it unpacks to 80000" in each.note for each in grades.values())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["FOLDER"], "is not empty, and nothing is overwritten"),
        (["RESULTS"], "is not empty, and nothing is overwritten"),
        (["FILE"], "cannot be written"),
        (["FOLDER", "--verify", "NEW"], "holds no results"),
        (["FOLDER", "--verify", "FILE"], "holds no results"),
        (["NEW", "--tolerance", "1"], "--tolerance belongs to --verify"),
    ],
)
def test_every_mistake_is_one_line_and_overwrites_nothing(
    folder, results, tmp_path, capsys, words, line
):
    file = tmp_path / "file"
    file.write_text("mine")
    paths = {"FOLDER": folder, "RESULTS": results, "FILE": file, "NEW": tmp_path / "new"}
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["vectors", *(str(paths.get(word, word)) for word in words)]) == 1
    printed, told = capsys.readouterr()
    assert not printed and told.startswith("minimeta: ") and told.count("\n") == 1 and line in told
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("tolerance", [-1.0, np.nan, np.inf])
def test_a_tolerance_without_meaning_is_refused(tolerance, folder, results, capsys):
    with pytest.raises(mm.SettingsError, match="tolerance must be 0 or more and finite"):
        vectors.grade(folder, results, tolerance)
    words = ["vectors", str(folder), "--verify", str(results), "--tolerance", str(tolerance)]
    assert main(words) == 1
    assert "tolerance must be 0 or more and finite, got" in capsys.readouterr().err
