"""Checks of a loss and of an objective."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..losses import Loss
from ..objectives import Batch, Differentiable, HasInputGradient, HasThirdDerivative
from .comparing import TOLERANCE, check_init, compare, dots
from .findings import Findings, reported


@reported
def check_loss(
    loss: Loss, z: np.ndarray, target: np.ndarray, *, seed: int = 0, tolerance: float = TOLERANCE
) -> float:
    """Checks the derivatives of ``loss`` at float64 ``z``.

    ``backward`` and ``backward_tangent`` must be the first and the second
    derivative of ``forward``.

    Returns the largest relative difference found.

    Raises
    ------
    CheckError
        naming the pass that is wrong, and by how much.
    """
    z_dot = np.random.default_rng(seed).standard_normal(z.shape)
    with Findings(type(loss).__name__).reporting() as findings:
        value, cache = findings.call("forward", loss.forward, z=z, target=target)
        findings.array("forward", "the loss", value, z.shape[:1], np.float64)
        dz = findings.call("backward", loss.backward, cache=cache)
        findings.array("backward", "dz", dz, z.shape, np.float64)
        dz_dot = findings.call("backward_tangent", loss.backward_tangent, cache=cache, z_dot=z_dot)
        findings.array("backward_tangent", "dz_dot", dz_dot, z.shape, np.float64)

        def value_at(p):
            return loss.forward(p, target)[0]

        sizes = dots(abs(dz), abs(z_dot))

        def gradient_at(p):
            return loss.backward(loss.forward(p, target)[1])

        at, along, slope = (z,), (z_dot,), dots(dz, z_dot)
        compare(findings, "backward", "dz", slope, "forward", value_at, at, along, tolerance, sizes)
        given = "dz_dot", dz_dot, "backward", gradient_at
        compare(findings, "backward_tangent", *given, at, along, tolerance)
    return findings.worst


@reported
def check_objective(
    objective: Differentiable,
    phi: np.ndarray,
    batch: Batch,
    *,
    true_loss: Callable[[np.ndarray], np.ndarray] | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> float:
    """Checks the derivatives of ``objective`` at float64 phi, ``(D,) or (T,
    D)``.

    ``grad`` must be the derivative of ``loss``, and ``hvp`` the derivative of
    ``grad``. ``hvp`` must be linear and symmetric. Tasks must be independent. A
    shared phi or v must give the same results as equal copies. Where a point
    has ``input_grad``, it must be the derivative of ``loss`` along the inputs
    x. Where a point has ``third``, ``third(v, w)`` must be the derivative of
    ``hvp(v)`` along w. Where the objective has ``init``, it must give a phi
    ``(D,)`` of the dtype and in the array module asked for, the same for the
    same rng.

    ``true_loss`` maps phi ``(T, D)`` to losses ``(T,)`` by their definition. If
    it is given, ``loss`` must agree with it.

    Returns the largest relative difference found.

    Raises
    ------
    CheckError
        naming each wrong result, and by how much.
    """
    with Findings(type(objective).__name__).reporting() as findings:
        check = _ObjectiveCheck(objective, phi, batch, seed, tolerance, findings)
        check.check_derivatives(true_loss)
        check.check_hessian()
        check.check_tasks_and_sharing()
        check.check_further_answers()
        if hasattr(objective, "init"):
            check_init(findings, objective.init, "phi", objective.size, seed)
    return findings.worst


class _ObjectiveCheck:
    """The check of one objective at one phi, with random u and v."""

    def __init__(self, objective, phi, batch, seed, tolerance, findings) -> None:
        self.objective, self.phi, self.batch = objective, phi, batch
        self.tolerance, self.findings = tolerance, findings
        self.point = findings.call("at", objective.at, phi=phi, batch=batch)
        self.rng, shape = np.random.default_rng(seed), (len(batch[0]), objective.size)
        self.u, self.v = self.rng.standard_normal((2, *shape))
        self.rows = np.array(np.broadcast_to(phi, shape))
        self.hv, self.hu = (findings.call("hvp", self.point.hvp, v=w) for w in (self.v, self.u))

    def close(self, pass_name: str, term: str, got, reference: str, want, scale=None) -> None:
        """A comparison with a value."""
        self.findings.close(pass_name, term, got, reference, want, self.tolerance, scale)

    def compare(self, pass_name: str, term: str, got, of, function, at, along, scale=None) -> None:
        """A comparison with a derivative along one argument."""
        given = pass_name, term, got, of, function, (at,), (along,)
        compare(self.findings, *given, self.tolerance, scale)

    def check_derivatives(self, true_loss: Callable[[np.ndarray], np.ndarray] | None) -> None:
        """``grad`` and ``hvp`` are the derivatives of ``loss`` and ``grad``."""
        objective, batch, point, v = self.objective, self.batch, self.point, self.v
        self.findings.array("loss", "the loss", point.loss, v.shape[:1], np.float64)
        if true_loss is not None:
            self.close("loss", "the loss", point.loss, "true_loss", true_loss(self.rows))
        self.findings.array("grad", "the gradient", point.grad, v.shape, np.float64)
        self.findings.array("hvp", "H v", self.hv, v.shape, np.float64)
        slope, sizes = dots(point.grad, v), dots(abs(point.grad), abs(v))

        def loss(p):
            return objective.at(p, batch).loss

        def grad(p):
            return objective.at(p, batch).grad

        self.compare("grad", "the gradient", slope, "loss", loss, self.rows, v, sizes)
        self.compare("hvp", "H v", self.hv, "grad", grad, self.rows, v)

    def check_hessian(self) -> None:
        """``hvp`` is symmetric and linear."""
        u, v, hu, hv = self.u, self.v, self.hu, self.hv
        sizes = dots(abs(u), abs(hv)) + dots(abs(v), abs(hu))
        other = "<v, H u>: H is not symmetric"
        self.close("hvp", "<u, H v>", dots(u, hv), other, dots(v, hu), sizes)
        combined, other = self.point.hvp(2 * u - 3 * v), "2 H u - 3 H v: hvp is not linear"
        self.close("hvp", "H(2u - 3v)", combined, other, 2 * hu - 3 * hv)

    def check_tasks_and_sharing(self) -> None:
        """Tasks are independent, and a shared phi or v acts as copies."""
        point, v, of_copies = self.point, self.v, "that of an equal copy for each task"
        copied = point.hvp(0 * v + v[0])
        self.close("hvp", "H v of a shared v", point.hvp(v[0]), of_copies, copied)
        copies = self.objective.at(self.rows, self.batch)
        self.close("grad", "the gradient of a shared phi", point.grad, of_copies, copies.grad)
        alone = self.objective.at(self.rows[-1:], tuple(data[-1:] for data in self.batch))
        among = "that of the same task among the others: it depends on the other tasks"
        self.close("grad", "the gradient of a task alone", alone.grad, among, point.grad[-1:])
        self.close("hvp", "H v of a task alone", alone.hvp(v[-1:]), among, self.hv[-1:])

    def check_further_answers(self) -> None:
        """``input_grad`` and ``third`` are derivatives, where they exist."""
        objective, (x, y) = self.objective, self.batch
        if isinstance(self.point, HasInputGradient):
            x_dot, input_grad = self.rng.standard_normal(x.shape), self.point.input_grad()
            slope, sizes = dots(input_grad, x_dot), dots(abs(input_grad), abs(x_dot))

            def losses(x):
                return objective.at(self.phi, (x, y)).loss

            self.compare("input_grad", "dL/dx", slope, "loss", losses, x, x_dot, sizes)
        if isinstance(self.point, HasThirdDerivative):
            third = self.findings.call("third", self.point.third, v=self.v, w=self.u)

            def product(p):
                return objective.at(p, (x, y)).hvp(self.v)

            given = "the third derivative", third, "hvp", product
            self.compare("third", *given, self.rows, self.u)
