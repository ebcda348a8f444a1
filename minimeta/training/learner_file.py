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
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ..algorithms import ALGORITHMS
from ..arrays.backend import to_host
from ..errors import CheckpointError, MinimetaError
from ..fields import flags_in, json_of, made_from, made_of_json, typed_json, written
from ..files import parsed_json
from ..objectives import described, objective_in
from .scoring import Scoring
from .states import packed, read_meta, state_of

FORMAT = "minimeta learner 1"


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
    return arrays | {"names": np.array(sorted([*arrays, "names"]))}


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
        objective = objective_in(told["objective"])
        algorithm = made_of_json(ALGORITHMS, told["algorithm"])
        scoring = made_from(Scoring, flags_in(Scoring, told["scoring"]), {})
        low, high = map(float, told["inputs"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, MinimetaError):
            raise CheckpointError(str(error)) from error
        raise CheckpointError(f"its description is damaged: {error!r}") from error
    meta = read_meta(left, algorithm, objective)
    state = state_of(left, "inner", algorithm, objective, meta, xp)
    if left:
        raise CheckpointError(f"no part of a learner is called {', '.join(sorted(left))}")
    return {
        "objective": objective,
        "algorithm": algorithm,
        "meta": xp.asarray(meta),
        "state": state,
        "scoring": scoring,
        "inputs": (low, high),
    }
