"""Evaluation: intervals, prefixes, transduction."""

import numpy as np
import pytest

import minimeta as mm
from minimeta.inner import AdamState
from minimeta.testing import assert_same
from minimeta.training.evaluation import Evaluation, Scoring, accuracy, adaptation_errors
from minimeta.training.learner import Learner


def test_the_interval_is_196_standard_errors():
    values = np.random.default_rng(0).standard_normal(400)
    evaluation = Evaluation(values)
    assert evaluation.interval == pytest.approx(1.96 * values.std(ddof=1) / 20)


def _errors(count, workers=1):
    objective = mm.Objective(mm.mlp([1, 6, 1]), mm.MeanSquaredError())
    phi = objective.init(np.random.default_rng(0), np.float64)
    learner = Learner(objective, mm.Reptile(mm.SGD(0.01)), phi)
    return adaptation_errors(learner, mm.Sinusoid(), Scoring(5, 3, 5), count=count, workers=workers)


@pytest.mark.usefixtures("either_kernels")
def test_more_tasks_begin_with_the_same_tasks_whatever_the_workers():
    assert _errors(25).values.shape == (25, 4)
    assert_same(_errors(12).values, _errors(25).values[:12], "prefix")
    assert_same(_errors(25, workers=3).values, _errors(25).values, "workers")
    with pytest.raises(mm.SettingsError, match="at least 2 tasks"):
        _errors(1)


@pytest.mark.usefixtures("either_kernels")
@pytest.mark.parametrize("together", [1, 3, 10])
def test_accuracy_does_not_depend_on_how_many_tasks_are_taken_through_a_layer_at_once(
    monkeypatch, together
):
    images = np.random.default_rng(0).integers(0, 2, (8, 6, 28, 28, 1), dtype=np.uint8)
    objective = mm.Objective(mm.omniglot_convnet(3, filters=2), mm.SoftmaxCrossEntropy())
    phi, seen, adapted = objective.init(np.random.default_rng(1), np.float32), [], mm.Reptile.adapt

    def adapt(algorithm, objective, meta, minibatches, state):
        seen.append(minibatches.tasks)
        return adapted(algorithm, objective, meta, minibatches, state)

    def scores():
        learner = Learner(objective, mm.Reptile(mm.SGD(0.3)), phi)
        tasks = mm.FewShotImages(images, 3)
        both = accuracy(learner, tasks, Scoring(2, 3, 3), count=20, workers=1)
        return both.transductive.values, both.inductive.values

    want = scores()
    monkeypatch.setattr(mm.Reptile, "adapt", adapt)
    monkeypatch.setattr(
        "minimeta.arrays.threads.TOGETHER_BYTES",
        together * 3 * objective.cost().activations * phi.itemsize,
    )
    for got, expected in zip(scores(), want, strict=True):
        assert_same(got, expected, "accuracy")
    assert max(seen) == together and sum(seen) == 20


def test_errors_begin_before_adaptation_and_end_after_it():
    objective = mm.Objective(mm.mlp([1, 6, 1]), mm.MeanSquaredError())
    phi = objective.init(np.random.default_rng(0), np.float64)
    tasks, algorithm = mm.Sinusoid(), mm.Reptile(mm.SGD(0.01))
    learner = Learner(objective, algorithm, phi)
    values = adaptation_errors(learner, tasks, Scoring(5, 3, 5), count=10).values
    rng = np.random.default_rng([0, 2, 0])
    episode = tasks.episode(rng, 10, 5, 100)
    batches = mm.minibatches_of(rng, episode.support, 3, 5)
    assert_same(values[:, 0], objective.at(phi, episode.query).loss, "before")
    adapted = algorithm.adapt(objective, phi, batches)
    assert_same(values[:, 3], objective.at(adapted, episode.query).loss, "after")


def test_transduction_is_the_only_difference_between_the_two_ways_to_predict():
    """Without batch norm a prediction does not depend on its batch.

    So both modes have equal scores.
    """
    images = np.random.default_rng(0).integers(0, 2, (8, 6, 4, 4, 1), dtype=np.uint8)
    network = mm.Network(
        (4, 4, 1),
        (mm.layers.Conv2D(1, 3), mm.layers.ReLU(), mm.layers.Flatten(), mm.layers.Dense(48, 3)),
    )
    objective = mm.Objective(network, mm.SoftmaxCrossEntropy())
    phi = objective.init(np.random.default_rng(1), np.float64)
    learner = Learner(objective, mm.Reptile(mm.SGD(0.1)), phi)
    scoring = Scoring(2, 5, 3, queries=2)
    scores = accuracy(learner, mm.FewShotImages(images, 3), scoring, count=20, workers=1)
    assert_same(scores.transductive.values, scores.inductive.values, "accuracy")


def _tiny_problem():
    """With batch norm, a prediction depends on its batch."""
    rng = np.random.default_rng(0)
    images = (
        rng.integers(0, 256, (5, 6, 4, 4, 1)) * rng.choice([0.02, 0.2, 1.0], (5, 6, 1, 1, 1))
    ).astype(np.uint8)
    stack = (
        mm.layers.Conv2D(1, 3),
        mm.layers.BatchNorm(3),
        mm.layers.ReLU(),
        mm.layers.Flatten(),
        mm.layers.Dense(48, 3),
    )
    objective = mm.Objective(mm.Network((4, 4, 1), stack), mm.SoftmaxCrossEntropy())
    return (
        mm.FewShotImages(images, 3, white=255),
        objective,
        objective.init(np.random.default_rng(1), np.float64),
    )


def test_without_transduction_a_query_is_predicted_alone_among_the_support_images():
    tasks, objective, phi = _tiny_problem()
    algorithm = mm.Reptile(mm.SGD(0.5))
    learner, scoring = Learner(objective, algorithm, phi), Scoring(2, 20, 3, queries=2)
    scores = accuracy(learner, tasks, scoring, count=10, workers=1)
    rng = np.random.default_rng([0, 2, 0])
    episode = tasks.episode(rng, 10, 2, 2, np.float64)
    adapted = algorithm.adapt(objective, phi, mm.minibatches_of(rng, episode.support, 20, 3))
    right = {True: [], False: []}
    for task in range(10):
        (support, _), (x, y) = [[part[task] for part in pair] for pair in episode]
        together = objective.network.forward(adapted[task], x[None])[0].argmax(axis=1)
        alone = [
            objective.network.forward(adapted[task], np.concatenate([support, image[None]])[None])[
                0, -1
            ].argmax()
            for image in x
        ]
        right[True].append((together == y).mean())
        right[False].append((alone == y).mean())
    assert_same(scores.transductive.values, np.array(right[True]), "with transduction")
    assert_same(scores.inductive.values, np.array(right[False]), "without transduction")
    assert not np.array_equal(right[True], right[False])


def test_adaptation_starts_from_the_moments_of_training():
    tasks, objective, phi = _tiny_problem()
    algorithm, moments = mm.Reptile(mm.Adam(0.01)), AdamState(100, 0 * phi, 1e-4 + 0 * phi)
    scoring = Scoring(2, 4, 3, queries=4)
    fresh, warm, again = (
        accuracy(
            Learner(objective, algorithm, phi, state), tasks, scoring, count=10, workers=1
        ).transductive.values
        for state in (None, moments, moments)
    )
    assert not np.array_equal(fresh, warm)
    assert_same(again, warm, "the moments were changed: a second evaluation")


def test_an_adaptation_that_diverges_is_an_error_and_not_a_score():
    tasks, objective, phi = _tiny_problem()
    learner = Learner(objective, mm.Reptile(mm.SGD(1e300)), phi)
    with pytest.raises(mm.DivergenceError, match=r"diverges on \d+ of 10 tasks"):
        accuracy(learner, tasks, Scoring(2, 6, 3), count=10, workers=1)


def test_memorized_support_images_are_always_right():
    """Queries equal to support images, and enough steps: accuracy 1."""
    images = np.repeat(
        np.random.default_rng(0).integers(0, 2, (6, 1, 6, 6, 1), dtype=np.uint8), 4, axis=1
    )
    network = mm.Network((6, 6, 1), (mm.layers.Flatten(), mm.layers.Dense(36, 3)))
    objective = mm.Objective(network, mm.SoftmaxCrossEntropy())
    phi = objective.init(np.random.default_rng(1), np.float64)
    learner, tasks = Learner(objective, mm.Reptile(mm.SGD(0.5)), phi), mm.FewShotImages(images, 3)
    how = dict(count=10, modes=("transductive",), workers=1)
    scores = accuracy(learner, tasks, Scoring(1, 200, 3), **how)
    assert scores.inductive is None
    assert (scores.transductive.values == 1).all()


def test_a_way_to_predict_that_is_none_is_refused():
    tasks, objective, phi = _tiny_problem()
    learner = Learner(objective, mm.Reptile(mm.SGD(0.5)), phi)
    for modes in ((), ("both",)):
        with pytest.raises(mm.SettingsError, match="among transductive, inductive"):
            accuracy(learner, tasks, Scoring(2, 1, 3), modes=modes)


def test_a_learner_adapts_and_predicts_from_its_state():
    tasks, objective, phi = _tiny_problem()
    algorithm, moments = mm.Reptile(mm.Adam(0.01)), AdamState(100, 0 * phi, 1e-4 + 0 * phi)
    rng = np.random.default_rng(0)
    support, (x, _) = tasks.episode(rng, 2, 2, 2, np.float64)
    batches = mm.minibatches_of(rng, support, 3, 4)
    learner = Learner(objective, algorithm, phi, moments)
    adapted = algorithm.adapt(objective, phi, batches, moments)
    assert_same(learner.adapt(batches), adapted, "adapt")
    assert_same(learner.iterates(batches)[-1], adapted, "iterates")
    predicted = algorithm.predict(objective, phi, batches, x, moments)
    assert_same(predicted, objective.predict(adapted, x), "predict")
