"""Jobs on a cluster of several hosts, and what happens to its processes, hosts and cables.

The runs end with the records and the weights of one that nothing happened to, to the last bit.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.hosts.cluster import Cluster, wait_until
from tests.hosts.job import Job

NewJob = Callable[..., Job]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FAULT = 600
"""Images at which things happen, of 2,400."""


def started(job: Job) -> Job:
    job.submit()
    job.wait_for_images(FAULT)
    return job


def assert_survived(job: Job, calm: Job) -> None:
    job.wait_for_success()
    job.assert_each_record_once()
    job.assert_same(calm)


def test_a_killed_worker(calm: Job, new_job: NewJob) -> None:
    job = started(new_job("killed-worker"))
    fault = time.time()
    assert job.hosts()[0].kill("TrainWorker") == 1
    job.again_after("a worker process killed", fault)
    assert_survived(job, calm)
    assert len(job.events("failure")) == 1


def test_a_killed_raylet(calm: Job, new_job: NewJob) -> None:
    job = started(new_job("killed-raylet"))
    fault = time.time()
    assert job.hosts()[1].kill("raylet/raylet") >= 1
    job.again_after("a raylet killed", fault)
    assert_survived(job, calm)


def test_a_host_that_is_cut_off(calm: Job, new_job: NewJob, cluster: Cluster) -> None:
    job = started(new_job("cut-off", "resources.hang_timeout=30"))
    fault, host = time.time(), job.hosts()[0]
    cluster.network.cut(host)
    job.again_after("a host cut off", fault)
    assert_survived(job, calm)
    wait_until(lambda: not host.processes("TrainWorker"), 150, "end of the worker cut off")
    cluster.network.join(host)
    cluster.restart(host)
    assert host.address in cluster.nodes()


def test_a_cable_pulled_for_a_moment(calm: Job, new_job: NewJob, cluster: Cluster) -> None:
    job = started(new_job("blip"))
    host = job.hosts()[0]
    cluster.network.cut(host)
    time.sleep(3)
    cluster.network.join(host)
    assert_survived(job, calm)
    assert [event["event"] for event in job.events()] == ["start", "end"]


def test_a_slow_network_that_loses(calm: Job, new_job: NewJob, cluster: Cluster) -> None:
    job = new_job("slow", "train.images=600")
    cluster.network.slow(cluster.hosts[0], delay=0.01, loss=0.01)
    cluster.network.slow(cluster.hosts[1], delay=0.01, loss=0.01)
    job.submit()
    job.wait_for_success()
    records = [record for record in calm.metrics() if record["images"] <= 600]
    assert [r for r in job.metrics() if r["kind"] == "train"] == records


def test_a_dead_driver_and_the_job_submitted_again(
    calm: Job, new_job: NewJob, cluster: Cluster
) -> None:
    job = started(new_job("dead-driver"))
    fault = time.time()
    assert cluster.head.kill("vmcmc_dist", "train") >= 1
    job.submit()
    job.again_after("the driver killed, the job submitted again", fault)
    assert_survived(job, calm)


def test_a_worker_alone_on_a_host_cut_off_writes_nothing_late(
    new_job: NewJob, cluster: Cluster
) -> None:
    """It trains on, sees the shared folder, and no other worker misses it."""
    alone = ("resources.workers=1", "train.images=9600", "train.keep=1000")
    reference = new_job("alone", *alone)
    reference.run_here()
    job = started(new_job("cut-off-alone", *alone))
    fault, host = time.time(), job.hosts()[0]
    cluster.network.cut(host)
    job.again_after("a worker cut off, alone", fault)
    job.wait_for_success()
    job.assert_each_record_once()
    job.assert_same(reference)


def test_a_spot_notice(calm: Job, new_job: NewJob, cluster: Cluster) -> None:
    job = started(new_job("drained"))
    fault, host = time.time(), job.hosts()[0]
    cluster.drain(host, 60)
    wait_until(lambda: bool(job.events("left")), 30, "leaving")
    left = job.events("left")[0]
    assert left["time"] - fault < 30
    job.again_after("a spot notice", fault)
    assert host not in job.hosts()
    assert_survived(job, calm)
    assert not job.events("failure")
    assert job.events("start")[1]["images"] == left["images"] >= FAULT, "what was done is kept"


def test_a_worker_that_stands_still(calm: Job, new_job: NewJob) -> None:
    job = started(new_job("stopped", "resources.hang_timeout=15"))
    fault = time.time()
    assert job.hosts()[1].kill("TrainWorker", signal_=signal.SIGSTOP) == 1
    job.again_after("a worker stopped (hang_timeout=15)", fault)
    assert_survived(job, calm)


def test_too_much_asked_for_is_said_within_a_minute(new_job: NewJob, cluster: Cluster) -> None:
    job = new_job("too-many", "resources.workers=4")
    asked = time.monotonic()
    job.submit()
    assert cluster.wait(job.id, 60) == "FAILED"
    assert time.monotonic() - asked < 60
    told = cluster.logs(job.id)
    assert "room for 3: set resources.workers=3 or fewer" in told
    assert "Traceback" not in told


def test_a_busy_cluster_is_said(new_job: NewJob, cluster: Cluster) -> None:
    started(new_job("busy", "train.images=10000000"))
    job = new_job("waiting", "resources.start_timeout=10")
    job.submit()
    assert cluster.wait(job.id, 90) == "FAILED"
    told = cluster.logs(job.id)
    assert "no room for 2 workers (2 CPU) within 10 s" in told and "Traceback" not in told
