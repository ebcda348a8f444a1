"""Omniglot: archives, folders, cache, split and download.

The real data are tested where MINIMETA_DATA holds them.
"""

import functools
import hashlib
import http.server
import os
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

import minimeta as mm
from minimeta.cli import main
from minimeta.errors import DataError
from minimeta.runs.experiment import Experiment
from minimeta.runs.presets import PRESETS
from minimeta.runs.train import Saving, train
from minimeta.tasks import omniglot
from minimeta.training.meta_training import checked_mean


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Folders of 3 and 2 characters of 4 drawings, with a separate cache."""
    monkeypatch.setattr(omniglot, "CHARACTERS", {"images_background": 3, "images_evaluation": 2})
    monkeypatch.setattr(omniglot, "DRAWINGS", 4)
    monkeypatch.setenv("MINIMETA_CACHE", str(tmp_path / "cache"))
    rng, folder = np.random.default_rng(0), tmp_path / "data" / "omniglot"
    for half, names in {
        "images_background": ["Zulu/c01", "Alpha/c01", "Alpha/c02"],
        "images_evaluation": ["Beta/c01", "Beta/c02"],
    }.items():
        for name in names:
            (folder / half / name).mkdir(parents=True)
            for drawing in range(4):
                pixels = rng.random((105, 105)) > 0.3
                Image.fromarray(pixels).save(folder / half / name / f"{drawing:02}.png")
    return tmp_path / "data"


def _zip(data):
    """The folders as archives beside them, in the layout of the official
    ones."""
    for half in omniglot.CHARACTERS:
        with zipfile.ZipFile(data / "omniglot" / f"{half}.zip", "w") as archive:
            for path in sorted((data / "omniglot" / half).rglob("*.png")):
                archive.write(path, path.relative_to(data / "omniglot"))


def test_archives_and_folders_give_the_same_sorted_characters(tiny):
    from_folders = mm.load_omniglot(tiny)
    assert from_folders.names == ["Alpha/c01", "Alpha/c02", "Beta/c01", "Beta/c02", "Zulu/c01"]
    assert from_folders.images.shape == (5, 4, 28, 28) and from_folders.images.dtype == np.uint8
    _zip(tiny)
    from_archives = mm.load_omniglot(tiny)
    assert from_archives.names == from_folders.names and np.array_equal(
        from_archives.images, from_folders.images
    )
    assert len(list((tiny.parent / "cache").iterdir())) == 2


def test_the_command_line_from_archives_to_accuracy(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "minimeta.runs.task_settings.split_omniglot",
        functools.partial(omniglot.split_omniglot, train=2),
    )
    small = [
        "--ways",
        "3",
        "--filters",
        "2",
        "--shots",
        "3",
        "--k",
        "2",
        "--size",
        "4",
        "--meta-batch",
        "2",
    ]
    words = [
        "train",
        "omniglot-5way",
        *small,
        "--iterations",
        "4",
        "--data",
        str(tiny),
        "--out",
        str(tmp_path / "run"),
        "--quiet",
    ]
    assert main(words) == 0
    assert main([*words, "--resume"]) == 0
    assert (
        main(
            [
                "eval",
                str(tmp_path / "run"),
                "--tasks",
                "4",
                "--steps",
                "2",
                "--data",
                str(tiny),
                "--quiet",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "after 4 of 4 meta-steps" in printed
    assert "3-way 1-shot accuracy over 4 unseen tasks" in printed
    assert "without transduction" in printed


def test_cavia_adapts_a_film_layer_and_a_run_of_it_cut_off_and_resumed_ends_bit_identical(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "minimeta.runs.task_settings.split_omniglot",
        functools.partial(omniglot.split_omniglot, train=2),
    )
    small = dict(ways=3, filters=2, size=3, meta_batch=2, iterations=6)
    settings = PRESETS["omniglot-5way-maml"].settings.changed(
        algorithm="cavia", context=4, inner_lr=1.0, **small
    )
    experiment, saving = Experiment(settings, str(tiny)), Saving(2, 0)
    place, start = experiment.objective.part("context"), experiment.training.start().meta
    end = train(experiment, tmp_path / "whole", saving=saving)
    assert place.stop - place.start == 4 and not end.meta[place].any()
    assert (
        end.meta[place.stop : place.stop + 4 * 4] != start[place.stop : place.stop + 4 * 4]
    ).all()  # W has learned

    def cut(losses, first):
        if first > 2:
            raise KeyboardInterrupt
        return checked_mean(losses, first)

    with monkeypatch.context() as patch:
        patch.setattr("minimeta.runs.train.checked_mean", cut)
        with pytest.raises(KeyboardInterrupt):
            train(experiment, tmp_path / "cut", saving=saving)
    resumed = train(experiment, tmp_path / "cut", resume=True, saving=saving)
    assert resumed.iteration == end.iteration == 6 and np.array_equal(resumed.meta, end.meta)


def test_an_inner_step_on_the_sum_is_one_so_many_times_longer_on_the_mean(
    tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "minimeta.runs.task_settings.split_omniglot",
        functools.partial(omniglot.split_omniglot, train=2),
    )
    small = dict(
        ways=3,
        filters=2,
        shots=3,
        k=3,
        size=3,
        meta_batch=2,
        iterations=4,
        inner="sgd",
        dtype="float64",
    )
    omniglot_5way = PRESETS["omniglot-5way"].settings
    settings = omniglot_5way.changed(**small, inner_lr=0.01, reduction="sum")
    on_mean = settings.changed(inner_lr=3 * 0.01, reduction="mean")
    by_sum, by_mean = (
        train(Experiment(each, str(tiny)), tmp_path / each.task.reduction)
        for each in (settings, on_mean)
    )
    assert np.allclose(by_sum.meta, by_mean.meta, rtol=0, atol=1e-12)  # rounding of a dozen steps
    before = Experiment(settings, str(tiny)).training.start().meta
    assert np.abs(by_sum.meta - before).max() > 1e-3


def test_training_and_evaluation_see_disjoint_characters(tiny, monkeypatch):
    monkeypatch.setattr(
        "minimeta.runs.task_settings.split_omniglot",
        functools.partial(omniglot.split_omniglot, train=2),
    )
    settings = PRESETS["omniglot-5way"].settings.changed(ways=3, filters=2, shots=3)
    experiment = Experiment(settings, str(tiny))
    assert experiment.training.tasks.images.shape[0] == 4 * 2
    assert experiment.test_tasks.images.shape[0] == 5 - 2
    train, test = (
        {image.tobytes() for image in half.images[:, 0]}
        for half in (experiment.training.tasks, experiment.test_tasks)
    )
    assert not train & test


def test_images_are_shrunk_by_nearest_neighbour_with_ink_zero(tiny):
    with Image.open(tiny / "omniglot" / "images_background" / "Alpha" / "c01" / "00.png") as image:
        pixels = np.asarray(image)
    centres = ((np.arange(28) + 0.5) * 105 / 28).astype(int)
    assert np.array_equal(mm.load_omniglot(tiny).images[0, 0], pixels[np.ix_(centres, centres)])


def test_the_cache_is_used_and_a_damaged_one_is_one_line(tiny):
    first = mm.load_omniglot(tiny)
    (cache,) = (tiny.parent / "cache").iterdir()
    assert np.array_equal(mm.load_omniglot(tiny).images, first.images)
    content = bytearray(cache.read_bytes())
    for damaged in (
        content[:-50],
        content[: len(content) // 2]
        + bytes([content[len(content) // 2] ^ 1])
        + content[len(content) // 2 + 1 :],
        b"",
    ):
        cache.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged.*delete the file"):
            mm.load_omniglot(tiny)
        assert cache.read_bytes() == bytes(damaged)


def test_a_cache_that_cannot_be_written_is_a_warning(tiny, monkeypatch):
    (tiny.parent / "file").write_text("")
    monkeypatch.setenv("MINIMETA_CACHE", str(tiny.parent / "file" / "cache"))
    with pytest.warns(UserWarning, match="could not be written"):
        assert mm.load_omniglot(tiny).images.shape == (5, 4, 28, 28)


def test_missing_incomplete_truncated_and_altered_data_are_one_line(tiny, tmp_path):
    with pytest.raises(DataError, match="minimeta data omniglot"):
        mm.load_omniglot(tmp_path / "elsewhere")
    _zip(tiny)
    archive = tiny / "omniglot" / "images_background.zip"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="images_background.zip is damaged"):
        mm.load_omniglot(tiny)
    altered = bytearray(whole)
    altered[200] ^= 0xFF
    archive.write_bytes(altered)
    with pytest.raises(DataError, match="images_background.zip is damaged"):
        mm.load_omniglot(tiny)
    archive.unlink()
    next((tiny / "omniglot" / "images_background").rglob("*.png")).unlink()
    with pytest.raises(
        DataError, match="is not the whole of images_background.*1 of them without 4 drawings"
    ):
        mm.load_omniglot(tiny)


def test_split_turns_the_training_characters_into_new_classes():
    images = np.random.default_rng(0).integers(0, 2, (7, 3, 28, 28), dtype=np.uint8)
    train, test = mm.split_omniglot(images, seed=1, train=5)
    assert train.shape == (20, 3, 28, 28, 1) and test.shape == (2, 3, 28, 28, 1)
    for turns in range(4):
        turned = np.rot90(train[:5, ..., 0], turns, axes=(2, 3))
        assert np.array_equal(train[5 * turns : 5 * turns + 5, ..., 0], turned)
    sources = [image.tobytes() for image in np.concatenate([train[:5], test])[:, 0]]
    assert sorted(sources) == sorted(image.tobytes() for image in images[:, 0])
    assert np.array_equal(mm.split_omniglot(images, seed=1, train=5)[0], train)
    assert not np.array_equal(mm.split_omniglot(images, seed=2, train=5)[0], train)


@pytest.fixture
def server(tiny):
    """The archives over HTTP on this machine."""
    _zip(tiny)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tiny / "omniglot")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def _make_official(tiny, monkeypatch):
    """Take the checksums of the archives of ``tiny`` for the official ones."""
    sums = {
        name: f"md5:{hashlib.md5((tiny / 'omniglot' / name).read_bytes()).hexdigest()}"
        for name in omniglot.CHECKSUMS
    }
    monkeypatch.setattr(omniglot, "CHECKSUMS", sums)


def test_download_verifies_checksums_and_overwrites_nothing(tiny, server, tmp_path, monkeypatch):
    into = tmp_path / "downloaded"
    with pytest.raises(DataError, match="could not be downloaded .*does not match its checksum"):
        omniglot.download_omniglot(into, server)
    assert not list(into.rglob("*.zip"))
    _make_official(tiny, monkeypatch)
    sources = omniglot.download_omniglot(into, server)
    assert [source.path.name for source in sources] == list(omniglot.CHECKSUMS)
    assert {source.remark for source in sources} == {"the official archive"}
    assert np.array_equal(mm.load_omniglot(into).images, mm.load_omniglot(tiny).images)
    sources[0].path.write_bytes(b"mine")
    with pytest.raises(DataError, match=r"images_background.zip is damaged: .* Or move the file"):
        omniglot.download_omniglot(into, server)
    assert sources[0].path.read_bytes() == b"mine"


def test_a_copy_that_can_be_loaded_is_accepted_without_a_network(tiny, capsys):
    words = ["data", "omniglot", "--data", str(tiny)]
    told = "not the official archive, but whole"
    assert main(words) == 0
    half = tiny / "omniglot" / "images_background"
    assert f"{half}: {told}: 3 characters\n" in capsys.readouterr().out
    _zip(tiny)
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{half}.zip: {told}: 3 characters" and len(lines) == 2


def test_half_a_copy_is_completed(tiny, server, monkeypatch):
    _make_official(tiny, monkeypatch)
    half = tiny / "omniglot" / "images_evaluation"
    content = half.with_suffix(".zip").read_bytes()
    half.rename(tiny / "moved")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tiny / "served")
    (tiny / "served").mkdir()
    half.with_suffix(".zip").rename(tiny / "served" / "images_evaluation.zip")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        omniglot.download_omniglot(tiny, f"http://127.0.0.1:{running.server_port}/")
        running.shutdown()
    assert half.with_suffix(".zip").read_bytes() == content


def test_no_network_is_one_line_that_names_the_host(tmp_path):
    with pytest.raises(
        DataError,
        match=r"could not be downloaded from 127.0.0.1:9 \(Connection refused\): .*--data DIR",
    ):
        omniglot.download_omniglot(tmp_path, "http://127.0.0.1:9/")


def test_an_answer_of_the_server_is_told(server, tmp_path):
    with pytest.raises(DataError, match=r"\(the server answers 404 File not found\)"):
        omniglot.download_omniglot(tmp_path, f"{server}nowhere/")


def test_a_folder_that_cannot_be_written_is_not_the_networks_fault(tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/omniglot cannot be written \(Not a directory\)"):
        omniglot.download_omniglot(tmp_path / "file", server)


def test_no_other_program_is_started_for_an_image(tiny, tmp_path, monkeypatch):
    program, started = tmp_path / "bin" / "gs", tmp_path / "started"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    image = tiny / "omniglot" / "images_background" / "Alpha" / "c01" / "00.png"
    Image.new("L", (105, 105)).save(image, "EPS")
    with pytest.raises(DataError, match="00.png cannot be read: not a whole PNG image"):
        mm.load_omniglot(tiny)
    assert not started.exists()


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "JPEG"])
def test_only_png_images_are_drawings(tiny, kind):
    image = tiny / "omniglot" / "images_background" / "Alpha" / "c01" / "00.png"
    Image.new("L", (105, 105)).save(image, kind)
    with pytest.raises(DataError, match="00.png cannot be read: not a whole PNG image"):
        mm.load_omniglot(tiny)


def test_a_drawing_of_another_size_is_named(tiny):
    image = tiny / "omniglot" / "images_background" / "Alpha" / "c01" / "00.png"
    Image.new("L", (105, 104)).save(image)
    with pytest.raises(DataError, match="c01/00.png .*expected 105 x 105 pixels, got 105 x 104"):
        mm.load_omniglot(tiny)


@pytest.mark.parametrize("base", ["images_background", "again/images_background", "images_evaluat"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_drawing_that_stands_twice_is_refused(tiny, base):
    _zip(tiny)
    name = "Alpha/c01/00.png"
    content = (tiny / "omniglot" / "images_background" / "Zulu" / "c01" / "00.png").read_bytes()
    with zipfile.ZipFile(tiny / "omniglot" / "images_background.zip", "a") as archive:
        archive.writestr(f"{base}/{name}", content)
    with pytest.raises(DataError, match=f"{name} (is stored )?more than once"):
        mm.load_omniglot(tiny)


@pytest.mark.parametrize("packed", [False, True])
def test_a_character_in_both_halves_is_refused(tiny, packed):
    half = tiny / "omniglot" / "images_evaluation"
    (half / "Beta").rename(half / "Alpha")
    if packed:
        _zip(tiny)
    with pytest.raises(DataError, match="both hold Alpha/c01"):
        mm.load_omniglot(tiny)


def test_copies_that_macos_adds_are_passed_over(tiny):
    wanted = mm.load_omniglot(tiny).images
    _zip(tiny)
    with zipfile.ZipFile(tiny / "omniglot" / "images_background.zip", "a") as archive:
        archive.writestr("__MACOSX/images_background/Alpha/c01/._00.png", b"nothing")
    (tiny / "omniglot" / "images_evaluation" / "Beta" / "c01" / "._00.png").write_bytes(b"nothing")
    assert np.array_equal(mm.load_omniglot(tiny).images, wanted)


@pytest.mark.parametrize("place", ["images_background.zip", "images_background/Alpha/c01/00.png"])
def test_a_pipe_in_the_place_of_a_source_or_an_image_is_refused_at_once(tiny, place):
    (tiny / "omniglot" / place).unlink(missing_ok=True)
    os.mkfifo(tiny / "omniglot" / place)
    with pytest.raises(DataError, match="cannot be read: .* is a .*, where a file is expected"):
        mm.load_omniglot(tiny)


def test_links_in_a_folder_are_followed_and_noticed_when_they_change(tiny, tmp_path):
    wanted = mm.load_omniglot(tiny).images
    alphabet = tiny / "omniglot" / "images_background" / "Alpha"
    alphabet.rename(tmp_path / "elsewhere")
    alphabet.symlink_to(tmp_path / "elsewhere")
    assert np.array_equal(mm.load_omniglot(tiny).images, wanted)
    image = tmp_path / "elsewhere" / "c01" / "00.png"
    Image.new("1", (105, 105)).save(image)
    assert not mm.load_omniglot(tiny).images[0, 0].any()


BITS = -(-5 * 4 * 28 * 28 // 8)
SORTED = np.array(["Alpha/c01", "Alpha/c02", "Beta/c01", "Beta/c02", "Zulu/c01"])


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": np.zeros(BITS)},
        {"bits": np.zeros(BITS, np.int8)},
        {"bits": np.zeros(BITS + 1, np.uint8)},
        {"bits": np.zeros(BITS - 1, np.uint8)},
        {"bits": np.zeros((1, BITS), np.uint8)},
        {"names": SORTED[:4], "bits": np.zeros(BITS * 4 // 5, np.uint8)},
        {"names": SORTED[::-1]},
        {"names": SORTED[[0, 0, 1, 2, 3]]},
        {"names": np.arange(5)},
    ],
    ids=["float", "signed", "long", "short", "axes", "count", "order", "twice", "numbers"],
)
def test_a_cache_of_valid_checksums_and_other_contents_is_damaged(tiny, changes):
    mm.load_omniglot(tiny)
    (cache,) = (tiny.parent / "cache").iterdir()
    np.savez(cache, **{"names": SORTED, "bits": np.zeros(BITS, np.uint8)})
    assert mm.load_omniglot(tiny).names == SORTED.tolist()
    np.savez(cache, **{"names": SORTED, "bits": np.zeros(BITS, np.uint8)} | changes)
    with pytest.raises(DataError, match="the cache .* is damaged .*delete the file"):
        mm.load_omniglot(tiny)


def test_a_user_without_a_home_reads_without_a_cache(tiny, monkeypatch):
    def unknown(*_):
        raise KeyError("getpwuid(): uid not found: 54321")

    wanted = mm.load_omniglot(tiny).images
    for name in ("HOME", "XDG_CACHE_HOME", "MINIMETA_DATA", "MINIMETA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.warns(UserWarning, match="no home folder.*MINIMETA_CACHE") as told:
        assert np.array_equal(mm.load_omniglot(tiny).images, wanted)
    assert told[0].filename == __file__
    with pytest.raises(DataError, match="no home folder.*--data or MINIMETA_DATA"):
        mm.load_omniglot()


def test_characters_are_split_as_their_images(tiny):
    characters = mm.load_omniglot(tiny)
    for got, want in zip(
        mm.split_omniglot(characters, seed=3, train=2),
        mm.split_omniglot(characters.images, seed=3, train=2),
        strict=True,
    ):
        assert np.array_equal(got, want)


@pytest.mark.parametrize("train", [0, 5, 1200])
def test_a_split_without_classes_is_refused(tiny, train):
    with pytest.raises(mm.SettingsError, match=f"train must be from 1 to 4.*got {train}"):
        mm.split_omniglot(mm.load_omniglot(tiny), train=train)


@pytest.mark.parametrize("shape", [(5, 4, 28), (5, 4, 28, 28, 1), (5, 4, 28, 27)])
def test_a_split_of_other_shapes_is_refused(shape):
    with pytest.raises(mm.ShapeError, match="images must have shape"):
        mm.split_omniglot(np.zeros(shape, np.uint8), train=2)


@pytest.mark.needs_data("omniglot")
def test_the_real_omniglot(tmp_path):
    characters = mm.load_omniglot(cache=tmp_path)
    assert characters.images.shape == (1623, 20, 28, 28)
    assert (
        characters.names == sorted(characters.names)
        and len({name.split("/")[0] for name in characters.names}) == 50
    )
    assert 0.85 < characters.images.mean() < 0.95  # mostly paper, which is 1
    again = mm.load_omniglot(cache=tmp_path)
    assert np.array_equal(again.images, characters.images)
    train, test = mm.split_omniglot(characters.images)
    assert train.shape[0] == 4800 and test.shape[0] == 423
