"""What is read of a sweep folder, what the dials' importance says, and the page as text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vmcmc_dist.cli import main
from vmcmc_dist.errors import DataError
from vmcmc_dist.report.dials import dial_axes, metric_axis
from vmcmc_dist.report.importance import compare, explained, importances, ranks
from vmcmc_dist.report.page import write_report
from vmcmc_dist.report.sweep import Sweep, read_sweep
from vmcmc_dist.report.sweep_page import endings, pareto_front, ranking, values_of

HOSTILE = "<script>alert('x')</script>\"'&</title>"


@pytest.fixture(scope="module")
def forty(made_sweeps) -> Sweep:
    return read_sweep(made_sweeps("forty", 40))


@pytest.fixture(scope="module")
def halved(made_sweeps) -> Sweep:
    return read_sweep(made_sweeps("halved", 200, asha=True, pictures=0))


def importance_of(sweep: Sweep) -> dict:
    metric = sweep.metrics[0]
    return {i.axis.name: i for i in importances(compare(sweep, metric), metric, dial_axes(sweep))}


def test_the_last_line_of_a_trial_counts(forty: Sweep) -> None:
    lines = [json.loads(line) for line in (forty.path / "trials.jsonl").read_text().splitlines()]
    last = {line["trial"]: line for line in lines}
    assert len(forty.trials) == len(last) == 40
    for trial in forty.trials:
        assert (trial.status, trial.images) == tuple(
            last[trial.id][k] for k in ("status", "images")
        )
        assert trial.figures == last[trial.id]["figures"]
    done = next(trial for trial in forty.trials if trial.status == "done")
    assert [images for images, _ in done.history] == [10_000, 30_000, 90_000]


def test_trials_are_numbered_as_they_ended(tmp_path: Path) -> None:
    events = [("0", "running"), ("1", "running"), ("2", "running"), ("1", "done"), ("0", "failed")]
    lines = [json.dumps({"trial": trial, "status": status}) for trial, status in events]
    (tmp_path / "trials.jsonl").write_text("\n".join([*lines, ""]))
    assert {trial.id: trial.order for trial in read_sweep(tmp_path).trials} == {
        "1": 0,
        "0": 1,
        "2": 2,
    }


def test_the_best_is_the_best_of_full_length(halved: Sweep) -> None:
    metric = halved.metrics[0]
    finalists = halved.finalists(metric)
    assert all(trial.status == "done" for trial in finalists)
    values = [trial.figures[metric.name] for trial in finalists]
    assert values == sorted(values)
    order = ranking(halved)
    assert order[: len(finalists)] == finalists and len(order) == len(halved.trials)
    assert [t.status for t in order[-2:]] == ["failed", "failed"]


def test_the_dial_that_decides_is_found_and_the_others_are_not(forty: Sweep) -> None:
    found = importance_of(forty)
    assert next(iter(found)) == "langevin.step_size"
    step = found.pop("langevin.step_size")
    assert step.clear and step.share > 0.5 and step.share > 4 * step.error
    assert 1.5 < step.best[0] < 2 < step.best[1] < 2.7
    assert sum(other.clear for other in found.values()) <= 1  # five dials, 95 % each
    assert all(other.share < 0.3 for other in found.values())


def test_more_trials_find_the_weaker_dial_too_and_narrow_the_error(made_sweeps) -> None:
    many = importance_of(read_sweep(made_sweeps("many", 600, pictures=0)))
    few = importance_of(read_sweep(made_sweeps("forty", 40)))
    assert many["langevin.step_size"].error < few["langevin.step_size"].error / 2
    assert many["langevin.step_size"].chance < few["langevin.step_size"].chance / 4


def test_stopped_trials_are_compared_where_they_still_ran(halved: Sweep) -> None:
    compared = compare(halved, halved.metrics[0])
    assert compared.images == 10_000
    assert len(compared.trials) == sum(t.status != "failed" for t in halved.trials)
    for trial, value in zip(compared.trials, compared.values, strict=True):
        if trial.status == "diverged":
            assert value is None
        else:
            assert value == dict(trial.history)[10_000][halved.metrics[0].name]


def test_divergence_alone_makes_a_dial_important(made_sweeps, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "sweep.yaml").write_text("metric: fd\nspace: {energy.lr: {log: [1.0e-4, 1.0e-2]}}\n")
    lines = [
        {"trial": f"{i:04d}", "settings": {"energy.lr": 1e-4 * 100 ** (i / 40)}, "images": 10}
        | ({"status": "diverged"} if i > 30 else {"status": "done", "figures": {"fd": 5 + i % 3}})
        for i in range(40)
    ]
    (folder / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (one,) = importance_of(read_sweep(folder)).values()
    assert one.clear and one.trend is not None and one.trend < 0  # low is better
    assert one.medians[-1][2] is None


def test_explained_share_is_without_bias_and_complete_where_bins_decide_all() -> None:
    rng = np.random.default_rng(0)
    cells = np.arange(40) % 5
    chance = [
        explained(cells, rng.permutation(40.0 * np.ones(40) + np.arange(40))) for _ in range(500)
    ]
    assert abs(np.mean(chance)) < 0.02
    assert explained(cells, cells.astype(float)) == pytest.approx(1.0)
    assert explained(cells, np.ones(40)) == 0
    assert ranks(np.array([3.0, 1.0, 3.0, np.inf])).tolist() == [2.5, 1, 2.5, 4]


def test_axes_follow_the_space_and_hold_every_value(forty: Sweep) -> None:
    axes = {axis.name: axis for axis in dial_axes(forty)}
    step, penalty = axes["langevin.step_size"], axes["energy.penalty"]
    assert (step.scale, step.low, step.high) == ("log", 0.5, 4.0)
    assert (penalty.scale, penalty.low, penalty.high) == ("linear", 0.0, 0.2)
    assert axes["langevin.steps"].whole and axes["langevin.steps"].scale == "log"
    assert axes["vae.sigma"].choices == ("0.3", "0.6", "1") and axes["vae.sigma"].number(0.6) == 1
    assert step.base == 2.8 and axes["vae.sigma"].base == 2  # of config.yaml
    metric = forty.metrics[0]
    axis = metric_axis(metric, values_of(forty, metric.name))
    assert axis.scale == "log"
    assert all(axis.low <= t.figures[metric.name] <= axis.high for t in forty.judged(metric))


def test_the_front_holds_what_nothing_beats(made_sweeps) -> None:
    sweep = read_sweep(made_sweeps("two", 60, metrics=2, pictures=3))
    front = pareto_front(sweep)
    first, second = (metric.name for metric in sweep.metrics)
    points = [(t.figures[first], t.figures[second]) for t in sweep.finalists(sweep.metrics[0])]
    for trial in front:
        a, b = trial.figures[first], trial.figures[second]
        assert not any(x <= a and y >= b and (x, y) != (a, b) for x, y in points)
    assert len(front) == sum(
        not any(x <= a and y >= b and (x, y) != (a, b) for x, y in points) for a, b in points
    )


def test_alike_endings_stand_together(halved: Sweep) -> None:
    found = endings(halved)
    assert [e.status for e in found][:2] == ["failed", "diverged"]
    assert sum(len(e.trials) for e in found) == sum(t.status != "done" for t in halved.trials)
    assert "more" in next(e for e in found if e.status == "stopped").names


def test_a_sweep_that_has_just_begun_and_one_without_a_plan(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "sweep.yaml").write_text(
        "name: new\nmetric: fd\nspace: {a: {log: [1, 2]}}\n"
    )
    page = write_report([tmp_path / "new"], tmp_path / "a.html").path.read_text()
    assert "No trial has been judged yet" in page and "No trial has begun yet" in page
    (tmp_path / "bare").mkdir()
    line = {
        "trial": "7",
        "status": "done",
        "settings": {"a": 1},
        "figures": {"fd_x": 2, "bad": None},
    }
    torn = '{"trial": "8", "sta'
    (tmp_path / "bare" / "trials.jsonl").write_text(f"{json.dumps(line)}\nnonsense\n{torn}")
    report = write_report([tmp_path / "bare"], tmp_path / "b.html")
    assert len(report.notes) == 1 and "1 line is damaged" in report.notes[0]
    assert "best fd_x" in report.path.read_text()


def test_a_folder_that_leads_out_is_not_followed(tmp_path: Path, make_run) -> None:
    run = make_run("secret")
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    lines = [
        {"trial": str(i), "status": "done", "settings": {}, "figures": {"fd_x": 1}, "folder": path}
        for i, path in enumerate([str(run), f"../{run.name}"])
    ]
    (sweep / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [trial.folder for trial in read_sweep(sweep).trials] == [None, None]


def test_hostile_names_add_no_element(tmp_path: Path) -> None:
    def page(name: str) -> str:
        folder = tmp_path / f"sweep-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        plan = {"name": name, "metric": name, "space": {name: {"choice": [name, "b"]}}}
        (folder / "sweep.yaml").write_text(json.dumps(plan))
        line = {"settings": {name: name}, "figures": {name: 1.0}, "reason": name}
        lines = [
            line | {"trial": f"{name}{i}", "status": s} for i, s in enumerate(["done", "failed"])
        ]
        (folder / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return write_report([folder], folder / "page.html").path.read_text()

    tame, wild = page("tame"), page(HOSTILE)
    assert wild.count("<script") == tame.count("<script") and HOSTILE not in wild


def test_one_sweep_a_page(made_sweeps, make_run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a sweep: it has a page of its own"):
        write_report([made_sweeps("forty", 40), make_run()], tmp_path / "page.html")


def test_the_command_line(made_sweeps, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_sweeps("forty", 40)
    assert main(["report", str(folder), "--best", "3"]) == 0
    page = (folder / "report.html").read_text()
    assert str(folder / "report.html") in capsys.readouterr().out
    assert page.count("Enlarge the samples of trial") == 3
    assert main(["report", str(folder), "--best", "-1"]) == 2


def test_the_proof_is_told(made_sweeps, tmp_path: Path) -> None:
    folder = made_sweeps("proven", 12, pictures=0)
    assert "--prove" in write_report([folder], tmp_path / "a.html").path.read_text()
    summary = {"values": [8.0, 9.0], "mean": 8.5, "sd": 0.707}
    sides = {"default": summary, "best": summary | {"mean": 6.25}, "difference": summary}
    record = {"trial": "0004", "n": 2, "images": 90_000, "metrics": {"fd_x": sides}}
    (folder / "proof.json").write_text(json.dumps(record))
    page = write_report([folder], tmp_path / "b.html").path.read_text()
    assert "8.5 ± 0.707" in page and "6.25 ± 0.707" in page and "trial 0004" in page
