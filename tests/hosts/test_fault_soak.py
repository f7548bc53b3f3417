"""Many faults in one run, one after another: it ends as one that nothing happened to.

``VMCMC_FAULT_MINUTES`` (20) and ``VMCMC_FAULT_SEED`` (0); figures in build/fault_soak.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts.cluster import Cluster, wait_until
from tests.hosts.job import Job
from tests.hosts.network import Host
from vmcmc_dist.engine.checkpoint import load_checkpoint
from vmcmc_dist.engine.run_folder import describe_commit

MINUTES = float(os.environ.get("VMCMC_FAULT_MINUTES", "20"))
SEED = int(os.environ.get("VMCMC_FAULT_SEED", "0"))
OUT = Path("build") / "fault_soak.json"
NOTICE = 40
SETTINGS = ("resources.hang_timeout=20", "train.log_images=600", "train.checkpoint_images=240")


def kill_worker(job: Job, host: Host) -> None:
    assert host.kill("TrainWorker")


def kill_raylet(job: Job, host: Host) -> None:
    assert host.kill("raylet/raylet")


def cut_off(job: Job, host: Host) -> None:
    job.cluster.network.cut(host)


def stop_worker(job: Job, host: Host) -> None:
    assert host.kill("TrainWorker", signal_=signal.SIGSTOP)


def give_notice(job: Job, host: Host) -> None:
    job.cluster.drain(host, NOTICE)


def kill_driver(job: Job, host: Host) -> None:
    assert job.cluster.head.kill("vmcmc_dist", "train")
    job.submit("train.images=100000000")


def pull_for_a_moment(job: Job, host: Host) -> None:
    job.cluster.network.cut(host)
    time.sleep(3)
    job.cluster.network.join(host)


FAULTS: dict[str, Callable[[Job, Host], None]] = {
    "worker killed": kill_worker,
    "raylet killed": kill_raylet,
    "host cut off": cut_off,
    "worker stopped": stop_worker,
    "spot notice": give_notice,
    "driver killed, job submitted again": kill_driver,
    "cable pulled for 3 s": pull_for_a_moment,
}


def order(chance: random.Random) -> Iterator[str]:
    """Each kind once a round, in another order each."""
    while True:
        kinds = list(FAULTS)
        chance.shuffle(kinds)
        yield from kinds


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_soak_of_faults(new_job: Callable[..., Job], cluster: Cluster) -> None:
    chance, faults = random.Random(SEED), []
    job = new_job("soak", *SETTINGS)
    started = time.monotonic()
    job.submit("train.images=100000000")
    job.wait_for_images(240, timeout=300)
    for what in order(chance):
        if time.monotonic() - started > 60 * MINUTES:
            break
        time.sleep(chance.uniform(1, 10))
        wait_until(lambda: len(job.hosts()) == 2, 60, "two workers")
        host, images, fault = chance.choice(job.hosts()), job.images(), time.time()
        FAULTS[what](job, host)
        if what.startswith("cable"):
            seconds = wait_until(lambda at=images: job.images() > at, 120, "training going on")
        else:
            seconds = job.again_after(what, fault)
        faults.append({"what": what, "images": images, "seconds": round(seconds, 1)})
        write(faults, job, started, same=None)
        cluster.mend_hosts()
    job.folder.stop.touch()
    job.wait_for_success()
    write(faults, job, started, same=None)

    images = job.images()
    calm = new_job("soak-calm", *SETTINGS, f"train.images={images}")
    calm.submit()
    calm.wait_for_success(timeout=900)
    records = job.metrics()
    job.assert_each_record_once()
    assert records == calm.metrics()[: len(records)] and len(records) > images // 600
    mine, other = (load_checkpoint(r.checkpoints.latest()) for r in (job, calm))
    assert mine.images == other.images == images
    for part, tensors in mine.tensors.items():
        assert all(t.equal(other.tensors[part][name]) for name, t in tensors.items()), part
    write(faults, job, started, same=True)


def write(faults: list[dict], job: Job, started: float, same: bool | None) -> None:
    kinds = {what: [f["seconds"] for f in faults if f["what"] == what] for what in FAULTS}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(
        json.dumps(
            {
                "commit": describe_commit(),
                "minutes": round((time.monotonic() - started) / 60, 1),
                "seed": SEED,
                "images": job.images(),
                "groups_of_workers": len(job.events("start")),
                "same_as_calm": same,
                "until_it_trains_again": {
                    what: {
                        "times": len(all_), "median_s": statistics.median(all_), "max_s": max(all_)
                    }
                    for what, all_ in kinds.items()
                    if all_
                },
                "faults": faults,
            },
            indent=1,
        )
    )  # fmt: skip
