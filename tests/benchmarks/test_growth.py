"""benchmarks/growth.py: fits are exact on exact laws; it measures, draws.

There are no tests of times, which vary.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import growth


@pytest.mark.parametrize("power", [-1, 0, 0.5, 1, 2])
def test_the_exponent_of_an_exact_power_law(power):
    x = np.array([1, 2, 4, 8, 16])
    assert abs(growth.exponent(x, 3e-3 * x ** float(power)) - power) < 1e-12


@pytest.mark.parametrize(("constant", "power"), [(0, 1), (7e6, 1), (7e6, 0.5), (1e3, 1.5)])
def test_the_exponent_above_a_constant(constant, power):
    x = np.array([4, 8, 16, 32, 64, 128])
    found, p = growth.above_constant(x, constant + 4e5 * x**power)
    assert abs(p - power) < 1e-6 and abs(found - constant) < 1e-3 * constant + 1


def test_a_law_that_starts_below_zero_is_fitted_without_a_constant():
    x = np.array([4, 8, 16, 32, 64, 128])
    constant, power = growth.above_constant(x, 2.0 * x - 1)
    assert constant == 0 and 1 < power < 1.1


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="measures memory through Linux's /proc"
)
@pytest.mark.parametrize("method", list(growth.METHODS))
def test_a_measurement(method):
    case = growth.Case(tasks=2, k=2, size=2, filters=4, workers=2)
    found = growth.measured_apart(growth.replace(case, **growth.METHODS[method]))
    assert found.keys() == growth.QUANTITIES.keys()
    assert found["seconds"] > 0 and 0 < found["bytes"] < 2**30


def test_the_figure_is_drawn_from_the_json_file(tmp_path):
    curves = []
    for sweep in growth.SWEEPS:
        for method in sweep.methods:
            curve = {
                "setting": sweep.setting,
                "method": method,
                "values": sweep.values,
                "fixed": growth.METHODS[method],
            }
            curve |= {
                "seconds": [0.1 * value for value in sweep.values],
                "bytes": [1e6 * value for value in sweep.values],
            }
            curves.append(curve | {"growth": growth.growth(curve)})
    assert curves[0]["growth"] == {"seconds": 1, "bytes": 1}
    assert curves[3]["growth"]["bytes_above_constant"] == {"constant": 0, "exponent": 1}
    assert {path.suffix for path in growth.draw({"curves": curves}, tmp_path / "growth.json")} == {
        ".png",
        ".pdf",
    }
