"""Importing the package leaves malloc alone; a run asks malloc by name."""

import subprocess
import sys

import pytest

COUNT = "minimeta.arrays.memory.keep_freed_memory.cache_info().misses"


def _printed(code):
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def test_importing_the_package_does_not_touch_malloc():
    assert _printed(f"import minimeta, minimeta.cli; print({COUNT})") == "0"


@pytest.mark.parametrize("times", [1, 3])
def test_work_asks_malloc_once_for_the_whole_process(times):
    work = "    with threads.workers(1): pass\n"
    code = f"import minimeta\nfrom minimeta.arrays import threads\nfor _ in range({times}):\n{work}"
    assert _printed(f"{code}print({COUNT})") == "1"


def test_malloc_is_left_alone_where_the_environment_says_so(monkeypatch):
    monkeypatch.setenv("MINIMETA_MALLOC", "default")
    assert _printed("import minimeta; print(minimeta.keep_freed_memory())") == "False"
