"""Fixtures of the data room: a cache of each test's own, small sets of shards, S3 stores."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import s3fs
from moto.server import ThreadedMotoServer
from PIL import Image
from webdataset import TarWriter

from vmcmc_dist.bench.fault_proxy import FaultProxy
from vmcmc_dist.data import Manifest, index, open_manifest, store
from vmcmc_dist.data.storage import RetryPolicy


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, empty, of this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VMCMC_CACHE", str(folder))
    return folder


def numbered(i: int, size: int = 4) -> np.ndarray:
    """A grey image that carries its number i < 65536 in its first two pixels."""
    image = np.full((size, size), i % 251, dtype=np.uint8)
    image[0, 0], image[0, 1] = divmod(i, 256)
    return image


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def grey_png() -> Callable[..., bytes]:
    """(i, size=4) → the numbered grey image as PNG."""
    return lambda i, size=4: png(numbered(i, size))


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Manifest]:
    """Shards of numbered 4x4 images with the given counts; labels are number % 10.

    Blocks hold ``per_block`` samples (of 2048 bytes each); without it, a shard is one block.
    """

    def make(counts: Sequence[int], per_block: int | None = None) -> Manifest:
        folder = tmp_path / "shards"
        folder.mkdir()
        row = 0
        for s, count in enumerate(counts):
            with open(folder / f"{s:03d}.tar", "wb") as file, TarWriter(file, mtime=0) as tar:
                for _ in range(count):
                    tar.write({"__key__": f"{row:05d}", "png": png(numbered(row)), "cls": row % 10})
                    row += 1
        manifest = open_manifest(str(folder))
        return manifest if per_block is None else recut(manifest, 2048 * per_block)

    return make


def recut(manifest: Manifest, block_bytes: int) -> Manifest:
    """The same shards with blocks of another length."""
    tables = [
        index.index_tar(Path(manifest.path(s)), info.name, block_bytes=block_bytes)[1]
        for s, info in enumerate(manifest.shards)
    ]
    return dataclasses.replace(manifest, blocks=index.joined(tables))


@pytest.fixture
def pair_shards(tmp_path: Path) -> Callable[[list[int]], Manifest]:
    """A WebDataset of pairs from elsewhere: input and target carry the same number."""

    def make(counts: list[int]) -> Manifest:
        folder = tmp_path / "pairs"
        folder.mkdir()
        row = 0
        for s, count in enumerate(counts):
            with open(folder / f"{s:03d}.tar", "wb") as file, TarWriter(file, mtime=0) as tar:
                for _ in range(count):
                    grey = numbered(row)
                    colour = np.stack([grey, 255 - grey, grey], -1)
                    members = {"input.png": png(grey), "target.png": png(colour), "cls": row % 3}
                    tar.write({"__key__": f"{row:05d}", **members})
                    row += 1
        return open_manifest(str(folder))

    return make


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """A folder with images.npy of 45 numbered grey 8x8 images, and labels.npy."""
    folder = tmp_path / "raw"
    folder.mkdir()
    np.save(folder / "images.npy", np.stack([numbered(i, 8) for i in range(45)]))
    np.save(folder / "labels.npy", np.arange(45) % 5)
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
    python = Path(__file__).resolve().parents[2] / ".venv-swift" / "bin" / "python"
    if not python.exists():
        pytest.skip("OpenStack Swift is not installed here; `make stores` installs it")
    return python


@pytest.fixture(scope="session")
def swift(swift_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an OpenStack Swift of this session's own (see swift_store.py)."""
    folder = tmp_path_factory.mktemp("swift")
    script = Path(__file__).with_name("swift_store.py")
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
