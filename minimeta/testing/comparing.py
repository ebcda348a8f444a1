"""A derivative compared with both oracles, and two states of a rule compared.

The complex step decides, to ten digits. A real difference, to five digits,
guards the complex step. The complex step misses every part of a function that
is not analytic (an absolute value, a norm, a real part stored in a cache), and
the real difference sees those parts. Such a function is to blame itself, and
not the pass that is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..inner import named_parts, with_parts
from .complex_step import complex_step, real_difference, tree_map
from .findings import CheckError, Findings
from .strict import module as strict

# Rounding of float64 (1e-16) through sums of a few thousand terms and a few
# divisions.
TOLERANCE = 1e-10
# A real difference with step 1e-7 has an error of about 1e-9, and more where a
# function bends sharply.
ROUGH = 1e-5
# How far a point is moved away from kinks that meet in it.
NEAR = 1e-3
# Float32 results differ from float64 ones by rounding; this bound only catches
# a different function.
SINGLE = 1e-2
# A result this small beside its terms is compared to thirteen digits of the
# terms, and not to ten digits of itself.
ZERO = 1e-3


def compare(
    findings: Findings,
    pass_name: str,
    term: str,
    got: np.ndarray,
    of: str,
    function: Callable[..., np.ndarray],
    at: tuple,
    along: tuple,
    tolerance: float,
    scale: Any = None,
    floor: float = 0.0,
) -> None:
    """Compares ``got`` with the derivative of ``function``.

    The derivative is taken at ``at`` along ``along``. ``of`` names the pass
    that ``function`` evaluates. Differences are relative to ``scale``, or to
    max |want| + ``floor`` where ``scale`` is None.

    Raises
    ------
    CheckError
        at once, naming ``of``, where the complex step does not see all of
        ``function``.
    """
    want = _analytic(findings, of, function, at, along, floor)
    if scale is None:
        scale = np.abs(want).max(initial=0.0) + floor
    findings.close(pass_name, term, got, f"the derivative of {of}", want, tolerance, scale)


def _analytic(
    findings: Findings,
    of: str,
    function: Callable[..., np.ndarray],
    at: tuple,
    along: tuple,
    floor: float,
) -> np.ndarray:
    """The derivative by the complex step, which a real difference confirms.

    A difference below ``ROUGH`` times ``floor`` is rounding.
    """
    try:
        want = complex_step(function, at, along)
    except CheckError:
        raise
    except Exception as error:
        raise findings.error(
            f"{of} does not take complex input ({type(error).__name__}: {error}), which the "
            "complex step needs: compare by real part, and allocate with the dtype of the input"
        ) from error
    size = np.abs(want).max(initial=0.0) + np.abs(function(*at)).max(initial=0.0) + floor
    if not np.isfinite(size):
        raise findings.error(f"{of} gives numbers that are not finite for finite input")
    error = _from_real_difference(want, function, at, along, size)
    if error <= ROUGH:
        return want
    # Several kinks that meet in one point (of units that rest at exactly 0) can
    # cancel in the test of smoothness. No kinks meet in a point near it, where
    # an imaginary part that is dropped is dropped too.
    rng = np.random.default_rng(0)
    near = tree_map(lambda x: x + NEAR * rng.standard_normal(x.shape), at)
    there = complex_step(function, near, along)
    if _from_real_difference(there, function, near, along, size) <= ROUGH:
        return want
    raise findings.error(
        f"{of} drops an imaginary part: its derivative by the complex step differs by "
        f"{error:.1e} relative from a real difference; take no absolute value, norm, real "
        f"part or conjugate in {of} or in what it reads, and allocate with the dtype of the input"
    )


def _from_real_difference(
    want: np.ndarray, function: Callable[..., np.ndarray], at: tuple, along: tuple, size: float
) -> float:
    """The largest difference of ``want`` from a real difference, over
    ``size``, where the function is smooth."""
    smooth, error = True, 0.0
    # Two kinks within one step can cancel in the test of smoothness. With two
    # step sizes this hardly ever happens.
    for h in (1e-7, 1e-8):
        slope, bend = real_difference(function, at, along, h)
        # A large bend means a kink within the step, where there is no
        # derivative.
        smooth = smooth & (bend <= ROUGH * size)
        error = np.abs((want - slope) * smooth).max(initial=0.0) / (size or 1.0)
        if error <= ROUGH:
            break
    return float(error)


def compare_states(
    findings: Findings,
    pass_name: str,
    term: str,
    got: Any,
    reference: str,
    want: Any,
    tolerance: float,
) -> None:
    """Notes every part in which the states ``got`` and ``want`` of an inner
    rule differ.

    Numbers and arrays may differ by ``tolerance`` relative to ``want``.
    ``term`` and ``reference`` name the states in words.
    """
    if isinstance(want, tuple) and type(got) is type(want) and len(got) == len(want):
        if not reference.startswith("that of "):
            reference = f"that of {reference}"
        for part, (name, other) in zip(got, named_parts(want, "part {}"), strict=True):
            part_term = f"{name} of {term}"
            compare_states(findings, pass_name, part_term, part, reference, other, tolerance)
    elif isinstance(want, np.ndarray) and np.shape(got) == want.shape:
        findings.close(pass_name, term, got, reference, want, tolerance)
    else:
        numbers = isinstance(got, (int, float)) and isinstance(want, (int, float))
        same = abs(got - want) <= tolerance * abs(want) if numbers else got is want
        findings.require(pass_name, same, f"{term} is {form(got)}, but {reference} is {form(want)}")


def states_agree(got: Any, want: Any, tolerance: float) -> bool:
    """Whether ``compare_states`` notes nothing."""
    trial = Findings("state")
    try:
        compare_states(trial, "", "", got, "", want, tolerance)
    except CheckError:
        return False
    return not trial.any


def map_arrays(function: Callable[[np.ndarray], np.ndarray], state: Any) -> Any:
    """The state of an inner rule with ``function`` applied to its arrays."""
    if isinstance(state, tuple):
        return with_parts(state, [map_arrays(function, part) for part in state])
    return function(state) if isinstance(state, np.ndarray) else state


def form(state: Any) -> str:
    """A state in words: its types, its numbers, and the shapes of its
    arrays."""
    if isinstance(state, tuple):
        named = [(f"{name}=" if name else "", part) for name, part in named_parts(state, "")]
        parts = [name + form(part) for name, part in named]
        return f"{type(state).__name__}({', '.join(parts)})"
    return f"an array {state.shape}" if hasattr(state, "shape") else repr(state)


def check_init(
    findings: Findings, init: Callable[..., Any], term: str, size: int, seed: int
) -> np.ndarray:
    """Checks ``init(rng, dtype, xp)``, and returns its float64 result.

    The result must be a finite vector ``(size,)`` of ``dtype`` in the array
    module ``xp``. It must be drawn on the host from ``rng`` alone: one seed
    gives one result, in every precision and every module.
    """

    def made(dtype: Any, xp: Any) -> Any:
        rng = np.random.default_rng(seed)
        return findings.call("init", lambda dtype: init(rng, dtype, xp), dtype=dtype)

    double, again, single = made(np.float64, np), made(np.float64, np), made(np.float32, np)
    findings.array("init", term, double, (size,), np.float64)
    findings.array("init", f"a float32 {term}", single, (size,), np.float32)
    of_seed = f"{term} of the same seed"
    findings.close("init", term, again, f"another {of_seed} (draw from rng alone)", double, 0.0)
    findings.close("init", f"a float32 {term}", single, f"the float64 {of_seed}", double, SINGLE)
    there = made(np.float32, strict)
    moved = there.get() if hasattr(there, "get") else None
    findings.require(
        "init",
        moved is not None and np.array_equal(moved, single),
        f"{term} made with another array module xp is not that of NumPy in that module: draw it "
        "on the host, and return xp.asarray(values, dtype=dtype)",
    )
    return double


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The per-task <a, b>, ``(T,)``."""
    return (a * b).reshape(len(a), -1).sum(axis=1)


def leaves(tree: Any) -> list[np.ndarray]:
    """The arrays of a tree of dicts and tuples."""
    found: list[np.ndarray] = []
    tree_map(found.append, tree)
    return found
