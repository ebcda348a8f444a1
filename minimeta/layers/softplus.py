"""Softplus: y = log(1 + e^x)."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.backend import array_module
from .base import LAYERS
from .smooth import Smooth


@LAYERS.register("Softplus")
@dataclass(frozen=True)
class Softplus(Smooth):
    """y = log(1 + e^x), element by element: a smooth ReLU.

    It does not overflow for any finite x.
    """

    def value(self, x):
        """max(x, 0) + log(1 + e^(-|x|)).

        |x| is written so that it is analytic off the imaginary axis.
        """
        xp = array_module(x)
        positive = x.real > 0
        return x * positive + xp.log1p(xp.exp(xp.where(positive, -x, x)))

    def slope(self, x, y):
        """f'(x) = 1 / (1 + e^-x) = e^(x - y), the logistic function.

        The second form cannot overflow.
        """
        return array_module(x).exp(x - y)

    def curvature(self, x, y):
        """f'' = f' (1 - f'), and 1 - f' = 1 / (1 + e^x) = e^-y."""
        xp = array_module(x)
        return xp.exp(x - y) * xp.exp(-y)
