"""Whether a machine reaches a run's folder: a bucket, a shared disk, or one that is not."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from tests.conftest import empty_bucket
from vmcmc_dist.bench.fault_schedule import Fault
from vmcmc_dist.engine.reach import leave_mark, reach_out, take_mark


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="for-runs")
    s3fs.S3FileSystem.clear_instance_cache()  # one of another test would keep its endpoint
    yield "s3://for-runs/runs"
    empty_bucket(boto3.client("s3"), "for-runs")  # moto's servers in one process share them
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_a_bucket_is_written_and_read_and_left_clean(bucket: str) -> None:
    assert leave_mark(bucket, ".mark") == ""
    reach = reach_out(bucket, ".mark", ".mine")
    assert reach.problem == "" and reach.write > 0 and reach.read > 0
    take_mark(bucket, ".mark")
    assert boto3.client("s3").list_objects_v2(Bucket="for-runs")["KeyCount"] == 0


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    assert "no such bucket" in leave_mark("s3://another-bucket/runs", ".mark")


@pytest.mark.stores("swift")
def test_a_bucket_that_refuses(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not:right")
    s3fs.S3FileSystem.clear_instance_cache()
    said = leave_mark("s3://faces/runs", ".mark")
    assert "access denied" in said and "AWS_PROFILE" in said and "not:right" not in said


def test_a_bucket_that_may_only_be_read(s3, proxy) -> None:
    """As with a role that lacks s3:PutObject; the mark is there, so that only writing fails."""
    assert leave_mark("s3://faces/runs", ".mark") == ""
    proxy.faults = lambda request: (
        Fault("status", status=403, code="AccessDenied") if request.method == "PUT" else None
    )
    assert "access denied" in leave_mark("s3://faces/runs", ".mark")
    reach = reach_out("s3://faces/runs", ".mark", ".mine")
    assert ".mine: 403 AccessDenied" in reach.problem and "s3:PutObject" in reach.problem


def test_a_folder_that_is_another_machine_s(tmp_path) -> None:
    assert leave_mark(str(tmp_path / "a"), ".mark") == ""
    assert reach_out(str(tmp_path / "a"), ".mark", ".mine").problem == ""
    (tmp_path / "b").mkdir()
    assert "not the folder" in reach_out(str(tmp_path / "b"), ".mark", ".mine").problem
