"""What the library asks of an array module is on a list, and CuPy has it.

The lists stand in minimeta/testing/strict.py. The stand-in for CuPy there
refuses every function, method and keyword that is not on them, wherever a test
runs the library on it. Here the source is read, so that lines count that no
test runs, and the lists are compared with CuPy where CuPy is installed.
"""

import ast
import inspect
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import minimeta
from minimeta.testing.strict import CUPY_ONLY, FUNCTIONS, METHODS
from minimeta.testing.strict import module as strict

SOURCES = sorted(Path(minimeta.__file__).parent.rglob("*.py"))
NAMES_OF_MODULES = ("array_module", "device_module")
HINT = "check that CuPy's reference has it, then add it to the lists of minimeta/testing/strict.py"


def is_module(node, names):
    """Whether an expression is a module: xp, self.xp or array_module(a)."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in NAMES_OF_MODULES
    if isinstance(node, ast.Attribute):
        return node.attr == "xp"
    return isinstance(node, ast.Name) and node.id in names


def names_of_modules(tree):
    """The names that a file gives to array modules."""
    names = {"xp", "cupy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = zip(target.elts, value.elts, strict=False)  # up to a star
            names |= {a.id for a, b in pairs if isinstance(a, ast.Name) and is_module(b, names)}
    return names


def path_of(node, names):
    """ "linalg.solve" of xp.linalg.solve, or None where that is no module's."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
        if is_module(node, names):
            return ".".join(reversed(parts))
    return None


def asked_in(source):
    """The functions of array modules that a source asks for, with keywords."""
    tree, asked = ast.parse(source), defaultdict(set)
    names = names_of_modules(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (path := path_of(node, names)):
            asked[path] |= set()
        if isinstance(node, ast.Call) and (path := path_of(node.func, names)):
            asked[path] |= {keyword.arg for keyword in node.keywords}
    return asked


def methods_in(source):
    """The methods that a source calls on anything, with keywords."""
    called = defaultdict(set)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called[node.func.attr] |= {keyword.arg for keyword in node.keywords}
    return called


def unlisted(asked):
    """The functions and keywords that are on no list."""
    folders = {path.rpartition(".")[0] for path in (*FUNCTIONS, *CUPY_ONLY)}
    folders |= {path.partition(".")[0] for path in folders} | {""}
    for path, keywords in asked.items():
        if path in folders or path in CUPY_ONLY or path.startswith("__") or path == "nan":
            continue
        if path not in FUNCTIONS:
            yield f"xp.{path}"
        yield from (f"xp.{path}({each}=...)" for each in keywords - {*FUNCTIONS.get(path, ())})


def asked_of_modules():
    asked = defaultdict(set)
    for file in SOURCES:
        for path, keywords in asked_in(file.read_text()).items():
            asked[path] |= keywords
    return asked


def test_every_function_that_the_library_asks_for_is_listed():
    found = [*unlisted(asked_of_modules())]
    assert not found, f"{', '.join(found)}: {HINT}"


def test_every_listed_function_and_keyword_is_asked_for():
    asked = asked_of_modules()
    listed = FUNCTIONS | dict.fromkeys(CUPY_ONLY, ())
    assert not listed.keys() - asked.keys()
    assert not [(path, each) for path in FUNCTIONS for each in {*FUNCTIONS[path]} - asked[path]]


def test_every_listed_method_and_keyword_is_called():
    called = defaultdict(set)
    for file in SOURCES:
        for name, keywords in methods_in(file.read_text()).items():
            called[name] |= keywords
    for name, keywords in METHODS.items():
        assert name in called and {*keywords} <= called[name], name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("xp.cumsum(a)", ["xp.cumsum"]),
        ("array_module(a).fft.rfft(a)", ["xp.fft", "xp.fft.rfft"]),
        ("self.xp.sum(a)", ["xp.sum"]),
        ("own, b = array_module(a), 1\nown.cbrt(a)", ["xp.cbrt"]),
        ("xp.where(a, b, c)", []),
        ("xp.stack(a, axis=1, out=b)", ["xp.stack(out=...)"]),
        ("np.cumsum(a)", []),
    ],
)
def test_a_new_function_or_keyword_is_found_in_the_source(source, found):
    assert sorted(unlisted(asked_in(source))) == found


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda a: strict.cumsum(a), r"function cumsum\(\)"),
        (lambda a: strict.stack([a], dtype=float), r"keyword stack\(dtype=...\)"),
        (lambda a: strict.asarray(a, order="C"), r"keyword asarray\(order=...\)"),
        (lambda a: a.cumsum(), r"method cumsum\(\)"),
        (lambda a: a.sum(where=True), r"keyword sum\(where=...\)"),
    ],
)
def test_the_stand_in_refuses_in_one_line_what_is_not_listed(use, told):
    with pytest.raises((AttributeError, TypeError), match=told) as refused:
        use(strict.ones(2))
    assert "CuPy's reference" in str(refused.value) and "\n" not in str(refused.value)


def takes(function, keyword):
    """Whether a function of CuPy takes a keyword, by its signature, or where it
    is compiled by the first line of its documentation."""
    try:
        return keyword in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return keyword in (function.__doc__ or "").partition("\n")[0]


@pytest.mark.gpu
def test_cupy_has_every_listed_function_method_and_keyword():
    cupy = pytest.importorskip("cupy")
    missing = []
    for place, listed in (
        (cupy, FUNCTIONS | dict.fromkeys(CUPY_ONLY, ())),
        (cupy.ndarray, METHODS),
    ):
        for path, keywords in listed.items():
            found = place
            for part in path.split("."):
                found = getattr(found, part, None)
            if found is None:
                missing.append(path)
            elif isinstance(found, cupy.ufunc):
                missing += [(path, each) for each in keywords if each not in ("out", "dtype")]
            else:
                missing += [(path, each) for each in keywords if not takes(found, each)]
    assert not missing


def test_every_listed_function_is_numpys_too():
    for path in FUNCTIONS:
        found = np
        for part in path.split("."):
            found = getattr(found, part)
        assert callable(found)
