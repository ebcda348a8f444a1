"""The findings of a check.

Every comparison is made before any is reported, so a report can name both the
wrong passes and the right ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np

_EXACT = 1e-6  # comparisons with a larger tolerance are rough: they guard the exact ones


class CheckError(AssertionError):
    """A layer, loss, objective or algorithm is wrong.

    The message names the pass and the term, and says by how much it is wrong.
    """


class Findings:
    """Collects comparisons under the names of passes.

    ``where`` describes the inputs. If given, it ends every report.
    """

    def __init__(self, name: str, where: str = "") -> None:
        self.name, self._where = name, f" ({where})" if where else ""
        self._wrong: list[str] = []
        self._passes: dict[str, bool] = {}
        self.worst = 0.0  # the largest relative difference that an exact comparison met

    def error(self, problem: str) -> CheckError:
        """The CheckError of a problem after which nothing can be compared.

        Its message begins with the findings so far.
        """
        wrong = [*dict.fromkeys(self._wrong), f"{self.name}.{problem}"]
        return CheckError("; ".join(wrong) + self._where)

    @property
    def any(self) -> bool:
        """Whether anything is wrong so far."""
        return bool(self._wrong)

    def call(self, pass_name: str, function: Callable[..., Any], **inputs: Any) -> Any:
        """``function`` on ``inputs``, in order.

        Raises
        ------
        CheckError
            at once, if ``function`` raises, or changes one of its inputs in
            place, since later comparisons would mean nothing.
        """
        before = copy.deepcopy(inputs)
        try:
            result = function(*inputs.values())
        except Exception as error:
            raise self.error(f"{pass_name} raised {type(error).__name__}: {error}") from error
        for name in inputs:
            if not same(before[name], inputs[name]):
                raise self.error(f"{pass_name} changes its input {name} in place")
        self._passes.setdefault(pass_name, True)
        return result

    def require(self, pass_name: str, holds: bool, problem: str) -> None:
        """Notes ``problem`` as found in a pass, unless ``holds``."""
        self._passes[pass_name] = self._passes.get(pass_name, True) and bool(holds)
        if not holds:
            self._wrong.append(f"{self.name}.{pass_name}: {problem}")

    def array(
        self, pass_name: str, term: str, value: Any, shape: tuple[int, ...], dtype: Any = None
    ) -> None:
        """Requires a result to be a finite array of ``shape`` (and ``dtype``).

        Raises
        ------
        CheckError
            at once, for a wrong shape or a number that is not finite, since a
            comparison would only confuse.
        """
        found = getattr(value, "shape", None)
        if found != shape:
            raise self.error(f"{pass_name}: {term} has shape {found}, expected {shape}")
        if not np.isfinite(value).all():
            raise self.error(
                f"{pass_name}: {term} holds numbers that are not finite, for finite input"
            )
        if dtype is not None:
            self.require(
                pass_name,
                value.dtype == dtype,
                f"{term} is {value.dtype} for inputs that are {np.dtype(dtype)}",
            )

    def names(self, pass_name: str, term: str, value: Any, expected: set[str]) -> None:
        """Requires a result to be a dict with exactly the ``expected`` names.

        Raises
        ------
        CheckError
            at once, if the result is not such a dict.
        """
        found = set(value) if isinstance(value, dict) else type(value).__name__
        if found != expected:
            raise self.error(
                f"{pass_name}: {term} names {found or '{}'}, expected {expected or '{}'}"
            )

    def close(
        self,
        pass_name: str,
        term: str,
        got: Any,
        reference: str,
        want: Any,
        tolerance: float,
        scale: Any = None,
    ) -> bool:
        """Notes a finding unless ``got`` is ``want`` to ``tolerance``.

        ``reference`` says in words where ``want`` is from. Errors are relative
        to ``scale``, by default max |want|. Returns whether they agree.

        Raises
        ------
        CheckError
            at once, if shapes differ or a number is not finite.
        """
        if np.shape(got) != np.shape(want):
            raise self.error(
                f"{pass_name}: {term} has shape {np.shape(got)}, but {reference} has shape "
                f"{np.shape(want)}"
            )
        for name, value in ((term, got), (reference, want)):
            if not np.isfinite(value).all():
                raise self.error(
                    f"{pass_name}: {term} cannot be compared with {reference}: {name} is not finite"
                )
        scale = np.abs(want).max(initial=0.0) if scale is None else scale
        error = np.abs(got - want)
        holds = (error <= tolerance * scale).all()
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.nanmax(np.where(error > 0, error / scale, 0.0), initial=0.0)
        if tolerance < _EXACT:
            self.worst = max(self.worst, float(relative))
        size = f"{relative:.1e} relative" if relative < np.inf else f"{error.max():.1e}"
        self.require(pass_name, holds, f"{term} differs by {size} from {reference}")
        return bool(holds)

    def report(self) -> None:
        """Raises a CheckError if anything is wrong.

        The message lists all that is wrong, and the passes that agree.
        """
        if self._wrong:
            # init is no pass: it says nothing about the others.
            right = [name for name, holds in self._passes.items() if holds and name != "init"]
            agree = f"; {', '.join(right)} agree{'s' * (len(right) == 1)}" if right else ""
            raise CheckError("; ".join(dict.fromkeys(self._wrong)) + agree + self._where)

    @contextmanager
    def reporting(self) -> Iterator[Findings]:
        """Reports at the end of a block."""
        yield self
        self.report()


def same(a: Any, b: Any) -> bool:
    """Whether two trees of arrays are equal to the last bit.

    Parts that are not arrays count as equal.
    """
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__dict__"):
        return same(vars(a), vars(b))
    return not isinstance(a, np.ndarray) or np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def reported(check: Callable[..., Any]) -> Callable[..., Any]:
    """``check``, with every other exception turned into a CheckError.

    The CheckError names the checked object.
    """

    @wraps(check)
    def checked(subject: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return check(subject, *arguments, **options)
        except CheckError:
            raise
        except Exception as error:
            name = type(getattr(subject, "wrapped", subject)).__name__
            raise CheckError(
                f"{name} cannot be checked: {type(error).__name__}: {error}"
            ) from error

    return checked
