"""The progress bar of a sweep counts training and scoring in one unit."""

import time

import tqdm.auto

from minimeta.runs.experiment import evaluate
from minimeta.runs.presets import PRESETS
from minimeta.runs.sweep import Job, Work, sweep

WAVES = 30


def scores(experiment, state, waves, progress=iter):
    """Mean errors; each chunk takes long enough for the bar to see it."""

    def slowly(batches):
        for batch in progress(batches):
            yield batch
            time.sleep(0.7)

    return {"error": float(evaluate(experiment, state, count=waves, progress=slowly).mean[0])}


class Bar:
    """Stands in for tqdm, and records what is shown."""

    def __init__(self, *, total, initial, **_):
        self.total, self.n, self.seen = total, initial, [initial]

    def __enter__(self):
        Bar.made = self
        return self

    def __exit__(self, *_):
        pass

    def update(self, more):
        self.n += more
        self.seen.append(self.n)

    def set_postfix_str(self, *_, **__):
        pass

    refresh = set_postfix_str

    @staticmethod
    def set_lock(_):
        pass


def test_the_bar_counts_scored_tasks_and_meta_steps_as_examples(tmp_path, monkeypatch):
    """It shows parts of a look and of the end while they are scored, never
    falls, and ends at the sum of all work."""
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    settings = PRESETS["sine"].settings.changed(
        iterations=20, meta_batch=2, k=3, size=5, hidden=(4,)
    )
    jobs = [Job("one", settings, (10,), {"waves": WAVES}, Work(WAVES, WAVES, 100.0))]
    result = sweep(jobs, tmp_path, scores, processes=1, progress=True)
    training, scoring = 20 * 3 * 2 * 3 * 5, 2 * WAVES * 100
    assert Bar.made.total == training + scoring == Bar.made.seen[-1]
    assert Bar.made.seen == sorted(Bar.made.seen)
    at_look = training / 2 + WAVES * 100
    assert any(training / 2 < seen < at_look for seen in Bar.made.seen)
    assert any(training + WAVES * 100 < seen < training + scoring for seen in Bar.made.seen)
    assert not (tmp_path / "one" / ".scored").exists()
    assert sweep(jobs, tmp_path, scores, progress=True) == result
    assert Bar.made.seen[0] == training + scoring  # a repeated call has nothing to do


def test_a_measure_without_progress_is_called_as_before(tmp_path):
    settings = PRESETS["sine"].settings.changed(iterations=2, hidden=(4,))
    job = Job("one", settings, by={"waves": 20})
    assert sweep([job], tmp_path, plain, processes=1)["one"].result == {"waves": 20}


def plain(experiment, state, **by):
    """A measure that takes no progress."""
    return by
