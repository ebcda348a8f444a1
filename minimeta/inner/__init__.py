"""The inner loop: update rules with their adjoints, and trajectories that are pulled back."""

from .rules import (
    SGD,
    Adam,
    AdamState,
    Adjoint,
    InnerRule,
    Rate,
    RateGradient,
    is_per_step,
    rate_at,
)
from .trajectory import STORES, Store, Trajectory, adapt, descend, unroll

__all__ = [
    "SGD",
    "STORES",
    "Adam",
    "AdamState",
    "Adjoint",
    "InnerRule",
    "Rate",
    "RateGradient",
    "Store",
    "Trajectory",
    "adapt",
    "descend",
    "is_per_step",
    "rate_at",
    "unroll",
]
