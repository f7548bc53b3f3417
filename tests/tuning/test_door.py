"""What is refused before anything starts, and what it says."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from vmcmc_dist.config import load_config
from vmcmc_dist.errors import ConfigError, ResourceError
from vmcmc_dist.tuning.config import Sweep, base_config, load_sweep
from vmcmc_dist.tuning.folder import Event, SweepFolder
from vmcmc_dist.tuning.metrics import read_figures
from vmcmc_dist.tuning.places import room_on
from vmcmc_dist.tuning.sweep import check

Make = Callable[..., Sweep]


def test_a_sweep_that_works_is_let_in(make_sweep: Make) -> None:
    base, found = check(make_sweep("train.images=640", "workers=2"))
    assert base.train.images == 640 and base.resources.workers == 2
    assert [dial.key for dial in found] == ["langevin.step_size", "energy.lr"]
    assert base.evaluation.where == "here" and base.guard.action == "stop"
    assert base.launcher == "ray" and base_config(make_sweep()).launcher == "local"


def test_settings_of_the_user_are_stronger_than_the_sweeps_wishes(make_sweep: Make) -> None:
    base = base_config(make_sweep("guard.action=rollback", "watch.tensorboard=true"))
    assert base.guard.action == "rollback" and base.watch.tensorboard


@pytest.mark.parametrize(
    "settings, words",
    [
        (["metric=vae_loss"], "is a loss"),
        (["metric=gap"], "is a loss"),
        (["metric=kl_data_modle"], "did you mean kl_data_model"),
        (["metric=fd_classifier_refined"], "no figure of a trial"),
        (["trials=0"], "trials must be ≥ 1"),
        (["tirals=3"], "tirals"),
        (["search=gird"], "gird"),
        (["asha.factr=3"], "factr"),
        (["langevin.steps=many"], "many"),
        (["resources.workers=2"], "set workers"),
        (["launcher=ray"], "is the sweep's"),
        (["train.pause_images=640"], "is the sweep's: set pbt.every_images"),
        (["scheduler=asha", "asha.first_images=1280"], "no less than"),
        (["scheduler=asha", "train.sample_images=1280"], "oftener"),
        (["scheduler=asha", "metric=[kl_data_model,kl_model_sampler]"], "one metric"),
        (["scheduler=pbt", "search=tpe"], "search=tpe cannot"),
        (["scheduler=pbt", "trials=1"], "population"),
        (["scheduler=pbt", "pbt.every_images=1280"], "no less than train.images=1,280"),
        (["search=grid", "trials=24"], "the grid has 25 points"),
        (["config=gone.yaml"], "not there"),
        (["out=s3://bucket/runs"], "every node mounts"),
        (["name=a/b"], "plain folder name"),
    ],
    ids=str,
)
def test_what_cannot_work_is_said(make_sweep: Make, settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        check(make_sweep(*settings))


@pytest.mark.parametrize(
    "scheduler, key, spec",
    [
        ("asha", "train.images", {"int": [640, 1280]}),
        ("pbt", "energy.width", {"choice": [24, 32]}),
        ("pbt", "train.batch_size", {"choice": [32, 64]}),
        ("pbt", "seed", {"int": [0, 5]}),
    ],
)
def test_dials_that_a_scheduler_cannot_turn(make_sweep, scheduler, key, spec) -> None:
    with pytest.raises(ConfigError, match=key):
        check(make_sweep(f"scheduler={scheduler}", space={key: spec}))


def test_a_metric_of_evaluations_wants_evaluations_and_checkpoints_as_often(sweep_file) -> None:
    (sweep_file.parent / "small.yaml").write_text(
        "data: {source: fashion_mnist}\ntrain: {images: 1000, checkpoint_images: 500}\n"
    )
    more = ["metric=fd_classifier_refined"]
    with pytest.raises(ConfigError, match="evaluation.every_images"):
        check(load_sweep(sweep_file, more))
    with pytest.raises(ConfigError, match="train.checkpoint_images"):
        check(load_sweep(sweep_file, [*more, "evaluation.every_images=250"]))
    check(load_sweep(sweep_file, [*more, "evaluation.every_images=500"]))
    check(load_sweep(sweep_file, ["metric=fd_thumbnail"]))
    with pytest.raises(ConfigError, match="did you mean fd_classifier_refined"):
        check(load_sweep(sweep_file, ["metric=fd_clasifier_refined"]))


def test_another_sweep_under_the_same_name(make_sweep: Make) -> None:
    sweep = make_sweep()
    folder = SweepFolder(sweep.folder)
    folder.create()
    folder.write(sweep, base_config(sweep))
    longer = make_sweep("trials=9", "concurrent=1")
    folder.write(longer, base_config(longer))  # may change
    for other in (make_sweep("seed=1"), make_sweep("train.batch_size=64")):
        with pytest.raises(ConfigError, match="holds another sweep(.|\n)*another name"):
            folder.write(other, base_config(other))
    changed = sweep_config(sweep, "langevin: {steps: 6}\n")
    with pytest.raises(ConfigError, match="langevin.steps: 5 → 6"):
        folder.write(changed, base_config(changed))


def sweep_config(sweep: Sweep, more: str) -> Sweep:
    """The same sweep, whose config file has changed meanwhile."""
    path = Path(sweep.config)
    path.write_text(path.read_text().replace("langevin: {steps: 5, step_size: 0.2}\n", more))
    return sweep


def test_a_torn_last_line_of_the_table_is_cut_off(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    folder.append(Event("0000", "done", {"langevin.steps": 4}, 640, {"kl_data_model": 0.5}))
    with folder.table.open("a") as file:
        file.write('{"trial": "0001", "sta')
    folder.end_torn_line()
    folder.append(Event("0001", "running", {}))
    assert list(folder.trials()) == ["0000", "0001"]
    assert folder.trials()["0000"].figures == {"kl_data_model": 0.5}


def test_room_is_counted_by_node(make_sweep: Make) -> None:
    gpus = dataclasses.replace(make_sweep(), cpus_per_trial=2, gpus_per_trial=0.4)
    node = {"CPU": 16.0, "GPU": 1.0}
    assert room_on(gpus, [node]) == 2  # not 2.5
    assert room_on(gpus, [node, node]) == 4  # not 5: none lies on two nodes
    assert room_on(dataclasses.replace(gpus, concurrent=3), [node, node]) == 3
    assert room_on(dataclasses.replace(gpus, workers=3), [node, node]) == 1
    assert room_on(make_sweep(), [{"CPU": 2.0}, {}]) == 2
    with pytest.raises(ResourceError, match="2 CPU and 2 GPU.*largest has 16 CPU and 1 GPU"):
        room_on(dataclasses.replace(gpus, gpus_per_trial=2), [node, node])
    with pytest.raises(ResourceError, match="3 workers of 1 CPU each.*hold 2"):
        room_on(make_sweep("workers=3", "train.batch_size=33"), [{"CPU": 2.0}])


def test_figures_are_the_newest_of_each_and_those_of_one_moment(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    assert read_figures(metrics, ["a"]) == (0, {})
    metrics.write_text(
        '{"kind": "train", "images": 10, "a": 1.0}\n'
        '{"kind": "sample", "images": 10, "count": 8, "steps": 5, "a": 2.0, "ema": true}\n'
        '{"kind": "evaluation", "images": 10, "figures": {"b": 3.0}}\n'
        '{"kind": "sample", "images": 20, "count": 8, "steps": 5, "a": 1.5, "ema": true}\n'
        '{"kind": "evaluation", "images": 20, "figures": {}, "failed": "no room"}\n'
        '{"kind": "sample", "ima'
    )
    assert read_figures(metrics, ["a"]) == (20, {"a": 1.5, "b": 3.0})
    assert read_figures(metrics, ["a", "b"])[0] == 10
    assert read_figures(metrics, ["c"])[0] == 0


def test_the_written_config_is_read_back(make_sweep: Make, tmp_path: Path) -> None:
    sweep = make_sweep()
    folder = SweepFolder(sweep.folder)
    folder.create()
    folder.write(sweep, base_config(sweep))
    assert load_config(folder.config) == base_config(sweep)
