"""Jobs on a cluster of several hosts, and what happens to hosts, processes and cables."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.hosts.cluster import Cluster
from tests.hosts.job import Job

NewJob = Callable[..., Job]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_killed_worker_is_replaced(calm: Job, new_job: NewJob) -> None:
    job = new_job("killed-worker")
    job.submit()
    job.wait_for_images(600)
    fault = time.time()
    job.hosts()[0].kill("TrainWorker")
    job.again_after("a worker process killed", fault, starts=1)
    job.wait_for_success()
    job.assert_same(calm)
    job.assert_each_record_once()


def test_a_killed_raylet(calm: Job, new_job: NewJob) -> None:
    job = new_job("killed-raylet")
    job.submit()
    job.wait_for_images(600)
    fault = time.time()
    job.hosts()[1].kill("raylet/raylet")
    job.again_after("a raylet killed", fault, starts=1)
    job.wait_for_success()
    job.assert_same(calm)
    job.assert_each_record_once()


def test_a_host_cut_off(calm: Job, new_job: NewJob, cluster: Cluster) -> None:
    job = new_job("cut-off")
    job.submit()
    job.wait_for_images(600)
    fault, host = time.time(), job.hosts()[0]
    cluster.network.cut(host)
    job.again_after("a host cut off", fault, starts=1)
    assert host not in job.hosts() or not host.processes("TrainWorker")
    job.wait_for_success()
    job.assert_same(calm)
    job.assert_each_record_once()
