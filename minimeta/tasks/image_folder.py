"""Few-shot classes from a folder of one's own images."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, SettingsError
from ..files import read_bytes
from .archives import damage_told
from .images import FILE_LIMIT, PIXEL_LIMIT, SUFFIXES, ImageClasses, opened_image, without_warnings
from .minibatches import check_counts

if TYPE_CHECKING:
    from PIL import Image

_MODES = {1: "L", 3: "RGB"}


def load_image_folder(
    folder: str | os.PathLike,
    size: tuple[int, int] = (28, 28),
    channels: int = 1,
    each: int | None = None,
) -> ImageClasses:
    """The images of ``folder``/CLASS/, one subfolder per class.

    The images feed ``FewShotImages(classes.images, ways=5, white=255)``. Every
    file ``*.png``, ``*.jpg`` or ``*.jpeg`` of a subfolder is an image of its
    class. Hidden files and folders, and files of other names, are passed over.
    Links are followed. Every call reads the files again.

    A photograph is turned upright as its camera noted. A transparent pixel
    becomes white. Then the image is converted to gray or RGB, and resized by
    Pillow's bilinear filter, which averages over pixels where it shrinks. The
    aspect ratio is not kept.

    Parameters
    ----------
    folder
        the folder that holds the class folders.
    size
        height and width of the result, in pixels.
    channels
        1 for gray, 3 for red, green and blue.
    each
        the number of images per class: the first ``each`` by name. Without it,
        all classes must have equally many images.

    Returns
    -------
    ImageClasses
        ``names`` are the subfolders' names, sorted. ``images`` is (classes,
        images per class, height, width, channels), uint8, sorted by file name
        within a class.

    Raises
    ------
    DataError
        if there is no class, if classes have too few or unequally many images,
        or if an image is damaged or too large.
    SettingsError
        if ``size``, ``channels`` or ``each`` makes no sense.
    """
    from tqdm import tqdm

    height, width = _checked_size(size)
    check_counts(channels=channels)
    if channels not in _MODES:
        raise SettingsError(f"channels must be 1 (gray) or 3 (RGB), got {channels!r}")
    if each is not None:
        check_counts(each=each)
    classes = _classes_in(Path(folder))
    count = _count_of_each(Path(folder), classes, each)
    images = np.empty((len(classes), count, height, width, channels), np.uint8)
    taken = [path for paths in classes.values() for path in paths[:count]]
    rows = images.reshape(-1, *images.shape[2:])
    bar = tqdm(taken, desc=f"reading {folder}", unit=" images", leave=False, disable=None)
    for row, path in zip(rows, bar, strict=True):
        with damage_told(path):
            row[:] = _decoded(read_bytes(path, FILE_LIMIT, links=True), (height, width), channels)
    return ImageClasses(list(classes), images)


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise SettingsError(f"size must be a height and a width in pixels, got {size!r}")
    height, width = size
    check_counts(height=height, width=width)
    if height * width > PIXEL_LIMIT:
        raise SettingsError(f"{height} x {width} pixels are too many: at most {PIXEL_LIMIT}")
    return int(height), int(width)


def _classes_in(folder: Path) -> dict[str, list[Path]]:
    """The sorted images of each class, in the order of class names."""
    classes = {}
    for subfolder in _visible(folder):
        with damage_told(subfolder):  # a link to a class that is gone is no file to pass over
            is_class = stat.S_ISDIR(os.stat(subfolder).st_mode)
        if is_class:
            images = [path for path in _visible(subfolder) if path.suffix.lower() in SUFFIXES]
            classes[subfolder.name] = images
    if not classes:
        raise DataError(
            f"{folder} holds no class: put the images of each class into a subfolder, as in "
            f"{folder / 'CLASS' / 'image.png'}"
        )
    return classes


def _visible(folder: Path) -> list[Path]:
    with damage_told(folder):
        names = sorted(os.listdir(folder))
    return [folder / name for name in names if not name.startswith(".")]


def _count_of_each(folder: Path, classes: dict[str, list[Path]], each: int | None) -> int:
    """The number of images to take from each class."""
    fewest, most = (choose(classes, key=lambda name: len(classes[name])) for choose in (min, max))
    few, many = len(classes[fewest]), len(classes[most])
    kinds = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
    if many == 0:
        raise DataError(f"no class folder in {folder} holds an image ({kinds})")
    if each is not None and few < each:
        raise DataError(
            f"{folder / fewest} holds {few} of the {each} images ({kinds}) that each={each} takes: "
            "add images, or lower each"
        )
    if each is None and few != many:
        raise DataError(
            f"the classes in {folder} must have equally many images ({kinds}), but {fewest} has "
            f"{few} and {most} has {many}: set each to take the first so many of each class"
        )
    return few if each is None else int(each)


def _decoded(content: bytes, size: tuple[int, int], channels: int) -> np.ndarray:
    """The image in ``content`` as (height, width, channels), uint8."""
    from PIL import Image

    with opened_image(content) as image:
        converted = _on_white(_upright(image)).convert(_MODES[channels])
        resized = converted.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(resized).reshape(*size, channels)


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    with without_warnings():  # a camera's note that cannot be read notes nothing
        return ImageOps.exif_transpose(image)


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if not ({"A", "a"} & set(image.mode) or "transparency" in image.info):
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
