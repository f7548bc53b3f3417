"""Runs on S3 whose first worker is on another machine than their driver, with no shared folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.conftest import empty_bucket
from tests.hosts.cluster import Cluster, wait_until
from tests.hosts.job import Job
from vmcmc_dist.engine.checkpoint import load_checkpoint
from vmcmc_dist.engine.remote_run import local_copy, parts_of
from vmcmc_dist.engine.run_folder import complete_lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ALL = ("energy", "energy_ema", "energy_adam", "vae", "vae_ema", "vae_adam")
OUT = "s3://faces/runs"
SCRATCH = "/tmp/ray/runs"
"""Each host has a ``/tmp/ray`` of its own."""


@pytest.fixture
def bucket(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """An S3 server that all hosts reach, with an empty bucket; what a client must be told."""
    server = ThreadedMotoServer(ip_address=f"{cluster.network.subnet}.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VMCMC_CACHE", str(tmp_path))
    client = boto3.client("s3")
    client.create_bucket(Bucket="faces")
    yield told
    empty_bucket(client, "faces")  # all of moto's servers in one process share their buckets
    server.stop()


class RemoteJob:
    """A run on S3, as a job from outside of the cluster."""

    def __init__(self, cluster: Cluster, config: Path, name: str, told: dict[str, str]):
        self.cluster, self.url = cluster, f"{OUT}/{name}"
        self.words = [
            "train",
            str(config),
            f"out={OUT}",
            f"name={name}",
            f"store.scratch={SCRATCH}",
        ]
        self.told = told | {"RAY_JOB_STOP_WAIT_TIME_S": "60"}
        self.id = ""

    def submit(self, *more: str) -> None:
        self.id = self.cluster.submit(*self.words, *more, environment=self.told)

    def images(self) -> int:
        """Of the newest complete checkpoint on S3."""
        listed = boto3.client("s3").list_objects_v2(Bucket="faces", Prefix="runs/")
        keys = [item["Key"].split("/") for item in listed.get("Contents", [])]
        found = [int(k[-2]) for k in keys if k[-1] == "state.json" and k[-2].isdigit()]
        return max(found, default=0)

    def wait_for_images(self, images: int) -> None:
        def there() -> bool:
            status = self.cluster.status(self.id)
            assert status in ("PENDING", "RUNNING"), self.cluster.logs(self.id)
            return self.images() >= images

        wait_until(there, 120, f"checkpoint at {images}", pause=0.1)

    def local(self, host: Any, name: str) -> list[Path]:
        """Files of the run in a host's own folder, as this machine sees them."""
        return sorted((host.folder / "ray" / "runs").glob(f"**/{name}"))

    def first_host(self) -> Any:
        """The one whose worker writes the metrics."""
        written = {
            host: path.stat().st_mtime
            for host in self.cluster.hosts
            if host.processes("TrainWorker")
            for path in self.local(host, "metrics.jsonl")
        }
        return max(written, key=written.__getitem__)

    def records(self) -> list[dict[str, Any]]:
        records = complete_lines(local_copy(self.url) / "metrics.jsonl")
        for record in records:
            record.pop("time", None)
        return records

    def assert_same(self, calm: Job) -> None:
        copy = local_copy(self.url)
        latest = sorted((copy / "checkpoints").iterdir())[-1]
        parts_of(self.url, latest, ALL)
        others = calm.checkpoints.latest()
        assert others is not None and others.name == latest.name
        one, two = load_checkpoint(latest).tensors, load_checkpoint(others).tensors
        for part, tensors in two.items():
            assert all(t.equal(one[part][name]) for name, t in tensors.items()), part
        assert self.records() == calm.metrics()


def test_stopped_gone_on_with_and_a_host_lost(
    calm: Job, cluster: Cluster, job_config: Path, bucket: dict[str, str]
) -> None:
    """`ray job stop` saves what was done since the last checkpoint, though the driver's folder is
    not the worker's; the same command goes on, and loses a host; it ends as an undisturbed run.
    """
    job = RemoteJob(cluster, job_config, "far", bucket)
    seldom = "train.checkpoint_images=600"  # what is saved in between, the stop has saved
    job.submit(seldom)
    job.wait_for_images(600)
    assert job.first_host() is not cluster.head
    before = job.images()
    cluster.stop_job(job.id)
    wait_until(lambda: cluster.status(job.id) == "STOPPED", 90, "end of the job")
    told = cluster.logs(job.id)
    assert "stopping: the run is being saved" in told and "stopped and saved at" in told, told
    saved = job.images()
    assert before < saved < 2400 and saved % 600
    assert f"stopped and saved at {saved:,} images" in told

    job.submit(seldom)
    job.wait_for_images(saved + 1)
    host = job.first_host()
    assert host.kill("raylet/raylet")
    assert cluster.wait(job.id) == "SUCCEEDED", cluster.logs(job.id)
    job.assert_same(calm)
    told = cluster.logs(job.id)
    assert f"going on from {saved:,} images" in told
    assert "the workers start again from" in told, told
    assert "2,400 images ·" in told, told

    (shown,) = job.local(cluster.head, "metrics.jsonl")
    assert [r["images"] for r in complete_lines(shown)] == [r["images"] for r in job.records()]
    assert not job.local(cluster.head, "checkpoints/0*/*.safetensors")
