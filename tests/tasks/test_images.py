"""Image files are opened by format, and judged before they are decoded."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minimeta.errors import DataError
from minimeta.tasks.archives import damage_told
from minimeta.tasks.images import PIXEL_LIMIT, UnreadableImage, opened_image

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)


def encoded(pixels, kind="PNG", **options):
    """``pixels`` as the bytes of a file."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data, checksum=None):
    """A chunk of a PNG file."""
    whole = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", whole)


def png(width, height, *chunks):
    """A PNG file of a header and ``chunks``."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join((chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")))


def decoded(content, *formats):
    with damage_told("x.png"), opened_image(content, *formats) as image:
        return np.asarray(image)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "EPS", "PPM", "ICO", "TGA", "PDF"])
def test_other_formats_are_refused(kind):
    with pytest.raises(DataError, match=r"^x.png cannot be read: not a whole PNG or JPEG image$"):
        decoded(encoded(PIXELS, kind))


def test_a_format_that_is_not_named_is_refused():
    assert np.array_equal(decoded(encoded(PIXELS), ["PNG"]), PIXELS)
    with pytest.raises(DataError, match="not a whole PNG image"):
        decoded(encoded(PIXELS, "JPEG"), ["PNG"])


@pytest.mark.parametrize(
    ("width", "height"),
    [(PIXEL_LIMIT, 2), (10_000, 10_000), (14_000, 14_000), (2**31 - 1, 2**31 - 1)],
)
def test_an_image_of_too_many_pixels_is_one_line_and_no_warning(width, height):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=f"more than {PIXEL_LIMIT}( pixels)?: shrink the image"):
            decoded(png(width, height, chunk(b"IDAT", zlib.compress(b""))))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_that_unpacks_without_end_is_refused(kind):
    bomb = zlib.compress(bytes(50_000_000), 9)
    before = b"k\0\1\0\0\0" if kind == b"iTXt" else b"k\0\0"
    pixels = chunk(b"IDAT", zlib.compress(bytes(5 * 4)))
    with pytest.raises(DataError, match="is damaged: Decompressed data too large"):
        decoded(png(4, 4, chunk(kind, before + bomb), pixels))


def test_a_png_image_with_a_wrong_checksum_is_damaged():
    data = zlib.compress(b"\0\1\2" * 2)
    assert decoded(png(2, 2, chunk(b"IDAT", data))).shape == (2, 2)
    with pytest.raises(DataError, match="x.png is damaged: broken PNG file"):
        decoded(png(2, 2, chunk(b"IDAT", data, checksum=1)))


def test_a_png_image_without_pixels_is_refused():
    with pytest.raises(DataError, match="x.png cannot be read: an image without pixels"):
        decoded(png(2, 2))


def test_a_jpeg_image_of_a_thousand_scans_is_refused():
    content = encoded(PIXELS, "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    decoded(content)
    with pytest.raises(DataError, match="more than 500 scans"):
        decoded(content[:last] + content[last:-2] * 1000 + content[-2:])


def test_sixteen_bits_become_the_high_eight():
    deep = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16) + 0
    assert np.array_equal(decoded(encoded(deep)), deep >> 8)


def test_a_palette_with_transparency_keeps_its_colours():
    image = Image.fromarray(PIXELS).quantize(16)
    content = encoded(image, transparency=bytes(range(16)))
    assert np.array_equal(decoded(content)[..., :3], np.asarray(image.convert("RGB")))


def test_the_first_image_of_an_animation_is_read():
    other = Image.fromarray(255 - PIXELS)
    assert np.array_equal(
        decoded(encoded(PIXELS, save_all=True, append_images=[other]))[..., :3], PIXELS
    )


SEEDS = [
    encoded(PIXELS),
    encoded(PIXELS, "JPEG"),
    encoded(PIXELS, "JPEG", progressive=True),
    encoded(Image.fromarray(PIXELS).quantize(8), transparency=bytes(range(8))),
]


@given(st.sampled_from(SEEDS), st.data())
def test_any_change_of_the_bytes_is_an_image_or_one_line(content, data):
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    changed = changed[: data.draw(st.integers(0, len(changed)))]
    try:
        told = None if decoded(bytes(changed)).ndim in (2, 3) else "no image"
    except DataError as error:
        told = str(error)
    assert told is None or (told.startswith("x.png ") and "\n" not in told)


def test_an_image_that_is_not_read_is_a_value_error():
    with pytest.raises(UnreadableImage), opened_image(b"no image"):
        pass
