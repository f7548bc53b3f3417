"""What is read of a run folder, whole or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmcmc_dist.errors import DataError
from vmcmc_dist.report.run import read_run, read_runs


def test_a_whole_run(make_run) -> None:
    run = read_run(make_run("whole"))
    assert run.name == "whole" and run.images == 3000 and run.seconds == 300.0
    assert run.config["langevin.steps"] and run.environment["cpus"] == 4
    assert [images for images, _ in run.grids] == [1000, 2000, 3000]
    assert len(run.evaluations) == 2 and not run.notes


def test_records_are_ordered_by_images(make_run) -> None:
    images = [record["images"] for record in read_run(make_run()).metrics]
    assert images == sorted(images) and len(images) == 33


def test_a_torn_last_line_is_left_out_in_silence(make_run) -> None:
    folder = make_run()
    for name in ("metrics.jsonl", "evaluation/records.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"kind": "train", "images": 99')
    run = read_run(folder)
    assert len(run.metrics) == 33 and len(run.evaluations) == 2 and not run.notes


def test_damaged_lines_are_left_out_and_counted(make_run) -> None:
    folder = make_run()
    text = (folder / "metrics.jsonl").read_text()
    damaged = b"\xff\x00 torn\n[1, 2]\n\n" + text.encode()
    (folder / "metrics.jsonl").write_bytes(damaged)
    run = read_run(folder)
    assert len(run.metrics) == 33
    assert len(run.notes) == 1 and run.notes[0].startswith("2 lines are damaged in ")


def test_records_without_images_are_left_out(make_run) -> None:
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train"}) + "\n")
    assert len(read_run(folder).metrics) == 33


def test_missing_parts_are_empty(make_run) -> None:
    folder = make_run("bare")
    for name in ("environment.json", "metrics.jsonl", "evaluation/records.jsonl"):
        (folder / name).unlink()
    run = read_run(folder)
    assert (run.environment, run.metrics, run.evaluations) == ({}, [], [])
    assert run.images == 0 and run.seconds == 0


def test_metrics_alone_make_a_run(make_run) -> None:
    folder = make_run()
    (folder / "config.yaml").unlink()
    run = read_run(folder)
    assert run.name == folder.name and run.config == {} and run.images == 3000


@pytest.mark.parametrize("kind", ["nothing", "a file", "another folder"])
def test_what_is_no_run_is_an_error_that_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "a file":
        path.write_text("")
    elif kind == "another folder":
        (path / "samples").mkdir(parents=True)
    with pytest.raises(DataError, match="runs/faces") as raised:
        read_run(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "a: [1"),
        ("config.yaml", "- a\n- b"),
        ("environment.json", "{"),
        ("environment.json", "[]"),
    ],
)
def test_a_damaged_file_is_an_error_with_its_name(make_run, name: str, content: str) -> None:
    folder = make_run()
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=f"{name} is damaged"):
        read_run(folder)


def test_a_config_cannot_run_code(make_run, tmp_path: Path) -> None:
    folder = make_run()
    made = tmp_path / "made-by-yaml"
    (folder / "config.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{made}']")
    with pytest.raises(DataError, match="config.yaml is damaged"):
        read_run(folder)
    assert not made.exists()


def test_runs_of_one_name_are_told_apart(make_run) -> None:
    runs = read_runs([make_run("same"), make_run("other"), make_run("same")])
    assert [run.name for run in runs] == ["same", "other", "same (2)"]


def test_evaluations_that_failed_are_noted(make_run) -> None:
    folder = make_run()
    failed = {"kind": "evaluation", "task": "synthesis", "images": 1000, "figures": {}}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(failed | {"failed": "no room"}) + "\n")
    assert read_run(folder).notes == ["the evaluation at 1,000 images failed: no room"]
