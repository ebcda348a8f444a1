"""The few array operations that several derivations share and that decide the speed.

Each has one definition in plain array expressions. It is the operation's meaning,
and it runs wherever nothing faster is there. Every kernel takes real and complex
arrays of NumPy or CuPy, keeps their dtype, and leaves its inputs as they are.
"""

from __future__ import annotations

from .backend import Array, array_module


def adam_moments(
    g: Array, m: Array | None, v: Array | None, beta1: float, beta2: float
) -> tuple[Array, Array]:
    """Adam's moments after the gradient ``g: (T, D)``.

        m' = beta1 m + (1 - beta1) g,  v' = beta2 v + (1 - beta2) g^2.

    ``m, v: (D,) or (T, D)`` are both None before the first step, where they count
    as zero. Where beta1 = 0, m' is g itself. Returns ``m', v'``, each ``(T, D)``.
    """
    square = (1 - beta2) * g * g
    if m is None or v is None:
        return g if beta1 == 0 else (1 - beta1) * g, square
    return g if beta1 == 0 else beta1 * m + (1 - beta1) * g, beta2 * v + square


def adam_update(
    phi: Array,
    g: Array,
    m: Array | None,
    v: Array | None,
    rate: float | Array,
    beta1: float,
    beta2: float,
    c1: float,
    c2: float,
    eps: float,
) -> tuple[Array, Array, Array]:
    """One step of Adam from ``phi: (D,) or (T, D)``, after ``adam_moments``.

        phi' = phi - rate o (m' / c1) / (sqrt(v' / c2) + eps).

    ``c1 = 1 - beta1^t`` and ``c2 = 1 - beta2^t`` correct the bias of step t, which
    counts from 1. ``rate`` is a number or broadcasts against ``(T, D)``.
    Returns ``phi', m', v'``, each ``(T, D)``.
    """
    m, v = adam_moments(g, m, v, beta1, beta2)
    root = array_module(v).sqrt(v * (1 / c2))
    root += eps
    return phi - rate * ((m if c1 == 1 else m / c1) / root), m, v
