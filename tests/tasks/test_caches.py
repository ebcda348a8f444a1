"""Caches: only what a loader has written is believed."""

import io
import os
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minimeta.errors import DataError
from minimeta.tasks import caches
from minimeta.tasks.caches import Stored, check_names, through_cache

LAYOUT = {"names": Stored("U", (3,)), "images": Stored("u", (3, range(1, 5), 2))}
NAMES, IMAGES = np.array(["a", "b", "c"]), np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


def _read():
    return {"names": NAMES, "images": IMAGES}


def _load(folder, read=_read):
    def unpack(stored):
        names = stored["names"].tolist()
        check_names(names)
        return {"names": np.array(names), "images": stored["images"]}

    return through_cache(folder, "c.npz", LAYOUT, read, dict, unpack)


@pytest.fixture
def cache(tmp_path):
    _load(tmp_path)
    return tmp_path / "c.npz"


@pytest.mark.parametrize("each", [1, 4])
def test_a_cache_of_the_layout_is_read(cache, each):
    other = np.full((3, each, 2), 7, np.uint8)
    for images in (other, np.asfortranarray(other)):
        np.savez(cache, names=NAMES, images=images)
        assert np.array_equal(_load(cache.parent)["images"], other)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": IMAGES.astype(np.float32)},
        {"images": IMAGES.view(np.int8)},
        {"images": IMAGES.astype(np.uint16)},
        {"images": IMAGES > 3},
        {"images": IMAGES.view("V1")},
        {"images": IMAGES.view([("a", "u1")])},
        {"images": IMAGES[:2]},
        {"images": IMAGES[:, :0]},
        {"images": np.zeros((3, 5, 2), np.uint8)},
        {"images": IMAGES[None]},
        {"images": np.uint8(1)},
        {"names": NAMES[::-1]},
        {"names": NAMES[[0, 0, 1]]},
        {"names": NAMES[:2]},
        {"names": NAMES.astype("S")},
        {"names": NAMES.astype(object)},
        {"names": NAMES.astype("U100000")},
        {"names": np.arange(3)},
        {"more": NAMES},
    ],
)
def test_a_cache_of_other_arrays_is_damaged(cache, changes):
    np.savez(cache, **{"names": NAMES, "images": IMAGES} | changes)
    content = cache.read_bytes()
    with pytest.raises(DataError, match="the cache .* is damaged .*: delete the file"):
        _load(cache.parent)
    assert cache.read_bytes() == content


def _npy(header, data=b"", version=b"\1\0"):
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header + data


def _described(shape):
    return b"{'descr': '|u1', 'fortran_order': False, 'shape': %s}\n" % shape


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (_npy(_described(b"(1000000000000000,)")), "images of dtype uint8 and shape"),
        (_npy(_described(b"(3, 2, 2)"), bytes(11)), "images is cut off"),
        (_npy(_described(b"(3, 2, 2)"), bytes(13)), "images is cut off"),
        (_npy(_described(b"(3, 2, 2)") + b" " * 20_000, bytes(12)), "Header info length"),
        (_npy(_described(b"(1," * 3000), bytes(12)), "damaged"),
        (_npy(b"x" * 100, version=b"\3\0"), "header of another version"),
        (b"cos\nsystem\n(S'false'\ntR.", "damaged"),
        (b"", "damaged"),
    ],
    ids=["huge", "short", "long", "padded", "nested", "version", "pickle", "empty"],
)
def test_a_header_is_judged_before_the_array_is_read(cache, content, line):
    names = io.BytesIO()
    np.save(names, NAMES)
    with zipfile.ZipFile(cache, "w") as archive:
        archive.writestr("names.npy", names.getvalue())
        archive.writestr("images.npy", content)
    with pytest.raises(DataError, match=line) as caught:
        _load(cache.parent)
    assert "\n" not in str(caught.value)


def test_a_compressed_cache_is_refused_before_it_is_unpacked(cache):
    np.savez_compressed(cache, names=NAMES, images=IMAGES)
    with pytest.raises(DataError, match="is compressed"):
        _load(cache.parent)


def test_a_pipe_in_the_place_of_a_cache_is_refused_at_once(cache):
    cache.unlink()
    os.mkfifo(cache)
    with pytest.raises(DataError, match=r"cannot be read \(.* is a .*, where a file is expected\)"):
        _load(cache.parent)


def test_partial_files_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path):
    abandoned, living, other = (
        tmp_path / name for name in (".c.npz.1.part", ".c.npz.2.part", ".d.npz.3.part")
    )
    for part in (abandoned, living, other):
        part.write_bytes(b"half")
    long_ago = time.time() - 7200
    for part in (abandoned, other):
        os.utime(part, (long_ago, long_ago))
    _load(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"c.npz", living.name, other.name}


def test_a_partial_file_that_its_writer_renames_meanwhile_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "parts_of", lambda path: [path.with_name(".c.npz.1.part")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _load(tmp_path)
    assert (tmp_path / "c.npz").exists()


def test_without_a_folder_the_data_are_read_and_a_warning_names_the_setting():
    with pytest.warns(UserWarning, match="no home folder.*MINIMETA_CACHE") as told:
        assert np.array_equal(_load(None)["images"], IMAGES)
    assert len(told) == 1


def test_a_cache_gives_no_warning(cache):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(_load(cache.parent)["images"], IMAGES)


def test_threads_that_read_at_once_share_one_cache(tmp_path):
    together = threading.Barrier(8)

    def read():
        together.wait()
        return _read()

    for i in range(20):
        with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
            warnings.simplefilter("error")
            loads = [pool.submit(_load, tmp_path / str(i), read) for _ in range(8)]
            assert all(np.array_equal(each.result()["images"], IMAGES) for each in loads)
        assert [path.name for path in (tmp_path / str(i)).iterdir()] == ["c.npz"]
