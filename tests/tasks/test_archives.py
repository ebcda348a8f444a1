"""Reading: an error names its true cause in one line, and nothing waits."""

import os
import stat
import zipfile
from pathlib import Path

import pytest

from minimeta.errors import DataError
from minimeta.files import cache_folder, opened, read_bytes
from minimeta.tasks import archives
from minimeta.tasks.archives import (
    Limits,
    damage_told,
    data_folder,
    members_in,
    opened_archive,
    read_member,
    state_of_file,
)


@pytest.mark.parametrize(
    "kind", [PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError]
)
def test_what_the_system_refuses_is_not_called_damage(kind):
    with pytest.raises(DataError, match="^a.zip cannot be read: the reason$"), damage_told("a.zip"):
        raise kind(1, "the reason")


def test_mistakes_of_a_program_keep_their_names():
    with pytest.raises(TypeError), damage_told("a.zip"):
        raise TypeError


@pytest.mark.parametrize("name", ["a\nb.zip", "a\x1b[31m.zip", "a\u2028b.zip", "a\udcff.zip"])
def test_any_name_and_any_reason_give_one_printable_line(name):
    with pytest.raises(DataError) as caught, damage_told(Path(name)):
        raise ValueError("first\nsecond" + "x" * 1000)
    assert str(caught.value).isprintable() and " is damaged: first second" in str(caught.value)
    with pytest.raises(DataError) as caught, damage_told(Path(name)):
        raise ValueError("x" * 1000)
    assert len(str(caught.value)) < 250


@pytest.fixture(params=["pipe", "folder", "device"])
def irregular(request, tmp_path):
    """What is no file in the place of a file."""
    path = tmp_path / "it"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


def test_what_is_no_regular_file_is_refused_at_once(irregular):
    for read in (lambda path: opened(path, "read"), lambda path: read_bytes(path, 10, links=True)):
        with pytest.raises(OSError, match="where a file is expected"):
            read(irregular)
    with pytest.raises(DataError, match="it cannot be read: .* is a .*, where a file is expected"):
        state_of_file(irregular, 10)


def test_a_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ValueError, match="4 or less are expected"):
        read_bytes(tmp_path / "file", 4)
    assert state_of_file(tmp_path / "file", 5) != b""
    with pytest.raises(DataError, match="has more than 4 bytes"):
        state_of_file(tmp_path / "file", 4)


def _archive(path, *members):
    """An archive of members, each a name, its bytes, and changes of its
    entry."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, changes in members:
            entry = zipfile.ZipInfo(name)
            for key, value in changes.items():
                setattr(entry, key, value)
            archive.writestr(entry, content)
    return path


def _read(path, limits):
    with damage_told(path), opened_archive(path) as archive:
        members = members_in(archive, lambda name: name.endswith(".png"), limits)
        return {name: read_member(archive, member) for name, member in members.items()}


LIMITS = Limits(file=1000, total=1500)


def test_members_are_read_whole_sorted_and_without_hidden_ones(tmp_path):
    names = ["b.png", "a.png", ".c.png", "__MACOSX/d.png", "._/e.png", "f.txt"]
    path = _archive(tmp_path / "a.zip", *((name, name.encode(), {}) for name in names))
    assert list(_read(path, LIMITS).items()) == [("a.png", b"a.png"), ("b.png", b"b.png")]


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ([("a.png", b"1", {}), ("a.png", b"2", {})], "a.png is stored more than once"),
        ([("a.png", b"x", {"external_attr": (stat.S_IFLNK | 0o777) << 16})], "a.png is a link"),
        ([("a.png", b"x", {"compress_type": zipfile.ZIP_BZIP2})], "is compressed by method 12"),
        ([("a.png", b"x", {"compress_type": zipfile.ZIP_LZMA})], "is compressed by method 14"),
        (
            [("a.png", bytes(1001), {"compress_type": zipfile.ZIP_DEFLATED})],
            "a.png unpacks to 1001 bytes, more than the 1000",
        ),
        (
            [("a.png", bytes(800), {}), ("b.png", bytes(800), {})],
            "unpacks to 1600 bytes, but the dataset needs at most 1500",
        ),
        ([("../a.png", b"x", {})], "holds a path that leaves its folder"),
        ([("x\ny/../../a.png", b"x", {})], "holds a path that leaves its folder"),
    ],
    ids=["twice", "link", "bzip2", "lzma", "large", "sum", "outside", "newline"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_could_harm_is_refused_before_any_is_read(
    tmp_path, monkeypatch, entries, line
):
    path = _archive(tmp_path / "a.zip", *entries)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("a member was read"))
    with pytest.raises(DataError, match=line):
        _read(path, LIMITS)


def test_an_encrypted_member_is_named(tmp_path):
    path = _archive(tmp_path / "a.zip", ("a.png", b"x", {}))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="a.zip: a.png is encrypted"):
        _read(path, LIMITS)


def test_a_member_unpacks_to_no_more_than_it_states(tmp_path):
    content = bytes(300_000)
    path = _archive(tmp_path / "a.zip", ("a.png", content, {"compress_type": zipfile.ZIP_DEFLATED}))
    stated = len(content).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(stated, (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="Bad CRC-32"):
        _read(path, LIMITS)


def test_a_list_of_members_that_fills_the_memory_is_refused(tmp_path, monkeypatch):
    path = _archive(tmp_path / "a.zip", *((f"{i}", b"", {}) for i in range(50)))
    monkeypatch.setattr(archives, "_DIRECTORY_LIMIT", 1000)
    with pytest.raises(DataError, match="list of members has more than 1000 bytes"):
        _read(path, LIMITS)


def test_an_archive_of_64_bit_sizes_is_read(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w") as archive,
        archive.open("a.png", "w", force_zip64=True) as member,
    ):
        member.write(b"x")
    assert _read(tmp_path / "a.zip", LIMITS) == {"a.png": b"x"}


@pytest.fixture
def homeless(monkeypatch):
    """A user whom the system does not know, without HOME."""

    def unknown(*_):
        raise KeyError("getpwuid(): uid not found: 54321")

    for name in ("HOME", "XDG_CACHE_HOME", "MINIMETA_DATA", "MINIMETA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_a_user_without_a_home_is_told_to_name_a_folder(homeless, monkeypatch, tmp_path):
    with pytest.raises(DataError, match="no home folder.*MINIMETA_DATA"):
        data_folder(None)
    assert cache_folder(None) is None
    assert data_folder(tmp_path) == tmp_path
    monkeypatch.setenv("MINIMETA_CACHE", str(tmp_path))
    assert data_folder(None) == tmp_path / "data" and cache_folder(None) == tmp_path
