"""Figures and tables: settings, statistics, and drawing from results."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from minimeta.runs.experiment import Experiment, evaluate
from minimeta.runs.jobs import finished_of
from minimeta.runs.presets import PRESETS
from minimeta.runs.sweep import Finished, Job, run_job
from minimeta.runs.task_settings import ImageSettings, TaskData
from minimeta.runs.train import open_run, train
from minimeta.tasks import FewShotImages
from minimeta.training.evaluation import Evaluation, Scoring, accuracy

FIGURES = Path(__file__).resolve().parents[2] / "figures"
RESULTS = FIGURES / "results"


@pytest.fixture
def figures(monkeypatch):
    """A function that imports a script of figures/ by name."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FIGURES))
    yield importlib.import_module
    for name in set(sys.modules) - before:  # other modules may have the same names
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == FIGURES:
            del sys.modules[name]


@pytest.mark.parametrize("name", ["family", "fig3", "fig4", "table1", "table2"])
def test_every_run_of_a_sweep_has_a_name_and_its_budget(figures, name):
    figure = figures(name)
    full, tenth = figure.jobs(1.0), figure.jobs(0.1)
    assert len({job.name for job in full}) == len({job.settings for job in full}) == len(full)
    for one, other in zip(full, tenth, strict=True):
        whole, steps = (each.settings.training.iterations for each in (one, other))
        assert other.settings == one.settings.changed(iterations=steps)
        assert steps == round(0.1 * whole)
        assert all(0 < look < whole for look in one.looks)
        assert all(0 < look < steps for look in other.looks)


def test_figure_3s_means_step_as_far_as_its_sums_by_their_number(figures):
    fig3 = figures("fig3")
    for k in (2, 3, 4):
        total, mean = (fig3.CURVES[f"{kind}{k}"][1] for kind in ("sum", "mean"))
        assert mean.changed(epsilon=0.25) == total
        assert mean.outer.lr == pytest.approx(0.25 / k, rel=1e-3)
        # Mini-batches do not overlap.
        assert total.schedule.shots * total.task.ways == k * total.schedule.size


def test_figure_4s_points_are_those_of_its_paper(figures):
    """4 mini-batches of 25 make a pass over the 100 images, and panels meet."""
    fig4 = figures("fig4")
    panels = {
        panel: (setting, values, fixed)
        for panel, (_, setting, values, fixed) in fig4.PANELS.items()
    }
    assert panels == {
        "a": ("k", (2, 3, 4, 5, 6, 8, 10), {}),
        "b": ("size", (10, 25, 50, 75, 100), {}),
        "c": ("epsilon", (0.0625, 0.25, 1.0), {"size": 50}),
    }
    curves = {
        "reptile": ("reptile", "shared", "cycle", 20, None),
        "separate": ("fomaml", "separate", "cycle", 15, 5),
        "replacement": ("fomaml", "shared", "replacement", 20, None),
        "cycle": ("fomaml", "shared", "cycle", 20, None),
    }
    assert fig4.CURVES.keys() == curves.keys()
    for curve, want in curves.items():
        settings = fig4.settings_of("a", curve, 4)
        assert _of(settings, "algorithm tail order shots tail_shots") == want
        assert _of(settings, "k size epsilon inner inner_lr reduction") == (
            4,
            25,
            0.25,
            "sgd",
            0.003,
            "sum",
        )
        assert settings == fig4.settings_of("b", curve, 25)
        assert fig4.settings_of("b", curve, 50) == fig4.settings_of("c", curve, 0.25)
    points = sum(len(values) for _, values, _ in panels.values())
    assert len(fig4.jobs(1.0)) == len(curves) * (points - 2)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_seeds_and_waves_covers_the_mean(figures, seeds):
    """The interval contains the true mean, 0, in 95% of cases.

    This holds for effects of seeds alone, or of waves alone: in 4000 cases, up
    to four standard errors, 1.4%. With both effects and noise of each pair, the
    interval contains the mean at least as often.
    """
    interval, rng = figures("family").interval, np.random.default_rng(0)
    for of_seed, of_wave, noise, most in ((1, 0, 0, 0.964), (0, 1, 0, 0.964), (1, 1, 1, 1.0)):
        covered = 0
        for _ in range(4000):
            seed, wave = rng.standard_normal((seeds, 1)), rng.standard_normal((1, 200))
            values = of_seed * seed + of_wave * wave + noise * rng.standard_normal((seeds, 200))
            covered += abs(values.mean()) <= interval(values)
        assert 0.936 <= covered / 4000 <= most


def test_the_family_is_summed_up_from_its_runs(figures, tmp_path, monkeypatch):
    """Every algorithm trains, adapts and is drawn, twice to the same bytes.

    The budget is a millionth, on sine waves.
    """
    family = figures("family")
    monkeypatch.setattr(family, "SEEDS", 2)
    monkeypatch.setattr(family, "WAVES", 20)
    finished = {}
    for job in family.jobs(1e-6):
        if isinstance(job.settings.task, ImageSettings):
            scores = {
                mode: {"mean": 50.0, "interval95": 1.0} for mode in ("transductive", "inductive")
            }
            finished[job.name] = Finished(scores, {}, {})
            continue
        finished[job.name] = finished_of(run_job(job, tmp_path / job.name, family.measure, None))
    result = json.loads(json.dumps(family.summary(finished, 1e-6)))
    row = result["sine"]["10"]["maml-agreement"]
    maml = result["sine"]["10"]["maml"]
    assert np.allclose(
        np.subtract(row["mean"], maml["mean"]), row["difference"]["mean"], rtol=0, atol=2e-5
    )  # rounded
    assert all(
        each["iterations"] == 1 for task in result["settings"].values() for each in task.values()
    )
    cost = {
        task: {name: {"seconds": 0.5, "bytes": 2**20} for name in family.ON_OMNIGLOT}
        for task in ("sine", "omniglot")
    }
    lines = family.table(result, cost).splitlines()
    cell = f"{maml['mean'][1]:.3f} ± {maml['interval95'][1]:.3f}"
    assert next(line for line in lines if line.startswith("| MAML | ")).split(" | ")[2] == cell
    assert "| MAML | 50.0 ± 1.0 | 50.0 ± 1.0 | 500 | 1 | 500 |" in lines
    differences = 2 * len(family.COMPARED) - 1  # Meta-SGD makes one step
    assert (
        len(lines)
        == 2 + len(family.ON_SINE) + 1 + 2 + len(family.ON_OMNIGLOT) + 1 + 2 + differences + 2
    )
    assert lines[-1] == "Scored on 50 unseen Omniglot tasks, at the full budget on 1,000."
    pictures = [
        [path.read_bytes() for path in family.draw(result, tmp_path / name)] for name in ("a", "b")
    ]
    assert pictures[0] == pictures[1]


def _score(mean):
    return {"mean": mean, "interval95": 1.0}


def test_figures_3_and_4_show_what_their_runs_gave(figures, tmp_path):
    for name in ("fig3", "fig4"):
        figure = figures(name)
        finished = {
            job.name: Finished(
                _score(i) | {"right": [i, i + 3, i]},
                {look: _score(-look) for look in job.looks},
                {"seconds": 1.0},
            )
            for i, job in enumerate(figure.jobs(0.01))
        }
        place = list(finished).index
        result = json.loads(json.dumps(figure.summary(finished, 0.01)))
        for i, job in enumerate(figure.jobs(0.01)):
            if name == "fig3":
                curve = result["curves"][job.name]
                assert curve["settings"] == job.settings.flags()
                assert curve["accuracy"] == [[look, _score(-look)] for look in job.looks] + [
                    [400, _score(i)]
                ]
            else:
                shown = [
                    (figure.PANELS[panel][1], value, score["mean"])
                    for panel, curves in result["panels"].items()
                    for value, score in curves[job.name.split("-")[0]]
                ]
                here = [(setting, value) for setting, value, mean in shown if mean == i]
                assert here and all(
                    job.settings.flags()[setting] == value for setting, value in here
                )
        image = 100 / 15  # one of 5 classes and 3 images in %; equal differences leave no interval
        for each in result["differences"]:
            if name == "fig3":
                assert (
                    each["mean"] == pytest.approx(image * (place(each["of"]) - place(each["less"])))
                    and not each["interval95"]
                )
            elif each["panel"] == "a":
                runs = (f"cycle-k{each[key]}-size25-epsilon0.25" for key in ("of", "less"))
                assert each["cycle"]["mean"] == pytest.approx(
                    image * (place(next(runs)) - place(next(runs)))
                )
        assert [path.suffix for path in figure.draw(result, tmp_path / name)] == [
            ".png",
            ".pdf",
            ".md",
        ]


def _of(settings, names):
    flags = settings.flags()
    return tuple(flags[name] for name in names.split())


def test_runs_have_their_papers_settings(figures):
    """The settings are those of PAPER's tables, and of both programs."""
    fig3, fig4, table1, table2 = map(figures, ("fig3", "fig4", "table1", "table2"))
    inner = "inner inner_lr reduction k size shots"
    outer = "outer epsilon epsilon_final meta_batch iterations"
    for name, run in (
        ("table2", table2.TABLE.runs["reptile-5way"]),
        ("table2", table2.TABLE.runs["reptile-20way"]),
    ):
        assert _of(run.settings, "inner_beta1 inner_beta2 carry_inner_state eval_steps") == (
            0.0,
            0.999,
            True,
            50,
        ), name
        assert run.queries == 1 and _of(run.settings, "outer epsilon epsilon_final meta_batch") == (
            "sgd",
            1.0,
            0.0,
            5,
        )
    five, twenty, mini = (
        table2.TABLE.runs["reptile-5way"],
        table2.TABLE.runs["reptile-20way"],
        table1.TABLE.runs["reptile"],
    )
    assert _of(five.settings, f"ways iterations {inner}") == (
        5,
        100_000,
        "adam",
        0.001,
        "sum",
        5,
        10,
        10,
    )
    assert _of(twenty.settings, f"ways iterations {inner}") == (
        20,
        200_000,
        "adam",
        0.0005,
        "sum",
        10,
        20,
        10,
    )
    assert _of(mini.settings, f"ways iterations {inner}") == (
        5,
        100_000,
        "adam",
        0.001,
        "sum",
        8,
        10,
        15,
    )
    assert (five.eval_sizes, twenty.eval_sizes, mini.eval_sizes) == (
        {1: 5, 5: 5},
        {1: 10, 5: 10},
        {1: 5, 5: 15},
    )
    assert (five.tasks, five.fraction) == (10_000, 1.0)
    for algorithm in ("maml", "fomaml"):
        for table, ways, task, alpha, k, batch, steps in (
            (table2, 5, "5way-", 0.4, 2, (32, 32), 3),
            (table2, 20, "20way-", 0.1, 6, (16, 16), 5),
            (table1, 5, "", 0.01, 6, (4, 2), 10),
        ):
            for shots, tasks in zip((1, 5), batch, strict=True):
                run = table.TABLE.runs[f"{algorithm}-{task}{shots}shot"]
                images = ways * shots
                step = (alpha / shots, "sum") if table is table1 else (alpha, "mean")
                want = (algorithm, ways, "sgd", *step, k, images, shots)
                assert _of(run.settings, f"algorithm ways {inner}") == want
                assert _of(run.settings, outer) == ("adam", 0.001, 0.001, tasks, 60_000)
                assert _of(run.settings, "tail tail_shots eval_steps eval_shots") == (
                    "separate",
                    15 if table is table1 else shots,
                    steps,
                    shots,
                )
                assert (
                    run.eval_sizes == {shots: images}
                    and run.queries == shots
                    and run.modes == ("transductive",)
                )
                assert algorithm == "maml" or run.settings.algorithm.update == "gradient"
    for name, (_, settings) in fig3.CURVES.items():
        assert _of(settings, "inner inner_lr reduction size") == ("sgd", 0.003, "sum", 25)
        assert _of(settings, "meta_batch eval_shots eval_steps eval_size epsilon_final") == (
            1,
            5,
            5,
            25,
            0.0,
        )
        by_reptile = name[:-1] in ("sum", "mean") or name == "g1"
        assert _of(settings, "algorithm") == ("reptile" if by_reptile else "fomaml",)
        assert by_reptile or settings.algorithm.update == "step"
        mini_batches = int(name[-1])
        assert _of(settings, "k epsilon") == (mini_batches, 0.25) or name.startswith("mean")
    assert {
        fig4.settings_of("a", curve, 4).schedule.shots
        for curve in ("reptile", "cycle", "replacement")
    } == {20}
    assert fig3.META_STEPS == fig4.META_STEPS == 40_000
    assert [job.by for job in fig3.jobs(1.0)] == 10 * [
        {"tasks": 60, "tasks_at_end": 1000, "queries": 3}
    ]
    assert [job.by for job in fig4.jobs(1.0)] == len(fig4.jobs(1.0)) * [
        {"tasks": 300, "queries": 3}
    ]
    assert {job.name: job.by for job in table2.jobs(None)}["reptile-5way"] == {
        "tasks": 10_000,
        "queries": 1,
        "sizes": {1: 5, 5: 5},
        "modes": ("transductive", "inductive"),
    }


def _noise(task, data, seed, xp):
    """Tasks to train and to test on, with classes of black and white noise."""
    classes = np.random.default_rng(0).integers(0, 2, (2, 24, 20, 28, 28, 1), dtype=np.uint8)
    halves = (FewShotImages(half, task.ways) for half in classes)
    return TaskData(*halves, {"a_class": 20, "sha256": "of noise"})


def test_what_is_measured_is_the_accuracy_of_the_run(figures, tmp_path, monkeypatch):
    """Scoring uses training's moments, both modes and the given numbers."""
    monkeypatch.setattr("minimeta.runs.task_settings.OmniglotSettings.tasks", _noise)
    accuracy_table, fig3 = figures("accuracy_table"), figures("fig3")
    small = dict(ways=3, filters=2, size=3, shots=2, iterations=3)
    adam = PRESETS["omniglot-5way"].settings.changed(**small, meta_batch=2, inner_lr=0.3)
    sgd = fig3.CURVES["sum2"][1].changed(**small, inner_lr=0.3, eval_shots=1, eval_size=3)
    for name, settings in (("adam", adam), ("sgd", sgd)):
        end = train(Experiment(settings, workers=1), tmp_path / name)
        experiment, state = open_run(tmp_path / name, workers=1)
        assert np.array_equal(state.meta, end.meta)

        def scored(count, shots, queries, size, here=experiment, end=end):
            scoring = Scoring(shots, here.settings.evaluation.steps, size, queries=queries)
            return accuracy(here.learner(end), here.test_tasks, scoring, count=count)

        if name == "adam":
            table = accuracy_table.Table(
                {name: accuracy_table.Trained(settings, 1.0, 30, {1: 2, 2: 5}, queries=2)}, (), {}
            )
            (job,) = table.jobs(None)
            result = accuracy_table.accuracies(experiment, state, **job.by)
            for shots, size in ((1, 2), (2, 5)):
                for mode, want in scored(30, shots, 2, size)._asdict().items():
                    assert result[str(shots)][mode] == [100 * want.mean, 100 * want.interval]
            by = job.by | {"modes": ("inductive",)}
            alone = accuracy_table.accuracies(experiment, state, **by)
            assert alone == {
                shots: {"inductive": each["inductive"]} for shots, each in result.items()
            }
        else:
            want, by = scored(30, 1, 3, 3).inductive, {"tasks": 10, "tasks_at_end": 30}
            result = fig3.measure(experiment, state, queries=3, **by)
            assert [result["mean"], result["interval95"]] == [100 * want.mean, 100 * want.interval]
            assert np.allclose(np.array(result["right"]) / (3 * 3), want.values, rtol=0, atol=1e-12)
            longer = Experiment(settings.changed(iterations=4), workers=1)
            some = train(longer, tmp_path / "longer", until=3)
            on_the_way = fig3.measure(longer, some, queries=3, **by)
            want = scored(10, 1, 3, 3, longer, some).inductive
            assert on_the_way == {"mean": 100 * want.mean, "interval95": 100 * want.interval}
            as_figure_4 = fig3.measure(experiment, state, tasks=20, queries=3)
            assert len(as_figure_4["right"]) == 20


@pytest.mark.needs_data("omniglot")
def test_the_committed_run_scores_what_its_result_says(figures):
    """100 of its 10,000 tasks agree, within four standard errors."""
    run = figures("table2").TABLE.runs["reptile-5way"]
    said = json.loads((RESULTS / "omniglot-5way" / "result.json").read_text())
    experiment, state = open_run(RESULTS / "omniglot-5way")
    assert experiment.settings == run.settings
    assert state.iteration == run.settings.training.iterations == 100_000
    assert said["by"]["tasks"] == run.tasks == 10_000
    with_, without = evaluate(experiment, state, count=100)
    means = {mode: said["result"]["1"][mode][0] for mode in ("transductive", "inductive")}
    together_less_alone = Evaluation(with_.values - without.values)  # less noise than either
    for got, want in (
        (with_, means["transductive"]),
        (without, means["inductive"]),
        (together_less_alone, means["transductive"] - means["inductive"]),
    ):
        assert abs(100 * got.mean - want) <= 4 / 1.96 * 100 * got.interval


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_tables_set_what_their_runs_gave_beside_the_paper(figures, name):
    table = figures(name).TABLE
    assert {cell.run for cells in table.rows.values() for cell in cells} == set(table.runs)
    finished = {}
    for job in table.jobs(0.5):
        scores = {
            str(shots): {
                mode: [90.0 + shots if mode == "transductive" else 80.0 + shots, 0.5]
                for mode in table.runs[job.name].modes
            }
            for shots in table.runs[job.name].eval_sizes
        }
        images = {"a_class": 100, "sha256": "abc"}
        finished[job.name] = Finished(
            scores, {}, {"seconds": 3600.0, "peak_memory": 1, "images": images}
        )
    part = ", on 100 of 600 images of each class" if name == "table1" else ""
    lines = table.markdown(json.loads(json.dumps(table.summary(finished, 0.5)))).splitlines()
    assert len(lines) == 2 + 2 * len(table.rows) + 1 + 2 + len(table.runs)
    for (title, cells), paper, ours in zip(
        table.rows.items(), lines[2::2], lines[3::2], strict=False
    ):
        assert paper == f"| {title}: paper | " + " | ".join(cell.published for cell in cells) + " |"
        told, *scores = ours.split(" | ")
        assert told == f"| {title}: minimeta{part}"
        for cell, said in zip(cells, scores, strict=True):
            steps = table.runs[cell.run].settings.training.iterations
            percent = 100 * round(0.5 * steps) / steps
            got = 80 + cell.shots + 10 * (cell.mode == "transductive")
            assert said.removesuffix(" |") == f"{got}.00 ± 0.50 ({percent:g}% of the steps)"


def _published_and_ours(table, runs):
    """The published means, and our means and intervals, by row."""
    published = {
        title: [float(cell.published.split()[0]) for cell in cells]
        for title, cells in table.rows.items()
    }
    ours = {
        title: [runs[cell.run]["accuracy"][str(cell.shots)][cell.mode] for cell in cells]
        for title, cells in table.rows.items()
    }
    return published, ours


def test_what_the_page_says_of_table_1_is_in_its_numbers(figures):
    runs = json.loads((RESULTS / "table1.json").read_text())["runs"]
    published, ours = _published_and_ours(figures("table1").TABLE, runs)
    gaps = {
        title: np.subtract(published[title], [mean for mean, _ in ours[title]]) for title in ours
    }
    assert min(each.min() for each in gaps.values()) > 15
    parts = {name: run["meta_steps"] / run["of"] for name, run in runs.items()}
    assert parts == {
        "reptile": 0.01,
        "fomaml-1shot": 0.005,
        "fomaml-5shot": 0.005,
        "maml-1shot": 0.001,
        "maml-5shot": 0.001,
    }
    for i in range(2):  # most where the fewest meta-steps were made
        by_steps = [
            gaps[title][i]
            for title in ("MAML, transduction", "FOMAML, transduction", "Reptile, transduction")
        ]
        assert by_steps == sorted(by_steps, reverse=True)
        (alone, alone_half), (together, half) = ours["Reptile"][i], ours["Reptile, transduction"][i]
        assert 0 < together - alone < half + alone_half
    for title in ("MAML, transduction", "FOMAML, transduction"):
        assert 20 < ours[title][0][0] <= 27


def test_what_the_page_says_of_table_2_is_in_its_numbers(figures):
    table, runs = figures("table2").TABLE, json.loads((RESULTS / "table2.json").read_text())["runs"]
    published, ours = _published_and_ours(table, runs)
    for title, short in (("Reptile, transduction", 0.51), ("Reptile", 0.76)):
        gaps = [
            paper - mean for paper, (mean, _) in zip(published[title], ours[title], strict=True)
        ]
        assert round(gaps[0], 2) == short and 0 <= gaps[1] < 0.2
    parts = {name: run["meta_steps"] / run["of"] for name, run in runs.items()}
    assert parts.pop("reptile-5way") == 1 and (min(parts.values()), max(parts.values())) == (
        0.0025,
        0.05,
    )
    maml, fomaml = "MAML, transduction", "FOMAML, transduction"
    for i in range(4):
        (mean, half), (first, first_half) = ours[maml][i], ours[fomaml][i]
        assert (
            mean - half > first + first_half
            and mean - first > published[maml][i] - published[fomaml][i]
        )
        assert published[fomaml][i] > first and published[maml][i] > mean


def test_what_the_page_says_of_figure_3_is_in_its_numbers():
    result = json.loads((RESULTS / "fig3.json").read_text())
    assert {curve["settings"]["iterations"] for curve in result["curves"].values()} == {40_000}
    means = {
        name: [score["mean"] for _, score in curve["accuracy"]]
        for name, curve in result["curves"].items()
    }
    end = {
        name: (curve["accuracy"][-1][1]["mean"], curve["accuracy"][-1][1]["interval95"])
        for name, curve in result["curves"].items()
    }
    assert max(means["g1"]) == means["g1"][0] and means["g1"][-1] < 26
    on_the_way = list(zip(means["sum2"], means["g2"], strict=True))[:-1]
    assert sum(two >= second for two, second in on_the_way) == 1
    less = {
        (each["of"], each["less"]): (each["mean"], each["interval95"])
        for each in result["differences"]
    }
    assert abs(less["sum2", "g2"][0]) < less["sum2", "g2"][1]
    assert less["g4", "g3"][0] < -less["g4", "g3"][1]
    for better in (
        ("g2", "g1"),
        ("g3", "g2"),
        ("sum3", "sum2"),
        ("sum4", "sum3"),
        ("mean2", "g2"),
        ("mean4", "mean2"),
    ):
        assert less[better][0] > less[better][1]
    for better, than in (("mean3", "mean2"), ("mean3", "g2"), ("mean4", "g2"), ("sum4", "mean4")):
        assert end[better][0] - end[better][1] > end[than][0] + end[than][1]
    assert abs(end["mean3"][0] - end["mean4"][0]) < 0.1


def test_what_the_page_says_of_figure_4_is_in_its_numbers():
    result = json.loads((RESULTS / "fig4.json").read_text())
    means = {
        panel: {
            curve: {value: score["mean"] for value, score in points}
            for curve, points in curves.items()
        }
        for panel, curves in result["panels"].items()
    }
    steps, sizes, epsilons = (means[panel] for panel in "abc")
    assert result["budget"] == 0.05
    assert all(mean < steps["cycle"][4] - 20 for k, mean in steps["cycle"].items() if k >= 5)
    assert all(mean < sizes["cycle"][25] - 20 for size, mean in sizes["cycle"].items() if size > 25)
    gradually = [steps["replacement"][k] for k in sorted(steps["replacement"])]
    assert (
        gradually[0] - gradually[-1] > 10
        and max(np.diff(gradually)) < 1
        and min(np.diff(gradually)) > -5
    )
    differences = {
        (each["panel"], each["of"], each["less"]): each for each in result["differences"]
    }
    for one in (5, 10):
        for curve in ("reptile", "separate"):
            assert (
                differences["a", one, 4][curve]["mean"]
                > -differences["a", one, 4][curve]["interval95"]
            )
    for curve in ("reptile", "separate", "replacement", "cycle"):
        assert sizes[curve][100] < sizes[curve][75] < sizes[curve][25]
    assert all(sizes[curve][25] - sizes[curve][50] < 3 for curve in ("reptile", "separate"))
    lost = {curve: each[25] - each[100] for curve, each in sizes.items()}
    assert (
        sizes["cycle"][100] == sizes["replacement"][100]
        and max(lost["reptile"], lost["separate"]) < lost["replacement"]
    )
    for curve in ("reptile", "separate"):
        assert all(
            mean > epsilons["cycle"][epsilon] + 10 for epsilon, mean in epsilons[curve].items()
        )


def test_the_papers_page_is_written_from_the_committed_results(figures):
    paper = figures("paper")
    assert paper.PAGE.read_text() == paper.page(paper.TEMPLATE.read_text())


def test_a_page_shows_tables_facts_and_numbers_and_names_what_is_missing(figures, tmp_path):
    page = figures("paper").page
    made = {"commit": "abc", "numpy": "2", "machine": "M", "date": "2026-01-02T03:04:05"}
    by = {"hours": 1.5, "commit": ["abc", "def"], "machine": ["N"]}
    (tmp_path / "one.json").write_text(
        json.dumps({"budget": 0.1, "trained_by": by, "deep": [{"x": 0.12345}], "provenance": made})
    )
    (tmp_path / "one.md").write_text("| a |\n")
    template = "# Title\n\n## One\n\n{{one.md}}\n{{one: deep.0.x}} {{facts one}}\n\n"
    template += "## Two\n\n{{facts two}}\n"
    want = "# Title\n\n## One\n\n| a |\n0.123 10% of the paper's meta-steps; "
    want += "1.5 hours of training in all, on N, by minimeta abc, def. "
    want += "Summed up by minimeta abc, NumPy 2, M, 2026-01-02.\n\n"
    assert page(template, tmp_path) == want + "## Not computed yet\n\n- Two\n"


@pytest.mark.parametrize("name", ["fig1", "fig3", "fig4", "table1", "table2"])
def test_committed_tables_are_those_of_their_results(figures, name):
    figure = figures(name)
    table = figure.TABLE.markdown if name.startswith("table") else figure.table
    assert (RESULTS / f"{name}.md").read_text() == table(
        json.loads((RESULTS / f"{name}.json").read_text())
    )


@pytest.fixture
def waves(figures, tmp_path, monkeypatch):
    """The command line of a figure of two small runs, and its path."""
    command, path = figures("command"), tmp_path / "out" / "waves.json"

    def jobs(budget, tasks):
        settings = PRESETS["sine"].settings.changed(
            meta_batch=1, hidden="4", iterations=command.scaled(400, budget)
        )
        return [
            Job(
                f"seed-{seed}",
                settings.changed(seed=seed),
                by={"waves": tasks or command.scored(60, budget, least=20)},
            )
            for seed in (0, 1)
        ]

    def summary(finished, budget, tasks):
        return {
            name: [each.training["iteration"], each.result["errors"]]
            for name, each in finished.items()
        }

    def draw(result, path):
        path.with_suffix(".md").write_text(json.dumps(result))
        return [path.with_suffix(".md")]

    def call(*words):
        places = ["--out", str(path.parent), "--runs", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", ["waves.py", *places, *words])
        command.run_sweep(
            command.Sweep("waves", "Waves.", jobs, figures("family").measure, summary, draw)
        )

    return call, path


def test_a_sweeps_result_tells_what_made_it(waves):
    """A figure is drawn from its file; a repeated call writes the same."""
    call, path = waves
    results = []
    for _ in range(2):
        call("--budget", "0.25", "--processes", "1")
        results.append(json.loads(path.read_text()))
        assert json.loads(path.with_suffix(".md").read_text()) == results[-1]
    assert results[0] | {"provenance": None} == results[1] | {"provenance": None}
    by, made = results[0]["trained_by"], results[0]["provenance"]
    assert [results[0][f"seed-{seed}"][0] for seed in (0, 1)] == [100, 100] and results[0][
        "budget"
    ] == 0.25
    assert by["commit"] == by["measured"] == [str(made["commit"])] and by["numpy"] == [
        np.__version__
    ]
    assert results[0]["seed-0"][1] != results[0]["seed-1"][1]


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("fig3", {"tasks": 60, "tasks_at_end": 1000, "queries": 3}),
        ("fig4", {"tasks": 300, "queries": 3}),
        ("family", {"waves": 600}),
    ],
)
def test_scoring_shrinks_with_the_budget_and_not_below_50_tasks(figures, name, full, monkeypatch):
    """At budget 1 runs are measured as they always were, so that their results
    are still accepted. --tasks sets the number at the end of a run."""
    figure = figures(name)
    monkeypatch.setattr(figure, "SEEDS", 1, raising=False)  # of the family, whose runs are many
    at_end = next(key for key in ("waves", "tasks_at_end", "tasks") if key in full)
    for budget, tasks, want in (
        (1.0, None, full[at_end]),
        (2.0, None, full[at_end]),
        (0.5, None, full[at_end] // 2),
        (0.001, None, 50),
        (1.0, 7, 7),
        (0.001, 2000, 2000),
    ):
        job = figure.jobs(budget, tasks)[0]
        assert job.by[at_end] == job.work.at_end == want
        assert job.by == full or budget < 1 or tasks
        for look in ("tasks",) if name == "fig3" else ():
            assert job.by[look] == job.work.at_look <= min(want, full[look])


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_scoring_of_tables_shrinks_below_each_runs_own_fraction(figures, name):
    table = figures(name).TABLE
    for budget in (None, 1.0, 1e-6):
        for job in table.jobs(budget):
            run = table.runs[job.name]
            want = run.tasks if budget != 1e-6 else 50
            assert job.by["tasks"] == want
            assert job.work.at_end == want * len(run.eval_sizes)
    half = table.jobs(0.5 * table.runs["reptile" if name == "table1" else "reptile-5way"].fraction)
    assert half[0].by["tasks"] == next(iter(table.runs.values())).tasks // 2
    assert {job.by["tasks"] for job in table.jobs(None, 77)} == {77}


def test_a_result_says_how_many_tasks_scored_it(figures, tmp_path):
    """Only where they are fewer than at the full budget, in its table."""
    for name in ("fig3", "fig4"):
        figure = figures(name)
        for budget, tasks in ((1.0, None), (0.001, None), (1.0, 70)):
            finished = {
                job.name: Finished(
                    _score(1) | {"right": [1, 2]},
                    {look: _score(1) for look in job.looks},
                    {"seconds": 1.0},
                )
                for job in figure.jobs(budget, tasks)
            }
            result = json.loads(json.dumps(figure.summary(finished, budget, tasks)))
            count = result["tasks_at_end" if name == "fig3" else "tasks"]
            full = 1000 if name == "fig3" else 300
            assert count == (tasks or (50 if budget < 1 else full))
            told = f"Scored on {count} unseen tasks, at the full budget on {full:,}."
            assert (told in figure.table(result)) == (count != full)
        assert all(path.exists() for path in figure.draw(result, tmp_path / name))


def test_a_figure_that_is_interrupted_says_so_in_a_sentence(figures, tmp_path, monkeypatch, capsys):
    command = figures("command")

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["waves.py", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        command.run("waves", "Waves.", interrupted, None)
    assert ended.value.code == 130
    told = "waves: stopped before waves was drawn: run the same command again\n"
    assert capsys.readouterr().err == told


def test_hours_of_training_are_those_of_all_runs(figures):
    made = {"commit": "a", "machine": "M"}
    finished = {
        "one": Finished({}, {}, {"seconds": 5400.0, "made_by": [made]}, {"commit": "c"}),
        "two": Finished(
            {}, {}, {"seconds": 1800.0, "made_by": [made | {"commit": "b"}, made]}, {"commit": "b"}
        ),
    }
    trained_by = figures("command").trained_by
    told = {"hours": 2.0, "commit": ["a", "b"], "machine": ["M"]}
    assert trained_by(finished) == told | {"measured": ["b", "c"]}
    assert (
        trained_by(finished | {"two": finished["two"]._replace(measured_by=None)}) == told
    )  # omitted unless known for all runs


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--draw-only"], r"waves: there is no .*waves\.json to draw from"),
        *(
            (["--budget", word], f"must be a number above 0, got {word}")
            for word in ("0", "-1", "nan", "inf", "abc")
        ),
        (["--processes", "-1"], r"waves\.py: --processes must be 0 or more, got -1"),
        (["--tasks", "1"], r"waves\.py: --tasks must be 2 or more, got 1"),
        (["--task", "5"], r"waves\.py: unknown flag --task: did you mean --tasks\?"),
    ],
)
def test_mistakes_on_a_figures_command_line_are_told_in_a_line(waves, capsys, words, told):
    with pytest.raises(SystemExit) as ended:
        waves[0](*words)
    assert re.search(told, f"{ended.value.code}\n{capsys.readouterr().err}")


def test_damaged_results_and_wrong_places_are_told_in_a_line(waves):
    call, path = waves
    path.parent.mkdir()
    path.write_text('{"budget": 1')
    with pytest.raises(SystemExit, match=r"^waves: .*waves\.json is damaged .*omit --draw-only"):
        call("--draw-only")
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("")
    with pytest.raises(SystemExit, match=r"^waves: .*File exists"):
        call("--draw-only")


def test_a_figure_without_its_images_says_what_is_missing(figures, tmp_path, monkeypatch):
    fig3, command = figures("fig3"), figures("command")
    words = ["--out", str(tmp_path), "--runs", str(tmp_path / "runs"), "--data", "nowhere"]
    monkeypatch.setattr(sys, "argv", ["fig3.py", *words])
    with pytest.raises(SystemExit, match="^fig3: Omniglot is not in nowhere"):
        command.run_sweep(
            command.Sweep("fig3", fig3.__doc__, fig3.jobs, fig3.measure, fig3.summary, fig3.draw)
        )
