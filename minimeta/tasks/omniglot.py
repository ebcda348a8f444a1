"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015).

The data are prepared as in the Reptile authors' program. All 1623 characters of
both official archives are sorted by alphabet and character. Each of the 20
drawings of a character is reduced to 28 x 28 by nearest neighbour, with ink 0
and paper 1. The characters are shuffled. The first 1200 are for training, the
rest for testing. The training characters rotated by 90, 180 and 270 degrees are
further classes.

In a folder, links are followed, so that images may lie elsewhere. In an
archive, a link is refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from ..errors import DataError, SettingsError, ShapeError
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
from .images import UnreadableImage, opened_image

BASE_URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
CHECKSUMS = {
    "images_background.zip": "md5:68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "md5:6b91aef0f799c5bb55b94e3f2daec811",
}
CHARACTERS = {"images_background": 964, "images_evaluation": 659}
DRAWINGS, SOURCE_SIZE, SIZE, TRAIN_CHARACTERS = 20, 105, 28, 1200
# An official drawing has about 250 bytes; a copy in colour, without
# compression, about 45,000.
LIMITS = Limits(file=2**18, total=2**28)
# A part of a cache's name: change it whenever the preparation of the images
# changes.
_PREPARATION = "28x28 nearest, packed bits, 1"


class Characters(NamedTuple):
    """The characters of Omniglot.

    ``names`` are "ALPHABET/characterNN", sorted. ``images`` is (characters, 20,
    28, 28), uint8, with ink 0 and paper 1.
    """

    names: list[str]
    images: np.ndarray


def load_omniglot(
    data: str | os.PathLike | None = None, cache: str | os.PathLike | None = None
) -> Characters:
    """All characters of both halves of Omniglot.

    The sources are ``images_background.zip`` and ``images_evaluation.zip``, or
    the folders that these archives unpack to.

    Parameters
    ----------
    data
        the folder that holds the sources, or a folder whose subfolder
        ``omniglot`` holds them. The default is the environment variable
        ``MINIMETA_DATA``, else the folder of ``download_omniglot``.
    cache
        the folder for the compact array file that the first call writes. The
        default is the environment variable ``MINIMETA_CACHE``, else the user's
        cache folder.

    Raises
    ------
    DataError
        if the data are missing, incomplete, truncated or altered. Nothing on
        disk is changed.
    """
    sources = _find_sources(data_folder(data))
    name = f"omniglot-{fingerprint(_PREPARATION, map(_state, sources.values()))}.npz"
    return through_cache(
        cache_folder(cache), name, _layout(), lambda: _read_sources(sources), _pack, _unpack
    )


def split_omniglot(
    images: np.ndarray | Characters, seed: int = 0, train: int = TRAIN_CHARACTERS
) -> tuple[np.ndarray, np.ndarray]:
    """The training and the test classes, after a shuffle by ``seed``.

    ``images`` is ``(characters, 20, 28, 28)``, or the Characters that hold such
    an array. The training classes are the first ``train`` characters and their
    rotations, ``(4 train, 20, 28, 28, 1)``. The test classes are the other
    characters, ``(characters - train, 20, 28, 28, 1)``. The dtype is kept.

    Raises
    ------
    ShapeError
        if ``images`` does not have four axes, the last two of one length.
    SettingsError
        if ``train`` leaves no character to train on, or none to test on.
    """
    if isinstance(images, Characters):
        images = images.images
    shape = np.shape(images)
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ShapeError(
            f"images must have shape (characters, drawings, size, size), got {shape}: give the "
            "characters that load_omniglot returns, or their images"
        )
    if not 1 <= train < len(images):
        raise SettingsError(
            f"train must be from 1 to {len(images) - 1}, so that some of {len(images)} characters "
            f"are left to test on, got {train}"
        )
    shuffled = images[np.random.default_rng([seed, 1623]).permutation(len(images))]
    turned = [np.rot90(shuffled[:train], turns, axes=(2, 3)) for turns in range(4)]
    return np.concatenate(turned)[..., None], shuffled[train:][..., None]


def download_omniglot(
    data: str | os.PathLike | None = None, base_url: str = BASE_URL
) -> list[Source]:
    """Both halves of Omniglot in ``data``, ready to be loaded.

    A half that is there is kept, as an archive or as a folder. A half that is
    missing is downloaded into ``data``/omniglot, and its checksum is verified.
    A half that is not the official archive is accepted where the whole dataset
    can be loaded.

    Raises
    ------
    DataError
        if a file cannot be downloaded, or does not match its checksum, or if
        a half that is there is not whole.
    """
    folder = data_folder(data)
    sources = {
        half: _place(folder, half) or _download(folder / "omniglot", half, base_url)
        for half in CHARACTERS
    }
    official = {half: _is_official(source) for half, source in sources.items()}
    if not all(official.values()):
        try:
            load_omniglot(data)
        except DataError as error:
            raise DataError(
                f"{error}. Or move the file or folder away: 'minimeta data omniglot' then "
                "downloads the official archive"
            ) from error
    return [
        Source(
            source,
            "the official archive"
            if official[half]
            else f"not the official archive, but whole: {CHARACTERS[half]} characters",
        )
        for half, source in sources.items()
    ]


def _is_official(source: Path) -> bool:
    import pooch

    return source.is_file() and pooch.hashes.hash_matches(
        str(source), CHECKSUMS[f"{source.stem}.zip"]
    )


def _download(folder: Path, half: str, base_url: str) -> Path:
    import pooch

    _make_writable(folder)
    pooch.get_logger().setLevel("WARNING")  # the progress bar tells enough
    url, name = f"{base_url}{half}.zip", f"{half}.zip"
    try:
        return Path(pooch.retrieve(url, CHECKSUMS[name], fname=name, path=folder, progressbar=True))
    except (OSError, ValueError) as error:
        raise DataError(
            f"Omniglot could not be downloaded from {urlsplit(url).netloc} ({_cause(error)}): try "
            "again later, or name a folder that holds a copy, with --data DIR or MINIMETA_DATA"
        ) from error


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror}): name another folder with --data DIR "
            "or MINIMETA_DATA"
        ) from error


def _cause(error: BaseException) -> str:
    """The innermost cause of a failed download, in a few words."""
    if (response := getattr(error, "response", None)) is not None:
        return f"the server answers {response.status_code} {response.reason}"
    if isinstance(error, ValueError) and "hash" in str(error):
        return "the file does not match its checksum"
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return words.splitlines()[0][:100]


def _place(folder: Path, half: str) -> Path | None:
    """The archive of a half of the dataset, or its unpacked folder."""
    return first_of(
        base / name for base in (folder / "omniglot", folder) for name in (f"{half}.zip", half)
    )


def _find_sources(folder: Path) -> dict[str, Path]:
    """For each half of the dataset, its archive or its unpacked folder."""
    sources = {}
    for half in CHARACTERS:
        found = _place(folder, half)
        if found is None:
            raise DataError(
                f"Omniglot is not in {folder}: neither {half}.zip nor a folder {half} is there. "
                "Run 'minimeta data omniglot' to download it, or name another folder with --data "
                "or MINIMETA_DATA"
            )
        sources[half] = found
    return sources


def _state(source: Path) -> bytes:
    if source.is_dir():
        return state_of_folder(source, _listed(source))
    return state_of_file(source, LIMITS.total)


def _listed(folder: Path) -> list[str]:
    """The paths of the drawings in an unpacked folder, relative to it."""
    return [path for path in files_below(folder, depth=2) if _is_drawing(path)]


def _read_sources(sources: dict[str, Path]) -> Characters:
    """Both halves as one list of characters, sorted by alphabet and
    character."""
    drawings: dict[str, dict[str, np.ndarray]] = {}
    for half, source in sources.items():
        found = _read_half(half, source)
        shared = sorted(drawings.keys() & found.keys())
        if shared:
            raise DataError(
                f"{' and '.join(map(str, sources.values()))} both hold {shared[0]}: get both again"
            )
        drawings |= found
    names = sorted(drawings)
    images = np.stack(
        [np.stack([drawings[name][file] for file in sorted(drawings[name])]) for name in names]
    )
    return Characters(names, images)


def _read_half(half: str, source: Path) -> dict[str, dict[str, np.ndarray]]:
    """The drawings of every character of a half, by file name."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, image in _read_images(source):
        alphabet, character, drawing = Path(name).parts[-3:]
        drawings = found.setdefault(f"{alphabet}/{character}", {})
        if drawing in drawings:
            raise DataError(
                f"{source} holds {alphabet}/{character}/{drawing} more than once: get it again"
            )
        drawings[drawing] = image
    uneven = [name for name, images in found.items() if len(images) != DRAWINGS]
    if len(found) != CHARACTERS[half] or uneven:
        raise DataError(
            f"{source} is not the whole of {half}: it holds {len(found)} of "
            f"{CHARACTERS[half]} characters, {len(uneven)} of them without {DRAWINGS} drawings"
        )
    return found


def _read_images(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The path and the 28 x 28 image of every PNG in an archive or a folder.

    An archive is read in memory and never unpacked.
    """
    from tqdm import tqdm

    with damage_told(source):
        for name, content in tqdm(
            _contents(source),
            desc=f"reading {source.name}, once",
            unit=" images",
            leave=False,
            disable=None,
        ):
            with damage_told(f"{source}: {name}"):
                image = _decoded(content)
            yield name, image


def _contents(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for name in _listed(source):
            with damage_told(source / name):
                content = read_bytes(source / name, LIMITS.file, links=True)
            yield name, content
        return
    with opened_archive(source) as archive:
        for name, member in members_in(archive, _is_drawing, LIMITS).items():
            yield name, read_member(archive, member)


def _is_drawing(name: str) -> bool:
    return name.endswith(".png") and len(Path(name).parts) >= 3


def _decoded(content: bytes) -> np.ndarray:
    """The drawing in ``content``, a PNG file, as 28 x 28, uint8."""
    from PIL import Image

    with opened_image(content, ("PNG",)) as image:
        if image.size != (SOURCE_SIZE, SOURCE_SIZE):
            raise UnreadableImage(
                f"expected {SOURCE_SIZE} x {SOURCE_SIZE} pixels, got {image.width} x {image.height}"
            )
        small = image.convert("1").resize((SIZE, SIZE), Image.Resampling.NEAREST)
        return np.asarray(small, dtype=np.uint8)


def _layout() -> dict[str, Stored]:
    count = sum(CHARACTERS.values())
    bytes_of_bits = -(-count * DRAWINGS * SIZE * SIZE // 8)
    return {"names": Stored("U", (count,)), "bits": Stored("u", (bytes_of_bits,))}


def _pack(characters: Characters) -> dict[str, np.ndarray]:
    return {"names": np.array(characters.names), "bits": np.packbits(characters.images.reshape(-1))}


def _unpack(stored: Mapping[str, np.ndarray]) -> Characters:
    names = stored["names"].tolist()
    check_names(names)
    shape = (len(names), DRAWINGS, SIZE, SIZE)
    return Characters(names, np.unpackbits(stored["bits"])[: np.prod(shape)].reshape(shape))
