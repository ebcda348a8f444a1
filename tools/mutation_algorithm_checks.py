"""The checks of inner rules, trajectories, conjugate gradients and algorithms.

An algorithm's oracle (minimeta/testing/oracles.py) runs some of its code, such
as ``problem``. Where that code is the code under test, its definition is
written out here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from mutation_checks import Check, Problem, agrees, classifier, perceptron, polynomial, quadratic

import minimeta as mm
from minimeta.algorithms import Outcome, fgsm
from minimeta.inner import AdamState, conjugate_gradients
from minimeta.testing import check_algorithm, check_rule, check_trajectory, complex_step
from minimeta.testing.comparing import compare_states
from minimeta.testing.findings import Findings
from minimeta.testing.oracles import oracle

# Rules.


def adam(lr: Any) -> mm.Adam:
    return mm.Adam(lr, eps=1e-3)


def adam_with_momentum(lr: Any) -> mm.Adam:
    return mm.Adam(lr, 0.5, 0.9, 1e-2)


def rates_of_every_kind(size: int) -> list[Any]:
    """A number, one a parameter, and one per step in three ways; one step more
    than is made."""
    rng = np.random.default_rng(5)
    vector, rows, column = (rng.uniform(0.05, 0.2, shape) for shape in ((size,), (4, size), (4, 1)))
    return [0.1, vector, (0.1, 0.2, 0.15, 0.3), rows, column]


def of_rules(*makers: Callable[[Any], Any]) -> tuple[Check, ...]:
    """check_rule with rates of every kind. Adam's merge means a sequence."""
    return tuple(
        partial(check_rule, rule, sequential=isinstance(rule, mm.Adam))
        for make in makers
        for lr in rates_of_every_kind(3)
        for rule in (make(lr),)
    )


def of_sgds_steps() -> tuple[Check, ...]:
    """phi - lr o g, without a state."""
    checks = []
    phi, g = np.random.default_rng(6).standard_normal((2, 2, 3))
    for lr in rates_of_every_kind(3):
        for j in (0, 1, 3):
            rate = lr[j] if np.shape(lr) in ((4,), (4, 1), (4, 3)) else lr
            step = partial(mm.SGD(lr).step, phi, g, None, j)
            checks.append(partial(agrees, lambda step=step: step()[0], phi - rate * g))
            checks.append(partial(_same, lambda step=step: step()[1], None))
    return tuple(checks)


def of_adams_steps() -> tuple[Check, ...]:
    """Adam by its definition, step by step through two tasks; the second starts
    from a shared state, whose steps count."""
    rng, checks = np.random.default_rng(6), []
    for beta1, beta2, eps in ((0.0, 0.999, 1e-8), (0.5, 0.9, 1e-2)):
        for lr in rates_of_every_kind(3):
            rule, state, t, m, v = mm.Adam(lr, beta1, beta2, eps), None, 0, 0.0, 0.0
            for j in (0, 1, 0, 1, 2):
                phi, g = rng.standard_normal((2, 2, 3))
                if t == 2:
                    m, v = np.mean(m, axis=0), np.mean(v, axis=0)
                    state = AdamState(2, m, v)
                step = partial(rule.step, phi, g, state, j)
                t, m, v = t + 1, beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
                moved = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
                rate = lr[j] if np.shape(lr) in ((4,), (4, 1), (4, 3)) else lr
                checks.append(partial(agrees, lambda step=step: step()[0], phi - rate * moved))
                state = AdamState(t, m, v)
                checks.append(partial(_same, lambda step=step: step()[1], state))
    return tuple(checks)


def _same(function: Callable[[], Any], want: Any) -> None:
    """Raise a CheckError unless ``function`` returns the state ``want``."""
    with Findings("state").reporting() as findings:
        given = "step", "the state", function(), "that by definition", want
        compare_states(findings, *given, 1e-12)


# Trajectories.


def of_trajectories() -> tuple[Check, ...]:
    """Three steps through rules with and without a state, with rates of every
    kind; of one parameter; from the end of another step; no step; and five
    steps, which checkpoints cut into three and two."""
    objective, phi, batches = polynomial()
    rows = np.tile(phi, (batches.tasks, 1))
    one, small = quadratic(1), quadratic(2, k=5)
    checks = [partial(check_trajectory, *problem, mm.SGD(0.1)) for problem in (quadratic(), one)]
    for make in (mm.SGD, adam_with_momentum):
        for lr in rates_of_every_kind(objective.size):
            rule = make(lr)
            _, state = rule.step(rows, rows + 1)
            checks += [
                partial(check_trajectory, objective, phi, batches, rule),
                partial(check_trajectory, objective, rows, batches, rule, state=state),
                partial(check_trajectory, objective, rows, batches[:0], rule, state=state),
            ]
    checks += [partial(check_trajectory, *one, mm.SGD(lr)) for lr in rates_of_every_kind(1)]
    of_two = mm.SGD(0.1), mm.SGD(np.array([0.1, 0.05])), adam(0.1)
    checks += [partial(check_trajectory, *small, rule) for rule in of_two]
    steps = mm.SGD((0.1, 0.2, 0.15, 0.3, 0.25))
    checks += [partial(check_trajectory, *small, rule) for rule in (steps, adam_with_momentum(0.1))]
    return (*checks, partial(check_trajectory, *perceptron(), adam_with_momentum(0.1)))


# Conjugate gradients.


def of_conjugate_gradients() -> tuple[Check, ...]:
    """The solution is judged by a dense solve, and its derivative by the
    complex step. The iterates are judged by their definition: of definite
    systems, with a task that has nothing to solve, and of systems many of
    which are indefinite. Two cases meet the comparisons at equality."""
    rng = np.random.default_rng(9)
    g, g_dot = rng.standard_normal((2, 24, 4))
    definite, mixed = _systems(rng, 0.5, len(g)), _systems(rng, -0.5, len(g))
    exact, exact_dot = (np.linalg.solve(definite, v[..., None])[..., 0] for v in (g, g_dot))
    slope = partial(complex_step, partial(_solution, definite, steps=6), (g,), (g_dot,))
    checks = [
        partial(agrees, partial(_solution, definite, g, 6), exact, 1e-11),
        partial(agrees, slope, exact_dot, 1e-9),
    ]
    resting = g * (np.arange(len(g)) != 1)[:, None]
    for matrices, right in ((definite, g), (mixed, 0.1 * g), (definite, resting)):
        for steps, tolerance in ((0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0), (4, 0.3), (7, 0.6)):
            each = zip(matrices, right, strict=True)
            want = np.array([_iterate(a, b, steps, tolerance) for a, b in each])
            found = partial(_solution, matrices, right, steps, tolerance)
            checks.append(partial(agrees, found, want, 1e-10))
    ones = np.ones((1, 2))
    flat, steep = np.diag([1.0, -1.0])[None], np.diag([1.0, 3.0])[None]
    # <g, A g> = 0.
    checks.append(partial(agrees, partial(_solution, flat, ones, 2), ones))
    # |r| = |g| / 2 after one step.
    halved = partial(_solution, steep, ones, 2, 0.5)
    return (*checks, partial(agrees, halved, 0.5 * ones))


def _systems(rng: np.random.Generator, least: float, tasks: int) -> np.ndarray:
    """Symmetric matrices ``(tasks, 4, 4)``, eigenvalues from ``least`` to 4."""
    q = np.linalg.qr(rng.standard_normal((tasks, 4, 4)))[0]
    return (q * rng.uniform(least, 4, (tasks, 1, 4))) @ q.swapaxes(1, 2)


def _solution(
    matrices: np.ndarray, g: np.ndarray, steps: int, tolerance: float = 0.0
) -> np.ndarray:
    def product(v):
        return (matrices @ v[..., None])[..., 0]

    return conjugate_gradients(product, g, steps, tolerance)


def _iterate(matrix: np.ndarray, g: np.ndarray, steps: int, tolerance: float) -> np.ndarray:
    """The iterate of one task, by its definition: that of step n is stationary
    for <x, A x> / 2 - <g, x> among the span of g, A g, .. A^(n-1) g.

    It ends before a step to a span on which A is not positive definite. Where
    that is the first span, it is g.
    """
    x = np.zeros_like(g)
    for n in range(1, min(steps, len(g)) + 1):
        if np.linalg.norm(g - matrix @ x) <= tolerance * np.linalg.norm(g):
            return x
        span = np.array([np.linalg.matrix_power(matrix, i) @ g for i in range(n)]).T
        bent = span.T @ matrix @ span
        if np.linalg.eigvalsh(bent).min() <= 0:
            return g if n == 1 else x
        x = span @ np.linalg.solve(bent, span.T @ g)
    return x


def of_adaptation() -> tuple[Check, ...]:
    """Adaptation by three steps written out, from a fresh and a shared state;
    predictions, coupled outcomes, and an inner loop without a mini-batch."""
    objective, phi, batches = perceptron()
    x, checks = batches.x[0], []
    for rule in (mm.SGD((0.1, 0.2, 0.15)), adam_with_momentum(0.1)):
        for state in started(rule, (objective, phi, batches)):
            algorithm, held, rows, point = mm.MAML(rule), state, phi, None
            given = objective, phi, batches, state
            for j, batch in enumerate(batches):
                point = objective.at(rows, batch)
                rows, held = rule.step(rows, point.grad, held, j)
            for function in (algorithm.adapt, partial(_adapted_by, rule)):
                checks.append(partial(agrees, partial(function, *given), rows))
            found = objective.predict(rows, x)
            checks.append(partial(agrees, partial(algorithm.predict, *given[:3], x, state), found))
            run = partial(mm.inner.descend, *given[:3], rule, state)
            checks.append(partial(agrees, lambda run=run: run()[2], point.loss))
            checks.append(partial(_same, lambda run=run: run()[1], held))
        nothing = partial(mm.inner.descend, objective, phi, batches[:0], rule)
        checks.append(partial(_same, lambda nothing=nothing: nothing()[1:], (None, None)))
        taml, state = mm.TAML(rule, weight=2.0), started(rule, (objective, phi, batches))[1]
        want = taml.couple(taml.direction(objective, phi, batches, state)).direction
        whole = partial(taml.meta_gradient, objective, phi, batches, state)
        checks.append(partial(agrees, lambda whole=whole: whole().direction, want))
    return tuple(checks)


def _adapted_by(rule: Any, *given: Any) -> np.ndarray:
    objective, phi, batches, state = given
    return mm.adapt(objective, phi, batches, rule, state)


# Algorithms by their oracles.


def started(rule: Any, problem: Problem) -> list[Any]:
    """A fresh state, and that of earlier tasks."""
    objective, phi, batches = problem
    _, state = rule.step(np.tile(phi, (2, 1)), objective.at(phi + 1, batches[0]).grad)
    return [None, rule.merge(None, state, 2)]


def of_algorithm(
    make: Callable[[Any], Any],
    problems: tuple[Problem, ...] | None = None,
    judge: Callable[..., dict[str, Any]] = oracle,
    rules: tuple[Any, ...] = (mm.SGD(0.1), adam(0.1), adam_with_momentum(0.1)),
) -> tuple[Check, ...]:
    """check_algorithm on what ``make`` makes of each of ``rules``, with a fresh
    state and with that of earlier tasks. ``judge`` gives its definition."""
    return tuple(
        partial(
            check_algorithm,
            algorithm,
            *problem,
            state=state,
            **judge(algorithm, problem[0], problem[2], state),
        )
        for problem in problems or (quadratic(), quadratic(k=1), perceptron())
        for rule in rules
        for algorithm in (make(rule),)
        for state in started(rule, problem)
    )


def of_meta_sgd() -> tuple[Check, ...]:
    """With rates of both signs."""
    checks, algorithm = [], mm.MetaSGD()
    for objective, phi, batches in (quadratic(), perceptron()):
        meta = np.concatenate([phi, np.random.default_rng(5).uniform(-0.1, 0.2, objective.size)])
        known = oracle(algorithm, objective, batches)
        checks.append(partial(check_algorithm, algorithm, objective, meta, batches, **known))
    return tuple(checks)


def of_taml() -> tuple[Check, ...]:
    """With three mini-batches, and with one, both the first and the last."""
    objective, phi, batches = perceptron()
    problems = tuple((objective, phi, some) for some in (batches, batches[:1]))
    measure = mm.GeneralizedEntropy(3)
    return of_algorithm(lambda rule: mm.TAML(rule, "iterates", measure, 2.0), problems)


def of_entropy_taml() -> tuple[Check, ...]:
    """With three mini-batches, and with two, the fewest."""
    objective, phi, batches = classifier()
    problems = tuple((objective, phi, some) for some in (batches, batches[:2]))
    return of_algorithm(lambda rule: mm.EntropyTAML(rule, "iterates", 2.0), problems)


def of_fomaml() -> tuple[Check, ...]:
    """Both updates; the last step's rate is its own, and not the last rate."""
    rates = mm.SGD((0.1, 0.2, 0.15, 0.3))

    def last_step(rule):
        return mm.FOMAML(rule, update="step")

    return (
        *of_algorithm(mm.FOMAML),
        *of_algorithm(last_step),
        *of_algorithm(last_step, rules=(rates,)),
    )


# eps, low, high: some inputs are clipped on either side, and most are not.
BOX = (0.3, -0.8, 0.9)


def of_adml() -> tuple[Check, ...]:
    objective, phi, batches = perceptron()
    problems = tuple((objective, phi, some) for some in (batches, batches[:1]))
    return of_algorithm(lambda rule: mm.ADML(rule, "iterates", *BOX), problems)


def of_imaml() -> tuple[Check, ...]:
    """With a pull that makes every system definite; with three mini-batches,
    and with two, the fewest."""
    problems = quadratic(), quadratic(k=2)
    return (
        *of_algorithm(lambda rule: mm.IMAML(rule, 10.0, 6), problems, solved),
        *of_algorithm(lambda rule: mm.IMAML(rule, 3.0, 40, 1e-13), (perceptron(),), solved),
    )


def of_imaml_by_its_oracle() -> tuple[Check, ...]:
    return of_algorithm(lambda rule: mm.IMAML(rule, 10.0, 6), (quadratic(),))


# Definitions of code that an oracle runs.


def solved(algorithm, objective, minibatches, state) -> dict[str, Any]:
    """iMAML by inner steps with the pull towards phi written out, and a dense
    solve."""
    strength = algorithm.regularization

    def outcome(phi):
        theta, held = phi, state
        for j, batch in enumerate(minibatches[:-1]):
            pulled = objective.at(theta, batch).grad + strength * (theta - phi)
            theta, held = algorithm.rule.step(theta, pulled, held, j)
        query, train = objective.at(theta, minibatches[-1]), objective.at(theta, minibatches[-2])
        unit = np.eye(len(phi))
        hessian = np.stack([train.hvp(axis) for axis in unit], axis=2)
        system = unit + hessian / strength
        solution = np.linalg.solve(system, query.grad[..., None])[..., 0]
        return Outcome(solution, query.loss, held)

    return {"expected": outcome}


def on_part(name: str, algorithm, objective, minibatches, state) -> dict[str, Any]:
    """MAML with a rate for each parameter, which is 0 off the part ``name``; a
    context starts at 0."""
    place = np.arange(objective.size)[objective.part(name)]
    moves = np.isin(np.arange(objective.size), place)
    rule = replace(algorithm.rule, lr=algorithm.rule.lr * moves)
    known = oracle(mm.MAML(rule), objective, minibatches, state)
    start = 1 - moves if name == "context" else np.ones(objective.size)
    # Each is bound at once: a loop variable would be that of the last one.
    return {key: lambda meta, of=of: of(meta * start) for key, of in known.items()}


def of_anil() -> tuple[Check, ...]:
    judge = partial(on_part, "head")
    return of_algorithm(lambda rule: mm.ANIL(rule, "iterates"), (perceptron(),), judge)


def of_cavia() -> tuple[Check, ...]:
    """From a context other than 0, which the inner loop must not start from."""
    problems = perceptron(context=2), perceptron(context=1)
    for objective, phi, _ in problems:
        phi[objective.part("context")] = 0.5
    judge = partial(on_part, "context")
    return of_algorithm(lambda rule: mm.CAVIA(rule, "iterates"), problems, judge)


def of_fgsm() -> tuple[Check, ...]:
    """The attacked inputs and their targets, in a box and free; of a network
    many of whose slopes are 0, too."""
    eps, low, high = BOX
    checks = []
    for objective, phi, batches in (perceptron(), perceptron("relu", 1)):
        for x, y in batches:
            free = x + eps * np.sign(objective.at(phi, (x, y)).input_grad())
            for box, want in ((BOX, np.clip(free, low, high)), ((eps,), free)):
                attacked = partial(fgsm, objective, phi, (x, y), *box)
                checks.append(partial(agrees, attacked, np.array([want, y])))
    return tuple(checks)
