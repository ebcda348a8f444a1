"""Files: only plain files are opened, writes are whole, readers judge first."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minimeta.errors import CheckpointError, DataError, SweepError, one_line, reason_of
from minimeta.files import (
    locked,
    opened,
    parsed_json,
    parts_of,
    read_arrays,
    read_json,
    write_atomically,
    write_new,
)

MODES = ("read", "append", "lock", "new")


def _in_place(kind, path, beside):
    """Put something at ``path`` that is no plain file."""
    if kind == "a symbolic link":
        path.symlink_to(beside)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["a symbolic link", "a folder", "a pipe"])
@pytest.mark.parametrize("mode", MODES)
def test_only_a_plain_file_is_opened_and_nothing_is_waited_for(tmp_path, kind, mode):
    path, beside = tmp_path / "file", tmp_path / "beside"
    beside.write_text("mine")
    _in_place(kind, path, beside)
    told = "File exists" if mode == "new" else f"it is {kind}, where a file is expected"
    with pytest.raises(OSError, match=told) as caught:
        opened(path, mode)
    assert caught.value.filename in (path, str(path)) and str(path) not in reason_of(caught.value)
    assert beside.read_text() == "mine"


@pytest.mark.parametrize("mode", MODES)
def test_a_link_to_nothing_creates_nothing(tmp_path, mode):
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(OSError, match="a symbolic link|File exists"):
        opened(tmp_path / "link", mode)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_lock_leaves_the_content_of_its_file(tmp_path):
    (tmp_path / "lock").write_text("mine")
    with locked(tmp_path / "lock") as alone, locked(tmp_path / "lock") as other:
        assert alone and not other
    assert (tmp_path / "lock").read_text() == "mine"


@pytest.mark.parametrize("link", [os.link, None], ids=["hard links", "no hard links"])
def test_of_many_writers_one_creates_the_file_and_none_replaces_it(tmp_path, monkeypatch, link):
    def refused(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", link or refused)
    path = tmp_path / "result"
    processes = []
    for _ in range(8):
        if (process := os.fork()) == 0:
            try:
                write_new(path, lambda file: file.write(str(os.getpid()).encode() * 1000))
            except FileExistsError:
                os._exit(1)
            except BaseException:
                os._exit(2)
            os._exit(0)
        processes.append(process)
    ended = {process: os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes}
    assert sorted(ended.values()) == [0] + 7 * [1]
    winner = next(process for process, status in ended.items() if status == 0)
    assert path.read_text() == str(winner) * 1000
    assert [each.name for each in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("link", [os.link, None], ids=["hard links", "no hard links"])
def test_nothing_that_exists_is_replaced_by_a_new_file(tmp_path, monkeypatch, link):
    def refused(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", link or refused)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            write_new(tmp_path / name, lambda file: file.write(b"other"))
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def fail(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_new(tmp_path / "new", fail)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from minimeta.files import {write}
moment, path = sys.argv[1], Path(sys.argv[2])
def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if moment != "write":
    setattr(os, moment, killed)
{write}(path, lambda file: file.write(b"new") and moment == "write" and killed())
"""


@pytest.mark.parametrize(
    ("write", "moments"),
    [
        ("write_new", ["write", "fsync", "link"]),
        ("write_atomically", ["write", "fsync", "replace"]),
    ],
)
def test_a_kill_leaves_the_old_file_and_a_part_that_is_known_as_one(tmp_path, write, moments):
    path = tmp_path / "file"
    for moment in moments:
        words = [sys.executable, "-c", KILLED.format(write=write), moment, str(path)]
        assert subprocess.run(words).returncode == -signal.SIGKILL
        assert not path.exists()
    assert len(parts_of(path)) == 3
    assert sorted(tmp_path.iterdir()) == parts_of(path)
    write_atomically(path, lambda file: file.write(b"new"))
    assert len(parts_of(path)) == 3 and stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_json_that_is_written_is_read(value):
    assert parsed_json(json.dumps(value, allow_nan=False).encode()) == value


@given(st.binary() | st.text(alphabet='[]{}",:1eE+-.nulltrue').map(str.encode))
def test_any_bytes_are_json_or_one_line(text):
    told = "a value"
    try:
        parsed_json(text)
    except ValueError as error:
        told = str(error)
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"-Infinity", "-Infinity is not a JSON number"),
        (b"1e999", "the number 1e999 is too large"),
        (b"1" * 5000, "a number of 5000 digits is too large"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice in one object"),
        (b"\xff", "can't decode byte 0xff"),
        (b"", "Expecting value"),
        (b" " * 100, "it has 100 bytes, and 50 or less are expected"),
    ],
)
def test_json_that_no_writer_makes_is_told(tmp_path, text, told):
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(ValueError, match=told):
        read_json(tmp_path / "file", limit=50 if b" " in text[:1] else 1 << 20)


def test_only_the_arrays_that_are_asked_for_are_unpacked(tmp_path):
    np.savez(tmp_path / "file.npz", a=np.arange(3), large=np.zeros(10**6))
    tracemalloc.start()
    try:
        got = read_arrays(tmp_path / "file.npz", 10**7, ("a", "none"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert list(got) == ["a"] and got["a"].tolist() == [0, 1, 2] and peak < 1e6


ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.bool_, np.dtype("<U3")]),
    hnp.array_shapes(min_dims=0, min_side=0),
)


@given(st.dictionaries(st.sampled_from(["a", "b.0", "c"]), ARRAYS), st.booleans())
def test_arrays_that_are_written_are_read(tmp_path_factory, arrays, compressed):
    path = tmp_path_factory.mktemp("arrays") / "file.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    got = read_arrays(path, 1 << 20)
    assert got.keys() == arrays.keys()
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape
        assert np.array_equal(got[name], array, equal_nan=array.dtype.kind == "f")


def _npy(array, shape=None):
    """The bytes of an npy file, whose header tells another shape."""
    file = io.BytesIO()
    np.save(file, array)
    content = file.getvalue()
    if shape is not None:
        told, other = f"{array.shape}".encode(), f"{shape}".encode()
        content = content.replace(told + b", }" + b" " * (len(other) - len(told)), other + b", }")
    return content


def _archive(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)


SMALL = _npy(np.zeros(3))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("a.npy", _npy(np.zeros(10**7)))], "it unpacks to 80000128 bytes"),
        ([(f"{i}.npy", SMALL) for i in range(10_000)], "it has .* bytes|it unpacks to"),
        ([("a.npy", _npy(np.zeros(3), (10**12,)))], "cannot be in 24 bytes"),
        ([("a.npy", _npy(np.zeros(3), (2,)))], "cannot be in 24 bytes"),
        ([("a.npy", SMALL), ("a.npy", SMALL)], "different names"),
        ([("a.txt", SMALL)], "not an archive of arrays"),
        ([("a.npy", _npy(np.array([{}], dtype=object)))], "cannot be in"),
        ([("a.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)], "larger than|header|large"),
        ([("a.npy", b"")], "."),
    ],
)
def test_an_archive_is_judged_before_it_is_unpacked(tmp_path, members, told):
    path = tmp_path / "file.npz"
    _archive(path, members)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=told) as caught:
            read_arrays(path, 1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(caught.value).splitlines()) == 1
    assert peak < 30e6  # the list of 10,000 members takes some; 10^7 numbers take 80e6


def test_only_the_compressions_of_numpy_are_unpacked(tmp_path):
    for compression in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        _archive(tmp_path / "file.npz", [("a.npy", SMALL)], compression)
        with pytest.raises(ValueError, match="compressed in a way"):
            read_arrays(tmp_path / "file.npz", 1000)


@given(st.text() | st.text(alphabet="\n\r\x1b\u2028\ta "))
def test_an_error_is_one_printable_line(text):
    for line in (one_line(text), str(CheckpointError(text)), str(DataError(text))):
        assert line.isprintable() and len(line) < 2100
    if text.isprintable() and text == text.strip() and len(text) <= 2000:
        assert one_line(text) == text
    assert str(SweepError(text)) == text  # one line for each run


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_json_is_read_to_a_depth_of_a_hundred(brackets):
    """Beyond that depth, code that walks a value may exhaust its stack."""
    opening = {"[]": "[", "{}": '{"a":'}[brackets]
    for depth, fits in ((100, True), (101, False), (900, False), (10**6, False)):
        text = (opening * (depth - 1) + brackets + brackets[1] * (depth - 1)).encode()
        if fits:
            assert parsed_json(text) == json.loads(text)
        else:
            with pytest.raises(ValueError, match="nested too deeply"):
                parsed_json(text)
    wide = b"[" + b",".join([b"[]"] * 500) + b"]"
    assert parsed_json(wide) == [[]] * 500
