"""Preparation over Ray: the bytes of a local one; what a job raises reaches the user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vmcmc_dist.data import DataConfig, prepare

SCRIPT = """
import os, sys, time
from vmcmc_dist.config import load_config
from vmcmc_dist.engine.ray_launch import start_ray
from vmcmc_dist.engine.ray_map import ray_stream
from vmcmc_dist.errors import DataError

class Times:
    def __init__(self, factor):
        self.factor, self.sent, self.died = factor, *sys.argv[1:3]
    def __getstate__(self):
        open(self.sent, "a").write("sent\\n")
        return self.__dict__
    def __call__(self, job):
        if job == "dies":
            if not os.path.exists(self.died):
                open(self.died, "w").close()
                os._exit(1)
            return "came back"
        if job == "raises":
            raise DataError("raw.png: this one is bad")
        return self.factor * job

config = load_config(None, [])
start_ray(config)
print(">",sorted(ray_stream(Times(3), list(range(40)), config)))
print(">", list(ray_stream(Times(3), ["dies"], config)))
try:
    list(ray_stream(Times(3), [1, "raises", 2], config))
except DataError as error:
    print("> raised:", error)
"""


def run(*words: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
    )


def test_prepared_over_ray_it_is_the_same_set(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 20, 20, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    out = tmp_path / "out"
    done = run(
        "-m", "vmcmc_dist", "data", "prepare", "arrays", "--root", str(tmp_path / "a.npy"),
        "--out", str(out), "--ray", "shard_samples=25",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"300 samples, 12 shards: {out}\n" and "Traceback" not in done.stderr
    here = prepare(
        DataConfig(
            source="arrays", root=str(tmp_path / "a.npy"), shards=str(tmp_path / "here"),
            shard_samples=25, prepare_workers=1,
        )
    )  # fmt: skip
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(path.name for path in Path(here.base).iterdir())
    for name in names:
        assert (out / name).read_bytes() == (Path(here.base) / name).read_bytes(), name


@pytest.mark.slow
def test_results_errors_and_processes_that_die(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = run(str(script), str(tmp_path / "sent"), str(tmp_path / "died"))
    assert done.returncode == 0, done.stderr
    results, back, raised = (line[2:] for line in done.stdout.splitlines() if line.startswith("> "))
    assert results == str([3 * i for i in range(40)])
    assert back == "['came back']" and raised == "raised: raw.png: this one is bad"
    assert len((tmp_path / "sent").read_text().splitlines()) == 3, "sent more than once a map"
