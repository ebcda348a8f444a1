"""mini-ImageNet (Vinyals et al. 2016), 100 classes of 600 photographs.

The split into 64, 16 and 20 classes is by Ravi and Larochelle (2017). Images of
another size become 84 x 84 by nearest neighbour. The Reptile authors' program
left the filter of ``resize((84, 84))`` to Pillow, whose default was nearest
neighbour in 2018, and the paper's numbers were made with it.

In a folder, links are followed, so that images may lie elsewhere. In an
archive, a link is refused.
"""

from __future__ import annotations

import csv
import io
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import DataError, SettingsError, shown
from ..files import cache_folder, read_bytes
from .archives import (
    Limits,
    Source,
    damage_told,
    data_folder,
    files_below,
    fingerprint,
    first_of,
    members_in,
    opened_archive,
    read_member,
    state_of_file,
    state_of_folder,
)
from .caches import Stored, check_names, through_cache
from .images import FILE_LIMIT, SUFFIXES, ImageClasses, is_hidden, opened_image

CLASSES = {"train": 64, "val": 16, "test": 20}
IMAGES, SIZE = 600, 84
# A part of a cache's name: change it whenever the preparation of the images
# changes.
_PREPARATION = "84x84 nearest RGB, 1"
_FOLDERS = ("mini-imagenet", "miniimagenet", "")
_WNID = re.compile(r"n[0-9]{8}")
_CSV_LIMIT = 2**24  # bytes; the split files have about 40 for an image
_AVERAGE_LIMIT = 2**20  # bytes of an image; the average of ImageNet is a tenth


def load_mini_imagenet(
    data: str | os.PathLike | None = None,
    split: str = "train",
    part: bool = False,
    cache: str | os.PathLike | None = None,
) -> ImageClasses:
    """The classes of one split.

    The names are WordNet ids. The images are (classes, images per class, 84,
    84, 3). The source is ``SPLIT.zip``, the folders that it unpacks to
    (``SPLIT/WNID/*.jpg``), or ``SPLIT.csv`` beside a folder ``images``.

    Parameters
    ----------
    data
        the folder that holds the sources, or a folder whose subfolder
        ``mini-imagenet`` or ``miniimagenet`` holds them. The default is the
        environment variable ``MINIMETA_DATA``, else ``data`` in the user's
        cache folder.
    split
        ``"train"`` (64 classes), ``"val"`` (16) or ``"test"`` (20).
    part
        accept fewer than 600 images per class, if every class has equally many.
        Results must then say that they use a part of the data.
    cache
        the folder for the array file that the first call writes. The default is
        the environment variable ``MINIMETA_CACHE``, else the user's cache
        folder.

    Raises
    ------
    DataError
        if the data are missing, incomplete, truncated or altered. Nothing on
        disk is changed.
    SettingsError
        if ``split`` is not one of the three.
    """
    if split not in CLASSES:
        raise SettingsError(f"split must be one of {', '.join(CLASSES)}, got {split!r}")
    sources = _find_sources(data_folder(data))
    source = _source_of(sources, split, data_folder(data))
    name = f"mini-imagenet-{split}-{fingerprint(_PREPARATION, [_state(source)])}.npz"
    classes = through_cache(
        cache_folder(cache),
        name,
        _layout(split),
        lambda: _read(sources, split, part),
        ImageClasses._asdict,
        _unpack,
    )
    _check_whole(source, classes.images.shape[1], part)
    return classes


def find_mini_imagenet(data: str | os.PathLike | None = None) -> list[Source]:
    """The archive, folder or csv file of each split, counted but not read.

    Raises
    ------
    DataError
        if a split is missing, or is not the split by its number of images. The
        message says how to get the dataset.
    """
    sources = _find_sources(data_folder(data))
    found = []
    for split, count in CLASSES.items():
        source = _source_of(sources, split, data_folder(data))
        each = _check_counts(source, split, _listed(source))
        whole = "" if each == IMAGES else f", a part of {IMAGES} (use it with --part)"
        found.append(Source(source, f"{count} classes of {each} images{whole}"))
    return found


def _find_sources(folder: Path) -> dict[str, Path]:
    """For each split found in ``folder``, its archive, folder or csv file."""
    sources = {}
    for split in CLASSES:
        found = first_of(
            folder / base / name
            for base in _FOLDERS
            for name in (f"{split}.zip", split, f"{split}.csv")
        )
        if found is not None:
            sources[split] = found
    return sources


def _source_of(sources: dict[str, Path], split: str, folder: Path) -> Path:
    if split not in sources:
        raise DataError(
            f"mini-ImageNet's {split} split is not in {folder}. mini-ImageNet has no official "
            "download: make it from ImageNet, as fetch_data.sh of "
            "github.com/openai/supervised-reptile does, or use a copy that you have. Put "
            "train.zip, val.zip and test.zip (SPLIT/WNID/*.jpg), the folders that they unpack to, "
            "or train.csv, val.csv and test.csv beside a folder images, in "
            f"{folder / _FOLDERS[0]}, or name another folder with --data or MINIMETA_DATA"
        )
    return sources[split]


def _base(source: Path) -> Path:
    """The folder to which the listed paths of a folder or csv source are
    relative."""
    return source if source.is_dir() else source.parent


def _state(source: Path) -> bytes:
    """The state of a source, which names its cache.

    For an archive it is a digest of the bytes. For a folder it is the names,
    sizes and times of the images. For a csv file it is a digest of the bytes,
    and the names, sizes and times of the images that the file lists.
    """
    if source.suffix == ".zip":
        return state_of_file(source, _limits(source.stem).total)
    listed = sorted(path for paths in _listed(source).values() for path in paths)
    own = b"" if source.is_dir() else state_of_file(source, _CSV_LIMIT)
    return own + state_of_folder(_base(source), listed)


def _listed(source: Path) -> dict[str, list[str]]:
    """The sorted image paths of each class, in the order of class names."""
    listed: dict[str, list[str]] = {}
    with damage_told(source):
        for name, path in _pairs(source):
            if _is_image(name, path):
                listed.setdefault(name, []).append(path)
    twice = [
        path
        for path, times in Counter(path for paths in listed.values() for path in paths).items()
        if times > 1
    ]
    if twice:
        raise DataError(f"{source} holds {twice[0]} more than once: get {source.name} again")
    return {
        name: sorted(listed[name], key=lambda path: path.rpartition("/")[2])
        for name in sorted(listed)
    }


def _is_image(name: str, path: str) -> bool:
    return bool(_WNID.fullmatch(name) and path.lower().endswith(SUFFIXES) and not is_hidden(path))


def _pairs(source: Path) -> Iterator[tuple[str, str]]:
    """The class and path of every member of a source that may be an image."""
    if source.is_dir():
        for path in files_below(source, depth=1):
            yield path.split("/")[0], path
    elif source.suffix == ".csv":
        yield from _csv_pairs(source)
    else:
        with opened_archive(source) as archive:
            for path in _members(archive, source.stem):
                yield path.split("/")[-2], path


def _members(archive: zipfile.ZipFile, split: str) -> dict[str, zipfile.ZipInfo]:
    """The images of a split's archive, by path."""

    def wanted(path: str) -> bool:
        folders = path.split("/")[-3:-1]
        return folders[:1] == [split] and _is_image(folders[-1], path)

    return members_in(archive, wanted, _limits(split))


def _limits(split: str) -> Limits:
    return Limits(FILE_LIMIT, CLASSES[split] * IMAGES * _AVERAGE_LIMIT)


def _csv_pairs(source: Path) -> Iterator[tuple[str, str]]:
    """The class and path of every row of a csv file.

    Raises
    ------
    DataError
        if the header or a row is malformed, or names an image that is missing.
    """
    folder = source.parent / "images"
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    content = read_bytes(source, _CSV_LIMIT, links=True).decode("utf-8-sig")
    with io.StringIO(content, newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header != ["filename", "label"]:
            raise DataError(
                f"{source} must begin with the line filename,label, got {shown(','.join(header))}"
            )
        for row in filter(None, rows):
            if (
                len(row) != 2
                or not _WNID.fullmatch(row[1])
                or not row[0].lower().endswith(SUFFIXES)
            ):
                raise DataError(
                    f"{source}, line {rows.line_num}: expected an image and a class such as "
                    f"n01532829, got {shown(row)}"
                )
            if row[0] not in there:
                raise DataError(
                    f"{source}, line {rows.line_num}: the image {shown(row[0])} is not in {folder}"
                )
            yield row[1], f"images/{row[0]}"


def _read(sources: dict[str, Path], split: str, part: bool) -> ImageClasses:
    """All images of a split in one array.

    Every fault that the names alone show is reported before any image is
    decoded.
    """
    from tqdm import tqdm

    source = sources[split]
    listed = _listed(source)
    each = _check_counts(source, split, listed)
    _check_whole(source, each, part)
    for other in sources.values():
        if other != source:
            _check_disjoint(source, listed, other)
    images = np.empty((len(listed), each, SIZE, SIZE, 3), np.uint8)
    bar = tqdm(
        total=len(listed) * each,
        desc=f"reading {source.name}, once",
        unit=" images",
        leave=False,
        disable=None,
    )
    with bar, _opened(source) as content:
        for rows, paths in zip(images, listed.values(), strict=True):
            for row, path in enumerate(paths):
                with damage_told(f"{source}: {path}"):
                    decoded = _decoded(content(path))
                rows[row] = decoded
                bar.update()
    return ImageClasses(list(listed), images)


@contextmanager
def _opened(source: Path) -> Iterator[Callable[[str], bytes]]:
    """The function from a listed path to the file's bytes.

    Archives are read in memory and never unpacked.
    """
    if source.suffix == ".zip":
        with damage_told(source), opened_archive(source) as archive:
            members = _members(archive, source.stem)
            yield lambda path: read_member(archive, members[path])
    else:
        yield lambda path: read_bytes(_base(source) / path, FILE_LIMIT, links=True)


def _decoded(content: bytes) -> np.ndarray:
    """The image in ``content``, a JPEG or PNG file, as 84 x 84 x 3, uint8."""
    from PIL import Image

    with opened_image(content) as image:
        if image.size != (SIZE, SIZE):
            image = image.resize((SIZE, SIZE), Image.Resampling.NEAREST)
        return np.asarray(image.convert("RGB"))


def _check_counts(source: Path, split: str, listed: dict[str, list[str]]) -> int:
    """The number of images per class.

    Raises
    ------
    DataError
        if the number of classes is wrong, or classes differ in size.
    """
    if len(listed) != CLASSES[split]:
        raise DataError(
            f"{source} is not mini-ImageNet's {split} split: it holds {len(listed)} of "
            f"{CLASSES[split]} classes, which are folders such as n01532829"
        )
    fewest, most = (choose(listed, key=lambda name: len(listed[name])) for choose in (min, max))
    if len(listed[fewest]) != len(listed[most]) or len(listed[most]) > IMAGES:
        raise DataError(
            f"{source} is not mini-ImageNet's {split} split, {IMAGES} images of each class: it "
            "holds "
            f"{len(listed[fewest])} of {fewest} and {len(listed[most])} of {most}"
        )
    return len(listed[most])


def _check_whole(source: Path, each: int, part: bool) -> None:
    if each != IMAGES and not part:
        raise DataError(
            f"{source} is a part of mini-ImageNet, {each} of {IMAGES} images per class: to use "
            "the part, set part (part=True, --part), and say so beside the results"
        )


def _check_disjoint(source: Path, listed: dict[str, list[str]], other: Path) -> None:
    shared = sorted(listed.keys() & _listed(other).keys())
    if shared:
        raise DataError(
            f"{source} and {other} share classes ({', '.join(shared[:3])}): get both files again"
        )


def _layout(split: str) -> dict[str, Stored]:
    count = CLASSES[split]
    images = Stored("u", (count, range(1, IMAGES + 1), SIZE, SIZE, 3))
    return {"names": Stored("U", (count,)), "images": images}


def _unpack(stored: Mapping[str, np.ndarray]) -> ImageClasses:
    classes = ImageClasses(stored["names"].tolist(), stored["images"])
    check_names(classes.names)
    if not all(map(_WNID.fullmatch, classes.names)):
        raise ValueError("its names are not WordNet ids")
    return classes
