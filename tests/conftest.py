"""Fixtures of every room: one thread, no telemetry, the shared data where it lies, S3 stores."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from vmcmc_dist.bench.fault_proxy import FaultProxy
from vmcmc_dist.data import store
from vmcmc_dist.data.storage import RetryPolicy

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is missing."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is not here ({folder})")
    return folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test marked `stores("moto", "swift")` runs on each; the mark nearest to it counts."""
    mark = metafunc.definition.get_closest_marker("stores")
    if mark and "endpoint" in metafunc.fixturenames:
        metafunc.parametrize("endpoint", mark.args, indirect=True)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The URL of moto's S3 server, in a thread; it takes any key and checks no signature."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def swift_python() -> Path:
    """The Python that has OpenStack Swift; skips where it is not installed."""
    python = Path(__file__).resolve().parents[1] / ".venv-swift" / "bin" / "python"
    if not python.exists():
        pytest.skip("OpenStack Swift is not installed here; `make stores` installs it")
    return python


@pytest.fixture(scope="session")
def swift(swift_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an OpenStack Swift of this session's own (see swift_store.py)."""
    folder = tmp_path_factory.mktemp("swift")
    script = Path(__file__).parent / "data" / "swift_store.py"
    words = [swift_python, "-W", "ignore", script, folder / "store", os.getpid()]
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        port, latest = folder / "store" / "port", time.monotonic() + 60
        while not port.exists():
            if process.poll() is not None or time.monotonic() > latest:
                pytest.fail(f"OpenStack Swift did not start:\n{(folder / 'log.txt').read_text()}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.read_text()}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest) -> str:
    """The URL of an S3 store: moto's, or that which the mark `stores` names."""
    return request.getfixturevalue(getattr(request, "param", "moto"))


@pytest.fixture(scope="session")
def s3_account() -> dict[str, str]:
    """The credentials of the tests' user (Swift's keys are ACCOUNT:USER)."""
    return {"AWS_ACCESS_KEY_ID": "test:key", "AWS_SECRET_ACCESS_KEY": "very-secret"}


@pytest.fixture(scope="session")
def s3_client(endpoint: str, s3_account: dict[str, str]) -> Any:
    """A client of the store itself, past any proxy."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=s3_account["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3_account["AWS_SECRET_ACCESS_KEY"],
    )


QUICK = RetryPolicy(seconds=20.0, first_s=0.01, longest_s=0.1)
"""Backoff for tests: short, but the default in all else."""


@pytest.fixture
def s3(
    endpoint: str, s3_client: Any, s3_account: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A client, and a fresh bucket `faces`; the environment points the room at the server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name, value in s3_account.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    store.configure(QUICK, stall_s=2.0)
    s3_client.create_bucket(Bucket="faces")
    yield s3_client
    empty_bucket(s3_client, "faces")
    s3fs.S3FileSystem.clear_instance_cache()
    store.configure(RetryPolicy(), stall_s=15.0)


def empty_bucket(client: Any, bucket: str) -> None:
    """Remove a bucket with all that is in it, if it is still there."""
    if bucket not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
        return
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])
    for part in client.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        client.abort_multipart_upload(Bucket=bucket, Key=part["Key"], UploadId=part["UploadId"])
    client.delete_bucket(Bucket=bucket)


@pytest.fixture
def proxy(s3: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of the server, which the environment points at; no faults until set."""
    with FaultProxy(endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()  # of one that knows the server itself
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()
