"""ADML.

The attack is the steepest within its box. The direction is the gradient of the
sum of the two crossed losses.
"""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.inner import STORES, adapt
from minimeta.runs.experiment import Experiment
from minimeta.runs.settings import Settings
from minimeta.testing import assert_close, assert_same, check_algorithm, strict, without_hessian
from minimeta.testing.complex_step import complex_step
from minimeta.testing.strategies import inner_rules, seeds, small, task_counts
from minimeta.training.meta_training import MetaTraining

sizes = st.floats(0, 1)


def _moved(batches):
    """The same data on the strict module."""
    return mm.Minibatches(
        [strict.module.asarray(x) for x in batches.x], [strict.module.asarray(y) for y in batches.y]
    )


@st.composite
def attackable(draw, convnets=True, max_k=4):
    """Objective, phi, and mini-batches with inputs in about [-2, 2].

    The network is a smooth MLP, or the convolutional network with batch norm.
    """
    rng = np.random.default_rng(draw(seeds))
    k, tasks = draw(st.integers(1, max_k)), draw(task_counts)
    counts = [draw(st.integers(2, 4))] * (k - 1) + [draw(st.integers(2, 4))]
    if convnets and draw(st.integers(0, 4)) == 0:  # costs a hundred times as much
        objective = mm.Objective(mm.omniglot_convnet(3, filters=2), mm.SoftmaxCrossEntropy())
        y = [rng.integers(0, 3, (tasks, n)) for n in counts]
    else:
        widths = [draw(small), *draw(st.lists(small, max_size=2)), draw(small)]
        objective = mm.Objective(
            mm.mlp(widths, draw(st.sampled_from(["tanh", "softplus"]))), mm.MeanSquaredError()
        )
        y = [rng.standard_normal((tasks, n, widths[-1])) for n in counts]
    x = [rng.standard_normal((tasks, n, *objective.network.input_shape)) for n in counts]
    return objective, objective.init(rng, np.float64), mm.Minibatches(x, y)


@st.composite
def boxes(draw):
    """eps, low, high; with and without bounds that clip."""
    low, high = draw(
        st.sampled_from([(-np.inf, np.inf), (-1.0, 1.0), (0.0, np.inf), (-np.inf, 0.5)])
    )
    return draw(sizes), low, high


def _attacked(objective, phi, batches, box):
    """Every mini-batch attacked at the real part of phi, by the definition."""
    eps, low, high = box
    slopes = [objective.at(phi, batch).input_grad().real for batch in batches]
    x = [
        np.clip(x + eps * np.sign(slope), low, high)
        for x, slope in zip(batches.x, slopes, strict=True)
    ]
    return mm.Minibatches(x, batches.y)


def _crossed(objective, batches, rule, box):
    """The function phi -> L'_k(phi_clean) + L_k(phi_adv).

    The data are attacked again at each phi.
    """

    def loss(phi):
        attacked = _attacked(objective, phi, batches, box)
        clean, adversarial = (
            adapt(objective, phi, some[:-1], rule) for some in (batches, attacked)
        )
        return objective.at(clean, attacked[-1]).loss + objective.at(adversarial, batches[-1]).loss

    return loss


def _no_sign_in_doubt(objective, phi, batches):
    """No slope is so small that rounding could change its sign.

    Behind inactive ReLUs the slope is exactly 0.
    """
    slopes = [np.abs(objective.at(phi, batch).input_grad()) for batch in batches]
    return all(((slope > 1e-9 * slope.max()) | (slope == 0)).all() for slope in slopes)


@given(attackable(), inner_rules, boxes(), st.sampled_from(STORES))
def test_it_is_the_gradient_of_the_crossed_losses(problem, rule, box, store):
    objective, phi, batches = problem
    assume(_no_sign_in_doubt(objective, phi, batches))
    true_objective = _crossed(objective, batches, rule, box)
    check_algorithm(
        mm.ADML(rule, store, *box), objective, phi, batches, true_objective=true_objective
    )


@given(attackable(), boxes())
def test_the_attack_is_the_steepest_in_its_box(problem, box):
    """<dL/dx, x' - x> is largest at the attack's x' within eps and the bounds.

    The test compares it with corners and with interior points of the box.
    """
    objective, phi, batches = problem
    eps, low, high = box
    x, y = np.clip(batches.x[0], low, high), batches.y[0]
    slope = objective.at(phi, (x, y)).input_grad()
    attacked, labels = mm.fgsm(objective, phi, (x, y), *box)
    assert labels is y and attacked.dtype == x.dtype
    assert (attacked >= low).all() and (attacked <= high).all()
    assert np.abs(attacked - x).max() <= eps + 1e-15 * (1 + np.abs(x).max())
    best = (slope * (attacked - x)).sum()
    rng = np.random.default_rng(0)
    for scale in (rng.choice([-1.0, 1.0], x.shape), rng.uniform(-1, 1, x.shape), np.sign(slope)):
        other = np.clip(x + eps * scale, low, high)
        assert (slope * (other - x)).sum() <= best + 1e-12 * np.abs(slope).sum()
    free = (x - eps > low) & (x + eps < high)
    assert_same(attacked[free], (x + eps * np.sign(slope))[free], "what is not clipped")


@given(attackable(convnets=False))
def test_the_loss_rises_by_eps_times_the_sum_of_the_slopes_up_to_eps_squared(problem):
    """L(x + eps s) = L(x) + eps sum |dL/dx| + eps^2/2 s H s + O(eps^3), s the
    signs and H = d^2 L / dx^2."""
    objective, phi, batches = problem
    x, y = batches[0]
    here = objective.at(phi, (x, y))
    axes = tuple(range(1, x.ndim))
    first, signs = np.abs(here.input_grad()).sum(axis=axes), np.sign(here.input_grad())
    rise = complex_step(lambda x: objective.at(phi, (x, y)).loss, (x,), (signs,))
    assert_close(first, rise, 1e-10, "the slope along the attack")
    second = (
        signs * complex_step(lambda x: objective.at(phi + 0j, (x, y)).input_grad(), (x,), (signs,))
    ).sum(axis=axes) / 2
    size = 1 + first + np.abs(second) + here.loss
    for eps in (1e-2, 1e-3, 1e-4):
        attacked = objective.at(phi, mm.fgsm(objective, phi, (x, y), eps)).loss
        remainder = attacked - here.loss - eps * first - eps**2 * second
        assert (np.abs(remainder) <= (100 * eps**3 + 1e-14) * size).all()


def test_a_pixel_is_clipped_at_the_bound_and_stays_without_a_slope():
    """L = (w x - t)^2 with w = 1 has slope 2 (x - t); an input whose weights
    are 0 has slope 0."""
    objective, phi = mm.Objective(mm.mlp([2, 1]), mm.MeanSquaredError()), np.array([1.0, 0.0, 0.0])
    x = np.array(
        [[[0.0, 0.0], [0.05, 0.3], [0.5, 0.5], [0.75, 1.0], [0.95, 0.2], [1.0, 0.7], [1.5, -2.0]]]
    )
    down, up = ((x, np.full((1, 7, 1), t)) for t in (9.0, -9.0))
    attacked = mm.fgsm(objective, phi, down, 0.25, 0, 1)[0]
    assert_same(attacked[0, :, 0], np.array([0.0, 0.0, 0.25, 0.5, 0.95 - 0.25, 0.75, 1.0]), "down")
    assert_same(
        mm.fgsm(objective, phi, up, 0.25, 0, 1)[0][0, :, 0],
        np.array([0.25, 0.05 + 0.25, 0.75, 1, 1, 1, 1]),
        "up",
    )
    assert_same(attacked[0, :, 1], np.array([0, 0.3, 0.5, 1.0, 0.2, 0.7, 0.0]), "without a slope")


@given(attackable(), boxes())
def test_complex_inputs_are_attacked_by_their_real_part(problem, box):
    objective, phi, batches = problem
    (x, y), (eps, low, high) = batches[0], box
    real, _ = mm.fgsm(objective, phi, (x, y), *box)
    got, _ = mm.fgsm(objective, phi, (x + 1e-30j, y), *box)
    assume(_no_sign_in_doubt(objective, phi, batches[:1]))
    assert_same(got.real, real, "the real part")
    moved = x + eps * np.sign(objective.at(phi, (x, y)).input_grad())
    assert_same(
        got.imag, np.where((moved >= low) & (moved <= high), 1e-30, 0), "the imaginary part"
    )
    assert mm.fgsm(objective, phi + 0j, (x, y), *box)[0].dtype == np.complex128


@given(attackable(), inner_rules, st.sampled_from(STORES))
def test_without_an_attack_it_is_twice_maml_to_the_bit(problem, rule, store):
    objective, phi, batches = problem
    got, maml, *_ = (
        make(rule, store, *more).direction(objective, phi, batches)
        for make, more in ((mm.ADML, (0,)), (mm.MAML, ()))
    )
    assert_same(got.direction, 2 * maml.direction, "the direction")
    assert_same(got.loss, 2 * maml.loss, "the loss")


@given(attackable(), inner_rules, boxes())
def test_it_is_two_runs_of_maml_and_its_state_is_that_of_the_clean_one(problem, rule, box):
    objective, phi, batches = problem
    attacked = mm.Minibatches(
        *zip(*[mm.fgsm(objective, phi, batch, *box) for batch in batches], strict=True)
    )
    start = rule.merge(None, mm.unroll(objective, phi, batches, rule).states[-1], batches.tasks)
    crossed = [
        mm.MAML(rule).direction(
            objective, phi, mm.Minibatches([*a.x[:-1], b.x[-1]], batches.y), start
        )
        for a, b in ((batches, attacked), (attacked, batches))
    ]
    got = mm.ADML(rule, "points", *box).direction(objective, phi, batches, start)
    assert_same(got.direction, crossed[0].direction + crossed[1].direction, "the direction")
    assert_same(got.loss, crossed[0].loss + crossed[1].loss, "the loss")
    clean = mm.unroll(objective, phi, batches[:-1], rule, state=start).states[-1]
    for one, other in zip(
        *(state if isinstance(state, tuple) else (state,) for state in (got.state, clean)),
        strict=True,
    ):
        assert np.array_equal(one, other)
    assert_same(
        mm.ADML(rule).adapt(objective, phi, batches),
        mm.MAML(rule).adapt(objective, phi, batches),
        "adapted",
    )


@pytest.mark.usefixtures("either_kernels")
@given(attackable(), inner_rules, boxes())
def test_a_task_gives_the_same_bits_whatever_tasks_stand_beside_it(problem, rule, box):
    objective, phi, batches = problem
    algorithm = mm.ADML(rule, "points", *box)
    together, losses, *_ = algorithm.direction(objective, phi, batches)
    for start in range(batches.tasks):
        for stop in range(start + 1, batches.tasks + 1):
            some, their, *_ = algorithm.direction(objective, phi, batches.of_tasks(start, stop))
            assert_same(some, together[start:stop], "the direction")
            assert_same(their, losses[start:stop], "the loss")


@pytest.mark.usefixtures("plain_kernels")
@given(attackable(), inner_rules, boxes(), st.sampled_from([np.float32, np.float64]))
def test_another_array_module_gives_the_same_bits_and_the_host_never_waits(
    problem, rule, box, dtype
):
    objective, phi, batches = problem
    phi, box = phi.astype(dtype), tuple(map(np.float64, box))
    algorithm, there, data = (
        mm.ADML(rule, "points", *box),
        strict.module.asarray(phi),
        _moved(batches),
    )
    with strict.no_waiting():
        direction, loss, *_ = algorithm.direction(objective, there, data)
        attacked, _ = mm.fgsm(objective, there, data[0], *box)
    want = (
        *algorithm.direction(objective, phi, batches)[:2],
        mm.fgsm(objective, phi, batches[0], *box)[0],
    )
    for got, expected in zip((direction, loss, attacked), want, strict=True):
        assert got.dtype == expected.dtype == dtype
        assert_same(got.get(), expected, "a result")


def test_images_of_bytes_are_attacked_in_the_precision_of_phi():
    objective, rng = (
        mm.Objective(mm.omniglot_convnet(3, filters=2), mm.SoftmaxCrossEntropy()),
        np.random.default_rng(0),
    )
    phi = objective.init(rng, np.float32)
    images, labels = (
        rng.integers(0, 2, (2, 4, 28, 28, 1), dtype=np.uint8),
        rng.integers(0, 3, (2, 4)),
    )
    attacked, _ = mm.fgsm(objective, phi, (images, labels), 0.1, 0, 1)
    assert attacked.dtype == np.float32 and images.dtype == np.uint8
    levels = np.array(
        [0, 0.1, 1 - np.float32(0.1), 1], np.float32
    )  # a pixel at a bound moves inwards, or not at all
    assert set(np.unique(attacked)) == set(levels)


@pytest.mark.usefixtures("either_kernels")
@pytest.mark.parametrize("rule", [mm.SGD(0.1), mm.Adam(0.01)], ids=["sgd", "adam"])
@pytest.mark.parametrize("task", ["sine", "images"])
def test_training_gives_the_same_bits_for_any_number_of_workers(task, rule):
    if task == "sine":
        objective, tasks, box = (
            mm.Objective(mm.mlp([1, 8, 1]), mm.MeanSquaredError()),
            mm.Sinusoid(),
            (0.5, -5, 5),
        )
    else:
        objective = mm.Objective(mm.omniglot_convnet(3, filters=2), mm.SoftmaxCrossEntropy())
        images = np.random.default_rng(0).integers(0, 2, (7, 6, 28, 28, 1), dtype=np.uint8)
        tasks, box = mm.FewShotImages(images, ways=3), (0.2, 0, 1)
    ends = []
    for workers in (1, 2, 3, 5):
        training = MetaTraining(
            objective,
            mm.ADML(rule, "points", *box),
            tasks,
            mm.MinibatchSchedule(3, 4, shots=None if task == "sine" else 3),
            mm.Adam(0.01),
            iterations=4,
            meta_batch=5,
            workers=workers,
        )
        state = training.start()
        with training.stepper() as step:
            for _ in range(4):
                state, losses = step(state)
        ends.append((state.meta, losses))
    for meta, losses in ends[1:]:
        assert_same(meta, ends[0][0], "phi")
        assert_same(losses, ends[0][1], "the loss")


@pytest.mark.parametrize("task", ["sine", "omniglot"])
def test_settings_bound_the_attack_by_the_tasks_own_range(task):
    settings = Settings().changed(
        task=task, algorithm="adml", attack=0.3, store="iterates", inner="sgd", inner_lr=0.02
    )
    experiment = Experiment(settings)
    low, high = {"sine": (-5.0, 5.0), "omniglot": (0.0, 1.0)}[task]
    assert experiment.algorithm == mm.ADML(mm.SGD(0.02), "iterates", 0.3, low, high)
    if task == "sine":
        x = experiment.training.sample(0).x
        assert low <= x.min() and x.max() <= high


@pytest.mark.parametrize(("task", "attack"), [("sine", 0.0), ("sine", 10.0), ("omniglot", 1.0)])
def test_attacks_of_nothing_or_of_the_whole_range_are_refused(task, attack):
    with pytest.raises(mm.SettingsError, match="got .*: set attack to about 0.1"):
        Settings().changed(task=task, algorithm="adml", attack=attack)


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ({"eps": -0.1}, "0 or more and finite, got -0.1: use"),
        ({"eps": np.nan}, "finite"),
        ({"eps": np.inf}, "finite"),
        ({"low": 1.0, "high": 0.0}, "low < high, got 1.0 and 0.0: use"),
        ({"low": 1.0, "high": 1.0}, "low < high"),
        ({"low": np.nan}, "low < high"),
        ({"high": np.nan}, "low < high"),
    ],
)
def test_boxes_that_make_no_sense_are_refused(box, says):
    with pytest.raises(mm.SettingsError, match=says):
        mm.ADML(mm.SGD(0.1), **box)
    objective = mm.Objective(mm.mlp([1, 1]), mm.MeanSquaredError())
    with pytest.raises(mm.SettingsError, match=says):
        mm.fgsm(
            objective,
            np.zeros(2),
            (np.zeros((1, 1, 1)), np.zeros((1, 1, 1))),
            **({"eps": 0.1} | box),
        )


def test_objectives_without_inputs_to_attack_and_empty_meta_batches_are_refused():
    matrices, centres = np.ones((2, 1, 1, 1, 1)), np.zeros((2, 1, 1, 1))
    batches = mm.Minibatches(matrices, centres)
    with pytest.raises(
        mm.SettingsError,
        match=r"the input_grad of a point, but Quadratic\(size=1\) has none: use "
        r"Objective\(network, loss",
    ):
        mm.ADML(mm.SGD(0.1)).direction(mm.Quadratic(1), np.zeros(1), batches)
    objective = mm.Objective(mm.mlp([1, 1]), mm.MeanSquaredError())
    with pytest.raises(mm.SettingsError, match="has none"):
        mm.fgsm(without_hessian(objective), np.zeros(2), (centres[0], centres[0]), 0.1)
    with pytest.raises(mm.ShapeError, match="at least one mini-batch"):
        mm.ADML(mm.SGD(0.1)).direction(objective, np.zeros(2), batches[:0])


def test_a_slope_that_is_not_a_number_shows_in_its_tasks_loss():
    objective = mm.Objective(mm.mlp([2, 2], "tanh"), mm.MeanSquaredError())
    x, y = np.random.default_rng(0).standard_normal((2, 2, 3, 4, 2))
    y[0, 1] = np.nan  # a target of the second task's first mini-batch
    _, losses, *_ = mm.ADML(mm.SGD(0.1), low=-1, high=1).direction(
        objective, np.ones(6), mm.Minibatches(x, y)
    )
    assert np.isnan(losses[1]) and np.isfinite(losses[[0, 2]]).all()
