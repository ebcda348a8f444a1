"""The way in from Python: the same runs as the command line's, and tasks,
networks and losses of one's own."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import minimeta as mm
from minimeta.layers import LAYERS, Dense, ReLU, Tanh
from minimeta.losses import Summed
from minimeta.runs.sweep import Job, sweep
from minimeta.runs.train import open_run
from minimeta.runs.train import train as train_in_folder

RESULTS = Path(__file__).resolve().parents[2] / "figures" / "results"
QUIET = {"progress": False, "workers": 1}


class Lines(mm.ExampleTasks):
    """y = a x."""

    inputs = (-1.0, 1.0)

    def examples(self, rng, tasks, count):
        x = rng.uniform(-1, 1, (tasks, count, 1))
        return x, rng.normal(size=(tasks, 1, 1)) * x


class Signs(mm.ExampleTasks):
    """Classes by the sign of x, which some tasks turn round."""

    def examples(self, rng, tasks, count):
        x = rng.normal(size=(tasks, count, 1))
        turned = rng.integers(0, 2, (tasks, 1))
        return x, (x[..., 0] > 0) ^ (turned == 1)


class Almost:
    def examples(self, rng, tasks, count):
        """Nothing."""


class Returning:
    """A distribution whose sample is any function."""

    def __init__(self, sample):
        self.sample = sample


def _with_inputs(inputs):
    tasks = Lines()
    tasks.inputs = inputs
    return tasks


def _one_more(rng, tasks, schedule, dtype, xp):
    return Lines().sample(rng, tasks + 1, schedule, dtype, xp)


def _doubles(rng, tasks, schedule, dtype, xp):
    return Lines().sample(rng, tasks, schedule, np.float64, xp)


class NoNumbers(Lines):
    def examples(self, rng, tasks, count):
        x, y = super().examples(rng, tasks, count)
        return x, y * np.nan


class NoPair(Lines):
    def examples(self, rng, tasks, count):
        return super().examples(rng, tasks, count)[0]


def _small():
    objective = mm.Objective(mm.mlp([1, 1]), mm.MeanSquaredError())
    return mm.Learner(objective, mm.MAML(mm.SGD(0.1)), np.zeros(2))


def measure(experiment, state):
    return {"tasks": type(experiment.train_tasks).__name__, "meta": float(state.meta.sum())}


def _train(folder, what="sine-maml", **changes):
    return mm.train(what, folder, **(QUIET | {"iterations": 6, "meta_batch": 2} | changes))


def test_a_run_from_python_is_a_run_of_the_settings(tmp_path):
    learner = _train(tmp_path / "a", inner_lr=0.02)
    settings = mm.presets()["sine-maml"].settings.changed(iterations=6, meta_batch=2, inner_lr=0.02)
    state = train_in_folder(mm.Experiment(settings, workers=1), tmp_path / "b")
    np.testing.assert_array_equal(learner.meta, state.meta)
    assert json.loads((tmp_path / "a/config.json").read_text()) == settings.to_dict()
    assert learner.scoring == settings.evaluation
    assert learner.inputs == (-5, 5)


@pytest.mark.parametrize("given", ["sine-maml", "preset", "settings", "experiment"])
def test_an_experiment_begins_with_a_preset_settings_or_an_experiment(given):
    preset = mm.presets()["sine-maml"]
    what = {
        "preset": preset,
        "settings": preset.settings,
        "experiment": mm.experiment("sine-maml", workers=2),
    }.get(given, given)
    changed = mm.experiment(what, iterations=5)
    assert changed.settings == preset.settings.changed(iterations=5)
    assert changed.workers == (2 if given == "experiment" else None)


def test_a_preset_shows_its_text():
    assert repr(mm.presets()["sine-maml"]).startswith("MAML on sine waves")


def test_resume_begins_continues_and_returns(tmp_path):
    whole = _train(tmp_path / "whole")
    _train(tmp_path / "parts", resume=True, until=2)
    _train(tmp_path / "parts", resume=True, until=4)
    parts = _train(tmp_path / "parts", resume=True)
    np.testing.assert_array_equal(parts.meta, whole.meta)
    np.testing.assert_array_equal(_train(tmp_path / "parts", resume=True).meta, whole.meta)
    with pytest.raises(mm.CheckpointError, match="already holds a run"):
        _train(tmp_path / "parts")


def test_a_loaded_learner_is_the_trained_one(tmp_path):
    trained = _train(tmp_path / "run")
    loaded = mm.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.meta, trained.meta)
    assert (loaded.objective, loaded.algorithm) == (trained.objective, trained.algorithm)


@pytest.mark.parametrize("name", ["omniglot-5way"])
def test_a_committed_run_is_loaded_and_used_without_its_data(name, monkeypatch, tmp_path):
    """It learns five characters of random strokes from one drawing each."""
    monkeypatch.delenv("MINIMETA_DATA", raising=False)
    learner = mm.load(RESULTS / name)
    rng = np.random.default_rng(0)
    x = np.ones((5, 28, 28))
    for image in x:
        image[rng.integers(4, 24, 60), rng.integers(4, 24, 60)] = 0
    learner.fit(x, list("abcde"))
    assert list(learner.predict(x)) == list("abcde")
    learner.save(tmp_path / "characters.npz")
    again = mm.load(tmp_path / "characters.npz").fit(x, list("abcde"))
    np.testing.assert_array_equal(again.predict_proba(x), learner.predict_proba(x))


def test_own_tasks_are_learned_stored_and_used_elsewhere(tmp_path):
    """The folder holds the network, so the class of the tasks is not needed
    to load it."""
    network = mm.Network((1,), (Dense(1, 8), Tanh(), Dense(8, 1)))
    learner = _train(tmp_path / "run", tasks=Lines(), network=network)
    loaded = mm.load(tmp_path / "run")
    assert loaded.objective.network == network
    assert loaded.inputs == (-1, 1)
    np.testing.assert_array_equal(loaded.meta, learner.meta)
    told = json.loads((tmp_path / "run/config.json").read_text())["task"]
    assert told == {"type": "own", "distribution": "Lines", "inputs": [-1.0, 1.0]}
    x = np.linspace(-1, 1, 5)
    assert loaded.fit(x, 2 * x).predict(x).shape == (5,)


@pytest.mark.usefixtures("either_kernels")
def test_a_run_of_own_tasks_goes_on_with_the_same_bits(tmp_path):
    whole = _train(tmp_path / "whole", tasks=Lines())
    _train(tmp_path / "parts", tasks=Lines(), resume=True, until=3)
    parts = _train(tmp_path / "parts", tasks=Lines(), resume=True)
    np.testing.assert_array_equal(parts.meta, whole.meta)
    with pytest.raises(mm.SettingsError, match="tasks of its own .Lines.*give them in Python"):
        open_run(tmp_path / "parts")[0].training  # noqa: B018
    with pytest.raises(mm.SettingsError, match="tasks of its own"):
        mm.evaluate(tmp_path / "parts", count=4)


def test_own_classes_are_scored_by_accuracy(tmp_path):
    network = mm.Network((1,), (Dense(1, 8), ReLU(), Dense(8, 2)))
    loss = mm.SoftmaxCrossEntropy()
    learner = _train(tmp_path, tasks=Signs(), network=network, loss=loss, iterations=20)
    scores = mm.evaluate(learner, Signs(), count=20, shots=4, queries=8)
    assert scores.transductive.values.shape == (20,)
    assert 0 <= scores.inductive.mean <= 1
    with pytest.raises(mm.SettingsError, match="tells 2 classes apart"):
        learner.fit([1.0, 2.0, 3.0], ["a", "b", "c"])


def test_an_own_network_learns_the_presets_tasks(tmp_path):
    network = mm.mlp([1, 10, 1], "softplus")
    learner = _train(tmp_path, network=network)
    assert learner.objective.network == network
    errors = mm.evaluate(tmp_path, count=20, steps=2)
    assert errors.mean.shape == (3,)
    planned, _ = open_run(tmp_path)
    assert planned.settings.task == mm.presets()["sine-maml"].settings.task


def test_own_images_are_identified_by_their_digest(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (6, 4, 28, 28, 1), np.uint8)
    tasks = mm.FewShotImages(images, ways=3)
    how = {"tasks": tasks, "network": mm.omniglot_convnet(3, 2), "iterations": 2}
    _train(tmp_path, "omniglot-5way-maml", **how, until=1)
    other = {**how, "tasks": mm.FewShotImages(1 - images, ways=3)}
    with pytest.raises(mm.CheckpointError, match="started with other images"):
        _train(tmp_path, "omniglot-5way-maml", **other, resume=True)
    _train(tmp_path, "omniglot-5way-maml", **how, resume=True)


def test_an_own_layer_is_named_in_the_folder(tmp_path):
    @dataclass(frozen=True)
    class Twice(Tanh):
        """tanh again, under a name of its own."""

    network = mm.Network((1,), (Dense(1, 4), Twice(), Dense(4, 1)))
    with pytest.raises(mm.SettingsError, match="Twice is not a registered layer"):
        _train(tmp_path / "run", network=network)
    with LAYERS.registered("Twice", Twice):
        _train(tmp_path / "run", network=network)
        assert mm.load(tmp_path / "run").objective.network == network
    with pytest.raises(mm.SettingsError, match="unknown layer 'Twice'"):
        mm.load(tmp_path / "run")


def test_one_seed_means_the_same_tasks_for_every_learner(tmp_path):
    first = _train(tmp_path / "first")
    second = _train(tmp_path / "second", seed=1)
    how = {"count": 20, "seed": 3, "steps": 2}
    a, b = (mm.evaluate(each, mm.Sinusoid(), **how) for each in (first, second))
    difference = a - b
    np.testing.assert_array_equal(difference.values, a.values - b.values)
    np.testing.assert_array_equal((a - a).interval, 0)
    with pytest.raises(mm.ShapeError, match="scores of the same tasks"):
        _ = a - mm.evaluate(first, mm.Sinusoid(), **how | {"count": 10})


def test_an_evaluation_is_what_fit_and_predict_give(tmp_path):
    """The score of a task is the error of fit and predict on its episode."""
    learner, tasks = _train(tmp_path), mm.Sinusoid()
    scores = mm.evaluate(learner, tasks, count=10, seed=5, steps=3, queries=7)
    rng = np.random.default_rng([5, 2, 0])
    (x, y), (query, wanted) = tasks.episode(rng, 10, 10, 7, np.float32)
    predicted = learner.fit(x, y, steps=3, seed=rng).predict(query, transductive=True)
    error = ((predicted - wanted) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(scores.values[:, 3], error, rtol=1e-5)  # float32


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda to: mm.train("sine-mml", to),
            "unknown preset 'sine-mml': did you mean 'sine-maml'",
        ),
        (lambda to: mm.train(7, to), "begins with the name of a preset.*got 7"),
        (lambda to: mm.train("sine", to, iteration=5), "did you mean iterations"),
        (lambda to: mm.train("sine", to, ways=5), "ways belongs to omniglot"),
        (lambda to: mm.train("sine", to, iterations=-1), "iterations must be 1 or more"),
        (lambda to: mm.train("sine", to, task="own"), "needs a value for distribution"),
        (
            lambda to: mm.train("sine", to, tasks=3),
            r"must have a method sample\(rng.*which int lacks",
        ),
        (lambda to: mm.train("sine", to, tasks=Lines), r"give Lines\(\), not the class"),
        (lambda to: mm.train("sine", to, tasks=mm.ImageClasses([], None)), "FewShotImages"),
        (lambda to: mm.train("sine", to, tasks=Almost()), "derives it from ExampleTasks"),
        (
            lambda to: mm.train("sine", to, tasks=Lines(), hidden=(3,)),
            "hidden describes.*leave hidden out, and give network=",
        ),
        (lambda to: mm.train("sine", to, tasks=Lines(), grid=3), "grid describes.*and give tasks="),
        (lambda to: mm.train("sine", to, tasks=NoNumbers()), "NoNumbers.examples returned y with"),
        (lambda to: mm.train("sine", to, tasks=Lines(), inputs=(0, 1)), "inputs describes"),
        (lambda to: mm.train("sine", to, network=mm.mlp([1, 1]), model={}), "model describes"),
        (lambda to: mm.train("sine", to, test_tasks=Lines()), "evaluate.folder, tasks"),
        (lambda to: mm.train("sine", to, tasks=Returning(lambda *_: 1)), "must return Minibatches"),
        (lambda to: mm.train("sine", to, tasks=Returning(_one_more)), "2 tasks where 2 are asked"),
        (lambda to: mm.train("sine", to, tasks=Returning(_doubles)), "x of dtype float32, got fl"),
        (lambda to: mm.train("sine", to, tasks=Signs()), "real numbers, since the loss predicts"),
        (lambda to: mm.train("sine", to, meta_batch=10**9), "need at least .* GiB of memory"),
        (lambda to: mm.evaluate(_small(), Lines(), queries=10**12), "GiB of memory"),
        (lambda to: mm.evaluate(_small(), Lines(), count=10**10), "count must be at most"),
        (lambda to: mm.train("sine", to, resume="no"), "resume must be True or False"),
        (lambda to: mm.train("sine", to, checkpoint_seconds="5"), "checkpoint_seconds must be"),
        (lambda to: mm.train("sine", to, until="5"), "until must be a whole number"),
        (lambda to: mm.train("sine", to, device=np.zeros(2)), "device must be one of cpu, gpu"),
        (lambda to: mm.train("sine", to, tasks=_with_inputs("ab")), "inputs must be"),
        (lambda to: mm.train("sine", to, tasks=_with_inputs((1,))), "inputs must be two numbers"),
        (lambda to: mm.train("sine", to, tasks=_with_inputs((2, 1))), "inputs must be two numbers"),
        (lambda to: mm.train("sine", to, tasks=_with_inputs(5)), "inputs must be"),
        (lambda to: mm.load("x" * 300), "no run folder and no learner"),
        (lambda to: mm.train("sine", "x" * 300), "cannot be used as a run folder"),
        (lambda to: mm.train("sine", to, log_every=2.5), "log_every must be a whole number"),
        (lambda to: mm.train("sine", to, until=-1), "until must be a whole number"),
        (lambda to: mm.train("sine", to, workers="2"), "workers must be a whole number"),
        (lambda to: mm.train("sine", None), "folder must be a path"),
        (lambda to: mm.train("omniglot-5way", to, data=5), "data must be a path"),
        (lambda to: mm.evaluate(_small(), Lines(), count=2.5), "count must be a whole number"),
        (lambda to: mm.evaluate(_small(), Lines(), seed=-1), "seed must be a whole number"),
        (lambda to: mm.evaluate(_small(), Lines(), data="x"), "not for a learner"),
        (lambda to: mm.evaluate(__file__), "is a file, and holds no tasks"),
        (lambda to: Job("a", mm.experiment("sine", workers=1)), "give data to sweep"),
        (lambda to: mm.train("sine", to, tasks=NoPair()), r"must return a pair \(x, y\)"),
        (lambda to: mm.train("sine", to, lr=0.1), "did you mean inner_lr or epsilon"),
        (lambda to: mm.train("sine", to, outer_lr=0.1), "did you mean .*epsilon"),
        (lambda to: mm.train("sine", to, algorithm="MAML"), "got 'MAML': did you mean maml"),
        (lambda to: mm.load(mm), "the place of a learner must be a path"),
        (lambda to: mm.metrics(mm), "metrics needs the path"),
        (lambda to: mm.evaluate(_small(), Lines), r"give Lines\(\), not the class"),
        (lambda to: mm.train("sine", to, network=Dense(1, 1)), "network must be a Network"),
        (lambda to: mm.train("sine", to, loss=mm.MeanSquaredError), "loss must be a Loss"),
        (
            lambda to: mm.train("sine", to, hidden=(3,), network=mm.mlp([1, 1])),
            "hidden describes the task's own network and loss",
        ),
        (
            lambda to: mm.train("sine", to, network=mm.mlp([2, 1])),
            "tasks do not fit the network and its loss: x must have shape",
        ),
        (lambda to: mm.train("sine", to, device="tpu"), "unknown device 'tpu'"),
        (lambda to: mm.evaluate(to), "is not a run folder"),
    ],
)
def test_wrong_calls_are_told_in_one_line_and_leave_nothing(call, told, tmp_path):
    with pytest.raises(mm.MinimetaError, match=told) as error:
        call(tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_learner_is_scored_on_given_tasks_only(tmp_path):
    learner = _train(tmp_path)
    with pytest.raises(mm.SettingsError, match=r"give evaluate\(learner, tasks\)"):
        mm.evaluate(learner)
    with pytest.raises(mm.SettingsError, match="unknown setting 'shot'.*shots"):
        mm.evaluate(learner, mm.Sinusoid(), shot=3)
    with pytest.raises(mm.SettingsError, match="shots must be 1 or more"):
        mm.evaluate(learner, mm.Sinusoid(), shots=0)


def test_examples_of_another_shape_are_told():
    class Short(mm.ExampleTasks):
        def examples(self, rng, tasks, count):
            return np.zeros((tasks, 1, 1)), np.zeros((tasks, count, 1))

    with pytest.raises(mm.ShapeError, match=r"Short.examples must return x of shape \(4, 6, ...\)"):
        Short().episode(np.random.default_rng(0), 4, 3, 3)


def test_an_object_stands_for_its_settings():
    by_object = mm.experiment(
        "sine",
        algorithm=mm.IMAML(mm.Adam(0.003, beta1=0.9), regularization=50.0),
        outer=mm.SGD(0.2),
        schedule=mm.MinibatchSchedule(3, 4, tail="separate"),
        evaluation=mm.Scoring(shots=3),
    )
    by_flag = mm.experiment(
        "sine",
        algorithm="imaml",
        inner="adam",
        inner_lr=0.003,
        inner_beta1=0.9,
        epsilon=0.2,
        regularization=50.0,
        k=3,
        size=4,
        tail="separate",
        eval_shots=3,
        eval_steps=32,
    )
    assert by_object.settings == by_flag.settings
    lower = mm.experiment("sine", algorithm=mm.Reptile(mm.SGD(0.5)), inner_lr=0.1)
    assert lower.settings.algorithm == mm.Reptile(mm.SGD(0.1))
    assert mm.experiment("sine", hidden=8).settings.task.hidden == (8,)


def test_a_preset_does_not_extend_a_run(tmp_path):
    """Only iterations that the caller names do."""
    _train(tmp_path, iterations=4)
    with pytest.raises(mm.CheckpointError, match="iterations is 4 in the run, 70000 here"):
        mm.train("sine-maml", tmp_path, meta_batch=2, resume=True, **QUIET)
    with pytest.raises(mm.CheckpointError, match="inner_lr is 0.01 in the run, 0.3 here"):
        _train(tmp_path, iterations=4, inner_lr=0.3, resume=True)
    longer = _train(tmp_path, iterations=6, resume=True)
    np.testing.assert_array_equal(longer.meta, _train(tmp_path / "whole", iterations=6).meta)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_sweep_takes_tasks_of_ones_own(processes, tmp_path):
    own = mm.experiment("sine-maml", tasks=Lines(), iterations=3, meta_batch=2)
    jobs = [Job(f"seed-{n}", mm.experiment(own, seed=n)) for n in range(2)]
    finished = sweep(jobs, tmp_path, measure, processes=processes)
    assert {each.result["tasks"] for each in finished.values()} == {"Lines"}
    alone = mm.train(own, tmp_path / "alone", seed=1, **QUIET)
    assert finished["seed-1"].result["meta"] == float(alone.meta.sum())


def test_scores_of_other_tasks_are_not_compared_in_pairs(tmp_path):
    learner, how = _train(tmp_path), {"count": 10, "steps": 1}
    first = mm.evaluate(learner, mm.Sinusoid(), **how)
    for other in ({"seed": 1}, {"shots": 4}, {"queries": 7}):
        with pytest.raises(mm.SettingsError, match="scores of the same tasks"):
            _ = first - mm.evaluate(learner, mm.Sinusoid(), **how | other)
    with pytest.raises(mm.SettingsError, match="scores of the same tasks"):
        _ = first - mm.evaluate(learner, Lines(), **how)
    assert repr(first).endswith("(95% intervals over 10 tasks)")


def test_accuracies_are_compared_mode_by_mode(tmp_path):
    network = mm.Network((1,), (Dense(1, 8), ReLU(), Dense(8, 2)))
    loss = mm.SoftmaxCrossEntropy()
    learner = _train(tmp_path, tasks=Signs(), network=network, loss=loss)
    scores = mm.evaluate(learner, Signs(), count=20)
    right = 100 * scores.inductive.values  # of 100 points a task
    np.testing.assert_allclose(right, np.round(right), atol=1e-12)
    assert len(np.unique(right)) > 2
    assert ((scores - scores).transductive.values == 0).all()


@pytest.mark.parametrize("as_settings", [True, False])
def test_settings_do_not_extend_a_run(as_settings, tmp_path):
    """Whatever an experiment begins with, only named iterations extend."""
    _train(tmp_path, iterations=4)
    longer = mm.experiment("sine-maml", meta_batch=2)
    for base in (longer.settings if as_settings else longer,):
        with pytest.raises(mm.CheckpointError, match="iterations is 4 in the run, 70000 here"):
            mm.train(base, tmp_path, resume=True, until=4, **QUIET)
    assert json.loads((tmp_path / "config.json").read_text())["training"]["iterations"] == 4


def test_a_sweep_takes_different_images_of_ones_own(tmp_path):
    images = np.random.default_rng(0).integers(0, 2, (2, 6, 4, 28, 28, 1), np.uint8)
    jobs = [
        Job(
            f"images-{place}",
            mm.experiment(
                "omniglot-5way-maml",
                tasks=mm.FewShotImages(each, ways=3),
                network=mm.omniglot_convnet(3, 2),
                iterations=1,
                meta_batch=1,
            ),
        )
        for place, each in enumerate(images)
    ]
    for _ in range(2):
        assert len(sweep(jobs, tmp_path, measure, processes=0)) == 2


def test_a_change_to_a_presets_tasks_drops_ones_own():
    own = mm.experiment("sine-maml", tasks=Lines())
    assert isinstance(own.train_tasks, Lines)
    again = mm.experiment(own, task="sine", model=None, phase=1.0)
    assert again.train_tasks == mm.Sinusoid(phases=(0.0, 1.0), grid=50)


def test_own_waves_keep_their_range():
    tasks = mm.Sinusoid(domain=(-2.0, 3.0))
    assert mm.experiment("sine-maml", tasks=tasks).settings.task.inputs == (-2, 3)


def test_a_loss_in_itself_is_trained_as_it_is(tmp_path):
    loss = Summed(Summed(mm.MeanSquaredError()))
    assert _train(tmp_path, loss=loss).objective.loss == loss
    assert mm.load(tmp_path).objective.loss == loss
