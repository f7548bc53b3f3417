"""Fewer workers while a host is missing, and all of them again when it is back."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.hosts.cluster import Cluster, wait_until
from tests.hosts.job import Job

LOSSES = ("gap", "drop", "energy_loss", "vae_loss", "kl", "displacement")
"""Means over the global batch. Not the energies themselves, whose common constant nothing holds
(its gradient is rounding, which Adam makes steps of); nor the spreads of a worker's own batch."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_three_workers_two_and_three_again(
    stage: int, new_job: Callable[..., Job], cluster: Cluster
) -> None:
    settings = (
        # what is dropped out depends on the rank; at higher rates rounding grows without bound
        "train.images=3600", "vae.dropout=0", "energy.lr=2e-5", "vae.lr=2e-5",
        "resources.workers=3", "resources.min_workers=2", "resources.grow_after=3",
        f"energy.zero_stage={stage}", f"vae.zero_stage={stage}",
    )  # fmt: skip
    reference = new_job(f"fixed-{stage}", *settings)
    reference.run_here()
    job = new_job(f"elastic-{stage}", *settings)
    job.submit()
    job.wait_for_images(600)
    assert len(job.hosts()) == 3
    fault, host = time.time(), job.hosts()[0]
    cluster.stop(host)
    job.again_after(f"elastic, 3 workers to 2 (ZeRO {stage})", fault)
    assert job.events("start")[-1]["workers"] == 2
    cluster.restart(host)
    fault = time.time()
    wait_until(lambda: bool(job.events("left")), 60, "leaving to grow")
    job.again_after(f"elastic, 2 workers to 3 (ZeRO {stage})", fault)
    job.wait_for_success()
    starts = job.events("start")
    assert starts[-1]["workers"] == 3 and starts[-1]["images"] == job.events("left")[-1]["images"]
    job.assert_each_record_once()
    for mine, theirs in zip(job.metrics(), reference.metrics(), strict=True):
        if theirs["kind"] == "train":
            for key in LOSSES:
                near = pytest.approx(theirs[key], rel=1e-3, abs=1e-3 if key == "kl" else 1e-5)
                assert mine[key] == near, (key, mine["images"])
