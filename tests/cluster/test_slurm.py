"""slurm.sh without Slurm: `srun` and `scontrol` are stand-ins, all the rest is real.

In a PID namespace and with a /tmp/ray of its own: the script and Ray look for processes by name.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

from vmcmc_dist.config import load_config

SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "$@" >> {log}
"""
RAY = """#!{python}
import json, os, pathlib, stat, sys
token = pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"])
status = token.stat()
seen = dict(words=sys.argv[1:], mode=stat.S_IMODE(status.st_mode), length=status.st_size,
            auth=os.environ["RAY_AUTH_MODE"])
pathlib.Path({log!r}).write_text(json.dumps(seen))
command = sys.argv[sys.argv.index("--") + 1:]
os.execvp(command[0], command)
"""
TRAIN = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
print("training", flush=True)
time.sleep(60 if "long=yes" in sys.argv else 0)
sys.exit(3)
"""
APART = 'mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && exec "$@"'

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare"
)


class Job:
    """A folder as the repository's root, with a virtual environment, as Slurm would see it."""

    def __init__(self, folder: Path, cluster: Path):
        self.folder, self.number = folder, random.randrange(10_000, 30_000)
        self.bin = folder / ".venv/bin"
        self.bin.mkdir(parents=True)
        (folder / "cluster").symlink_to(cluster)
        (folder / "tools").mkdir()
        self.requeued, self.seen = folder / "requeued", folder / "seen.json"
        self.tool("tools/srun", SRUN)
        self.tool("tools/scontrol", SCONTROL.format(log=self.requeued))
        self.tool(".venv/bin/python", f'#!/bin/bash\nexec {sys.executable} "$@"\n')

    def tool(self, path: str, text: str) -> None:
        (self.folder / path).write_text(text)
        (self.folder / path).chmod(0o755)

    def with_a_stand_in_for_ray(self) -> Job:
        self.tool(".venv/bin/ray", RAY.format(python=sys.executable, log=str(self.seen)))
        (self.folder / "vmcmc_dist").mkdir()
        (self.folder / "vmcmc_dist/__main__.py").write_text(TRAIN)
        return self

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.folder}/tools:/usr/sbin:/usr/bin:/bin", "HOME": str(self.folder),
            "SLURM_JOB_ID": str(self.number), "SLURM_JOB_NUM_NODES": "1",
            "SLURM_SUBMIT_DIR": str(self.folder), "SLURM_GPUS_ON_NODE": "2",
        }  # fmt: skip
        script = ["bash", "cluster/slurm.sh", *words]
        return subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--mount",
             "sh", "-c", APART, "sh", *script],
            cwd=self.folder, env=environment | more, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


@pytest.fixture
def job(tmp_path: Path, cluster: Path) -> Job:
    return Job(tmp_path, cluster)


def test_without_a_config_or_without_slurm_it_says_how(job: Job) -> None:
    for process in (job.start(), job.start("config.yaml", SLURM_JOB_ID="")):
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 2 and out.startswith("usage: sbatch")


def test_what_ray_is_asked_to_run(job: Job) -> None:
    process = job.with_a_stand_in_for_ray().start("configs/faces.yaml", "name=a b", "seed=3")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 3, out  # the run's own status
    seen = json.loads(job.seen.read_text())
    verb, *words = seen["words"]
    cut = words.index("--")
    assert verb == "symmetric-run"
    options = curate_and_validate_ray_start_args(words[:cut])  # what is left for `ray start`
    assert options == ["--disable-usage-stats"]
    assert words[words.index("--min-nodes") + 1] == "1"
    host, port = words[words.index("--address") + 1].split(":")
    assert not host.startswith("127.") and 20_000 <= int(port) < 40_000
    python, _, module, train, config, *settings = words[cut + 1 :]
    assert (python, module, train, config) == (
        "python",
        "vmcmc_dist",
        "train",
        "configs/faces.yaml",
    )
    assert settings == ["resources.address=auto", "resources.workers=2", "name=a b", "seed=3"]
    assert (seen["auth"], seen["mode"], seen["length"]) == ("token", 0o600, 64)
    assert list((job.folder / ".ray").iterdir()) == []  # the token went with the job
    assert not job.requeued.exists()


def test_slurms_warning_saves_the_run_and_queues_it_again(job: Job) -> None:
    process = job.with_a_stand_in_for_ray().start("configs/faces.yaml", "long=yes")
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    time.sleep(0.3)
    for path in Path("/proc").glob("[0-9]*/cmdline"):  # the batch shell alone is told
        try:
            words = path.read_bytes().split(b"\0")
            here = os.readlink(path.with_name("cwd"))
        except OSError:
            continue
        if words[:2] == [b"bash", b"cluster/slurm.sh"] and here == str(job.folder):
            os.kill(int(path.parent.name), signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert "the run is being saved" in out and "saved\n" in out
    assert process.returncode == 0
    assert job.requeued.read_text() == f"requeue {job.number}\n"


@pytest.mark.slow
def test_a_run_on_a_real_ray(job: Job, cluster: Path, small: Callable[[Path], Path]) -> None:
    job.bin.joinpath("ray").symlink_to(Path(sys.executable).with_name("ray"))
    process = job.start(
        str(small(job.folder)), "resources.workers=1", "resources.device=cpu",
        PYTHONPATH=str(cluster.parent), SLURM_GPUS_ON_NODE="1",
    )  # fmt: skip
    out, _ = process.communicate(timeout=250)
    assert process.returncode == 0, out
    assert "Running command on head node" in out
    assert (job.folder / "runs/tiny/checkpoints/000000640").is_dir()


@pytest.fixture
def small() -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "tiny.yaml"
        path.write_text(
            f"name: tiny\nout: {folder}/runs\ndata: {{source: toy2d, density: gaussians}}\n"
            "energy: {net: mlp, width: 16, depth: 1}\n"
            "vae: {net: mlp, width: 16, depth: 1, latent_dim: 2, sigma: 0.3}\n"
            "langevin: {steps: 2, step_size: 0.2}\n"
            "train: {images: 640, batch_size: 32, log_images: 320, sample_images: 640,\n"
            "        checkpoint_images: 320, precision: fp32}\n"
            "resources: {threads: 1, start_timeout: 100}\nwatch: {tensorboard: false}\n"
            "launcher: ray\n"
        )
        load_config(path)
        return path

    return write
