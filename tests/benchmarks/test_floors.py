"""The multiply-adds of a step, counted from the network and by recording."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import minimeta as mm

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import cases  # noqa: E402
import floors  # noqa: E402
import ours  # noqa: E402

# Records the matrix products of one step of every small case, with the plain
# kernels: a compiled kernel hides its products. No size is 1, so that no
# product is written as another operation.
RECORD = """
import json, sys
sys.path[:0] = sys.argv[1:3]
import breakdown, numpy as np, minimeta as mm
from test_floors import SMALL

# A concatenation is plain whatever its parts are. Its products are recorded
# too.
plain = np.concatenate
np.concatenate = lambda *parts, **options: plain(*parts, **options).view(breakdown.Noting)

def recorded(case):
    batches, objective = case.minibatches(), case.objective()
    phi = case.arrays()["phi"].view(breakdown.Noting)
    breakdown.Noting.notes = []
    if case.kind == "reptile":
        mm.Reptile(case.rule).direction(objective, phi, batches)
    elif case.kind == "maml":
        mm.MAML(case.rule).direction(objective, phi, batches)
    elif case.kind == "evaluation":
        adapted = mm.Reptile(case.rule).adapt(objective, phi, batches[:-1])
        objective.network.forward(adapted.view(breakdown.Noting), batches[-1][0])
    else:
        point = objective.at(phi, batches[0])
        point.grad, point.hvp(case.arrays()["v"].view(breakdown.Noting))
    products = [note for note in breakdown.Noting.notes if breakdown._is_product(note)]
    return int(breakdown.multiply_adds(products))

print(json.dumps({name: recorded(case) for name, case in SMALL.items()}))
"""
IMAGES = cases.random_images(6, 2, white=255)
MLP, CONV = mm.mlp([2, 3, 4, 5]), mm.convnet((6, 6, 2), 5, 3)
POOLED = mm.Network(
    (6, 6, 2),
    (
        mm.layers.Conv2D(2, 3),
        mm.layers.BatchNorm(3),
        mm.layers.MaxPool2D(),
        mm.layers.ReLU(),
        mm.layers.Flatten(),
        mm.layers.Dense(27, 5),
    ),
)
SCHEDULE = mm.MinibatchSchedule(k=3, size=5, tail="separate", shots=1, tail_shots=1, order="cycle")


class Vectors:
    """Tasks of random vectors, with mini-batches of different sizes."""

    def sample(self, rng, tasks, schedule, dtype, xp):
        shapes = [(tasks, size) for size in (4, 6, 3)]
        return mm.Minibatches(
            [rng.standard_normal((*shape, 2)) for shape in shapes],
            [rng.standard_normal((*shape, 5)) for shape in shapes],
        )


def _small(kind, network, tasks=2):
    images = network is not MLP
    return cases.Case(
        "small",
        "a small case",
        kind,
        network,
        mm.SoftmaxCrossEntropy() if images else mm.MeanSquaredError(),
        IMAGES if images else Vectors(),
        SCHEDULE,
        tasks,
        mm.SGD(0.1),
    )


SMALL = {
    f"{kind} {name}": _small(kind, network)
    for kind in ("reptile", "maml", "evaluation", "hvp")
    for name, network in (("mlp", MLP), ("conv", CONV), ("pooled", POOLED))
}


@pytest.fixture(scope="module")
def recorded():
    done = subprocess.run(
        [sys.executable, "-c", RECORD, str(BENCHMARKS), str(Path(__file__).parent)],
        env=os.environ | {"MINIMETA_FAST": "0"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", SMALL)
def test_the_count_is_that_of_the_recorded_products(recorded, name):
    assert floors.multiply_adds(SMALL[name]) == recorded[name]


def test_the_products_of_the_papers_network_by_hand():
    # 14 x 14 pixels of 9 x 1 x 64 products, then 7 x 7, 4 x 4 and 2 x 2 of 9 x
    # 64 x 64, then 2 x 2 x 64 features to 5 classes.
    by_hand = [14**2 * 576, 7**2 * 36864, 4**2 * 36864, 2**2 * 36864, 1280]
    assert floors.forward_products(mm.omniglot_convnet(5)) == by_hand


def test_a_floor_is_the_time_of_the_products_at_the_peak():
    case = SMALL["maml mlp"]
    found = floors.floor(case, 2, 100.0)
    assert found["multiply_adds"] == floors.multiply_adds(case)
    # 100 gigaflops on each of two cores are 1e8 multiply-adds per millisecond.
    assert found["milliseconds"] == pytest.approx(found["multiply_adds"] / 1e8, rel=1e-4)
    assert floors.floor(replace(case, tasks=4), 2, 100.0)["multiply_adds"] == (
        2 * found["multiply_adds"]
    )


def test_memory_has_no_floor():
    with pytest.raises(ValueError, match="memory"):
        floors.multiply_adds(cases.CASES["memory-1"])


def test_a_case_whose_products_share_no_threads_has_a_floor_of_one_core():
    assert ours.threads_used(cases.CASES["omniglot-hvp"]) == 1
    assert ours.threads_used(cases.CASES["omniglot-evaluation"]) >= 1
