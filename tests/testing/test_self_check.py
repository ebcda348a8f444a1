"""``minimeta check``.

Everything holds here, in both precisions and on a strict module. Errors are
reported and counted.
"""

import numpy as np
import pytest

from minimeta import layers
from minimeta.cli import main
from minimeta.testing import self_check
from minimeta.testing.self_check import run_checks
from minimeta.testing.strict import module as strict


@pytest.mark.parametrize("xp", [np, strict], ids=["numpy", "strict"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_everything_holds(xp, dtype):
    rows = list(run_checks(xp, dtype))
    assert [row for row in rows if not row.holds] == []
    sections = {row.section for row in rows}
    assert sections == (
        {"float32"}
        if dtype == "float32"
        else {"layer", "loss", "network", "algorithm", "family", "Taylor slope", "c1, c2"}
    )


def test_the_command_prints_a_table_and_ends_well(capsys):
    assert main(["check"]) == 0
    printed = capsys.readouterr().out
    assert "BatchNorm(channels=3, eps=0.001)" in printed
    assert printed.splitlines()[-1].startswith("all ")


class _WrongTanh(layers.Tanh):
    def curvature(self, x, y):
        return 2 * y * (1 - y * y)


def test_a_wrong_term_is_told_and_the_exit_status_is_1(monkeypatch, capsys):
    monkeypatch.setattr(self_check, "LAYERS", (_WrongTanh(),))
    monkeypatch.setattr(self_check, "NETWORKS", {"mlp tanh": self_check.NETWORKS["mlp tanh"]})
    assert main(["check"]) == 1
    printed = capsys.readouterr().out
    assert "WrongTanh.backward_tangent: dx_dot differs by" in printed
    assert "1 of" in printed.splitlines()[-1]
