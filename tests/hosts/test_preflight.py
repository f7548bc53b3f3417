"""The page before the first step, of several hosts: what they have, and what they do not share."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.hosts.cluster import Cluster
from tests.hosts.job import Job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_full_page_sums_over_the_network(new_job: Callable[..., Job], cluster: Cluster) -> None:
    job = new_job("full-page", "resources.preflight=full", "resources.workers=3", "train.images=60")
    job.submit()
    job.wait_for_success()
    told = cluster.logs(job.id)
    for host in (cluster.head, *cluster.hosts):
        assert re.search(rf"{re.escape(host.address)}\b.* {host.name} ", told), told
    assert "room for 3 workers" in told and "from all 4 nodes" in told, told
    sums = re.findall(r"^  ([\d.]+ [KM]iB) +[\d.,]+ (?:ms|s) +[\d.e-]+ GB/s$", told, re.M)
    assert sums == ["1 KiB", "32 KiB", "1 MiB", "8 MiB", "64 MiB"], told


def test_a_folder_that_the_hosts_do_not_share_is_refused(
    new_job: Callable[..., Job], cluster: Cluster
) -> None:
    """Each host has a ``/tmp/ray`` of its own, where the run is to be written."""
    job = new_job("not-shared", "out=/tmp/ray/runs")
    job.submit()
    assert cluster.wait(job.id, 60) == "FAILED"
    told = cluster.logs(job.id)
    assert "not the folder that the driver's machine has under this name" in told, told
    assert "refused after" in told and "Traceback" not in told, told
