"""Folders are floors: each imports only from itself and from earlier floors."""

import ast
from pathlib import Path

import pytest

import minimeta

HOUSE = Path(minimeta.__file__).resolve().parent
FLOORS = [
    "errors",
    "arguments",
    "registry",
    "fields",
    "files",
    "version",
    "arrays",
    "layers",
    "losses",
    "objectives",
    "inner",
    "algorithms",
    "theory",
    "tasks",
    "training",
    "runs",
    "testing",
    "cli",
    "__init__",
    "__main__",
]
MODULES = sorted(path.relative_to(HOUSE).with_suffix("").parts for path in HOUSE.rglob("*.py"))


def _imported(module):
    """The parts of the package that ``module`` imports, anywhere in its
    text."""
    tree = ast.parse(HOUSE.joinpath(*module).with_suffix(".py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = module[: len(module) - node.level]
            named = tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, *named, *([] if named else [each.name])) for each in node.names)
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names:
            if name.split(".")[0] == "minimeta":
                yield tuple(name.split(".")[1:]) or ("__init__",)


@pytest.mark.parametrize("module", MODULES, ids="/".join)
def test_a_module_imports_only_from_its_own_floor_and_those_before_it(module):
    own = FLOORS.index(module[0])
    above = {"/".join(each) for each in _imported(module) if FLOORS.index(each[0]) > own}
    assert not above, f"{'/'.join(module)} reaches up for {', '.join(above)}"


def test_every_folder_is_a_floor_that_says_what_it_is_for():
    folders = {path.parent.name for path in HOUSE.glob("*/*.py")}
    assert folders <= set(FLOORS)
    for folder in folders:
        assert ast.get_docstring(ast.parse((HOUSE / folder / "__init__.py").read_text()))


def test_cupy_is_imported_in_one_place():
    using = {
        "/".join(module)
        for module in MODULES
        if "import cupy" in HOUSE.joinpath(*module).with_suffix(".py").read_text()
    }
    assert using == {"arrays/backend"}
