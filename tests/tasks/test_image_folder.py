"""Classes from a folder of images."""

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import minimeta as mm
from minimeta.errors import DataError, SettingsError
from minimeta.tasks import load_image_folder


@pytest.fixture
def folder(tmp_path):
    """Two classes of two images, of every suffix."""
    rng = np.random.default_rng(0)
    for name in ("b/2.PNG", "b/1.jpg", "a/1.jpeg", "a/0.png"):
        (tmp_path / "it" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(
            tmp_path / "it" / name
        )
    return tmp_path / "it"


def _pixels(path, mode):
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


def test_classes_and_images_are_sorted_and_feed_few_shot_tasks(folder):
    classes = load_image_folder(folder, channels=3)
    assert classes.names == ["a", "b"]
    assert classes.images.shape == (2, 2, 28, 28, 3) and classes.images.dtype == np.uint8
    order = [["a/0.png", "a/1.jpeg"], ["b/1.jpg", "b/2.PNG"]]
    for row, paths in zip(classes.images, order, strict=True):
        for image, path in zip(row, paths, strict=True):
            assert np.array_equal(image, _pixels(folder / path, "RGB"))
    gray = load_image_folder(str(folder))
    assert np.array_equal(gray.images[1, 0, ..., 0], _pixels(folder / "b/1.jpg", "L"))
    tasks = mm.FewShotImages(gray.images, ways=2, white=255)
    episode = tasks.episode(np.random.default_rng(0), tasks=1, shots=1, queries=1)
    assert episode.support[0].shape == (1, 2, 28, 28, 1) and episode.support[0].max() <= 1


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_the_size_is_height_and_width(tmp_path_factory, height, width, channels):
    folder = tmp_path_factory.mktemp("images")
    (folder / "a").mkdir()
    Image.new("RGB", (30, 20), (200, 100, 0)).save(folder / "a" / "0.png")
    images = load_image_folder(folder, (height, width), channels).images
    assert images.shape == (1, 1, height, width, channels)
    want = [200, 100, 0] if channels == 3 else [round(0.299 * 200 + 0.587 * 100)]
    assert (abs(images.astype(int) - want) <= 1).all()  # the rounding of fixed-point weights


def test_shrinking_averages_over_pixels(folder):
    board = np.indices((56, 56)).sum(axis=0) % 2 * np.uint8(255)
    Image.fromarray(board.astype(np.uint8)).save(folder / "a" / "0.png")
    image = load_image_folder(folder).images[0, 0]
    assert (abs(image[2:-2, 2:-2].astype(int) - 127.5) <= 2).all()  # half black, half white


def test_a_photograph_is_turned_upright(folder):
    upright = Image.fromarray(np.arange(24 * 16, dtype=np.int64).reshape(24, 16).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "a" / "0.png", exif=exif)
    assert np.array_equal(
        load_image_folder(folder, (24, 16)).images[0, 0, ..., 0], np.asarray(upright)
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(folder, mode):
    image = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 14, 28))
    if mode == "P":
        image = image.quantize(4)
    image.convert(mode).save(folder / "a" / "0.png")
    got = load_image_folder(folder).images[0, 0, ..., 0]
    assert (got[:, :14] == 0).all() and (got[:, 14:] == 255).all()


def test_sixteen_bits_keep_their_grays(folder):
    deep = np.arange(784, dtype=np.uint16).reshape(28, 28) * 83
    Image.fromarray(deep).save(folder / "a" / "0.png")
    assert np.array_equal(load_image_folder(folder).images[0, 0, ..., 0], deep >> 8)


def test_hidden_and_other_files_are_passed_over(folder):
    wanted = load_image_folder(folder)
    (folder / ".thumbs").mkdir()
    for name in (".thumbs/0.png", "a/._0.png", "a/notes.txt", "readme.md", "top.png"):
        (folder / name).write_bytes(b"no image")
    got = load_image_folder(folder)
    assert got.names == wanted.names and np.array_equal(got.images, wanted.images)


def test_links_are_followed_and_a_link_to_nothing_is_named(folder, tmp_path):
    wanted = load_image_folder(folder)
    (folder / "a").rename(tmp_path / "elsewhere")
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    assert np.array_equal(load_image_folder(folder).images, wanted.images)
    (folder / "a").unlink()
    (folder / "a").symlink_to("nowhere")
    with pytest.raises(DataError, match="a cannot be read: No such file"):
        load_image_folder(folder)


def test_classes_of_unequal_size_need_each(folder):
    (folder / "b" / "1.jpg").unlink()
    with pytest.raises(DataError, match="equally many .*b has 1 and a has 2: set each"):
        load_image_folder(folder)
    assert load_image_folder(folder, each=1).images.shape[:2] == (2, 1)
    with pytest.raises(DataError, match=r"b holds 1 of the 2 images .* that each=2 takes"):
        load_image_folder(folder, each=2)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "not a whole PNG or JPEG image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a whole PNG or JPEG image"),
        (b"\x89PNG\r\n\x1a\n", "not a whole PNG or JPEG image"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(folder, content, line):
    (folder / "a" / "0.png").write_bytes(content)
    with pytest.raises(DataError, match=f"0.png cannot be read: {line}$"):
        load_image_folder(folder)


def test_a_truncated_image_is_named(folder):
    content = (folder / "b" / "1.jpg").read_bytes()
    (folder / "b" / "1.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="1.jpg is damaged: "):
        load_image_folder(folder)


def test_a_pipe_in_the_place_of_an_image_is_refused_at_once(folder):
    (folder / "a" / "0.png").unlink()
    os.mkfifo(folder / "a" / "0.png")
    with pytest.raises(DataError, match="0.png cannot be read: .* is a pipe, where a"):
        load_image_folder(folder)


def test_a_folder_without_classes_or_images_is_one_line(tmp_path):
    with pytest.raises(DataError, match="nowhere cannot be read: No such file"):
        load_image_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no class: put the images of each class into a subf"):
        load_image_folder(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no class folder in .* holds an image"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 28},
        {"size": (28, 28, 1)},
        {"size": (0, 28)},
        {"size": (28.0, 28)},
        {"size": (math.nan, 28)},
        {"size": (10**5, 10**5)},
        {"channels": 2},
        {"channels": [1]},
        {"each": 0},
        {"each": 1.5},
    ],
)
def test_settings_that_make_no_sense_are_refused(folder, options):
    with pytest.raises(SettingsError) as caught:
        load_image_folder(folder, **options)
    assert "\n" not in str(caught.value)
