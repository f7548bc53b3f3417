"""Under Ray Train: the same run, and what happens when a worker or the user ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from vmcmc_dist.engine.checkpoint import load_checkpoint
from vmcmc_dist.engine.resources import cpu_count

CHATTER = ("pid=", "Ray", "deepspeed", "WARNING", "Warning", "INFO", "raylet")

two_cpus = pytest.mark.skipif(cpu_count() < 2, reason="two workers need two CPUs")


def descendants(process: subprocess.Popen) -> dict[int, str]:
    """pid → command line, of the process's children and theirs."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, front = {}, [process.pid]
    while front:
        children = [child for pid in front for child in parents.get(pid, [])]
        for pid in children:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            found[pid] = b" ".join(words).decode(errors="replace")
        front = children
    return found


def train_workers(process: subprocess.Popen) -> list[int]:
    return sorted(pid for pid, line in descendants(process).items() if "RayTrainWorker" in line)


def assert_quiet(text: str) -> None:
    """Nothing of Ray's, DeepSpeed's or torch's chatter among the user's lines."""
    assert [line for line in text.splitlines() if any(word in line for word in CHATTER)] == []


@pytest.fixture(autouse=True)
def nothing_stays_behind():
    yield
    until = time.monotonic() + 15
    while time.monotonic() < until:
        left = [p for p in Path("/proc").iterdir() if p.name.isdigit() and ours(p)]
        if not left:
            return
        time.sleep(0.2)
    raise AssertionError(f"processes of Ray are still there: {[p.name for p in left]}")


def ours(process: Path) -> bool:
    """A process of Ray that a test here started (it carries the tests' environment)."""
    try:
        environment = (process / "environ").read_bytes()
        return MARK.encode() in environment and b"raylet" in (process / "cmdline").read_bytes()
    except OSError:
        return False


MARK = f"VMCMC_TEST_OF={os.getpid()}"
os.environ["VMCMC_TEST_OF"] = str(os.getpid())


def test_more_workers_than_cpus_is_said_within_seconds(config, new_run) -> None:
    many = cpu_count() + 1
    run = new_run(config, "many", "launcher=ray", f"train.batch_size={32 * many}")
    started = time.monotonic()
    status, out, err = run(f"resources.workers={many}")
    assert status == 2 and f"needs {many} CPUs" in err and "Traceback" not in out + err
    assert time.monotonic() - started < 20


def test_one_worker_under_ray_is_the_local_run(whole, config, new_run) -> None:
    run = new_run(config, "ray", "launcher=ray")
    status, out, err = run(timeout=200)
    assert status == 0, out + err
    assert run.metrics() == whole.metrics()
    one, other = (load_checkpoint(r.checkpoints.latest()).tensors for r in (run, whole))
    for part, tensors in one.items():
        assert all(tensor.equal(other[part][name]) for name, tensor in tensors.items()), part
    assert "1 worker on cpu by ray" in out and err == ""
    assert_quiet(out)
    assert "RayTrainWorker" in run.folder.log.read_text()


@two_cpus
def test_a_killed_worker_ends_the_run_with_what_to_do(config, new_run, run_to_the_end) -> None:
    run = new_run(
        config, "dead", "launcher=ray", "resources.workers=2", "train.images=100000000",
        "train.noise_per_sample=true",
    )  # fmt: skip
    process = run.start()
    run.wait_for_checkpoint(process)
    workers = train_workers(process)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    killed = time.monotonic()
    status, out, err = run_to_the_end(process, 100)
    assert status == 2, out + err
    assert time.monotonic() - killed < 60
    assert "worker" in err and "died" in err and "The run is safe" in err
    assert "run the same command again" in err and str(run.folder.log) in err
    assert "Traceback" not in out + err
    assert_quiet(out)
    load_checkpoint(run.checkpoints.latest())


@two_cpus
def test_ctrl_c_under_ray_saves_and_ends_well(config, new_run, run_to_the_end) -> None:
    run = new_run(
        config, "interrupted-ray", "launcher=ray", "resources.workers=2", "train.images=100000000"
    )
    process = run.start()
    run.wait_for_checkpoint(process)
    os.killpg(process.pid, signal.SIGINT)
    asked = time.monotonic()
    status, out, err = run_to_the_end(process, 100)
    assert status == 0, out + err
    assert time.monotonic() - asked < 60
    assert "stopped and saved at" in out and err == ""
    saved = int(run.checkpoints.latest().name)
    assert f"saved at {saved:,} images" in out
    assert "2 workers on cpu by ray" in out


@pytest.mark.slow
@two_cpus
def test_with_a_failure_allowed_ray_goes_on_by_itself(config, new_run, run_to_the_end) -> None:
    run = new_run(
        config, "retried", "launcher=ray", "resources.workers=2", "resources.max_failures=1",
        "train.images=96000",
    )  # fmt: skip
    undisturbed = new_run(
        config, "undisturbed", "launcher=ray", "resources.workers=2", "train.images=96000"
    )
    process = run.start()
    run.wait_for_checkpoint(process)
    os.kill(train_workers(process)[0], signal.SIGKILL)
    status, out, err = run_to_the_end(process, 200)
    assert status == 0 and "done at 96,000 images" in out, out + err
    status, out, err = undisturbed(timeout=200)
    assert status == 0, out + err
    assert run.metrics() == undisturbed.metrics()


@pytest.mark.slow
def test_a_lost_run_under_ray_exits_with_advice(config, new_run) -> None:
    lost = ("guard.warmup_images=0", "guard.patience=2", "guard.spread=0", "guard.gap_ratio=1e-9")
    run = new_run(config, "lost-ray", "launcher=ray", *lost, "guard.action=stop")
    status, out, err = run(timeout=200)
    assert status == 3 and "energy runs away" in err, out + err
    assert "Traceback" not in out + err
    assert_quiet(out)


@pytest.mark.slow
@two_cpus
def test_a_second_ctrl_c_under_ray_ends_it_at_once(config, new_run, run_to_the_end) -> None:
    run = new_run(
        config, "hurried-ray", "launcher=ray", "langevin.steps=20000", "train.checkpoint_images=32"
    )
    process = run.start()
    run.wait_for_checkpoint(process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    asked = time.monotonic()
    status, out, err = run_to_the_end(process, 60)
    assert status == 130 and "Traceback" not in err, out + err
    assert time.monotonic() - asked < 10
