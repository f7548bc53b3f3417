"""`vmcmc train … out=s3://…` as the user runs it: killed, gone on with on another machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from vmcmc_dist.engine.checkpoint import load_checkpoint
from vmcmc_dist.engine.remote_run import local_copy, parts_of
from vmcmc_dist.engine.run_folder import complete_lines

URL = "s3://faces/runs"
ALL = ("energy", "energy_ema", "energy_adam", "vae", "vae_ema", "vae_adam")


def on_s3(new_run, config: Path, name: str, scratch: Path, *more: str):
    """A run on S3 by a machine whose local folder is ``scratch``."""
    return new_run(config, name, f"out={URL}", f"store.scratch={scratch}", *more)


def assert_the_same(name: str, whole) -> None:
    """Weights to the last bit, and every record once."""
    copy = local_copy(f"{URL}/{name}")
    latest = sorted((copy / "checkpoints").iterdir())[-1]
    parts_of(f"{URL}/{name}", latest, ALL)
    ours, theirs = (load_checkpoint(p).tensors for p in (latest, whole.checkpoints.latest()))
    for part, tensors in theirs.items():
        assert all(tensor.equal(ours[part][n]) for n, tensor in tensors.items()), part
    records = complete_lines(copy / "metrics.jsonl")
    for record in records:
        record.pop("time", None)
    assert records == whole.metrics()


def checkpoints(s3) -> list[str]:
    listed = s3.list_objects_v2(Bucket="faces", Prefix="runs/").get("Contents", [])
    keys = [item["Key"] for item in listed]
    return [key for key in keys if "/checkpoints/" in key and key.endswith("state.json")]


@pytest.mark.parametrize("launcher", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_killed_and_gone_on_with_elsewhere_is_the_run_on_a_disk(
    launcher, s3, whole, config, new_run, run_to_the_end, tmp_path
) -> None:
    more = (f"launcher={launcher}", "store.lease_s=3")
    process = on_s3(new_run, config, "killed", tmp_path / "one", *more).start()
    until = time.monotonic() + 90
    while not checkpoints(s3) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = checkpoints(s3)
    assert before
    status, out, err = on_s3(new_run, config, "killed", tmp_path / "two", *more)(timeout=200)
    assert status == 0, out + err
    assert "going on from" in out and f"{URL}/killed" in out
    assert_the_same("killed", whole)


@pytest.mark.slow
def test_two_workers_of_torchrun_killed_and_gone_on_with(s3, config, new_run, tmp_path) -> None:
    """Each start on a machine of its own (its scratch); as two workers on a disk."""
    torchrun = [str(Path(sys.executable).with_name("torchrun"))]
    torchrun += ["--standalone", "--nproc-per-node=2"]
    settings = ("train.images=9600", "launcher=torchrun", "store.lease_s=3")
    disk = new_run(config, "disk", *settings)
    status, out, err = disk(launcher=torchrun)
    assert status == 0, out + err
    process = on_s3(new_run, config, "pair", tmp_path / "one", *settings).start(launcher=torchrun)
    until = time.monotonic() + 90
    while not checkpoints(s3) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    for other in psutil.process_iter(["cmdline"]):  # torchrun's workers lead groups of their own
        if f"store.scratch={tmp_path / 'one'}" in (other.info["cmdline"] or []):
            other.kill()
    process.communicate()
    again = on_s3(new_run, config, "pair", tmp_path / "two", *settings)
    status, out, err = again(launcher=torchrun)
    assert status == 0, out + err
    assert "going on from" in out and f"{URL}/pair" in out
    assert_the_same("pair", disk)
