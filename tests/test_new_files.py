"""A new file is created once, whole, and never in the place of another."""

import os
import subprocess
import sys

import pytest

from minimeta.files import write_new


def test_a_new_file_holds_what_was_written_and_replaces_nothing(tmp_path):
    path = tmp_path / "new"
    write_new(path, lambda file: file.write(b"one"))
    with pytest.raises(FileExistsError):
        write_new(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_missing_file_is_not_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "link", lambda file: file.write(b"one"))
    assert not (tmp_path / "outside").exists()


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def fail(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_new(tmp_path / "new", fail)
    assert not list(tmp_path.iterdir())


def test_without_hard_links_a_new_file_still_replaces_nothing(tmp_path, monkeypatch):
    def refused(source, target):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "new"
    write_new(path, lambda file: file.write(b"one"))
    with pytest.raises(FileExistsError):
        write_new(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]


def test_of_many_processes_that_create_one_file_one_succeeds(tmp_path):
    code = (
        "import sys, pathlib; from minimeta.files import write_new\n"
        "word = sys.argv[2].encode()\n"
        "sys.stdin.read()\n"  # all begin when the test closes their input
        "for i in range(200):\n"
        "    try: write_new(pathlib.Path(sys.argv[1], str(i)), lambda file: file.write(word))\n"
        "    except FileExistsError: continue\n"
        "    print(i)\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), word],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for word in ("a", "b")
    ]
    for each in writers:
        each.stdin.close()
    wrote = {
        word: set(each.stdout.read().split())
        for word, each in zip(("a", "b"), writers, strict=True)
    }
    assert [each.wait() for each in writers] == [0, 0]
    assert not wrote["a"] & wrote["b"] and len(wrote["a"] | wrote["b"]) == 200
    for word, numbers in wrote.items():
        assert all((tmp_path / number).read_text() == word for number in numbers)
