"""Objectives as JSON, so that files can hold them.

A network is the shape of its inputs and its layers. A layer or a loss is its
registered name (``LAYERS``, ``LOSSES``) and its fields. A layer of the user's
own can be written and read once its class is registered:
``@LAYERS.register("Scale")``.
"""

from __future__ import annotations

from typing import Any

from ..errors import SettingsError
from ..fields import made_of_json, typed_json
from ..layers.base import LAYERS
from ..losses import LOSSES
from .network import Network
from .objective import Objective


def described(objective: Any) -> dict[str, Any]:
    """``objective`` as a JSON object.

    Raises
    ------
    SettingsError
        if it is not ``Objective(network, loss)``, or if one of its layers or
        its loss is not registered.
    """
    if type(objective) is not Objective:
        raise SettingsError(
            f"only Objective(network, loss) can be written to a file, got {objective!r}"
        )
    network = objective.network
    return {
        "input_shape": list(network.input_shape),
        "layers": [typed_json(LAYERS, layer) for layer in network.layers],
        "loss": typed_json(LOSSES, objective.loss),
    }


def objective_in(stored: Any) -> Objective:
    """The objective that ``described`` wrote.

    Raises
    ------
    SettingsError
        if ``stored`` has another form, or names a layer or a loss that is not
        registered.
    ShapeError
        if the layers do not fit each other.
    """
    names = ("input_shape", "layers", "loss")
    if not isinstance(stored, dict) or sorted(stored) != sorted(names):
        raise SettingsError(f"a model must be an object of {', '.join(names)}")
    shape, layers = stored["input_shape"], stored["layers"]
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
        raise SettingsError(f"input_shape must be a list of whole numbers above 0, got {shape!r}")
    if not isinstance(layers, list):
        raise SettingsError(f"layers must be a list of layers, got {layers!r}")
    try:
        network = Network(tuple(shape), tuple(made_of_json(LAYERS, layer) for layer in layers))
        return Objective(network, made_of_json(LOSSES, stored["loss"]))
    except RecursionError:
        raise SettingsError("layers or losses are nested too deeply") from None
