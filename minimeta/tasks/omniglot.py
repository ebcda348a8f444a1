"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015).

The data are prepared as in the Reptile authors' program. All 1623 characters of
both official archives are sorted by alphabet and character. Each of the 20
drawings of a character is reduced to 28 x 28 by nearest neighbour, with ink 0
and paper 1. The characters are shuffled. The first 1200 are for training, the
rest for testing. The training characters rotated by 90, 180 and 270 degrees are
further classes.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .archives import (
    cache_folder,
    damage_told,
    data_folder,
    fingerprint,
    names_in,
    state_of_file,
    state_of_folder,
    through_cache,
)

BASE_URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
CHECKSUMS = {
    "images_background.zip": "md5:68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "md5:6b91aef0f799c5bb55b94e3f2daec811",
}
CHARACTERS = {"images_background": 964, "images_evaluation": 659}
DRAWINGS, SOURCE_SIZE, SIZE, TRAIN_CHARACTERS = 20, 105, 28, 1200
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
    cached = (
        cache_folder(cache)
        / f"omniglot-{fingerprint(_PREPARATION, map(_state, sources.values()))}.npz"
    )
    return through_cache(cached, lambda: _read_sources(sources), _pack, _unpack)


def split_omniglot(
    images: np.ndarray, seed: int = 0, train: int = TRAIN_CHARACTERS
) -> tuple[np.ndarray, np.ndarray]:
    """The training and the test classes, after a shuffle by ``seed``.

    ``images`` is ``(characters, 20, 28, 28)``. The training classes are the
    first ``train`` characters and their rotations, ``(4 train, 20, 28, 28,
    1)``. The test classes are the other characters, ``(characters - train, 20,
    28, 28, 1)``. All are uint8.
    """
    shuffled = images[np.random.default_rng([seed, 1623]).permutation(len(images))]
    turned = [np.rot90(shuffled[:train], turns, axes=(2, 3)) for turns in range(4)]
    return np.concatenate(turned)[..., None], shuffled[train:][..., None]


def download_omniglot(
    data: str | os.PathLike | None = None, base_url: str = BASE_URL
) -> list[Path]:
    """Downloads the official archives into ``data``/omniglot.

    The checksums are verified. An archive that is already there is kept.
    Returns the paths of the archives.

    Raises
    ------
    DataError
        if a file cannot be downloaded, or does not match its checksum.
    """
    import pooch

    folder = data_folder(data) / "omniglot"
    for name, checksum in CHECKSUMS.items():
        there = folder / name
        if there.exists() and not pooch.hashes.hash_matches(str(there), checksum):
            raise DataError(
                f"{there} is not the official archive ({checksum} expected): "
                "move the file away and download again"
            )
    try:
        return [
            Path(
                pooch.retrieve(base_url + name, checksum, fname=name, path=folder, progressbar=True)
            )
            for name, checksum in CHECKSUMS.items()
        ]
    except (OSError, ValueError) as error:
        raise DataError(f"Omniglot could not be downloaded from {base_url}: {error}") from error


def _find_sources(folder: Path) -> dict[str, Path]:
    """For each half of the dataset, its archive or its unpacked folder."""
    sources = {}
    for half in CHARACTERS:
        places = [
            base / name for base in (folder / "omniglot", folder) for name in (f"{half}.zip", half)
        ]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise DataError(
                f"Omniglot is not in {folder}: neither {half}.zip nor a folder {half} is there. "
                "Run 'minimeta data omniglot' to download it, or name another folder with --data "
                "or MINIMETA_DATA"
            )
        sources[half] = found
    return sources


def _state(source: Path) -> bytes:
    if source.is_file():
        return state_of_file(source)
    return state_of_folder(
        source, (str(path.relative_to(source)) for path in sorted(source.rglob("*.png")))
    )


def _read_sources(sources: dict[str, Path]) -> Characters:
    """Both halves as one list of characters, sorted by alphabet and
    character."""
    drawings: dict[str, dict[str, np.ndarray]] = {}
    for half, source in sources.items():
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, image in _read_images(source):
            alphabet, character, drawing = Path(name).parts[-3:]
            found.setdefault(f"{alphabet}/{character}", {})[drawing] = image
        uneven = [name for name, images in found.items() if len(images) != DRAWINGS]
        if len(found) != CHARACTERS[half] or uneven:
            raise DataError(
                f"{source} is not the whole of {half}: it holds {len(found)} of "
                f"{CHARACTERS[half]} characters, {len(uneven)} of them without {DRAWINGS} drawings"
            )
        drawings |= found
    names = sorted(drawings)
    images = np.stack(
        [np.stack([drawings[name][file] for file in sorted(drawings[name])]) for name in names]
    )
    return Characters(names, images)


def _read_images(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The path and the 28 x 28 image of every PNG in an archive or a folder.

    An archive is read in memory and never unpacked.
    """
    from PIL import Image
    from tqdm import tqdm

    with damage_told(source):
        for name, content in tqdm(
            _contents(source),
            desc=f"reading {source.name}, once",
            unit=" images",
            leave=False,
            disable=None,
        ):
            with Image.open(io.BytesIO(content)) as image:
                if image.size != (SOURCE_SIZE, SOURCE_SIZE):
                    raise DataError(
                        f"{source}: {name} must be {SOURCE_SIZE} x {SOURCE_SIZE} pixels, "
                        f"got {image.size}"
                    )
                small = image.convert("1").resize((SIZE, SIZE), Image.Resampling.NEAREST)
                yield name, np.asarray(small, dtype=np.uint8)


def _contents(source: Path) -> Iterable[tuple[str, bytes]]:
    if source.is_dir():
        for path in sorted(source.glob("*/*/*.png")):
            yield str(path.relative_to(source)), path.read_bytes()
        return
    with zipfile.ZipFile(source) as archive:
        for name in names_in(archive):
            if name.endswith(".png") and len(Path(name).parts) >= 3:
                yield name, archive.read(name)


def _pack(characters: Characters) -> dict[str, np.ndarray]:
    return {"names": np.array(characters.names), "bits": np.packbits(characters.images.reshape(-1))}


def _unpack(stored: Mapping[str, np.ndarray]) -> Characters:
    names = stored["names"].tolist()
    shape = (len(names), DRAWINGS, SIZE, SIZE)
    return Characters(names, np.unpackbits(stored["bits"])[: np.prod(shape)].reshape(shape))
