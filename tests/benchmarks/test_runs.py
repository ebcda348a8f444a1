"""benchmarks/whole_runs.py measures whole processes and skips none silently."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import whole_runs  # noqa: E402

from minimeta.runs.presets import PRESETS  # noqa: E402


def test_a_short_run_says_that_it_is_short_and_keeps_other_presets(tmp_path):
    out = tmp_path / "runs.json"
    kept = {"iterations": 1000, "complete": True, "forms": {}}
    out.write_text(json.dumps({"runs": {"omniglot-5way": kept}}))
    whole_runs.main(["--presets", "sine", "--iterations", "3", "--repeats", "2", "--out", str(out)])
    found = json.loads(out.read_text())["runs"]
    assert list(found) == ["sine", "omniglot-5way"] and found["omniglot-5way"] == kept
    assert found["sine"]["iterations"] == 3 and not found["sine"]["complete"]
    assert found["sine"]["provenance"]["numpy"] and "skipped" not in found["sine"]
    assert set(found["sine"]["forms"]) == set(whole_runs.FORMS)
    for form in found["sine"]["forms"].values():
        assert len(form) == 2
        for each in form:
            assert each["wall_seconds"] > 0 < each["cpu_seconds"]
            assert 2**23 < each["peak_memory_bytes"] < 2**33  # bytes, not KiB


def test_a_preset_without_data_is_stored_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMETA_DATA", str(tmp_path / "none"))
    out = tmp_path / "runs.json"
    whole_runs.main(["--presets", "omniglot-5way", "--iterations", "3", "--out", str(out)])
    found = json.loads(out.read_text())["runs"]["omniglot-5way"]
    assert "Omniglot is not in" in found["skipped"]
    assert not any(found["forms"].values())


def test_an_unknown_preset_is_refused_before_any_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        whole_runs.main(["--presets", "sine,cosine", "--out", str(tmp_path / "runs.json")])
    assert "unknown presets cosine" in capsys.readouterr().err
    assert not (tmp_path / "runs.json").exists()


def test_only_presets_are_shortened():
    assert set(whole_runs.LONG) <= set(PRESETS)
    assert all(made < whole_runs.ITERATIONS for made in whole_runs.LONG.values())
