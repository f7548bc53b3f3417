"""Points of curves: which panels, over what, and how a long line is thinned."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from vmcmc_dist.report.curves import Clock, curve_tabs, events, thin
from vmcmc_dist.report.run import read_run, read_runs


def add(folder: Path, *records: dict) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def panels(folder: Path) -> dict:
    return {p.panel.title: p for tab in curve_tabs([read_run(folder)]).values() for p in tab}


def test_one_run_shows_figures_that_belong_together(make_run) -> None:
    found = panels(make_run())
    energies = found["Energies"]
    assert {line.label for line in energies.lines} == {"data", "refined"}
    (gap,) = found["Energy gap"].lines
    assert gap.images == list(range(100, 3001, 100))
    assert gap.minutes[0] == pytest.approx(10 / 60) and gap.minutes[-1] == pytest.approx(5)
    assert gap.values[-1] == gap.last == pytest.approx(0.025)


def test_several_runs_show_one_figure_a_panel(make_run) -> None:
    runs = read_runs([make_run("a"), make_run("b", scale=2.0)])
    found = {p.panel.title: p for tab in curve_tabs(runs).values() for p in tab}
    assert {line.label for line in found["Energies: refined"].lines} == {"a", "b"}
    assert [line.run for line in found["Energy gap"].lines] == [0, 1]
    assert all(len(panel.panel.keys) == 1 for panel in found.values())


def test_the_spread_of_samples_is_not_mixed_with_that_of_batches(make_run) -> None:
    folder = make_run()  # its sample records have a spread of their own
    add(folder, {"kind": "train", "images": 3100, "spread": 0.7})
    (line,) = panels(folder)["Spread of samples"].lines
    assert line.images == [3100] and line.values == [0.7]


def test_many_records_are_read_in_a_moment(make_run) -> None:
    folder = make_run()
    add(folder, *({"kind": "train", "images": i, "gap": 1.0} for i in range(4000, 14_000)))
    add(
        folder,
        *({"kind": "train", "images": i, "time": {"seconds": i}} for i in range(4000, 14_000)),
    )
    started = time.process_time()
    curve_tabs([read_run(folder)])
    assert time.process_time() - started < 5


def test_panels_without_a_value_are_not_there(make_run) -> None:
    found = panels(make_run())
    assert "Acceptance" not in found and "Divergences" not in found
    assert all(panel.lines for panel in found.values())


def test_every_tab_has_a_panel(make_run) -> None:
    assert all(curve_tabs([read_run(make_run())]).values())


def test_figures_without_a_panel_get_one(make_run) -> None:
    folder = make_run()
    add(folder, {"kind": "train", "images": 3100, "fresh_figure": 4.5, "text": "no", "flag": True})
    found = panels(folder)
    assert found["fresh figure"].lines[0].values == [4.5]
    assert "text" not in found and "flag" not in found


def test_evaluations_in_training_are_curves(make_run) -> None:
    folder = make_run(evaluations=[])
    for images, fd in ((1000, 9.0), (2000, 4.0)):
        figures = {"fd_x_refined": fd, "fd_x_real": 0.2, "name": "x", "list": [1, 2], "n": 500}
        add(
            folder,
            {"kind": "evaluation", "task": "synthesis", "images": images, "figures": figures},
        )
    (panel,) = curve_tabs([read_run(folder)])["Evaluation"]
    assert panel.panel.title == "synthesis · fd x"
    assert {line.label: line.values for line in panel.lines} == {
        "refined": [9.0, 4.0],
        "real": [0.2, 0.2],
    }


def test_evaluations_of_several_checkpoints_are_curves(make_run) -> None:
    def record(images: int, fd: float, **more) -> dict:
        return {"task": "t", "images": images, "figures": {"fd": fd}, "settings": {}} | more

    late = [record(2000, 4.0), record(1000, 9.0), record(1500, 5.0, steps=9), record(2000, 3.0)]
    (panel,) = curve_tabs([read_run(make_run(evaluations=late))])["Evaluation"]
    assert panel.lines[0].images == [1000, 2000] and panel.lines[0].values == [9.0, 3.0]
    alone = make_run(evaluations=late[:1])
    assert "Evaluation" not in curve_tabs([read_run(alone)])
    add(alone, {"kind": "evaluation", "task": "t", "images": 1000, "figures": {"fd": 8.0}})
    add(alone, {"kind": "evaluation", "task": "t", "images": 2000, "figures": {"fd": 7.0}})
    (panel,) = curve_tabs([read_run(alone)])["Evaluation"]
    assert panel.lines[0].values == [8.0, 7.0]  # what training wrote comes first


def test_not_finite_values_are_gaps(make_run) -> None:
    folder = make_run()
    add(folder, {"kind": "density", "images": 500, "kl_data_model": None, "log_z": math.inf})
    add(folder, {"kind": "density", "images": 900, "kl_data_model": 0.5, "log_z": math.nan})
    found = panels(folder)
    assert found["Divergences"].lines[0].values == [None, 0.5]
    assert "log Z" not in found


def test_the_clock_reads_between_records_and_past_them(make_run) -> None:
    clock = Clock(read_run(make_run()))
    assert clock.minutes(150) == pytest.approx(15 / 60)
    assert clock.minutes(50) == pytest.approx(5 / 60)
    assert clock.minutes(10**6) == pytest.approx(5)


def test_the_clock_of_no_records_stands_still(make_run) -> None:
    folder = make_run()
    (folder / "metrics.jsonl").write_text("")
    assert Clock(read_run(folder)).minutes(1000) == 0


def test_events_are_the_end_of_the_head_start_and_rollbacks(make_run) -> None:
    folder = make_run(settings={"vae.head_start_images": 600.0})
    add(
        folder,
        {
            "kind": "rollback",
            "images": 1000,
            "from_images": 1500,
            "lr_scale": 0.5,
            "reason": "energy runs away",
        },
    )
    first, second = events([read_run(folder)])
    assert (first["what"], first["images"], first["minutes"]) == ("head start", 600.0, 1.0)
    assert (second["what"], second["images"]) == ("roll-back", 1500)
    assert "energy runs away" in second["text"]


def test_thinning_keeps_ends_extremes_and_gaps() -> None:
    values: list[float | None] = [math.sin(i / 50) for i in range(20_000)]
    values[7_001], values[11_111], values[13_000] = 99.0, -99.0, None
    kept = thin(values)
    assert len(kept) <= 602 and kept == sorted(set(kept))
    assert {0, 19_999, 7_001, 11_111, 13_000} <= set(kept)


def test_short_lines_are_whole() -> None:
    assert thin([1.0] * 600) == list(range(600))
    assert len(thin([1.0] * 601)) < 601
