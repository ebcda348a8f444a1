"""The check of ``merge``, by which an inner rule's state is carried on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..inner import InnerRule, named_parts
from .comparing import SINGLE, compare_states, form, map_arrays
from .findings import Findings

STEPS = 2  # of every task


class MergeCheck:
    """The check of a merge of tasks that went from one state, ``shared``.

    ``rule`` has one rate for each parameter, the same in all steps. The
    gradients do not depend on phi, so tasks side by side and tasks one after
    another meet the same ones.
    """

    def __init__(
        self,
        rule: InnerRule,
        shared: Any,
        tasks: int,
        seed: int,
        tolerance: float,
        findings: Findings,
    ) -> None:
        self.rule, self.shared, self.tasks = rule, shared, tasks
        self.tolerance, self.findings = tolerance, findings
        shape = (STEPS, tasks, len(rule.lr))
        self.gradients = np.random.default_rng(seed).standard_normal(shape)
        self.states = self._after(self.gradients)

    def run(self, sequential: bool | None) -> Any:
        """The merged state, after every comparison; None if the rule does not
        carry its state on.

        ``sequential`` is that of ``check_rule``.
        """
        kept = self._merged(self.shared, self.tasks)
        self._compare("merge", "the state after no step", kept, "the shared state", self.shared)
        merged = self._merged(self.states, self.tasks)
        if merged is None:
            carried = not sequential or self.states is None
            problem = "the merged state is None, which begins no sequence"
            self.findings.require("merge", carried, problem)
            return None
        self._check_one_task(merged)
        means_sequence = self._check_sequence(merged, sequential)
        self.findings.report()  # before a step from a state that is wrong
        self._check_copies(merged)
        self._check_single()
        if means_sequence:
            self._check_memory(merged)
        return merged

    def _after(self, gradients: np.ndarray, state: Any = None, rule: Any = None) -> Any:
        """The state after a step on each of ``gradients``, ``(k, T, D)``.

        The steps start from ``state``, by default ``shared``.
        """
        state, rule = self.shared if state is None else state, rule or self.rule
        for j, g in enumerate(gradients):
            _, state = rule.step(np.zeros(g.shape, g.dtype), g, state, j)
        return state

    def _merged(self, states: Any, tasks: int) -> Any:
        given = {"shared": self.shared, "states": states, "tasks": tasks}
        return self.findings.call("merge", self.rule.merge, **given)

    def _compare(self, pass_name: str, term: str, got: Any, reference: str, want: Any) -> None:
        compare_states(self.findings, pass_name, term, got, reference, want, self.tolerance)

    def _check_one_task(self, merged: Any) -> None:
        """One task's merged state is its own; that of several has its form."""
        alone = self._after(self.gradients[:, :1])
        want = map_arrays(lambda a: a[0], alone)
        got = _without_axis(self._merged(alone, 1), want)
        self._compare("merge", "the merged state of one task", got, "that task's state", want)
        if _shapes(_without_axis(merged, want)) != _shapes(want):
            raise self.findings.error(
                f"merge: the merged state of {self.tasks} tasks is {form(merged)}, expected the "
                f"form of one task's without the task axis, {form(want)}"
            )

    def _check_copies(self, merged: Any) -> None:
        """A step from the merged state is that from a copy for each task."""
        phi, g = np.zeros_like(self.gradients[0]), self.gradients[0]
        row = map_arrays(lambda a: a[0], self.states)
        copies = map_arrays(
            lambda a: np.repeat(a[None], self.tasks, axis=0), _without_axis(merged, row)
        )
        given = {"phi": phi, "g": g, "state": merged, "j": 0}
        got, after = self.findings.call("step", self.rule.step, **given)
        want, of_copies = self.rule.step(phi, g, copies, 0)
        reference = "that from an equal copy for each task"
        term = "phi' from a merged state"
        self.findings.close("step", term, got, reference, want, self.tolerance)
        self._compare("step", "state' from a merged state", after, reference, of_copies)

    def _check_single(self) -> None:
        """``step`` and ``merge`` of float32 arrays give float32 arrays."""
        rule = replace(self.rule, lr=self.rule.lr.astype(np.float32))
        gradients = self.gradients.astype(np.float32)
        shared = map_arrays(lambda a: a.astype(np.float32), self.shared)
        phi, _ = rule.step(np.zeros_like(gradients[0]), gradients[0], shared, 0)
        states = self._after(gradients, shared, rule)
        merged = rule.merge(shared, states, self.tasks)
        found = {"step": [("phi'", phi), *parts(states, "state'")]}
        found["merge"] = list(parts(merged, "the merged state"))
        for pass_name, arrays in found.items():
            for term, array in arrays:
                if isinstance(array, np.ndarray):
                    problem = f"{term} is {array.dtype} for inputs that are float32"
                    self.findings.require(pass_name, array.dtype == np.float32, problem)
        term, want = "the merged state of float32 states", self._merged(self.states, self.tasks)
        given = "merge", term, merged, "the float64 one", want
        compare_states(self.findings, *given, SINGLE)

    def _check_sequence(self, merged: Any, sequential: bool | None) -> bool:
        """The merged state is that of the tasks one after another, if it means
        that; whether it does."""
        serial = self.shared
        for i in range(self.tasks):
            serial = self._after(self.gradients[:, i : i + 1], serial)
        serial = map_arrays(lambda a: a[0], serial)
        merged, term = _without_axis(merged, serial), "the merged state"
        each = zip(parts(merged, term), parts(serial), parts(self.states), strict=False)
        claims = [
            name
            for (name, got), (_, want), (_, rows) in each
            if self._is_of_sequence_alone(got, want, rows)
        ]
        means_sequence = bool(claims) if sequential is None else sequential
        if means_sequence:
            reference = "the state after the same gradients with the tasks one after another"
            if claims:
                reference += f" (which {claims[0]} is: merge all parts so, or none)"
            self._compare("merge", term, merged, reference, serial)
        return means_sequence

    def _is_of_sequence_alone(self, got: Any, want: Any, rows: Any) -> bool:
        """Whether a part is the sequence's, and not just between the tasks'."""
        if not isinstance(got, np.ndarray):
            return got == want and got != rows
        margin = self.tolerance * np.abs(want).max(initial=0.0)
        between = (rows.min(axis=0) - margin <= got) & (got <= rows.max(axis=0) + margin)
        return bool((np.abs(got - want) <= margin).all() and not between.all())

    def _check_memory(self, state: Any) -> None:
        """From one state, ``j`` changes nothing but the length of a step."""
        phi, g = np.zeros_like(self.gradients[0]), self.gradients[0]
        (first, after_first), (second, after_second) = (
            self.rule.step(phi, g, state, j) for j in (0, 1)
        )
        term, reference = "state' of step 2 of a task", "state' of step 1 from the same state"
        self._compare("step", term, after_second, reference, after_first)
        length = (first * second).sum() / ((first * first).sum() or 1.0)
        self.findings.close(
            "step",
            "phi' - phi of step 2 of a task",
            second,
            "every multiple of that of step 1 from the same state: the memory of a rule whose "
            "tasks merge into a sequence belongs in its state, and j only chooses the rate",
            length * first,
            self.tolerance,
        )


def parts(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays and numbers of a state, and their names, in order."""
    if isinstance(state, tuple):
        for each, part in named_parts(state, "part {}"):
            yield from parts(part, f"{each} of {name}")
    else:
        yield name, state


def _shapes(state: Any) -> list[Any]:
    """The shapes and types of a state's parts."""
    return [getattr(part, "shape", type(part)) for _, part in parts(state)]


def _without_axis(state: Any, row: Any) -> Any:
    """``state`` with arrays that have a task axis of length 1 before the shape
    in ``row`` without that axis."""
    shapes = iter([part.shape for _, part in parts(row) if isinstance(part, np.ndarray)])

    def without(a: np.ndarray) -> np.ndarray:
        return a[0] if a.shape == (1, *next(shapes, ())) else a

    return map_arrays(without, state)
