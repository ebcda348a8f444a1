"""A learner adapts to users' tasks as its own algorithm does, and is stored
whole."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.inner import AdamState
from minimeta.losses import Summed
from minimeta.objectives import part_of
from minimeta.training.learner_file import arrays_of

SINE = mm.Objective(mm.mlp([1, 6, 1], "tanh"), mm.MeanSquaredError())
WITH_CONTEXT = mm.Objective(mm.mlp([1, 6, 1], "tanh", context=2), mm.MeanSquaredError())
IMAGES = mm.Objective(mm.omniglot_convnet(3, filters=2), mm.SoftmaxCrossEntropy())
ALGORITHMS = [
    mm.Reptile(mm.Adam(0.01)),
    mm.MAML(mm.SGD(0.1)),
    mm.MAML(mm.Adam(0.01, beta1=0.9)),
    mm.FOMAML(mm.SGD((0.1, 0.2, 0.3, 0.1, 0.1))),
    mm.MetaSGD(),
    mm.ANIL(mm.SGD(0.1)),
    mm.CAVIA(mm.SGD(0.5)),
    mm.IMAML(mm.SGD(0.05), regularization=2.0),
    mm.TAML(mm.SGD(0.1), measure=mm.Theil()),
    mm.ADML(mm.SGD(0.1), eps=0.1, low=-5.0, high=5.0),
]
named = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: type(each).__name__)


def _learner(algorithm, objective=None, seed=0, **more):
    objective = objective or (WITH_CONTEXT if algorithm.uses_context else SINE)
    meta = algorithm.init(objective, np.random.default_rng(seed), np.float64)
    return mm.Learner(objective, algorithm, meta, scoring=mm.Scoring(4, 5, 3), **more)


def _tasks(count=3, examples=4, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-5, 5, (count, examples, 1))
    return x, rng.uniform(0.5, 2, (count, 1, 1)) * np.sin(x)


def _images(count=2, seed=2):
    """Three classes of two 28 x 28 images in each task."""
    rng = np.random.default_rng(seed)
    return rng.random((count, 6, 28, 28, 1)), np.tile([0, 1, 2, 2, 1, 0], (count, 1))


@named
def test_fit_adapts_as_the_learners_own_algorithm(algorithm):
    learner, (x, y) = _learner(algorithm), _tasks()
    batches = mm.minibatches_of(np.random.default_rng(7), (x, y), 5, 3)
    wanted = algorithm.adapt(learner.objective, learner.meta, batches)
    np.testing.assert_array_equal(learner.fit(x, y, seed=7).phi_, wanted)


@named
def test_the_function_adapt_does_the_same(algorithm):
    learner, batch = _learner(algorithm), _tasks()
    batches = mm.Minibatches(*(array[None] for array in batch))
    arguments = learner.objective, learner.meta, batches
    wanted = algorithm.adapt(*arguments)
    np.testing.assert_array_equal(mm.adapt(*arguments, algorithm), wanted)
    if algorithm.uses_context:
        with pytest.raises(mm.SettingsError, match="CAVIA adapts alone"):
            mm.adapt(*arguments, algorithm.rule)


@pytest.mark.parametrize(
    ("algorithm", "part"), [(ALGORITHMS[5], "head"), (ALGORITHMS[6], "context")]
)
def test_an_algorithm_that_adapts_a_part_leaves_the_rest(algorithm, part):
    learner, (x, y) = _learner(algorithm), _tasks()
    moved = learner.fit(x, y).phi_ != learner.fit(x, y, steps=0).phi_
    place = part_of(learner.objective, part)
    assert moved[:, place].all()
    moved[:, place] = False
    assert not moved.any()


@named
def test_many_tasks_are_as_each_alone(algorithm):
    """A leading task axis changes no number beyond rounding: products of
    matrices are batched otherwise."""
    learner, (x, y) = _learner(algorithm), _tasks()
    size = x.shape[1]  # all examples in each mini-batch, so their order alone is random
    together = learner.fit(x, y, size=size).predict(x)
    for i in range(len(x)):
        alone = learner.fit(x[i], y[i], size=size).predict(x[i])
        np.testing.assert_allclose(alone, together[i], rtol=1e-9, atol=1e-9)


@named
def test_the_path_leads_from_the_start_to_the_adapted_parameters(algorithm):
    learner, (x, y) = _learner(algorithm), _tasks()
    path = learner.fit(x, y).path()
    d = learner.objective.size
    assert path.parameters.shape == (6, 3, d) and path.loss.shape == (6, 3)
    start = algorithm.problem(learner.objective, learner.meta).start
    np.testing.assert_array_equal(path.parameters[0], np.broadcast_to(start, (3, d)))
    np.testing.assert_array_equal(path.parameters[-1], learner.phi_)
    np.testing.assert_array_equal(
        path.loss[2], learner.objective.at(path.parameters[2], (x, y)).loss
    )
    one = learner.fit(x[0], y[0]).path()
    assert one.parameters.shape == (6, d) and one.loss.shape == (6,)


@named
def test_a_file_holds_the_whole_learner(algorithm, tmp_path):
    learner, (x, y) = _learner(algorithm, inputs=(-5.0, np.inf)), _tasks()
    learner.save(tmp_path / "learner.npz")
    again = mm.load(tmp_path / "learner.npz")
    assert (again.objective, again.algorithm) == (learner.objective, learner.algorithm)
    assert (again.scoring, again.inputs) == (learner.scoring, learner.inputs)
    np.testing.assert_array_equal(again.fit(x, y).predict(x), learner.fit(x, y).predict(x))
    with pytest.raises(mm.CheckpointError, match="exists already"):
        learner.save(tmp_path / "learner.npz")


def test_a_file_holds_the_state_of_the_rule(tmp_path):
    algorithm, (x, y) = mm.Reptile(mm.Adam(0.01)), _tasks()
    fresh = _learner(algorithm)
    _, state = algorithm.rule.step(fresh.meta, fresh.meta + 1)
    carried = mm.Learner(fresh.objective, algorithm, fresh.meta, state, fresh.scoring)
    carried.save(tmp_path / "learner.npz")
    again = mm.load(tmp_path / "learner.npz")
    predicted = carried.fit(x, y).predict(x)
    np.testing.assert_array_equal(again.fit(x, y).predict(x), predicted)
    assert (predicted != fresh.fit(x, y).predict(x)).any()


@pytest.mark.parametrize("loss", [mm.SoftmaxCrossEntropy(), Summed(mm.SoftmaxCrossEntropy())])
def test_probabilities_are_those_of_the_predicted_classes(loss):
    learner = _learner(mm.MAML(mm.SGD(0.1)), mm.Objective(IMAGES.network, loss))
    x, y = _images()
    learner.fit(x, y)
    for transductive in (False, True):
        p = learner.predict_proba(x, transductive=transductive)
        np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)
        predicted = learner.predict(x, transductive=transductive)
        np.testing.assert_array_equal(p.argmax(axis=-1), predicted)


@given(st.permutations([2, 5, 8]))
def test_labels_are_names(names):
    """Sorted labels are classes 0, 1, ..: the labels themselves mean
    nothing."""
    learner, (x, y) = _learner(mm.MAML(mm.SGD(0.1)), IMAGES), _images(count=1)
    x, places = x[0], y[0]
    numbers = np.array(names)[places]
    words = np.array(["two", "five", "eight"])[np.searchsorted([2, 5, 8], numbers)]
    told = dict(zip(["two", "five", "eight"], [2, 5, 8], strict=True))
    learner.fit(x, numbers)
    by_number = dict(zip(learner.classes_, learner.predict_proba(x).T, strict=True))
    assert set(learner.predict(x)) <= {2, 5, 8}
    learner.fit(x, words)
    assert list(learner.classes_) == ["eight", "five", "two"]
    assert learner.predict_proba(x).shape == (6, 3) and len(by_number) == 3
    assert {told[word] for word in learner.predict(x)} <= {2, 5, 8}


def test_an_inductive_prediction_does_not_depend_on_other_examples():
    """Batch norm mixes the examples of a batch, which transduction uses."""
    learner, (x, y) = _learner(mm.MAML(mm.SGD(0.1)), IMAGES), _images(count=1)
    (x,), (y,) = x, y
    learner.fit(x, y)
    others = 1 - x
    alone = learner.predict_proba(x[:1])
    together = learner.predict_proba(np.concatenate([x[:1], others]))
    np.testing.assert_array_equal(together[:1], alone)
    mixed = learner.predict_proba(np.concatenate([x[:1], others]), transductive=True)
    assert (mixed[:1] != alone).any()


def test_fewer_classes_than_outputs_are_told_apart_among_themselves():
    learner, (x, y) = _learner(mm.MAML(mm.SGD(0.1)), IMAGES), _images()
    keep = y[0] < 2
    x, y = x[:, keep], y[:, keep]
    p = learner.fit(x, y).predict_proba(x)
    assert p.shape == (2, 4, 2) and set(np.unique(learner.predict(x))) <= {0, 1}
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)


@given(st.integers(1, 6), st.integers(1, 4))
def test_predictions_have_the_shape_of_the_targets(examples, further):
    learner, (x, y) = _learner(mm.MAML(mm.SGD(0.1))), _tasks(examples=examples)
    new = np.linspace(-1, 1, further)
    assert learner.fit(x[0], y[0]).predict(new[:, None]).shape == (further, 1)
    flat = learner.fit(x[0, :, 0], y[0, :, 0]).predict(new)
    assert flat.shape == (further,)
    np.testing.assert_array_equal(flat, learner.fit(x[0], y[0]).predict(new[:, None])[:, 0])
    many = np.broadcast_to(new[:, None], (3, further, 1))
    assert learner.fit(x, y).predict(many).shape == (3, further, 1)
    assert learner.fit(x, y[..., 0]).predict(many).shape == (3, further)
    assert learner.fit(list(x[0, :, 0]), list(y[0, :, 0])).predict([0.5]).shape == (1,)


def test_no_step_is_the_start():
    learner, (x, y) = _learner(mm.MAML(mm.SGD(0.1))), _tasks()
    wanted = learner.objective.predict(learner.meta, x)
    np.testing.assert_array_equal(learner.fit(x, y, steps=0).predict(x, transductive=True), wanted)
    assert learner.path().loss.shape == (1, 3)


X, Y = _tasks(count=2)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda one: one.predict(X), "not adapted to a task yet"),
        (
            lambda one: one.fit(X[..., 0], Y),
            r"x must have shape \(N, 1\) for one task or \(T, N, 1\)",
        ),
        (
            lambda one: one.fit(X, Y[:1]),
            r"y must have shape \(2, 4\) or \(2, 4, 1\), a target for each",
        ),
        (lambda one: one.fit(X[:, :0], Y[:, :0]), "x holds no examples"),
        (lambda one: one.fit(X * np.nan, Y), "x must be finite"),
        (lambda one: one.fit(X, Y / 0), "y must be finite"),
        (lambda one: one.fit(X + 1j, Y), "x must hold real numbers, got complex128"),
        (lambda one: one.fit([["a"]], [1.0]), "x must hold real numbers"),
        (lambda one: one.fit([[1.0], [2.0, 3.0]], [1.0, 2.0]), "x cannot be made an array"),
        (lambda one: one.fit(np.ma.masked_less(X, 0), Y), "x has masked numbers"),
        (lambda one: one.fit({"x": 1.0}, [1.0]), "x must hold real numbers, got object"),
        (
            lambda one: one.fit(X, Y, steps=-1),
            "steps must be a whole number from 0 to 1000000000, got -1",
        ),
        (
            lambda one: one.fit(X, Y, size=0),
            "size must be a whole number from 1 to 1000000000, got 0",
        ),
        (lambda one: one.fit(X, Y, seed=-1), "seed must be a whole number, 0 or more, got -1"),
        (lambda one: one.fit([10**400], [1.0]), "x must hold real numbers, got object"),
        (
            lambda one: one.fit(X, Y, steps=2.5),
            "steps must be a whole number from 0 to 1000000000, got 2.5",
        ),
        (lambda one: one.fit(X, Y).predict(X[0]), "must hold the 2 tasks of fit"),
        (lambda one: one.fit(X, Y).classes_, "has no classes"),
        (lambda one: one.fit(X, Y).predict_proba(X), "has no classes"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_wrong_tasks_are_told_in_one_line(call, told):
    with pytest.raises(mm.MinimetaError, match=told) as error:
        call(_learner(mm.MAML(mm.SGD(0.1))))
    assert "\n" not in str(error.value)


def test_wrong_classes_are_told_in_one_line():
    learner, (x, y) = _learner(mm.MAML(mm.SGD(0.1)), IMAGES), _images()
    with pytest.raises(mm.SettingsError, match="tells 3 classes apart, but y holds 6"):
        learner.fit(x[0], range(6))
    with pytest.raises(mm.SettingsError, match="equally many classes, but y has from 2 to 3"):
        learner.fit(x, np.stack([y[0], y[0] % 2]))
    for labels, told in ((y + 0.5, "float64"), ([["a", 3] * 3] * 2, "int and str")):
        with pytest.raises(mm.SettingsError, match=f"whole numbers, or all be words, got {told}"):
            learner.fit(x, labels)
    with pytest.raises(mm.ShapeError, match=r"y must have shape \(6,\), one label for each"):
        learner.fit(x[0], y)


def test_inputs_on_another_scale_are_told():
    learner = _learner(mm.MAML(mm.SGD(0.0)), IMAGES, inputs=(0.0, 1.0))
    x, y = _images()
    with pytest.warns(UserWarning, match="from 0.* to 255.*between 0 and 1: check the scale"):
        learner.fit(255 * x / x.max(), y)


def test_adaptation_that_diverges_is_told():
    learner = _learner(mm.MAML(mm.SGD(1e200)))
    with pytest.raises(mm.DivergenceError, match="not finite: use fewer steps"):
        learner.fit(X, Y)


def test_a_learner_needs_an_algorithm():
    with pytest.raises(mm.SettingsError, match="needs an algorithm, got SGD"):
        mm.Learner(SINE, mm.SGD(0.1), np.zeros(SINE.size))


def _tell(arrays, **changes):
    """Change the description in a file."""
    arrays["learner"] = np.array(json.dumps(json.loads(str(arrays["learner"])) | changes))


def _layers(arrays, **changes):
    """Change the last layer that a file describes."""
    objective = json.loads(str(arrays["learner"]))["objective"]
    objective["layers"][-1] |= changes
    _tell(arrays, objective=objective)


def test_a_loss_in_itself_is_stored_as_it_is(tmp_path):
    """Each sum multiplies the loss by the number of examples."""
    loss = Summed(Summed(mm.MeanSquaredError()))
    learner = _learner(mm.MAML(mm.SGD(0.1)), mm.Objective(SINE.network, loss))
    learner.save(tmp_path / "learner.npz")
    assert mm.load(tmp_path / "learner.npz").objective.loss == loss


@pytest.mark.parametrize(("steps", "v"), [(-1, 1.0), (-50, 1.0), (3, -1.0), (0, 1.0), (2**70, 1.0)])
def test_moments_that_no_training_leaves_are_told(steps, v, tmp_path):
    algorithm = mm.Reptile(mm.Adam(0.01))
    fresh = _learner(algorithm)
    state = AdamState(5, 0 * fresh.meta, 0 * fresh.meta + 1)
    arrays = arrays_of(mm.Learner(fresh.objective, algorithm, fresh.meta, state))
    arrays["inner.steps"] = np.array(steps)
    arrays["inner.v"] = v * arrays["inner.v"]
    np.savez(tmp_path / "learner.npz", **arrays)
    with pytest.raises(mm.CheckpointError, match="inner.(steps|v)|damaged"):
        mm.load(tmp_path / "learner.npz")


@pytest.mark.parametrize("meta", [np.full(19, np.nan), np.zeros(5), np.zeros(20)])
def test_what_could_not_be_loaded_is_not_saved(meta, tmp_path):
    learner = mm.Learner(SINE, mm.MAML(mm.SGD(0.1)), meta)
    with pytest.raises(mm.SettingsError, match="could not be read back: meta"):
        learner.save(tmp_path / "learner.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("meta", ["abc", None, np.zeros((2, 3)), np.zeros(19, int), [0.0]])
def test_meta_is_a_vector_of_real_numbers(meta):
    with pytest.raises(mm.ShapeError, match="meta must be an array"):
        mm.Learner(SINE, mm.MAML(mm.SGD(0.1)), meta)


@pytest.mark.parametrize("inputs", [5, (1,), (2, 1), (np.nan, 1), ("a", "b"), None])
def test_a_range_is_two_numbers(inputs):
    with pytest.raises(mm.SettingsError, match="inputs must be two numbers, the lower first"):
        _learner(mm.MAML(mm.SGD(0.1)), inputs=inputs)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda arrays: arrays.pop("meta"), "not a whole file"),
        (lambda arrays: arrays.update(more=np.zeros(1)), "not a whole file"),
        (lambda arrays: arrays.update(format=np.array("x")), "not a whole file"),
        (lambda arrays: arrays.update(learner=np.array("[" * 100_000)), "description is damaged"),
        (lambda arrays: arrays.update(learner=np.array("[]")), "description is damaged"),
        (lambda arrays: arrays.update(meta=np.zeros(3)), "meta must hold the 19 parameters"),
        (lambda arrays: arrays.update(meta=arrays["meta"] * np.nan), "meta is not finite"),
        (lambda arrays: arrays.update(meta=arrays["meta"].astype(int)), "float32 or float64"),
        (lambda arrays: arrays.update(meta=arrays["meta"].astype(">f8")), "float32 or float64"),
        (lambda arrays: arrays.update(meta=arrays["meta"].astype("f2")), "float32 or float64"),
        (lambda arrays: _tell(arrays, inputs="12"), "inputs must be two numbers"),
        (lambda arrays: _tell(arrays, inputs=[2, 1]), "inputs must be two numbers"),
        (lambda arrays: _tell(arrays, inputs=["nan", "nan"]), "inputs must be two numbers"),
        (lambda arrays: _tell(arrays, scoring=[]), "Scoring must be an object"),
        (lambda arrays: _tell(arrays, more=1), "it must be an object of algorithm, inputs"),
        (lambda arrays: _layers(arrays, outputs=10**9), "meta must hold the 70000000"),
        (lambda arrays: _layers(arrays, outputs=10**18), "meta must hold the 70000000"),
        (lambda arrays: _layers(arrays, outputs=0), "outputs must be at least 1"),
        (lambda arrays: _layers(arrays, outputs=-1), "outputs must be at least 1"),
        (lambda arrays: _layers(arrays, outputs="1"), "outputs must be a whole number"),
    ],
)
def test_a_damaged_file_is_told_in_one_line(change, told, tmp_path):
    arrays = arrays_of(_learner(mm.MAML(mm.SGD(0.1))))
    change(arrays)
    np.savez(tmp_path / "learner.npz", **arrays)
    with pytest.raises(mm.CheckpointError, match=told) as error:
        mm.load(tmp_path / "learner.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", ".", "/", "a\0b", 5, None])
def test_what_names_no_file_is_told(name):
    with pytest.raises(mm.CheckpointError, match="names no file"):
        _learner(mm.MAML(mm.SGD(0.1))).save(name)
    with pytest.raises(mm.CheckpointError, match="names no file"):
        mm.Learner.read(name)


def test_links_in_a_circle_are_told(tmp_path):
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(mm.CheckpointError, match="cannot be read"):
        mm.load(tmp_path / "a")


def test_a_file_that_is_no_archive_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(mm.CheckpointError, match=r"notes.txt is damaged"):
        mm.load(tmp_path / "notes.txt")
    with pytest.raises(mm.CheckpointError, match="no run folder and no learner's file"):
        mm.load(tmp_path / "nothing")


class Table:
    """A table as pandas has it: its method get is not that of an array on a
    device."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def get(self, key):
        return self.values[key]

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype=dtype)


def test_tables_and_columns_of_objects_are_arrays():
    learner = _learner(mm.MAML(mm.SGD(0.1)))
    wanted = learner.fit(X[0], Y[0]).predict(X[0])
    table = Table(X[0].astype(object))
    np.testing.assert_array_equal(learner.fit(table, Table(Y[0])).predict(table), wanted)
    learner, (x, y) = _learner(mm.MAML(mm.SGD(0.1)), IMAGES), _images()
    words = np.array(["a", "b", "c"], dtype=object)[y[0]]
    assert set(learner.fit(x[0], Table(words)).predict(x[0])) <= {"a", "b", "c"}
    assert learner.fit(x[0], y[0].astype(object)).classes_.dtype == np.int64
