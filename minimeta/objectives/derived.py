"""Objectives made of another objective."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays.backend import Array
from ..losses import Loss
from .protocols import Cost, Differentiable, HasEntropy, Predicting, asked, cost_of, part_of


@dataclass(frozen=True)
class Derived:
    """Base of an objective that modifies another ``objective`` on the same phi.

    A subclass defines ``at``. All other methods pass on to ``objective``.
    """

    objective: Differentiable

    @property
    def size(self) -> int:
        """D."""
        return self.objective.size

    def init(self, rng: np.random.Generator, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
        """A fresh phi, ``(D,)``."""
        return self.objective.init(rng, dtype, xp)

    def predict(self, phi: Array, x: Array) -> Array:
        """Predictions ``(T, N, *output)``."""
        return asked(self.objective, Predicting, "predict needs predictions").predict(phi, x)

    def entropy(self) -> Loss:
        """The entropy of the predicted classes."""
        return asked(self.objective, HasEntropy, "entropy needs an entropy of classes").entropy()

    def part(self, name: str) -> slice:
        """The slice of a part in phi, empty if phi has no such part."""
        return part_of(self.objective, name)

    def cost(self) -> Cost:
        """The work for one example."""
        return cost_of(self.objective)
