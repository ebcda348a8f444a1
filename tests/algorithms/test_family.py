"""Meta-SGD, ANIL, CAVIA and gradient agreement.

Each direction is the gradient of its objective. Each algorithm has the
properties that its paper states.
"""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minimeta as mm
from minimeta import layers
from minimeta.algorithms import agreement_weights
from minimeta.inner import STORES
from minimeta.objectives import Quadratic
from minimeta.testing import assert_close, assert_same, check_algorithm
from minimeta.testing.strategies import inner_rules, problems, seeds
from minimeta.testing.strict import module as strict

ROUNDING = 1e-12  # of sums of a few hundred float64 terms, through a few inner steps


def _score(algorithm, objective, batches):
    """The loss after adaptation, by the definition."""

    def loss(meta):
        return objective.at(algorithm.adapt(objective, meta, batches[:-1]), batches[-1]).loss

    return loss


def _with_rates(objective, phi, seed):
    return np.concatenate([phi, np.random.default_rng(seed).uniform(-0.05, 0.1, objective.size)])


@given(problems(), st.sampled_from(STORES), seeds)
def test_meta_sgd_is_the_gradient_of_the_loss_after_adaptation_with_respect_to_phi_and_alpha(
    problem, store, seed
):
    objective, phi, batches = problem
    algorithm, meta = mm.MetaSGD(store=store), _with_rates(objective, phi, seed)
    check_algorithm(
        algorithm, objective, meta, batches, true_objective=_score(algorithm, objective, batches)
    )


@given(problems(max_k=3), st.floats(0.001, 0.1), seeds)
def test_meta_sgd_with_equal_rates_is_maml_and_its_rate_gradients_sum_to_that_of_the_one_rate(
    problem, alpha, seed
):
    objective, phi, batches = problem
    meta = np.concatenate([phi, np.full(objective.size, alpha)])
    direction, losses, *_ = mm.MetaSGD().direction(objective, meta, batches)
    maml, want, *_ = mm.MAML(mm.SGD(alpha)).direction(objective, phi, batches)
    assert_close(direction[:, : objective.size], maml, ROUNDING, "direction")
    assert_close(losses, want, ROUNDING, "loss")
    way = mm.unroll(objective, phi, batches[:-1], mm.SGD(alpha))
    _, dlr = way.pullback(objective.at(way.last, batches[-1]).grad)
    scale = 1 + np.abs(direction).sum()  # a sum over D numbers that may cancel
    assert np.abs(direction[:, objective.size :].sum(axis=1) - dlr).max() <= 1e-12 * scale


def test_meta_sgd_after_one_step_is_the_papers_product_of_two_gradients():
    rng = np.random.default_rng(0)
    objective, phi = Quadratic(3), rng.standard_normal(3)
    a = rng.standard_normal((2, 4, 1, 3, 3))
    batches = mm.Minibatches(a + a.swapaxes(-1, -2), rng.standard_normal((2, 4, 1, 3)))
    meta = np.concatenate([phi, rng.uniform(0, 0.1, 3)])
    direction, *_ = mm.MetaSGD().direction(objective, meta, batches)
    adapted = mm.MetaSGD().adapt(objective, meta, batches[:1])
    g1, g2 = objective.at(phi, batches[0]).grad, objective.at(adapted, batches[1]).grad
    assert_close(direction[:, 3:], -g1 * g2, ROUNDING, "dF/dalpha")


@given(st.floats(0, 1), st.floats(0, 1), seeds)
def test_meta_sgds_rates_start_uniform_in_their_range(low, width, seed):
    objective = mm.Objective(mm.mlp([3, 20, 1]), mm.MeanSquaredError())
    rng = np.random.default_rng(seed)
    meta = mm.MetaSGD(low, low + width).init(objective, rng, np.float64)
    alpha = meta[objective.size :]
    assert (
        meta.shape == (2 * objective.size,)
        and (alpha >= low).all()
        and (alpha <= low + width).all()
    )
    # The mean of n uniform numbers: six standard errors.
    assert abs(alpha.mean() - low - width / 2) <= 6 * width / (12 * objective.size) ** 0.5 + 1e-15
    assert_same(
        meta[: objective.size], objective.init(np.random.default_rng(seed), np.float64), "phi"
    )


@given(problems(), inner_rules, st.sampled_from(STORES))
def test_anil_is_the_gradient_of_the_loss_after_the_head_alone_has_adapted(problem, rule, store):
    objective, phi, batches = problem
    assume(isinstance(objective, mm.Objective) and isinstance(rule.lr, float))
    algorithm = mm.ANIL(rule, store)
    check_algorithm(
        algorithm, objective, phi, batches, true_objective=_score(algorithm, objective, batches)
    )
    adapted = algorithm.adapt(objective, phi, batches)
    body = np.ones(objective.size, bool)
    body[objective.part("head")] = False
    assert_same(adapted[:, body], np.tile(phi[body], (batches.tasks, 1)), "the body")


def test_the_head_is_the_last_layer_with_parameters():
    network = mm.omniglot_convnet(5, filters=2)
    assert network.head == slice(network.size - (8 * 5 + 5), network.size)
    assert mm.Network((3,), (layers.Dense(3, 2), layers.Tanh())).head == slice(0, 8)
    assert mm.Network((3,), (layers.Tanh(),)).head == slice(0, 0)


@st.composite
def contextual(draw):
    """A network with context, and a phi whose nonzero context must not
    matter."""
    rng, size = np.random.default_rng(draw(seeds)), draw(st.integers(1, 3))
    smooth = draw(st.sampled_from(["tanh", "softplus"]))
    film = (layers.Dense(2, 3), layers.FiLM(3, size), layers.Tanh(), layers.Dense(3, 2))
    network = draw(st.sampled_from([mm.mlp([2, 3, 2], smooth, size), mm.Network((2,), film)]))
    objective, k = mm.Objective(network, mm.MeanSquaredError()), draw(st.integers(1, 4))
    batches = mm.Minibatches(*rng.standard_normal((2, k, 2, 4, 2)))
    return objective, rng.standard_normal(objective.size), batches


@given(contextual(), inner_rules, st.sampled_from(STORES))
def test_cavia_is_the_gradient_through_the_context_alone_from_zero(problem, rule, store):
    objective, phi, batches = problem
    assume(isinstance(rule.lr, float))
    _check_cavia(mm.CAVIA(rule, store), objective, phi, batches)


def _images(network, k, dtype=np.float64):
    """A phi near its initial value, and k mini-batches of 2 tasks of 4 images.

    The context of the FiLM layer is not 0.
    """
    rng = np.random.default_rng(k)
    objective = mm.Objective(network, mm.SoftmaxCrossEntropy())
    phi = objective.init(rng, dtype) + 0.1 * rng.standard_normal(objective.size).astype(dtype)
    x = rng.standard_normal((k, 2, 4, *network.input_shape)).astype(dtype)
    return objective, phi, mm.Minibatches(x, rng.integers(0, 3, (k, 2, 4)))


@pytest.mark.parametrize("rule", [mm.SGD(1.0), mm.Adam(0.05, 0.5, eps=1e-3)], ids=["sgd", "adam"])
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("k", [2, 4])
def test_cavia_on_a_convolutional_network_is_the_gradient_through_its_film_layer(rule, store, k):
    _check_cavia(mm.CAVIA(rule, store), *_images(mm.omniglot_convnet(3, filters=2, context=3), k))


def test_cavia_on_the_mini_imagenet_network():
    _check_cavia(
        mm.CAVIA(mm.SGD(1.0)), *_images(mm.mini_imagenet_convnet(3, filters=1, context=2), 2)
    )


@pytest.mark.usefixtures("either_kernels")
@pytest.mark.parametrize("rule", [mm.SGD(1.0), mm.Adam(0.05)], ids=["sgd", "adam"])
def test_cavia_on_images_gives_the_same_bits_in_every_store(rule):
    objective, phi, batches = _images(mm.omniglot_convnet(3, filters=2, context=3), 4, np.float32)
    want, *_ = mm.CAVIA(rule).direction(objective, phi, batches)
    assert want.dtype == np.float32 and want[:, objective.part("context").stop :].any()
    for store in STORES:
        assert_same(mm.CAVIA(rule, store).direction(objective, phi, batches)[0], want, store)


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("rule", [mm.SGD(1.0), mm.Adam(0.05)], ids=["sgd", "adam"])
def test_cavia_on_images_gives_the_same_bits_on_a_strict_module(rule, store):
    objective, phi, here = _images(mm.omniglot_convnet(3, filters=2, context=3), 4, np.float32)
    there = mm.Minibatches(strict.asarray(here.x), strict.asarray(here.y))
    want, loss, *_ = mm.CAVIA(rule, store).direction(objective, phi, here)
    got, loss_there, *_ = mm.CAVIA(rule, store).direction(objective, strict.asarray(phi), there)
    assert_same(got.get(), want, "direction")
    assert_same(loss_there.get(), loss, "loss")


def _check_cavia(algorithm, objective, phi, batches):
    """The direction is the gradient of the loss after a written-out adaptation.

    The inner loop moves only the context, and the outer loop only the rest.
    """
    rule, place = algorithm.rule, objective.part("context")

    def loss(meta):
        start = meta.copy()
        start[place] = 0
        adapted, state = np.tile(start, (batches.tasks, 1)), None
        for batch in batches[
            :-1
        ]:  # by the definition: a step of the whole vector, of which c alone is kept
            moved, state = rule.step(adapted, objective.at(adapted, batch).grad, state)
            adapted = adapted.copy()
            adapted[:, place] = moved[:, place]
        return objective.at(adapted, batches[-1]).loss

    check_algorithm(algorithm, objective, phi, batches, true_objective=loss)
    direction, *_ = algorithm.direction(objective, phi, batches)
    assert not direction[:, place].any()
    adapted, shared = algorithm.adapt(objective, phi, batches), np.ones(objective.size, bool)
    shared[place] = False
    assert_same(adapted[:, shared], np.tile(phi[shared], (batches.tasks, 1)), "theta")
    assert adapted[:, place].any()


def test_a_fresh_context_is_zero_and_stands_where_the_network_says():
    objective = mm.Objective(mm.mlp([1, 4, 1], context=3), mm.MeanSquaredError())
    assert objective.part("context") == slice(0, 3) and objective.size == 3 + 4 * 4 + 4 + 4 + 1
    assert not objective.init(np.random.default_rng(0))[objective.part("context")].any()
    assert mm.mlp([1, 1]).context == slice(0, 0)
    with pytest.raises(mm.SettingsError, match="context"):
        mm.CAVIA(mm.SGD(0.1)).adapt(
            mm.Objective(mm.mlp([1, 1]), mm.MeanSquaredError()), np.zeros(2), []
        )
    for make in (lambda: layers.Context(0), lambda: layers.FiLM(3, 0), lambda: layers.FiLM(0, 3)):
        with pytest.raises(mm.ShapeError, match="at least 1"):
            make()


@pytest.mark.usefixtures("plain_kernels")  # a FiLM layer keeps its neighbours apart
@pytest.mark.parametrize("preset", [mm.omniglot_convnet, mm.mini_imagenet_convnet])
def test_a_convolutional_networks_context_stands_inside_phi_and_changes_nothing_at_first(preset):
    plain, network = preset(3, filters=2), preset(3, filters=2, context=4)
    place, rng = network.context, np.random.default_rng(0)
    assert place.start > 0 and place.stop == place.start + 4 and plain.context == slice(0, 0)
    phi = network.init(rng, np.float64)
    assert not phi[place].any()
    film = np.arange(network.size)[place.start : place.stop + 4 * 4 + 4]  # c, W, b
    x = rng.standard_normal((2, 3, *network.input_shape))
    assert_same(network.forward(phi, x), plain.forward(np.delete(phi, film), x), "logits")
    assert [type(layer).__name__ for layer in network.layers if layer not in plain.layers] == [
        "FiLM"
    ]
    above = network.layers[
        [isinstance(layer, layers.FiLM) for layer in network.layers].index(True) + 1
    ]
    assert isinstance(above, layers.ReLU)


per_task = st.integers(1, 6).flatmap(
    lambda tasks: seeds.map(lambda seed: np.random.default_rng(seed).standard_normal((tasks, 7)))
)


@given(per_task)
def test_agreement_weights_sum_to_one_in_absolute_value_and_have_the_sign_of_agreement(g):
    w = agreement_weights(g)
    assert np.abs(w).sum() == pytest.approx(1, rel=1e-14)
    inner = g @ g.T  # the definition, by all pairs
    sizes = (
        np.abs(inner).sum() / np.abs(inner.sum(axis=1)).sum()
    )  # what cancels in the sums of products
    assert_close(
        w, inner.sum(axis=1) / np.abs(inner.sum(axis=1)).sum(), ROUNDING * sizes, "weights"
    )
    assert_same(mm.gradient_agreement(g), w @ g, "combination")


@given(st.integers(2, 6), seeds)
def test_identical_tasks_give_the_plain_mean_and_an_opposed_one_a_negative_weight(tasks, seed):
    g = np.random.default_rng(seed).standard_normal(5)
    same = np.tile(g, (tasks, 1))
    assert_close(mm.gradient_agreement(same), mm.mean(same), ROUNDING, "combination")
    opposed = np.vstack([same, -0.5 * g])
    w = agreement_weights(opposed)
    assert (w[:-1] > 0).all() and w[-1] < 0
    assert not np.isnan(mm.gradient_agreement(np.zeros((tasks, 3)))).any()


@given(per_task, seeds)
def test_agreement_does_not_depend_on_the_order_nor_on_the_scale_of_the_directions(g, seed):
    order, inner = np.random.default_rng(seed).permutation(len(g)), g @ g.T
    sizes = np.abs(inner).sum() / np.abs(inner.sum(axis=1)).sum()
    assert_close(
        agreement_weights(g[order]), agreement_weights(g)[order], ROUNDING * sizes, "weights"
    )
    assert_same(agreement_weights(8 * g), agreement_weights(g), "weights")  # a power of two: exact


@pytest.mark.usefixtures("plain_kernels")
def test_the_family_on_a_strict_module():
    rng = np.random.default_rng(0)
    objective = mm.Objective(mm.mlp([2, 4, 2], "tanh"), mm.MeanSquaredError())
    phi = objective.init(rng, np.float64)
    x, y = rng.standard_normal((2, 3, 2, 5, 2))
    here, there = mm.Minibatches(x, y), mm.Minibatches(strict.asarray(x), strict.asarray(y))
    for algorithm, meta in (
        (mm.MetaSGD(), _with_rates(objective, phi, 1)),
        (mm.ANIL(mm.Adam(0.01)), phi),
    ):
        want, *_ = algorithm.direction(objective, meta, here)
        got, *_ = algorithm.direction(objective, strict.asarray(meta), there)
        assert_same(got.get(), want, "direction")
        assert_same(mm.gradient_agreement(got).get(), mm.gradient_agreement(want), "agreement")
    assert (
        mm.MetaSGD().init(objective, np.random.default_rng(2), np.float32, strict).dtype
        == np.float32
    )


def test_settings_that_make_no_sense_are_refused_with_what_to_use():
    objective = mm.Objective(mm.mlp([1, 1]), mm.MeanSquaredError())
    batches = mm.Minibatches(*np.zeros((2, 2, 1, 3, 1)))
    with pytest.raises(mm.SettingsError, match="low <= high"):
        mm.MetaSGD(0.2, 0.1)
    with pytest.raises(mm.ShapeError, match=r"phi and alpha, so its shape must be \(4,\)"):
        mm.MetaSGD().direction(objective, np.zeros(2), batches)
    with pytest.raises(mm.ShapeError, match="at least one mini-batch"):
        mm.MetaSGD().direction(objective, np.zeros(4), batches[:0])
    with pytest.raises(mm.SettingsError, match="one number as its step size"):
        mm.ANIL(mm.SGD((0.1, 0.2))).direction(objective, np.zeros(2), batches)
    with pytest.raises(mm.SettingsError, match="head"):
        mm.ANIL(mm.SGD(0.1)).adapt(Quadratic(2), np.zeros(2), batches)
