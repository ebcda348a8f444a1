"""The file of a learner: one npz archive with everything that a learner needs.

Arrays of the archive:

format      the text "minimeta learner 1"
learner     a JSON text: ``objective`` (objectives/described.py), ``algorithm``
            (its registered name and its fields), ``scoring`` and ``inputs``
meta        the meta-parameters, ``(M,)``
inner...    the state of the inner rule (states.py), or the word None
names       the sorted names of all arrays, which shows that none is missing

Nothing is pickled. The archive's checksums are verified on reading.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Real
from types import ModuleType
from typing import Any

import numpy as np

from ..algorithms import ALGORITHMS
from ..arrays.backend import to_host
from ..errors import CheckpointError, SettingsError, one_line
from ..fields import json_of, made_of_json, made_of_object, typed_json, written
from ..files import parsed_json
from ..objectives import described, objective_in
from .scoring import Scoring
from .states import packed, read_meta, state_of

FORMAT = "minimeta learner 1"
_PARTS = {"objective", "algorithm", "scoring", "inputs"}


def arrays_of(learner: Any) -> dict[str, np.ndarray]:
    """A learner as named arrays.

    Raises
    ------
    SettingsError
        if a part of the learner cannot be written: a layer, loss, algorithm or
        rule that is not registered, or a state that holds other things than
        arrays and numbers.
    """
    told = {
        "objective": described(learner.objective),
        "algorithm": typed_json(ALGORITHMS, learner.algorithm),
        "scoring": json_of(learner.scoring),
        "inputs": written(tuple(map(float, learner.inputs))),
    }
    arrays = {
        "format": np.array(FORMAT),
        "learner": np.array(json.dumps(told, allow_nan=False)),
        "meta": to_host(learner.meta),
    } | packed("inner", learner.state)
    arrays |= {"names": np.array(sorted([*arrays, "names"]))}
    try:
        parts_of(arrays, np)
    except CheckpointError as error:
        raise SettingsError(f"this learner could not be read back: {error}") from error
    return arrays


def checked_inputs(inputs: Any) -> tuple[float, float]:
    """A range of inputs, (lowest, highest).

    Raises
    ------
    SettingsError
        if ``inputs`` is not two numbers, the lower first.
    """
    pair = isinstance(inputs, (tuple, list)) and len(inputs) == 2
    real = pair and all(isinstance(end, Real) and not isinstance(end, bool) for end in inputs)
    if not real or not inputs[0] <= inputs[1]:
        raise SettingsError(f"inputs must be two numbers, the lower first, got {inputs!r}")
    return float(inputs[0]), float(inputs[1])


def _number(end: Any) -> Any:
    """An end of a range: JSON has words for infinite numbers."""
    return {"inf": math.inf, "-inf": -math.inf}.get(end, end) if isinstance(end, str) else end


def parts_of(arrays: Mapping[str, np.ndarray], xp: ModuleType) -> dict[str, Any]:
    """The arguments of ``Learner`` that ``arrays_of`` wrote.

    Raises
    ------
    CheckpointError
        if arrays are missing or do not fit each other.
    """
    left = dict(arrays)
    names = left.pop("names", np.array([]))
    if sorted(arrays) != names.tolist() or str(left.pop("format", "")) != FORMAT:
        raise CheckpointError(f"it is not a whole file of the format {FORMAT!r}")
    try:
        told = parsed_json(str(left.pop("learner")).encode())
        if not isinstance(told, dict) or told.keys() != _PARTS:
            raise ValueError(f"it must be an object of {', '.join(sorted(_PARTS))}")
        objective = objective_in(told["objective"])
        algorithm = made_of_json(ALGORITHMS, told["algorithm"])
        scoring = made_of_object(Scoring, told["scoring"])
        inputs = checked_inputs([_number(end) for end in told["inputs"]])
        meta = read_meta(left, algorithm, objective)
        state = state_of(left, "inner", algorithm, objective, meta, xp)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"its description is damaged: {one_line(error)}") from error
    if left:
        raise CheckpointError(f"no part of a learner is called {', '.join(sorted(left))}")
    return {
        "objective": objective,
        "algorithm": algorithm,
        "meta": xp.asarray(meta),
        "state": state,
        "scoring": scoring,
        "inputs": inputs,
    }
