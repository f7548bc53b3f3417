"""A run on S3: one process at a time, checkpoints that are complete or invisible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vmcmc_dist.bench.fault_schedule import Fault
from vmcmc_dist.engine.checkpoint import PARTS, Checkpoint, CheckpointFolder, load_checkpoint
from vmcmc_dist.engine.lease import HeldLease, Lease, acquire
from vmcmc_dist.engine.remote_checkpoints import RemoteCheckpoints
from vmcmc_dist.engine.run_store import RunStore
from vmcmc_dist.errors import CheckpointError, DataError, ResourceError

URL = "s3://faces/runs/a"
both = pytest.mark.stores("moto", "swift")


def make(images: int, size: int = 8) -> Checkpoint:
    tensors = {part: {"w": torch.full((size,), float(images))} for part in PARTS}
    return Checkpoint(images, {}, {"score": None, "good": True}, tensors)


def folder_of(path: Path, lease: Lease, keep: int = 2) -> CheckpointFolder:
    remote = RemoteCheckpoints(lease.store, lease)
    return CheckpointFolder(path / "checkpoints", keep, remote)


def of_another_machine(store: RunStore, number: int) -> None:
    """The record of a holder that cannot be asked whether it lives."""
    name = f".lease/{number:06d}.json"
    record = json.loads(store.read(name) or b"") | {"machine": "another"}
    store.write(name, json.dumps(record).encode())


def keys(s3) -> list[str]:
    found = s3.list_objects_v2(Bucket="faces").get("Contents", [])
    return [item["Key"].removeprefix("runs/a/") for item in found]


@both
def test_a_checkpoint_goes_there_and_comes_back_elsewhere(s3, tmp_path) -> None:
    lease = Lease(RunStore(URL, retry_s=5), 3)
    here = folder_of(tmp_path / "here", lease)
    for images in (1, 2, 3):
        here.save(make(images))
    assert "checkpoints/000000003/000003/energy.safetensors" in keys(s3)
    there = tmp_path / "there" / "checkpoints"
    remote = RemoteCheckpoints(RunStore(URL))
    remote.match(there)
    assert [p.name for p in CheckpointFolder(there).all()] == ["000000002", "000000003"]
    path = remote.fetch(there, 3, PARTS)
    assert load_checkpoint(path).tensors["vae"]["w"].tolist() == [3.0] * 8
    (path / "000003" / "vae.safetensors").unlink()
    key = "runs/a/checkpoints/000000003/000003/vae.safetensors"
    body = bytearray(s3.get_object(Bucket="faces", Key=key)["Body"].read())
    body[-1] ^= 1
    s3.put_object(Bucket="faces", Key=key, Body=bytes(body))
    with pytest.raises(CheckpointError, match="sha256 differs"):
        remote.fetch(there, 3, PARTS)


@both
def test_what_is_not_complete_is_not_there_and_goes(s3, tmp_path) -> None:
    lease = Lease(RunStore(URL, retry_s=5), 1)
    folder_of(tmp_path, lease).save(make(1))
    s3.put_object(Bucket="faces", Key="runs/a/checkpoints/000000002/000001/vae.safetensors")
    s3.put_object(Bucket="faces", Key="runs/a/checkpoints/000000001/000009/vae.safetensors")
    s3.create_multipart_upload(Bucket="faces", Key="runs/a/checkpoints/000000002/000001/x")
    whole = [k for k in keys(s3) if "/000001/" in k and "000000001/" in k]
    remote = RemoteCheckpoints(lease.store, lease)
    assert list(remote.states()) == ["000000001"]
    assert remote.clean() == 3
    assert sorted(keys(s3)) == sorted([*whole, "checkpoints/000000001/state.json"])
    assert not s3.list_multipart_uploads(Bucket="faces").get("Uploads")


def test_a_failing_upload_leaves_the_one_before(s3, proxy, tmp_path) -> None:
    lease = Lease(RunStore(URL, retry_s=0.5), 1)
    folder = folder_of(tmp_path, lease)
    folder.save(make(1))
    proxy.faults = lambda r: Fault("status") if "vae_ema" in r.path else None
    with pytest.raises(DataError, match="503 SlowDown"):
        folder.save(make(2))
    assert list(RemoteCheckpoints(lease.store).states()) == ["000000001"]
    proxy.faults = lambda r: None
    folder.save(make(3))
    # the second is not put later: it is kept here alone, and goes with the run's next two
    assert list(RemoteCheckpoints(lease.store).states()) == ["000000003"]


def test_what_is_half_removed_is_not_there(s3, proxy, tmp_path) -> None:
    lease = Lease(RunStore(URL, retry_s=0.5), 1)
    folder_of(tmp_path, lease).save(make(1))
    proxy.faults = lambda r: (
        Fault("status", status=403, code="AccessDenied")
        if r.method == "DELETE" and "safetensors" in r.path
        else None
    )
    remote = RemoteCheckpoints(lease.store, lease)
    with pytest.raises(DataError, match="access denied"):
        remote.remove(1)
    proxy.faults = lambda r: None
    assert not remote.states()


def test_a_checkpoint_that_is_only_here_goes(s3, tmp_path) -> None:
    """It was never whole there: another machine may have gone on from the one before."""
    lease = Lease(RunStore(URL, retry_s=0.5), 1)
    folder_of(tmp_path, lease).save(make(1))
    CheckpointFolder(tmp_path / "checkpoints").save(make(2))
    RemoteCheckpoints(lease.store, lease).match(tmp_path / "checkpoints")
    assert [p.name for p in CheckpointFolder(tmp_path / "checkpoints").all()] == ["000000001"]


@both
def test_a_second_process_is_refused_while_the_first_lives(s3) -> None:
    first = acquire(RunStore(URL), 1.2, print)
    of_another_machine(first.store, first.number)
    first._record["machine"] = "another"
    said: list[str] = []
    with pytest.raises(ResourceError, match="another process is training s3://faces/runs/a"):
        acquire(RunStore(URL), 60, said.append)
    assert "may be dead" in said[0]
    first.release()
    second = acquire(RunStore(URL), 60, said.append)
    assert second.number == first.number + 1 and len(said) == 1
    second.release()


@both
def test_a_dead_holder_is_followed_and_may_not_write_any_more(s3, tmp_path) -> None:
    dead = HeldLease(RunStore(URL), 1, seconds=3600)  # its next heartbeat is far away
    dead._write()
    of_another_machine(dead.store, 1)
    said: list[str] = []
    after = acquire(RunStore(URL), 1.5, said.append)
    assert after.number == 2 and "waiting up to" in said[0]
    with pytest.raises(ResourceError, match="taken over by process"):
        folder_of(tmp_path, dead).save(make(1))
    assert not [key for key in keys(s3) if key.startswith("checkpoints")]
    after.release()


def test_a_process_that_ended_here_is_not_waited_for(s3) -> None:
    store = RunStore(URL)
    ended = HeldLease(store, 1, seconds=3600)
    ended._record["pid"] = 2**22 + 1
    ended._write()
    after = acquire(store, 3600, pytest.fail)
    assert after.number == 2
    after.release()


def test_no_bucket_is_an_error_at_once(s3) -> None:
    with pytest.raises(DataError, match="no such bucket"):
        acquire(RunStore("s3://nowhere/runs/a", retry_s=5), 60, print)


def test_a_store_that_cannot_write_on_condition_is_refused(s3, proxy) -> None:
    proxy.faults = lambda r: (
        Fault("status", status=501, code="NotImplemented") if "if-none-match" in r.headers else None
    )
    with pytest.raises(ResourceError, match="If-None-Match"):
        acquire(RunStore(URL, retry_s=2), 60, print)
