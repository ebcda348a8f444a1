"""Stochastic gradient descent as an inner rule."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.backend import Array
from ..arrays.kernels import sgd_update
from ..registry import setting
from .rule import RULES, Adjoint, Rate, check_arguments, rate_at


@RULES.register("sgd")
@dataclass(frozen=True)
class SGD:
    """phi' = phi - lr o g.

    The state is None, because no step depends on the steps before it. ``lr`` is
    a number, a vector ``(D,)``, or one rate per step (``InnerRule``).

    Raises
    ------
    SettingsError
        if ``lr`` is no such rate, or a number that is negative or not finite.
    """

    lr: Rate = setting(help="step size", least=0)

    def __post_init__(self) -> None:
        check_arguments(self)

    def step(self, phi: Array, g: Array, state: None = None, j: int = 0) -> tuple[Array, None]:
        """phi - lr o g."""
        return sgd_update(phi, g, rate_at(self.lr, j)), None

    def adjoint(self, g: Array, state: None, j: int, dphi: Array, dstate: None = None) -> Adjoint:
        """The adjoint of one step.

        With a' = ``dphi``, dF = <a', dphi - lr o dg - g o dlr>, so the
        gradients are

            dF/dphi = a',    dF/dg = -lr o a',    dF/dlr = -g o a'.
        """
        return Adjoint(dphi, -rate_at(self.lr, j) * dphi, None, lambda: -g * dphi)

    def tangent(
        self,
        g: Array,
        state: None,
        j: int,
        phi_dot: Array,
        g_dot: Array,
        state_dot: None = None,
        lr_dot: Rate | None = None,
    ) -> tuple[Array, None]:
        """phi'_dot = phi_dot - lr o g_dot - lr_dot o g."""
        phi_dot = phi_dot - rate_at(self.lr, j) * g_dot
        if lr_dot is not None:
            phi_dot = phi_dot - rate_at(lr_dot, j) * g
        return phi_dot, None

    def merge(self, shared: None, states: None, tasks: int) -> None:
        """None: every task starts without a state."""
        return None
