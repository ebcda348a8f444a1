"""Few-shot tasks: distinct classes, distinct images, labels by class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.testing.strategies import seeds

# Image (c, d) is constant 16 c + d: a sample's pixels tell where it came from.
pytestmark = pytest.mark.filterwarnings("ignore:the images reach")
IMAGES = (16 * np.arange(9)[:, None] + np.arange(12)).astype(np.uint8)[
    ..., None, None, None
] * np.ones((2, 2, 1), np.uint8)


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), seeds)
def test_episodes_hold_distinct_classes_and_disjoint_images(ways, tasks, shots, queries, seed):
    episode = mm.FewShotImages(IMAGES, ways).episode(
        np.random.default_rng(seed), tasks, shots, queries
    )
    for task in range(tasks):
        seen = {}
        for x, y in episode:
            for image, label in zip(x[task, :, 0, 0, 0].astype(int), y[task], strict=True):
                assert seen.setdefault(label, image // 16) == image // 16
        assert len(set(seen.values())) == len(seen) == ways
        drawn = np.concatenate([x[task, :, 0, 0, 0] for x, _ in episode])
        assert len(set(drawn)) == ways * (shots + queries)
    assert (
        episode.support[0].shape == (tasks, ways * shots, 2, 2, 1)
        and episode.support[0].dtype == np.float32
    )


@given(st.integers(1, 4), st.sampled_from(["shared", "separate"]), seeds)
def test_training_minibatches_keep_one_label_for_one_class(k, tail, seed):
    schedule = mm.MinibatchSchedule(
        k + 1, 6, tail, shots=4, tail_shots=3 if tail == "separate" else None
    )
    batches = mm.FewShotImages(IMAGES, 3).sample(np.random.default_rng(seed), 2, schedule)
    for task in range(2):
        pairs = {
            (int(y), int(x) // 16)
            for xs, ys in batches
            for x, y in zip(xs[task, :, 0, 0, 0], ys[task], strict=True)
        }
        assert (
            len(pairs) == len({label for label, _ in pairs}) == len({source for _, source in pairs})
        )


def test_photographs_are_scaled_to_one():
    tasks = mm.FewShotImages(np.full((2, 2, 2, 2, 3), 255, np.uint8), 2, white=255)
    batches = tasks.sample(np.random.default_rng(0), 1, mm.MinibatchSchedule(1, 2, shots=2))
    assert batches.x.dtype == np.float32 and (batches.x == 1).all()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(mm.ShapeError, match="images must have shape"):
        mm.FewShotImages(IMAGES[..., 0])
    with pytest.raises(mm.SettingsError, match="10-way tasks cannot be drawn from 9 classes"):
        mm.FewShotImages(IMAGES, 10)
    with pytest.raises(mm.SettingsError, match="asked for 13 images per class"):
        mm.FewShotImages(IMAGES, 5).episode(np.random.default_rng(0), 1, 12, 1)


@pytest.mark.parametrize("kind", ["c16", "O", "i8", "?", "U1", "M8[s]"])
def test_images_of_other_types_are_refused(kind):
    with pytest.raises(mm.SettingsError, match="images must be uint8 or floating, got "):
        mm.FewShotImages(np.zeros((2, 2, 3, 3, 1), kind), 2)


@pytest.mark.parametrize("kind", [np.uint8, np.float16, np.float32, np.float64])
def test_floating_images_are_images(kind):
    tasks = mm.FewShotImages(np.ones((2, 2, 3, 3, 1), kind), 2)
    x, _ = tasks.episode(np.random.default_rng(0), 1, 1, 1).support
    assert x.dtype == np.float32 and (x == 1).all()


@pytest.mark.parametrize("images", [[[1]], np.zeros((0, 2, 3, 3, 1)), np.zeros((2, 2, 3, 0, 1))])
def test_images_that_are_no_array_or_hold_no_pixel_are_refused(images):
    with pytest.raises(mm.ShapeError, match="images must have shape"):
        mm.FewShotImages(images, 1)


@pytest.mark.parametrize(
    "options",
    [{"ways": 0}, {"ways": 2.0}, {"ways": True}]
    + [{"white": white} for white in (0, -1, np.inf, np.nan, 1j, "255")],
)
def test_ways_and_white_that_make_no_sense_are_refused(options):
    with pytest.raises(mm.SettingsError, match=f"^{next(iter(options))} must be a "):
        mm.FewShotImages(IMAGES, **options)


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1.5, 1, 1), (-1, 1, 1)])
@pytest.mark.parametrize("tasks", [mm.FewShotImages(IMAGES, white=255), mm.Sinusoid()])
def test_an_episode_of_no_tasks_or_examples_is_refused(tasks, counts):
    with pytest.raises(mm.SettingsError, match="must be a whole number, 1 or more, got "):
        tasks.episode(np.random.default_rng(0), *counts)


def test_images_that_are_not_scaled_are_told():
    with pytest.warns(UserWarning, match="the images reach 139, and white is 1: give white=255"):
        mm.FewShotImages(IMAGES)
    assert mm.FewShotImages(IMAGES, white=255).inputs == (0, 1)
    assert mm.FewShotImages(IMAGES, white=100).inputs == (0, 1.39)
