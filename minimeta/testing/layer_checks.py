"""Checks of a layer and of a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from inspect import signature
from typing import Any

import numpy as np

from ..layers import Layer
from ..objectives import Network
from .comparing import SINGLE, TOLERANCE, ZERO, check_init, compare, dots, leaves
from .complex_step import complex_step, tree_map
from .findings import CheckError, Findings, reported

PASSES = ("forward", "backward", "forward_tangent", "backward_tangent")


@reported
def check_layer(
    layer: Layer,
    input_shape: tuple[int, ...] | None = None,
    *,
    tasks: int = 2,
    examples: int = 3,
    shared: bool | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> float:
    """Checks the four passes of ``layer`` at random float64 inputs.

    ``forward_tangent`` must be the derivative of ``forward``. ``backward`` must
    be its transpose, <dy, J u> = <J^T dy, u>, task by task and term by term.
    ``backward_tangent`` must be the derivative of ``backward``. No pass may
    change its inputs, upcast float32, or let one task depend on another.
    Parameters shared by all tasks (leading axis 1) must give the same results
    as equal copies. ``shared`` selects shared parameters or copies; by default
    both are checked. All passes except ``forward`` must take ``on_data``. With
    ``on_data=True`` they must give the same results as with x_dot = 0, and may
    return None for dx and dx_dot. ``init`` must give a float64 array for each
    of ``shapes``, the same for the same rng.

    Without an ``input_shape``, the check uses small shapes of one and of three
    axes that the layer's ``output_shape`` accepts.

    Returns the largest relative difference found.

    Raises
    ------
    CheckError
        naming each pass and term that is wrong and by how much, and the passes
        that agree.
    """
    name = _name(layer)
    missing = [pass_name for pass_name in PASSES if not callable(getattr(layer, pass_name, None))]
    if missing:
        raise CheckError(f"{name} has no pass {', '.join(missing)}")
    shapes = [input_shape] if input_shape is not None else list(_shapes_taken(layer))
    if not shapes:
        raise CheckError(
            f"{name}.output_shape takes none of the small shapes that check_layer tries: "
            "give check_layer an input_shape"
        )
    worst = 0.0
    for shape in shapes:
        with Findings(name, f"inputs of shape {shape}").reporting() as findings:
            for each in (False, True) if shared is None else (shared,):
                check = _LayerCheck(layer, shape, tasks, examples, each, seed, tolerance, findings)
                check.run()
            check.check_init(seed)
        worst = max(worst, findings.worst)
    return worst


class _LayerCheck:
    """The check of one layer at one set of random inputs."""

    def __init__(
        self, layer, input_shape, tasks, examples, shared, seed, tolerance, findings
    ) -> None:
        self.layer, self.findings, self.tolerance = layer, findings, tolerance
        self.tasks, self.shared = tasks, shared
        rng = np.random.default_rng(seed)
        own = {key: rng.standard_normal((tasks, *shape)) for key, shape in layer.shapes.items()}
        self.theta = {key: value[:1] for key, value in own.items()} if shared else own
        self.theta_dot = {
            key: rng.standard_normal((tasks, *shape)) for key, shape in layer.shapes.items()
        }
        self.x, self.x_dot = rng.standard_normal((2, tasks, examples, *input_shape))
        self.y_shape = (tasks, examples, *layer.output_shape(input_shape))
        self.dy, self.dy_dot = rng.standard_normal((2, *self.y_shape))

    def run(self) -> None:
        """Makes every comparison."""
        results = self.passes(
            self.theta, self.theta_dot, self.x, self.x_dot, self.dy, self.dy_dot, np.float64
        )
        self.check_forward_tangent(results)
        self.check_backward(results)
        self.check_backward_tangent(results)
        self.check_on_data()
        self.check_tasks_and_sharing(results)
        single = tree_map(
            lambda a: a.astype(np.float32),
            (self.theta, self.theta_dot, self.x, self.x_dot, self.dy, self.dy_dot),
        )
        # A derivative that is zero, such as that of a norm of one value, is of
        # rounding.
        floor = np.abs(self.dy).max()
        for pass_name, result in self.passes(*single, np.float32).items():
            for got, want in zip(leaves(result), leaves(results[pass_name]), strict=True):
                scale = max(floor, np.abs(want).max(initial=0))
                of = "the float64 result"
                self.findings.close(pass_name, "a float32 result", got, of, want, SINGLE, scale)

    def passes(self, theta, theta_dot, x, x_dot, dy, dy_dot, dtype) -> dict[str, Any]:
        """The results of the four passes by name, after a check of their form.

        Each result is a tree of arrays.
        """
        layer, call, shapes = self.layer, self.findings.call, self.layer.shapes
        tasks = x.shape[0]
        y_shape = (tasks, *self.y_shape[1:])

        def pair(pass_name: str, result: Any, names: tuple[str, str]) -> tuple:
            if not isinstance(result, tuple) or len(result) != 2:
                raise self.findings.error(
                    f"{pass_name} must return ({', '.join(names)}), got {type(result).__name__}"
                )
            return result

        def gradients(pass_name: str, result: Any, names: tuple[str, str]) -> tuple:
            dx, dtheta = pair(pass_name, result, names)
            self.findings.array(pass_name, names[0], dx, x.shape, dtype)
            self.findings.names(pass_name, names[1], dtheta, set(shapes))
            for key, shape in shapes.items():
                self.findings.array(
                    pass_name, f"{names[1]}[{key!r}]", dtheta[key], (tasks, *shape), dtype
                )
            return dx, dtheta

        y, cache = pair("forward", call("forward", layer.forward, theta=theta, x=x), ("y", "cache"))
        self.findings.array("forward", "y", y, y_shape, dtype)
        back = call("backward", layer.backward, theta=theta, cache=cache, dy=dy)
        tangent = call(
            "forward_tangent",
            layer.forward_tangent,
            theta=theta,
            theta_dot=theta_dot,
            cache=cache,
            x_dot=x_dot,
        )
        y_dot, cache_dot = pair("forward_tangent", tangent, ("y_dot", "cache_dot"))
        self.findings.array("forward_tangent", "y_dot", y_dot, y_shape, dtype)
        back_tangent = call(
            "backward_tangent",
            layer.backward_tangent,
            theta=theta,
            theta_dot=theta_dot,
            cache=cache,
            cache_dot=cache_dot,
            dy=dy,
            dy_dot=dy_dot,
        )
        return {
            "forward": y,
            "backward": gradients("backward", back, ("dx", "dtheta")),
            "forward_tangent": y_dot,
            "backward_tangent": gradients(
                "backward_tangent", back_tangent, ("dx_dot", "dtheta_dot")
            ),
        }

    def check_forward_tangent(self, results: dict[str, Any]) -> None:
        """y_dot is the derivative of y along (theta_dot, x_dot)."""
        at, along = (self.theta, self.x), (self.theta_dot, self.x_dot)
        compare(
            self.findings,
            "forward_tangent",
            "y_dot",
            results["forward_tangent"],
            "forward",
            self.y,
            at,
            along,
            self.tolerance,
        )

    def check_backward(self, results: dict[str, Any]) -> None:
        """dx and each dtheta is the transpose of y's derivative by that
        argument."""
        dx, dtheta = results["backward"]
        none = {key: 0 * value for key, value in self.theta_dot.items()}
        terms = [("dx", dx, self.x_dot, (none, self.x_dot))]
        for key, value in dtheta.items():
            alone = none | {key: self.theta_dot[key]}
            terms.append((f"dtheta[{key!r}]", value, self.theta_dot[key], (alone, 0 * self.x_dot)))
        for term, gradient, direction, along in terms:
            moved = complex_step(self.y, (self.theta, self.x), along)
            sizes = dots(abs(gradient), abs(direction)) + dots(abs(self.dy), abs(moved))
            got, want = dots(gradient, direction), dots(self.dy, moved)
            of = "the transpose of forward's derivative"
            self.findings.close("backward", term, got, of, want, self.tolerance, sizes)

    def check_backward_tangent(self, results: dict[str, Any]) -> None:
        """dx_dot and dtheta_dot are the derivatives of dx and dtheta.

        The direction is (theta_dot, x_dot, dy_dot).
        """
        dx_dot, dtheta_dot = results["backward_tangent"]
        at, along = (self.theta, self.x, self.dy), (self.theta_dot, self.x_dot, self.dy_dot)

        def backward(theta, x, dy):
            _, cache = self.layer.forward(theta, x)
            return tuple(self.layer.backward(theta, cache, dy))

        terms = {"dx_dot": (dx_dot, lambda *z: backward(*z)[0])}
        for key in dtheta_dot:
            terms[f"dtheta_dot[{key!r}]"] = (
                dtheta_dot[key],
                lambda *z, key=key: backward(*z)[1][key],
            )
        # A derivative that is zero, such as batch norm's over one value, is
        # zero up to the rounding of its terms, which are of the size of dy.
        floor = ZERO * (np.abs(self.dy).max() + np.abs(self.dy_dot).max())
        for term, (got, function) in terms.items():
            compare(
                self.findings,
                "backward_tangent",
                term,
                got,
                "backward",
                function,
                at,
                along,
                self.tolerance,
                floor=floor,
            )

    def check_on_data(self) -> None:
        """With ``on_data`` the passes give the results for x_dot = 0, except
        dx."""
        if not self.take_on_data():
            return
        layer, theta, theta_dot, none = self.layer, self.theta, self.theta_dot, 0 * self.x_dot

        def passes(**told):
            def call(pass_name, **inputs):
                function = partial(getattr(layer, pass_name), **told)
                return self.findings.call(pass_name, function, **inputs)

            at = {"theta": theta, "theta_dot": theta_dot}
            _, cache = layer.forward(theta, self.x)
            back = call("backward", theta=theta, cache=cache, dy=self.dy)
            y_dot, cache_dot = call("forward_tangent", **at, cache=cache, x_dot=none)
            dots = {"cache": cache, "cache_dot": cache_dot, "dy": self.dy, "dy_dot": self.dy_dot}
            return back, (y_dot, {}), call("backward_tangent", **at, **dots)

        told, general = passes(on_data=True), passes()
        for pass_name, first, (got, got_by_name), (want, by_name) in zip(
            PASSES[1:], ("dx", "y_dot", "dx_dot"), told, general, strict=True
        ):
            self.findings.names(pass_name, "with on_data=True dtheta", got_by_name, set(by_name))
            pairs = [(repr(key), got_by_name[key], by_name[key]) for key in by_name]
            if got is not None:
                pairs.append((first, got, want))
            for name, a, b in pairs:
                term, of = f"a result with on_data=True ({name})", "that with x_dot = 0"
                self.findings.close(pass_name, term, a, of, b, self.tolerance)

    def take_on_data(self) -> bool:
        """Whether every pass except ``forward`` takes ``on_data``.

        Every pass that does not is noted as a finding.
        """
        lowest, prefix = self.layer, ""
        if isinstance(lowest, _AsLayer) and lowest.wrapped.layers:
            lowest = lowest.wrapped.layers[0]
            prefix = f"its lowest layer's {_name(lowest)}.{{}} "
        all_do = True
        for pass_name in PASSES[1:]:
            known = signature(getattr(lowest, pass_name)).parameters
            takes = "on_data" in known or any(
                each.kind is each.VAR_KEYWORD for each in known.values()
            )
            all_do = all_do and takes
            self.findings.require(
                pass_name,
                takes,
                f"{prefix.format(pass_name)}takes no argument on_data: add on_data=False as the "
                "last one; a network says on_data=True to its lowest layer, which may ignore it",
            )
        return all_do

    def check_tasks_and_sharing(self, results: dict[str, Any]) -> None:
        """Tasks are independent, and shared parameters act as copies.

        The last task gives the same results alone as among the others. Shared
        parameters give the same results as equal copies.
        """
        inputs = (self.theta_dot, self.x, self.x_dot, self.dy, self.dy_dot)
        last = tree_map(lambda a: a[-1:], inputs)
        theta = self.theta if self.shared else tree_map(lambda a: a[-1:], self.theta)
        alone = self.passes(theta, *last, np.float64)
        among = tree_map(lambda a: a[-1:], results)
        of = "that of the same task among the others: it depends on the other tasks"
        self.compare_results(alone, "a result of one task alone", of, among)
        if self.shared:
            copies = tree_map(lambda a: np.repeat(a, self.tasks, axis=0), self.theta)
            of_copies = self.passes(copies, *inputs, np.float64)
            of = "that with an equal copy for each task"
            self.compare_results(results, "a result with shared parameters", of, of_copies)

    def compare_results(
        self, got: dict[str, Any], term: str, reference: str, want: dict[str, Any]
    ) -> None:
        for pass_name in PASSES:
            for a, b in zip(leaves(got[pass_name]), leaves(want[pass_name]), strict=True):
                self.findings.close(pass_name, term, a, reference, b, self.tolerance)

    def check_init(self, seed: int) -> None:
        """``init`` names and shapes every parameter, and draws from rng
        alone."""
        first, again = (
            self.findings.call("init", lambda: self.layer.init(np.random.default_rng(seed)))
            for _ in range(2)
        )
        self.findings.names("init", "the result", first, set(self.layer.shapes))
        for key, shape in self.layer.shapes.items():
            term, other = repr(key), "another one of the same seed (draw from rng alone)"
            self.findings.array("init", term, first[key], shape)
            self.findings.require(
                "init",
                isinstance(first[key], np.ndarray) and first[key].dtype == np.float64,
                f"{term} is {first[key].dtype}, expected a NumPy array of float64",
            )
            self.findings.close("init", term, again[key], other, first[key], 0.0)

    def y(self, theta, x) -> np.ndarray:
        return self.layer.forward(theta, x)[0]


@reported
def check_network(
    network: Network,
    *,
    tasks: int = 2,
    examples: int = 3,
    shared: bool = False,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> float:
    """Checks the four passes and ``init`` of ``network``.

    ``check_layer`` checks the network as a layer with one parameter, phi.
    ``init`` must lay out the parameters that the layers draw, one after another
    from the same rng, as ``unpack`` takes them apart.

    Returns the largest relative difference found.

    Raises
    ------
    CheckError
        naming each pass and term that is wrong and by how much, and the passes
        that agree.
    """
    with Findings(type(network).__name__).reporting() as findings:
        phi = check_init(findings, network.init, "phi", network.size, seed)
        rng = np.random.default_rng(seed)
        for layer, theta in zip(network.layers, network.unpack(phi), strict=True):
            drawn = layer.init(rng)
            for key, value in theta.items():
                of = f"the {key!r} that {_name(layer)} draws"
                findings.close("init", f"{key!r} in phi", value[0], of, drawn[key], 0.0)
    return check_layer(
        _AsLayer(network),
        network.input_shape,
        tasks=tasks,
        examples=examples,
        shared=shared,
        seed=seed,
        tolerance=tolerance,
    )


@dataclass(frozen=True)
class _AsLayer(Layer):
    """A network as one layer with the parameter ``phi``."""

    wrapped: Network

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"phi": (self.wrapped.size,)}

    def init(self, rng):
        return {"phi": self.wrapped.init(rng, np.float64)}

    def output_shape(self, input_shape):
        return self.wrapped.output_shape

    def forward(self, theta, x):
        y, caches = self.wrapped.forward_cached(self.wrapped.theta(theta["phi"], x), x)
        return y, (x, caches)  # x decides, as phi does, which stages the network has

    def backward(self, theta, cache, dy, on_data=False):
        x, caches = cache
        taken = self.wrapped.theta(theta["phi"], x)
        dx, dphi, _ = self.wrapped.backward(taken, caches, dy, on_data)
        return dx, {"phi": dphi}

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        x, caches = cache
        taken = self.wrapped.theta(theta["phi"], x)
        moving = self.wrapped.dot(taken, theta_dot["phi"])
        return self.wrapped.forward_tangent(taken, moving, caches, x_dot, on_data)

    def backward_tangent(self, theta, theta_dot, cache, caches_dot, dy, dy_dot, on_data=False):
        x, caches = cache
        taken = self.wrapped.theta(theta["phi"], x)
        moving = self.wrapped.dot(taken, theta_dot["phi"])
        _, _, dys = self.wrapped.backward(taken, caches, dy, on_data)
        dx_dot, dphi_dot = self.wrapped.backward_tangent(
            taken, moving, caches, caches_dot, dys, dy_dot, on_data
        )
        return dx_dot, {"phi": dphi_dot}


def _name(layer: Layer) -> str:
    """The name of the layer's class, or of the class that a wrapper wraps.

    A wrapper holds the wrapped layer in an attribute ``wrapped``.
    """
    return type(getattr(layer, "wrapped", layer)).__name__


def _shapes_taken(layer: Layer) -> Iterator[tuple[int, ...]]:
    """Small input shapes of one and of three axes that the layer accepts.

    The layer's own integer fields are tried first as the number of channels.
    """
    sizes = [getattr(layer, field.name) for field in fields(layer)] if is_dataclass(layer) else []
    channels = list(
        dict.fromkeys(
            [size for size in sizes if type(size) is int and 0 < size < 1000] + [1, 2, 3, 4]
        )
    )
    for axes in ((), (5, 4)):
        for count in channels:
            try:
                layer.output_shape((*axes, count))
            except Exception:  # a layer may refuse a shape by any exception
                continue
            yield (*axes, count)
            break
