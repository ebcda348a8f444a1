"""mini-ImageNet: its three layouts, its counts, damage and cache.

The real data are tested where MINIMETA_DATA holds them.
"""

import io
import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minimeta as mm
from minimeta.cli import main
from minimeta.errors import DataError, SettingsError
from minimeta.runs.experiment import Experiment
from minimeta.runs.presets import PRESETS
from minimeta.runs.settings import Settings
from minimeta.tasks import mini_imagenet
from minimeta.testing import strict

REAL = Path(os.environ.get("MINIMETA_DATA", "nowhere")) / "mini-imagenet"

SPLITS = {
    "train": ["n00000003", "n00000001", "n00000002"],
    "val": ["n00000004"],
    "test": ["n00000006", "n00000005"],
}
SUFFIXES = [".jpg", ".JPEG", ".png", ".jpeg"]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """3, 1 and 2 classes of 4 images in class folders, with a separate
    cache."""
    monkeypatch.setattr(
        mini_imagenet, "CLASSES", {split: len(names) for split, names in SPLITS.items()}
    )
    monkeypatch.setattr(mini_imagenet, "IMAGES", 4)
    monkeypatch.setenv("MINIMETA_CACHE", str(tmp_path / "cache"))
    rng, data = np.random.default_rng(0), tmp_path / "folders"
    for split, names in SPLITS.items():
        for name in names:
            folder = data / "mini-imagenet" / split / name
            folder.mkdir(parents=True)
            for number, suffix in enumerate(SUFFIXES):
                pixels = rng.integers(0, 256, (84 + number, 84, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}_{number}{suffix}")
    return data


@pytest.fixture
def archives(folders):
    """The images of ``folders`` as archives."""
    data = folders.parent / "archives"
    (data / "miniimagenet").mkdir(parents=True)
    for split in SPLITS:
        with zipfile.ZipFile(data / "miniimagenet" / f"{split}.zip", "w") as archive:
            for path in sorted((folders / "mini-imagenet" / split).rglob("*.*")):
                archive.write(path, path.relative_to(folders / "mini-imagenet"))
    return data


@pytest.fixture
def tables(folders):
    """The same images as split files beside a folder of images.

    They are in the folder ``data`` itself, and their rows are unsorted.
    """
    data = folders.parent / "tables"
    (data / "images").mkdir(parents=True)
    for split in SPLITS:
        paths = sorted((folders / "mini-imagenet" / split).rglob("*.*"))
        rows = [f"{path.name},{path.parent.name}\r\n" for path in paths[::-1]]
        (data / f"{split}.csv").write_text("filename,label\r\n" + "".join(rows))
        for path in paths:
            shutil.copy(path, data / "images")
    return data


def _contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_three_layouts_give_the_same_bits_and_so_does_the_cache(folders, archives, tables):
    before = _contents(folders) | _contents(archives) | _contents(tables)
    for split, names in SPLITS.items():
        first = mm.load_mini_imagenet(folders, split)
        assert first.names == sorted(names)
        assert first.images.shape == (len(names), 4, 84, 84, 3) and first.images.dtype == np.uint8
        for data in (archives, tables, folders, archives, tables):
            again = mm.load_mini_imagenet(data, split)
            assert again.names == first.names and np.array_equal(again.images, first.images)
    assert len(list((folders.parent / "cache").iterdir())) == 9
    assert _contents(folders) | _contents(archives) | _contents(tables) == before


def test_images_stand_by_class_and_file_name_and_are_resized_by_nearest_neighbour(folders):
    images = mm.load_mini_imagenet(folders, "train").images
    for row, name in enumerate(sorted(SPLITS["train"])):
        for column, suffix in enumerate(SUFFIXES):
            with Image.open(
                folders / "mini-imagenet" / "train" / name / f"{name}_{column}{suffix}"
            ) as image:
                pixels = np.asarray(image)
            rows = ((np.arange(84) + 0.5) * len(pixels) / 84).astype(int)
            assert np.array_equal(images[row, column], pixels[rows])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_every_kind_of_image_becomes_red_green_and_blue(folders, mode):
    path = (
        folders
        / "mini-imagenet"
        / "val"
        / "n00000004"
        / ("n00000004_2.png" if mode != "CMYK" else "n00000004_0.jpg")
    )
    image = Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (84, 84, 3), dtype=np.uint8)
    ).convert(mode)
    image.save(path)
    with Image.open(path) as stored:
        wanted = np.asarray(stored.convert("RGB"))
    assert np.array_equal(
        mm.load_mini_imagenet(folders, "val").images[0, 2 if mode != "CMYK" else 0], wanted
    )


def test_what_is_not_an_image_of_a_class_is_passed_over(folders, archives):
    wanted = mm.load_mini_imagenet(folders, "val").images
    for name in (
        "val/readme.txt",
        "val/n00000004/notes.txt",
        "val/n00000004/._n00000004_0.jpg",
        "val/.thumbs/x.jpg",
    ):
        path = folders / "mini-imagenet" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nothing")
        with zipfile.ZipFile(archives / "miniimagenet" / "val.zip", "a") as archive:
            archive.writestr(name, b"nothing")
            archive.writestr(f"__MACOSX/{name}/._x.jpg", b"nothing")
    assert np.array_equal(mm.load_mini_imagenet(folders, "val").images, wanted)
    assert np.array_equal(mm.load_mini_imagenet(archives, "val").images, wanted)


def test_a_part_is_refused_unless_asked_for(folders, archives, monkeypatch):
    whole = mm.load_mini_imagenet(folders, "train").images
    for path in (folders / "mini-imagenet").rglob("*_3.jpeg"):
        path.unlink()
    for _ in range(2):  # the second time beside a cache
        with pytest.raises(
            DataError,
            match=r"is a part of mini-ImageNet, 3 of 4 images per class: to use the part, set part "
            r"\(part=True",
        ):
            mm.load_mini_imagenet(folders, "train")
        assert np.array_equal(
            mm.load_mini_imagenet(folders, "train", part=True).images, whole[:, :3]
        )
    monkeypatch.setattr(mini_imagenet, "IMAGES", 3)
    for part in (False, True):
        with pytest.raises(
            DataError, match="3 images of each class: it holds 4 of n00000004 and 4 of n00000004"
        ):
            mm.load_mini_imagenet(archives, "val", part)


@pytest.mark.parametrize("part", [False, True])
def test_uneven_and_missing_classes_are_refused(folders, part):
    (folders / "mini-imagenet" / "train" / "n00000002" / "n00000002_1.JPEG").unlink()
    with pytest.raises(
        DataError, match="4 images of each class: it holds 3 of n00000002 and 4 of n0000000"
    ):
        mm.load_mini_imagenet(folders, "train", part)
    shutil.rmtree(folders / "mini-imagenet" / "train" / "n00000002")
    with pytest.raises(
        DataError, match="is not mini-ImageNet's train split: it holds 2 of 3 classes"
    ):
        mm.load_mini_imagenet(folders, "train", part)


def test_a_class_in_two_splits_is_refused(folders, archives):
    (folders / "mini-imagenet" / "val" / "n00000004").rename(
        folders / "mini-imagenet" / "val" / "n00000006"
    )
    for split in ("val", "test"):
        with pytest.raises(
            DataError, match=r"(val and .*test|test and .*val) share classes \(n00000006\)"
        ):
            mm.load_mini_imagenet(folders, split)
    assert mm.load_mini_imagenet(folders, "train").names == sorted(SPLITS["train"])


def test_missing_data_and_splits_are_one_line(tmp_path, capsys):
    with pytest.raises(
        DataError, match="train split is not in .*no official download.*Put train.zip"
    ):
        mm.load_mini_imagenet(tmp_path)
    with pytest.raises(SettingsError, match="split must be one of train, val, test, got 'dev'"):
        mm.load_mini_imagenet(tmp_path, "dev")
    assert main(["data", "mini-imagenet", "--data", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert (
        told.count("\n") == 1
        and "no official download" in told
        and str(tmp_path / "mini-imagenet") in told
    )
    assert not list(tmp_path.iterdir())


def test_the_command_line_says_where_the_data_are(archives, capsys):
    assert main(["data", "mini-imagenet", "--data", str(archives)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{archives / 'miniimagenet' / f'{split}.zip'}: {len(names)} classes of 4 images"
        for split, names in SPLITS.items()
    ]


def test_the_command_line_tells_a_part_and_what_is_no_split(folders, monkeypatch, capsys):
    monkeypatch.setattr(mini_imagenet, "IMAGES", 5)
    words = ["data", "mini-imagenet", "--data", str(folders)]
    assert main(words) == 0
    assert "train: 3 classes of 4 images, a part of 5 (use it with --part)" in (
        capsys.readouterr().out
    )
    shutil.rmtree(folders / "mini-imagenet" / "train" / "n00000002")
    assert main(words) == 1
    assert "is not mini-ImageNet's train split: it holds 2 of 3 classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda text: text.replace("filename,label", "file,class"),
            "must begin with the line filename,label, got 'file,class'",
        ),
        (lambda text: "", "must begin with the line filename,label, got ''"),
        (
            lambda text: text.replace("n00000004_1.JPEG", "n00000004_9.JPEG"),
            "the image 'n00000004_9.JPEG' is not in",
        ),
        (
            lambda text: text.replace("n00000004_1.JPEG", "../images/n00000004_1.JPEG"),
            "is not in",
        ),
        (
            lambda text: text.replace("n00000004_1.JPEG", "n00000004_0.jpg"),
            "images/n00000004_0.jpg more than once",
        ),
        (
            lambda text: text.replace("_1.JPEG,n00000004", "_1.JPEG,cat"),
            "line 4: expected an image and a class such as n01532829",
        ),
        (
            lambda text: text.replace("_1.JPEG,n00000004", "_1.JPEG"),
            "line 4: expected an image and a class such as n01532829",
        ),
        (
            lambda text: text[: len(text) // 2],
            "line 3: expected an image and a class such as n01532829",
        ),
        (lambda text: text + "\x00,\xff\n", "val.csv is damaged: .*utf-8"),
    ],
    ids=["header", "empty", "missing", "outside", "twice", "label", "row", "truncated", "bytes"],
)
def test_a_split_file_that_is_wrong_is_one_line(tables, change, line):
    path = tables / "val.csv"
    path.write_bytes(change(path.read_bytes().decode()).encode("latin-1"))
    before = _contents(tables)
    with pytest.raises(DataError, match=line):
        mm.load_mini_imagenet(tables, "val")
    assert _contents(tables) == before


def test_a_damaged_image_is_named(folders, archives, tables):
    image = folders / "mini-imagenet" / "val" / "n00000004" / "n00000004_0.jpg"
    for content, told in (
        (image.read_bytes()[:1000], "is damaged: "),
        (b"", "cannot be read: not a whole PNG or JPEG image"),
        (b"no image", "cannot be read: not a whole PNG or JPEG image"),
    ):
        for path in (image, tables / "images" / image.name):
            path.write_bytes(content)
        with zipfile.ZipFile(archives / "miniimagenet" / "val.zip", "w") as archive:
            for path in sorted((folders / "mini-imagenet" / "val").rglob("*.*")):
                archive.write(path, path.relative_to(folders / "mini-imagenet"))
        for data in (folders, archives, tables):
            before = _contents(data)
            with pytest.raises(DataError, match=f"n00000004_0.jpg {told}"):
                mm.load_mini_imagenet(data, "val")
            assert _contents(data) == before
    assert not (folders.parent / "cache").exists()


def test_a_link_to_an_image_that_is_gone_is_named(folders, tables):
    gone = folders / "mini-imagenet" / "val" / "n00000004" / "n00000004_0.jpg"
    for data, image in ((folders, gone), (tables, tables / "images" / gone.name)):
        image.unlink()
        image.symlink_to("nowhere.jpg")
        with pytest.raises(DataError, match=r"n00000004_0.jpg cannot be read: No such file"):
            mm.load_mini_imagenet(data, "val")


def test_a_damaged_archive_is_one_line(archives):
    path = archives / "miniimagenet" / "val.zip"
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[500] ^= 0xFF
    for content in (whole[: len(whole) // 2], whole[:-10], b"", bytes(altered)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="val.zip.* is damaged: "):
            mm.load_mini_imagenet(archives, "val")
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    "name", ["../val/n00000004/x.jpg", "/val/n00000004/x.jpg", "val\\..\\..\\x.jpg", "C:/val/x.jpg"]
)
def test_an_archive_that_leaves_its_folder_is_refused(archives, name):
    with zipfile.ZipFile(archives / "miniimagenet" / "val.zip", "a") as archive:
        archive.writestr(name, b"")
    with pytest.raises(DataError, match="val.zip holds a path that leaves its folder"):
        mm.load_mini_imagenet(archives, "val")


@pytest.mark.parametrize("place", ["val", "val.csv", "val.zip", "val/n00000004/n00000004_0.jpg"])
def test_a_pipe_in_the_place_of_a_source_or_an_image_is_refused_at_once(folders, place):
    path = folders / "mini-imagenet" / place
    if path.is_dir() or "." in place[:8]:
        shutil.rmtree(folders / "mini-imagenet" / "val")
    else:
        path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="cannot be read: .* is a .*, where a file is expected"):
        mm.load_mini_imagenet(folders, "val")


def test_a_split_file_of_any_length_is_one_short_line(tables):
    path = tables / "val.csv"
    text = path.read_text()
    path.write_text(text.replace("_1.JPEG", "_1" + "y" * 100_000 + ".JPEG"))
    with pytest.raises(DataError, match=r"the image .*y\.\.\. is not in") as caught:
        mm.load_mini_imagenet(tables, "val")
    assert len(str(caught.value)) < 1000
    path.write_text(text + "\n" * 2**24)
    with pytest.raises(DataError, match="val.csv is damaged: it has .* and 16777216 or less"):
        mm.load_mini_imagenet(tables, "val")


def test_a_sixteen_bit_image_keeps_its_grays(folders):
    deep = (np.arange(84 * 84).reshape(84, 84) * 9).astype(np.uint16)
    path = folders / "mini-imagenet" / "val" / "n00000004" / "n00000004_2.png"
    Image.fromarray(deep).save(path)
    got = mm.load_mini_imagenet(folders, "val").images[0, 2]
    assert all(np.array_equal(got[..., channel], deep >> 8) for channel in range(3))


@pytest.mark.parametrize(
    "changes",
    [
        {"images": np.zeros((1, 4, 84, 84, 3), np.float32)},
        {"images": np.zeros((1, 4, 84, 84, 3), np.int8)},
        {"images": np.zeros((1, 5, 84, 84, 3), np.uint8)},
        {"images": np.zeros((1, 0, 84, 84, 3), np.uint8)},
        {"names": np.array(["cat"])},
        {"names": np.array(["n0000000\u0664"])},
        {
            "names": np.array(["n00000003", "n00000004"]),
            "images": np.zeros((2, 4, 84, 84, 3), np.uint8),
        },
    ],
    ids=["float", "signed", "more", "none", "name", "digit", "classes"],
)
def test_a_cache_of_valid_checksums_and_other_contents_is_damaged(folders, changes):
    images = mm.load_mini_imagenet(folders, "val").images
    (cache,) = (folders.parent / "cache").iterdir()
    np.savez(cache, **{"names": np.array(["n00000004"]), "images": images} | changes)
    with pytest.raises(DataError, match="the cache .* is damaged .*delete the file"):
        mm.load_mini_imagenet(folders, "val")


def test_a_damaged_cache_is_told_and_left(archives):
    mm.load_mini_imagenet(archives, "val")
    (cache,) = (archives.parent / "cache").iterdir()
    whole = cache.read_bytes()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 1
    other = io.BytesIO()
    np.savez(other, names=np.array(["n00000004"]), images=np.zeros((1, 4, 28, 28, 1), np.uint8))
    for content in (whole[:-50], whole[: len(whole) // 2], bytes(altered), b"", other.getvalue()):
        cache.write_bytes(content)
        with pytest.raises(DataError, match="the cache .* is damaged .*delete the file"):
            mm.load_mini_imagenet(archives, "val")
        assert cache.read_bytes() == content


def test_a_changed_source_is_read_anew(folders):
    first = mm.load_mini_imagenet(folders, "val").images
    path = folders / "mini-imagenet" / "val" / "n00000004" / "n00000004_2.png"
    Image.fromarray(np.zeros((84, 84, 3), np.uint8)).save(path)
    again = mm.load_mini_imagenet(folders, "val").images
    assert not again[0, 2].any() and np.array_equal(again[0, [0, 1, 3]], first[0, [0, 1, 3]])


def test_a_cache_that_cannot_be_written_is_a_warning(folders, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="could not be written") as told:
        assert mm.load_mini_imagenet(
            folders, "val", cache=tmp_path / "file" / "cache"
        ).images.shape == (1, 4, 84, 84, 3)
    assert told[0].filename == __file__


SMALL = dict(ways=2, filters=2, shots=2, k=2, size=2, meta_batch=2, iterations=2)


@pytest.mark.parametrize("xp", [np, strict.module], ids=["numpy", "strict"])
def test_training_and_evaluation_see_the_train_and_the_test_split(archives, xp):
    experiment = Experiment(
        PRESETS["mini-imagenet-1shot"].settings.changed(**SMALL), str(archives), xp
    )
    for tasks, split in ((experiment.training.tasks, "train"), (experiment.test_tasks, "test")):
        images = tasks.images if xp is np else tasks.images.get()
        assert np.array_equal(images, mm.load_mini_imagenet(archives, split).images)
    x, _ = experiment.training.sample(0)[0]
    assert x.dtype == np.float32 and 0.5 < float(x.max()) <= 1 and float(x.min()) >= 0
    with experiment.training.stepper() as step:
        state, loss = step(experiment.training.start())
    assert isinstance(state.meta, xp.ndarray) and np.isfinite(float(loss.sum()))


def test_presets_are_the_papers_settings():
    one, five = (PRESETS[f"mini-imagenet-{shots}shot"].settings for shots in (1, 5))
    assert one.changed(eval_shots=5, eval_size=15) == five
    one, five = one.flags(), five.flags()
    training = {"iterations": 100_000, "meta_batch": 5, "k": 8, "size": 10, "shots": 15}
    rules = {"inner": "adam", "inner_lr": 0.001, "outer": "sgd", "epsilon": 1.0}
    wanted = training | rules | {"epsilon_final": 0.0}
    assert five | wanted == five
    assert one | {"eval_shots": 1, "eval_steps": 50, "eval_size": 5, "filters": 32} == one
    with pytest.raises(SettingsError, match="part belongs to mini-imagenet: leave it out"):
        Settings().changed(part=True)


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.needs_data("mini-imagenet")
def test_the_real_part_from_training_to_accuracy(tmp_path, real_cache, monkeypatch, capsys):
    monkeypatch.setenv("MINIMETA_CACHE", str(real_cache))
    words = [
        "train",
        "mini-imagenet-1shot",
        "--filters",
        "2",
        "--iterations",
        "3",
        "--out",
        str(tmp_path / "run"),
        "--quiet",
    ]
    assert main(words) == 1
    assert (
        "is a part of mini-ImageNet, 100 of 600 images per class: to use the part, set part"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()
    assert main([*words, "--part"]) == 0
    assert main([*words, "--part", "--resume"]) == 0
    assert main(["eval", str(tmp_path / "run"), "--tasks", "4", "--steps", "2", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert (
        "5-way 1-shot accuracy over 4 unseen tasks, 95% interval, on a part: 100 of 600 images a "
        "class" in printed
    )
    (result,) = (tmp_path / "run").glob("eval-*.json")
    assert json.loads(result.read_text())["settings"]["task"]["part"] is True


@pytest.mark.needs_data("mini-imagenet")
def test_the_real_part(real_cache):
    seen = set()
    for split, shape in {"train": (64, 100), "val": (16, 40), "test": (20, 100)}.items():
        classes = mm.load_mini_imagenet(split=split, part=True, cache=real_cache)
        assert classes.images.shape == (*shape, 84, 84, 3) and classes.names == sorted(
            classes.names
        )
        assert not seen & set(classes.names)
        assert 100 < classes.images.mean() < 130
        started = time.perf_counter()
        again = mm.load_mini_imagenet(split=split, part=True, cache=real_cache)
        assert time.perf_counter() - started < 5  # a fifth of a second on an idle machine
        assert again.names == classes.names and np.array_equal(again.images, classes.images)
        seen |= set(classes.names)
    assert len(seen) == 100
