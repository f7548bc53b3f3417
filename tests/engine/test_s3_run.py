"""Training on shards in a store: through faults and a kill, the run that it is on a disk."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from vmcmc_dist.bench.fault_proxy import FaultProxy
from vmcmc_dist.bench.fault_schedule import Schedule
from vmcmc_dist.data import ensure_prepared
from vmcmc_dist.engine.checkpoint import load_checkpoint
from vmcmc_dist.engine.run_folder import complete_lines

KEY, SECRET, TOKEN = "AKIDOFTHERUN", "secret-of-the-run", "token-of-the-run"


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A store with an empty bucket `photos`, behind a proxy which the environment points at."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with FaultProxy(f"http://{host}:{port}") as proxy:
            for name, value in {
                "AWS_ENDPOINT_URL": proxy.url,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_SESSION_TOKEN": TOKEN,
            }.items():
                monkeypatch.setenv(name, value)
            boto3.client("s3").create_bucket(Bucket="photos")
            yield proxy
    finally:
        server.stop()


def test_a_run_on_a_store_that_fails_is_the_run_on_a_disk(proxy, image_config, new_run, tmp_path):
    from vmcmc_dist.config import load_config

    here = new_run(image_config, "disk", "data.cache_mb=0")
    status, out, err = here()
    assert status == 0, out + err
    manifest = ensure_prepared(load_config(image_config).data)
    client = boto3.client("s3")
    for name in os.listdir(manifest.base):
        client.upload_file(os.path.join(manifest.base, name), "photos", f"set/{name}")
    proxy.faults = Schedule.even(0.2, seed=3, stall_s=3.0)
    there = new_run(
        image_config,
        "store",
        "data.source=shards",
        "data.root=s3://photos/set",
        "data.shards=null",
        "data.cache_mb=0",
        "data.stall_s=1",
    )
    process = there.start()
    there.wait_for_checkpoint(process)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    said = "".join(process.communicate())
    reached = int(there.checkpoints.latest().name)
    status, out, err = there()
    said += out + err
    assert status == 0, said
    assert f"going on from {reached:,} images" in out
    one, other = (load_checkpoint(run.checkpoints.latest()) for run in (here, there))
    for part, tensors in one.tensors.items():
        for name, tensor in tensors.items():
            assert tensor.equal(other.tensors[part][name]), f"{part} {name}"
    last = [r for r in complete_lines(there.folder.metrics) if r["kind"] == "train"][-1]["time"]
    assert last["data_requests"] > 0 and last["data_retries"] > 0 and last["data_bytes"] > 0
    assert 0 <= last["data_wait"] <= 1
    for path in there.folder.path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (SECRET, TOKEN, KEY):
                assert secret.encode() not in content, f"{path} holds {secret}"
    assert not any(secret in said for secret in (SECRET, TOKEN, KEY))


def test_a_url_with_credentials_is_refused_before_anything_is_written(image_config, new_run):
    run = new_run(image_config, "leak", "data.root=s3://AKID:hush-hush@photos/set")
    status, out, err = run()
    assert status == 2 and "credentials" in err and "hush-hush" not in out + err
    assert not run.folder.path.exists()
