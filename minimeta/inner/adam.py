"""Adam as an inner rule, with its adjoint and its tangent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..arrays.backend import Array, array_module
from ..arrays.kernels import adam_moments, adam_update
from ..registry import setting
from .rule import RULES, Adjoint, Rate, check_arguments, rate_at


class AdamState(NamedTuple):
    """The state of ``Adam``.

    ``steps`` counts all steps so far, including the steps of earlier tasks. The
    bias correction uses this count. ``m`` and ``v`` are the moments, ``(D,)``
    where tasks share them and ``(T, D)`` after a step.
    """

    steps: int
    m: Array
    v: Array


@RULES.register("adam")
@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1).

    The inner rule of the Reptile paper is beta1 = 0, which leaves only the
    second moment. With t = ``steps`` + 1 the number of this step, c1 = 1 -
    beta1^t and c2 = 1 - beta2^t:

        m' = beta1 m + (1 - beta1) g,            m^ = m' / c1,
        v' = beta2 v + (1 - beta2) g^2,          v^ = v' / c2,    s = sqrt(v^),
        phi' = phi - lr o m^ / (s + eps).

    Raises
    ------
    SettingsError
        if ``lr`` is no rate (``InnerRule``), if beta1 or beta2 is not in
        [0, 1), or if a number is negative or not finite.
    """

    lr: Rate = setting(help="step size", least=0)
    beta1: float = setting(0.0, "decay of the first moment", least=0, below=1)
    beta2: float = setting(0.999, "decay of the second moment", least=0, below=1)
    eps: float = setting(1e-8, "added to the root of the second moment", least=0)

    def __post_init__(self) -> None:
        check_arguments(self)

    def step(
        self, phi: Array, g: Array, state: AdamState | None = None, j: int = 0
    ) -> tuple[Array, AdamState]:
        """phi', and the state (t, m', v')."""
        before = state or AdamState(0, None, None)
        t, rate = before.steps + 1, rate_at(self.lr, j)
        decays = self.beta1, self.beta2, *self._corrections(t)
        phi, m, v = adam_update(phi, g, before.m, before.v, rate, *decays, self.eps)
        return phi, AdamState(t, m, v)

    def adjoint(
        self,
        g: Array,
        state: AdamState | None,
        j: int,
        dphi: Array,
        dstate: tuple[Array, Array] | None = None,
    ) -> Adjoint:
        """The adjoint of one step.

        Let a' = ``dphi``, and (am', av') = ``dstate``. The gradients of m' and
        v', (am, av), are (am', av') plus the paths through phi':

            dphi'/dm' = -lr / (c1 (s + eps)),
            dphi'/dv' = lr m^ / (s + eps)^2 . ds/dv',  ds/dv' = 1 / (2 c2 s),

            am = am' - lr a' / (c1 (s + eps)),
            av = av' + lr a' m^ / (2 c2 s (s + eps)^2).

        Since m' and v' are linear in m, v, g and g^2,

            dF/dg = (1 - beta1) am + 2 (1 - beta2) g o av,
            dF/dm = beta1 am,    dF/dv = beta2 av,
            dF/dphi = a',        dF/dlr = -a' o m^ / (s + eps).

        Where v' = 0 every gradient so far was 0, so m^ = 0 as well. There the
        second term of av is zero, whatever its divisor is.
        """
        m_hat, s, c1, c2 = self._after(g, state)
        rate, scaled = rate_at(self.lr, j), dphi / (s + self.eps)
        am = scaled * (-rate / c1)
        av = (rate / (2 * c2)) * scaled * m_hat / self._root_slope_divisor(s)
        if dstate is not None:
            am, av = am + dstate[0], av + dstate[1]
        dg = (1 - self.beta1) * am + (2 - 2 * self.beta2) * g * av
        return Adjoint(dphi, dg, (self.beta1 * am, self.beta2 * av), lambda: -scaled * m_hat)

    def tangent(
        self,
        g: Array,
        state: AdamState | None,
        j: int,
        phi_dot: Array,
        g_dot: Array,
        state_dot: tuple[Array, Array] | None = None,
        lr_dot: Rate | None = None,
    ) -> tuple[Array, tuple[Array, Array]]:
        """The derivative of every line of ``Adam``:

            m'_dot = beta1 m_dot + (1 - beta1) g_dot,
            v'_dot = beta2 v_dot + 2 (1 - beta2) g o g_dot,
            m^_dot = m'_dot / c1,    s_dot = v'_dot / (2 c2 s),
            phi'_dot = phi_dot
                - lr o (m^_dot / (s + eps) - m^ o s_dot / (s + eps)^2)
                - lr_dot o m^ / (s + eps).

        The term of s_dot is zero where v' = 0, as in ``adjoint``.
        """
        m_hat, s, c1, c2 = self._after(g, state)
        m_dot = (1 - self.beta1) * g_dot
        v_dot = (2 - 2 * self.beta2) * g * g_dot
        if state_dot is not None:
            m_dot, v_dot = m_dot + self.beta1 * state_dot[0], v_dot + self.beta2 * state_dot[1]
        bend = m_hat * v_dot / (2 * c2 * self._root_slope_divisor(s))
        rate = rate_at(self.lr, j)
        phi_dot = phi_dot - rate * ((m_dot / c1 - bend) / (s + self.eps))
        if lr_dot is not None:
            phi_dot = phi_dot - rate_at(lr_dot, j) * (m_hat / (s + self.eps))
        return phi_dot, (m_dot, v_dot)

    def merge(
        self, shared: AdamState | None, states: AdamState | None, tasks: int
    ) -> AdamState | None:
        """The state after the same gradients with the tasks one after another.

        A task that went from v to v_i in k steps added d_i = v_i - beta2^k v.
        The k steps of every later task shrink d_i by beta2^k. Hence

            v' = beta2^(kT) v + sum_i beta2^(k (T - i)) d_i.

        The same holds for m, and t grows by k T. Every d_i of v is a sum of
        squares. Where d_i is zero, rounding must not make it negative.
        """
        if states is shared:  # no step was made
            return shared
        before, m0, v0 = (shared.steps, shared.m, shared.v) if shared is not None else (0, 0.0, 0.0)
        k, xp = states.steps - before, array_module(states.v)

        def one_after_another(beta: float, start: Array | float, added: Array) -> Array:
            powers = [beta ** (k * (tasks - 1 - i)) for i in range(tasks)]
            weights = xp.asarray(powers, dtype=added.dtype)
            return weights @ added + beta ** (k * tasks) * start

        m = one_after_another(self.beta1, m0, states.m - self.beta1**k * m0)
        v = one_after_another(self.beta2, v0, xp.maximum(states.v - self.beta2**k * v0, 0))
        return AdamState(before + k * tasks, m, v)

    def fault_in(self, state: AdamState, steps: int | None = None) -> str:
        """A fault of a stored state after a step, or an empty text.

        ``steps`` is the number of steps that led to the state, if it is known.
        """
        if state.steps < 1 or steps not in (None, state.steps):
            wanted = "1 or more" if steps is None else steps
            return f"steps must be {wanted}, got {state.steps}"
        if state.m is None or state.v is None:
            return f"m and v are missing after {state.steps} steps"
        return "v must not be negative" if bool((state.v < 0).any()) else ""

    def _corrections(self, t: int) -> tuple[float, float]:
        """c1 and c2."""
        return 1 - self.beta1**t, 1 - self.beta2**t

    def _after(self, g: Array, state: AdamState | None) -> tuple[Array, Array, float, float]:
        """m^, s, c1 and c2 of the step that starts from ``state``."""
        before = state or AdamState(0, None, None)
        m, v = adam_moments(g, before.m, before.v, self.beta1, self.beta2)
        c1, c2 = self._corrections(before.steps + 1)
        return m if c1 == 1 else m / c1, array_module(v).sqrt(v * (1 / c2)), c1, c2

    def _root_slope_divisor(self, s: Array) -> Array:
        """s (s + eps), replaced by 1 where s = 0."""
        return array_module(s).where(s == 0, 1, s * (s + self.eps))
