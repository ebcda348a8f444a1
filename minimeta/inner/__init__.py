"""The inner loop: update rules with adjoints and tangents, and trajectories."""

from .adam import Adam, AdamState
from .conjugate_gradients import conjugate_gradients
from .rule import (
    RULES,
    Adjoint,
    InnerRule,
    Rate,
    RateGradient,
    is_per_step,
    named_parts,
    rate_at,
    with_parts,
)
from .sgd import SGD
from .stores import STORES, Store
from .trajectory import Trajectory, adapt, descend, unroll

__all__ = [
    "RULES",
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
    "conjugate_gradients",
    "descend",
    "is_per_step",
    "named_parts",
    "rate_at",
    "unroll",
    "with_parts",
]
