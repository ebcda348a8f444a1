"""The base of the objectives with closed forms, which take any vector as
phi."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays.backend import Array
from .protocols import check_generator


@dataclass(frozen=True)
class OnVectors:
    """Base of the objectives with closed forms.

    phi is any vector of ``size`` D.
    """

    size: int

    def init(self, rng: np.random.Generator, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
        """Standard normal phi, ``(D,)``."""
        check_generator(rng)
        return xp.asarray(rng.standard_normal(self.size), dtype=dtype)
