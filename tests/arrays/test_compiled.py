"""Compiled functions: chosen by the environment, kept in a folder, and never a
reason to fail.

Each start of Python is a process of its own here.
"""

import os
import shutil
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from minimeta.arrays import compiled, kernels
from minimeta.arrays.compiled import twins
from minimeta.errors import SettingsError

ROOT = Path(compiled.__file__).parents[2]
MESSAGE = "minimeta compiles its kernels for this processor"
# Prints a sum, and how many functions were compiled and how many read.
WORK = """
import numpy as np
from minimeta.arrays import compiled, kernels
a = np.arange(24.0).reshape(2, 3, 4)
assert (kernels.channel_sums(a) == a.sum(axis=1)).all()
assert (kernels.centred(a)[0] == a - a.mean(axis=1, keepdims=True)).all()
from minimeta.arrays import host_kernels
made = host_kernels._sums, host_kernels._combine_one
stats = [each._made[a.dtype].stats for each in made]
misses, hits = (
    sum(sum(getattr(each, kind).values()) for each in stats)
    for kind in ("cache_misses", "cache_hits")
)
print(misses, hits)
"""
# The same, where Numba may be missing.
PLAIN = WORK.partition("from minimeta.arrays import host_kernels")[0]
AT_ONCE = "from minimeta.arrays import compiled; compiled._SLOW = 0\n"  # seconds

needs_numba = pytest.mark.usefixtures("_numba")
as_any_user = pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users and modes of POSIX")


@pytest.fixture
def _numba():
    pytest.importorskip("numba")


@pytest.fixture
def environment(tmp_path):
    """An environment with a folder for caches of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "MINIMETA_"))}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return kept | {"MINIMETA_CACHE": str(tmp_path / "caches"), "PYTHONPATH": paths}


def started(code, environment, **changes):
    """The process that runs ``code``. None takes a variable away."""
    environment = environment | changes
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={name: value for name, value in environment.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    """What the process printed, and the lines that it said; it did not fail."""
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return printed.strip(), said.splitlines()


def run(code, environment, **changes):
    return ended(started(code, environment, **changes))


def files(folder):
    """The content and the time of every file under ``folder``."""
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_importing_the_package_does_not_import_numba(environment):
    code = "import sys, minimeta, minimeta.cli; print('numba' in sys.modules)"
    assert run(code, environment) == ("False", [])


IS_IMPORTED = "import sys; print('numba' in sys.modules)"


@pytest.mark.parametrize(
    ("value", "imported"), [("0", False), *[(each, True) for each in ("1", "", None)]]
)
@needs_numba
def test_the_environment_chooses_numba(environment, value, imported):
    printed, _ = run(PLAIN + IS_IMPORTED, environment, MINIMETA_FAST=value)
    assert printed == str(imported)


@pytest.mark.parametrize("value", ["2", "yes", " 1", "true\nfalse"])
def test_any_other_value_is_refused_in_one_line(environment, value, tmp_path):
    code = f"""
import sys
from minimeta.cli import main
out = {str(tmp_path / "run")!r}
sys.exit(main(["train", "sine", "--iterations", "1", "--quiet", "--out", out]))
"""
    process = started(code, environment, MINIMETA_FAST=value)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1 and said.count("\n") == 1
    assert f"MINIMETA_FAST must be 0 or 1, got {value!r}" in said


MISSING = "import sys; sys.modules['numba'] = None\n"


def test_everything_works_without_numba(environment, tmp_path):
    code = f"""
from minimeta.cli import main
out = {str(tmp_path / "run")!r}
assert main(["train", "sine", "--iterations", "2", "--quiet", "--out", out]) == 0
assert main(["eval", out, "--tasks", "3", "--quiet"]) == 0
"""
    _, said = run(MISSING + PLAIN + code, environment)
    assert said == []


def test_numba_that_is_asked_for_and_missing_is_told_in_one_line(environment):
    code = f"""
from minimeta.errors import SettingsError
try:
    exec({PLAIN!r})
except SettingsError as error:
    print(error)
"""
    printed, said = run(MISSING + code, environment, MINIMETA_FAST="1")
    assert "pip install 'minimeta[fast]'" in printed and "\n" not in printed and said == []


@pytest.mark.parametrize("value", ["", "1"])
def test_a_numba_that_cannot_be_imported_is_one_warning_of_one_line(environment, tmp_path, value):
    package = tmp_path / "broken" / "numba"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('needs NumPy 2.2\\nor less')")
    code = f"""
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    exec({PLAIN!r})
(warning,) = caught
print(warning.category.__name__, warning.message)
"""
    paths = os.pathsep.join([str(package.parent), environment["PYTHONPATH"]])
    printed, said = run(code, environment, MINIMETA_FAST=value, PYTHONPATH=paths)
    assert printed.startswith("RuntimeWarning minimeta computes without Numba")
    assert "needs NumPy 2.2 or less" in printed and "\n" not in printed and said == []


@needs_numba
def test_what_one_process_compiled_the_next_reads(environment, tmp_path):
    assert run(WORK, environment)[0] == "2 0"
    kept = files(tmp_path / "caches" / "kernels")
    assert kept
    assert run(AT_ONCE + WORK, environment) == ("0 2", [])
    assert files(tmp_path / "caches" / "kernels") == kept


@needs_numba
def test_the_folder_may_be_named_as_for_numba(environment, tmp_path):
    folder = tmp_path / "named"
    run(WORK, environment, NUMBA_CACHE_DIR=str(folder))
    assert files(folder) and not (tmp_path / "caches").exists()
    assert run(WORK, environment, NUMBA_CACHE_DIR=str(folder))[0] == "0 2"


@needs_numba
@pytest.mark.parametrize("kept", [True, False])
def test_compiling_is_told_once_in_one_line(environment, tmp_path, kept):
    if not kept:
        (tmp_path / "caches").write_text("a file in the folder's place")
    _, said = run(AT_ONCE + WORK, environment)
    how = "once" if kept else "at every start, because no folder can keep them"
    assert said == [f"{MESSAGE}, {how}"]


@needs_numba
@as_any_user
@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_may_write_is_not_used(environment, tmp_path, mode):
    """Numba unpickles what it finds there."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    _, said = run(AT_ONCE + WORK, environment, NUMBA_CACHE_DIR=str(folder))
    assert said == [f"{MESSAGE}, at every start, because no folder can keep them"]
    assert not list(folder.iterdir())


@needs_numba
@as_any_user
def test_a_new_folder_is_for_this_user_alone(environment, tmp_path):
    run(f"import os; os.umask(0)\n{WORK}", environment)
    folder = tmp_path / "caches" / "kernels"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and files(folder)


NO_HOME = """
import pwd
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown
"""


@needs_numba
@as_any_user
@pytest.mark.parametrize("where", ["read-only", "a file", "below a file", "no home", "not a path"])
def test_without_a_folder_the_results_are_the_same(environment, tmp_path, where):
    place, code = tmp_path / "place", WORK
    changes = {"NUMBA_CACHE_DIR": str(place)}
    if where == "read-only":
        place.mkdir(mode=0o500)
    elif where == "a file":
        place.write_bytes(b"kept")
    elif where == "below a file":
        place.write_bytes(b"kept")
        changes = {"NUMBA_CACHE_DIR": str(place / "kernels")}
    elif where == "not a path":
        changes = {"NUMBA_CACHE_DIR": "x" * 5000}
    else:
        code = NO_HOME + WORK
        changes = {"MINIMETA_CACHE": None, "HOME": None, "XDG_CACHE_HOME": None}
    _, said = run(code, environment, **changes)
    assert len(said) <= 1
    if "a file" in where:
        assert place.read_bytes() == b"kept"
    if where == "no home":
        code += "print(compiled.kernel_folder())"
        assert run(code, environment, **changes)[0].endswith("None")


@pytest.fixture(scope="module")
def compiled_before(tmp_path_factory):
    """A folder for caches that holds the functions of ``WORK``."""
    folder = tmp_path_factory.mktemp("compiled")
    run(WORK, dict(os.environ), MINIMETA_CACHE=str(folder), NUMBA_CACHE_DIR=None)
    return folder


DAMAGES = {
    "empty": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "garbage": lambda content: bytes(range(256)) * 8,
}


@needs_numba
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_do_no_harm(environment, tmp_path, compiled_before, damage, ending):
    caches = tmp_path / "caches"
    shutil.copytree(compiled_before, caches)
    damaged = list(caches.rglob(f"*.{ending}"))
    assert damaged
    for path in damaged:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    _, said = run(AT_ONCE + WORK, environment)
    assert len(said) == 1 and said[0].startswith(MESSAGE)


@needs_numba
def test_two_processes_compile_at_once(environment):
    for each in [started(WORK, environment) for _ in range(2)]:
        _, said = ended(each)
        assert len(said) <= 1 and all(MESSAGE in line for line in said)
    assert run(AT_ONCE + WORK, environment) == ("0 2", [])


@needs_numba
def test_two_threads_compile_at_once(environment):
    code = """
import threading
import numpy as np
from minimeta.arrays import compiled, kernels
compiled._SLOW = 0
start, sums = threading.Barrier(4), []
def work(dtype):
    a = np.arange(24.0).reshape(2, 3, 4).astype(dtype)
    start.wait()
    sums.append((kernels.channel_sums(a) == a.sum(axis=1)).all())
dtypes = np.float64, np.float64, np.complex128, np.complex128
threads = [threading.Thread(target=work, args=[each]) for each in dtypes]
for each in threads:
    each.start()
for each in threads:
    each.join()
from minimeta.arrays import host_kernels
made = host_kernels._sums._made.values()
print(len(sums), all(sums), len(made), sum(sum(each.stats.cache_misses.values()) for each in made))
"""
    printed, said = run(code, environment)
    assert printed == "4 True 2 2" and said == [f"{MESSAGE}, once"]


def test_a_block_without_twins_ends_as_it_began():
    for on in (False, compiled.fast()):
        with twins(on):
            with suppress(ZeroDivisionError), twins(False):
                assert not compiled.fast()
                raise ZeroDivisionError
            assert compiled.fast() == on


def test_twins_without_numba_are_refused(monkeypatch):
    monkeypatch.setattr(compiled, "_numba", lambda: None)
    with pytest.raises(SettingsError, match=r"pip install 'minimeta\[fast\]'"), twins(True):
        pass


@needs_numba
def test_a_dtype_without_a_twin_takes_the_plain_way():
    a = np.arange(24).reshape(2, 3, 4)
    with twins(True):
        for dtype in (np.float16, np.int64, np.complex64, np.longdouble, ">f8", ">f4"):
            got = kernels.channel_sums(a.astype(dtype))
            assert got.dtype == np.result_type(dtype, dtype)
            assert (got == a.sum(axis=1)).all()


@needs_numba
def test_subclasses_and_masked_arrays_take_the_plain_way():
    a = np.ma.masked_array(np.ones((1, 3, 2)), mask=[[[0, 1]] * 3])
    with twins(True):
        assert isinstance(kernels.channel_combination((2.0, a)), np.ma.MaskedArray)


@needs_numba
def test_a_function_is_compiled_once_a_dtype(monkeypatch):
    made = []
    function = compiled.compiles("t[::1]")(lambda a: None)
    monkeypatch.setattr(compiled, "_compiled", lambda *given: made.append(given) or given[0])
    threads = [
        threading.Thread(target=function, args=[np.dtype(dtype), None])
        for dtype in (np.float32, np.float64) * 4
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(made) == 2
