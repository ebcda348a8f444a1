"""Few-shot classification of your own images.

    python examples/own_images.py [FOLDER]

FOLDER holds one folder of PNG or JPEG files per class. Without FOLDER, the
script draws its own: characters of random strokes, in wobbly handwriting.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import minimeta as mm


def draw_characters(folder: Path, classes: int = 40, drawings: int = 12) -> None:
    """Random characters: a class is four points, a drawing wobbles them."""
    rng = np.random.default_rng(0)
    for character in range(classes):
        (folder / f"character-{character:02d}").mkdir(parents=True)
        points = rng.uniform(15, 85, (4, 2))
        for drawing in range(drawings):
            image = Image.new("L", (100, 100), "white")
            wobbly = points + rng.normal(scale=4, size=points.shape)
            ImageDraw.Draw(image).line([tuple(p) for p in wobbly], fill="black", width=6)
            image.save(folder / f"character-{character:02d}" / f"{drawing:02d}.png")


def main(images: Path | None = None, runs: Path = Path("runs/examples"), iterations: int = 500):
    images = images or runs / "characters"
    if not images.exists():
        draw_characters(images)
    loaded = mm.load_image_folder(images, size=(28, 28), channels=1)
    held_out = len(loaded.names) // 4  # the last classes are not for training
    train, test = (
        mm.FewShotImages(part, ways=5, white=255)
        for part in (loaded.images[:-held_out], loaded.images[-held_out:])
    )
    learner = mm.train(
        "omniglot-5way-maml",
        runs / "images",
        tasks=train,
        test_tasks=test,
        network=mm.omniglot_convnet(ways=5, filters=16),
        meta_batch=8,
        iterations=iterations,
        resume=True,
    )
    print("accuracy on unseen classes:", mm.evaluate(learner, test, count=100).inductive)

    # One task: two examples of each of five unseen classes.
    names, five = np.array(loaded.names[-5:]), loaded.images[-5:] / 255
    learner.fit(np.concatenate(five[:, :2]), np.repeat(names, 2))
    print("classified as", learner.predict(five[:, 2]), "wanted", names)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
