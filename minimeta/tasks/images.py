"""Images of classes, and the one place where image files are opened.

Only the formats that a caller names are opened, so no other reader of Pillow
runs. An image's size is judged before a pixel is decoded.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG")
SUFFIXES = (".png", ".jpg", ".jpeg")
FILE_LIMIT = 2**26  # bytes of an image file
PIXEL_LIMIT = 2**26  # the largest image of ImageNet has 0.9 times as many
_SCAN_LIMIT = 500  # a decoder passes over the whole image once per JPEG scan


class ImageClasses(NamedTuple):
    """Classes of images.

    ``names`` are the names of the classes, sorted. ``images`` is (classes,
    images per class, height, width, channels), uint8, sorted by file name
    within a class.
    """

    names: list[str]
    images: np.ndarray


class UnreadableImage(ValueError):
    """An image that is not read, though its bytes may be sound."""


def is_hidden(path: str) -> bool:
    """Whether a part of ``path`` is hidden, or is a copy that macOS adds to
    archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


@contextmanager
def opened_image(content: bytes, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """The image in ``content``, which no pixel has been decoded of yet.

    Its values have 8 bits: a 16-bit gray image is reduced to its high bytes. A
    palette with transparency becomes RGBA.

    Raises
    ------
    UnreadableImage
        if ``content`` is of no format in ``formats``, or too large to decode.
    OSError, SyntaxError, ValueError
        if ``content`` is damaged, such as a PNG image with a wrong checksum.
    """
    with _judged(content, formats) as image:
        if image.mode.startswith("I"):  # Pillow would clip at 255
            from PIL import Image

            yield Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode == "P" and "transparency" in image.info:
            yield image.convert("RGBA")
        else:
            yield image


def _judged(content: bytes, formats: Sequence[str]) -> Image.Image:
    from PIL import Image

    def opened() -> Image.Image:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limits below are narrower
            return Image.open(io.BytesIO(content), formats=formats)

    try:
        image = opened()
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(f"not a whole {' or '.join(formats)} image") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"more than {PIXEL_LIMIT} pixels: shrink the image") from error
    if image.width * image.height > PIXEL_LIMIT:
        raise UnreadableImage(
            f"{image.width} x {image.height} pixels, more than {PIXEL_LIMIT}: shrink the image"
        )
    if not image.tile:
        raise UnreadableImage("an image without pixels")
    if image.format == "PNG":
        image.verify()  # decoding alone does not look at the checksums
        return opened()
    if content.count(b"\xff\xda") > _SCAN_LIMIT:
        raise UnreadableImage(f"a JPEG image of more than {_SCAN_LIMIT} scans: save it anew")
    return image
