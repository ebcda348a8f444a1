"""The softmax, which the losses of classification share."""

from __future__ import annotations

from ..arrays.backend import Array, array_module


def softmax(z: Array) -> tuple[Array, Array, Array]:
    """s = z - z of the likeliest class, p = softmax(z), and log sum_c e^s_c.

    The likeliest class adds e^0 = 1 to the sum, so log(1 + the others) keeps
    the digits of others that are small.
    """
    xp = array_module(z)
    likeliest = z.real.argmax(axis=-1)[..., None]
    shifted = z - xp.take_along_axis(z, likeliest, axis=-1)
    p = xp.exp(shifted)
    others = (p * (likeliest != xp.arange(z.shape[-1]))).sum(axis=-1, keepdims=True)
    p /= 1 + others
    return shifted, p, xp.log1p(others)


def centred(p: Array, v: Array) -> Array:
    """v minus its mean under p."""
    return v - (p * v).sum(axis=-1, keepdims=True)


def from_likeliest(p: Array, v: Array) -> Array:
    """v minus its value at the likeliest class."""
    likeliest = p.real.argmax(axis=-1)[..., None]
    return v - array_module(p).take_along_axis(v, likeliest, axis=-1)
