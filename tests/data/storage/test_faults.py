"""Each way a network and a store can fail: the bytes are right, or the error says all."""

from __future__ import annotations

import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vmcmc_dist.bench.fault_proxy import FaultProxy
from vmcmc_dist.bench.fault_schedule import Fault, Schedule
from vmcmc_dist.data import store
from vmcmc_dist.data.storage import RangeReader, RetryPolicy
from vmcmc_dist.errors import DataError

KEY = "set/shard-000000.tar"
URL = f"s3://faces/{KEY}"
DATA = np.random.default_rng(0).bytes(2_000_003)
START, LENGTH, AT = 70_000, 512 << 10, 100_001
QUICK = RetryPolicy(seconds=20.0, first_s=0.01, longest_s=0.1)

ANSWERS = {
    "SlowDown": Fault("status"),
    "InternalError": Fault("status", status=500, code="InternalError"),
    "BadGateway": Fault("status", status=502, code="BadGateway"),
    "GatewayTimeout": Fault("status", status=504, code="GatewayTimeout"),
    "TooManyRequests": Fault("status", status=429, code="TooManyRequests"),
}
BREAKS = {
    "cut": Fault("cut", AT),
    "reset": Fault("reset", AT),
    "stall": Fault("stall", AT),
    "cut with the head": Fault("cut", 500),
    "cut before the first byte": Fault("cut", 0),
    "stall before the first byte": Fault("stall", 0),
}
FAULTS = ANSWERS | BREAKS


@pytest.fixture
def shard(s3):
    s3.put_object(Bucket="faces", Key=KEY, Body=DATA)
    return s3


def first(*faults: Fault):
    """The first requests meet these faults, one each; all others pass."""
    return lambda request: faults[request.number] if request.number < len(faults) else None


def patience(name: str) -> float:
    """``stall_s``: long where no stall is meant, for the machine may be busy."""
    return 2.0 if "stall" in name else 10.0


def ranges(proxy: FaultProxy):
    return [entry.range for entry in proxy.log if entry.method == "GET"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_retried_from_the_byte_it_was_met_at(shard, proxy, name):
    proxy.faults = first(FAULTS[name], FAULTS[name])
    lines: list[str] = []
    reader = RangeReader(QUICK, stall_s=patience(name), on_retry=lines.append)
    assert reader.read(URL, START, LENGTH) == DATA[START : START + LENGTH]
    last = START + LENGTH - 1
    step = FAULTS[name].after
    assert len(proxy.log) == 3 and [r[1] for r in ranges(proxy)] == [last] * 3
    begins = [r[0] for r in ranges(proxy)]
    if name == "reset":  # a reset takes what lies unread in the socket with it
        assert begins[0] == START and begins == sorted(begins) and begins[2] <= START + 2 * step
    else:
        assert begins == [START, START + step, START + 2 * step]
    assert reader.stats.retries == 2 and reader.stats.bytes == LENGTH
    assert len(lines) == 2 and all(URL in line for line in lines) and "try 3 in" in lines[1]
    assert f"at byte {begins[1]}" in lines[0]


@pytest.mark.parametrize("name", ["SlowDown", "cut", "reset", "stall"])
def test_a_whole_object_goes_on_by_position_too(shard, proxy, name):
    proxy.faults = first(FAULTS[name])
    assert RangeReader(QUICK, stall_s=patience(name)).read_all(URL) == DATA
    assert len(proxy.log) == 2
    if name in ("cut", "stall"):
        assert ranges(proxy) == [None, (AT, None)]


@pytest.mark.parametrize("name", ["SlowDown", "InternalError", "cut", "reset", "stall"])
def test_after_the_budget_the_error_says_all(shard, proxy, name):
    fault = FAULTS[name]
    proxy.faults = lambda request: Fault(fault.kind, 0, fault.status, fault.code)
    reader = RangeReader(RetryPolicy(seconds=0.3, first_s=0.03), stall_s=patience(name) / 4)
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        reader.read(URL, START, LENGTH)
    assert time.monotonic() - began < 8
    message = str(caught.value)
    last = str(fault.status) if fault.kind == "status" else ""
    assert message.startswith(f"{URL}: {last}") and f"at byte {START}" in message
    tries = int(message.split(" tries over ")[0].rsplit("(", 1)[1])
    # a try that a busy machine lets stall before it is sent does not come to the proxy
    assert tries == len(proxy.log) or (name == "stall" and tries >= len(proxy.log))
    assert "data.retry_s" in message
    assert len(proxy.log) >= 2


def test_a_try_that_brings_bytes_begins_the_count_of_tries_anew(shard, proxy):
    proxy.faults = first(*[Fault("cut", 60_000)] * 6)
    reader = RangeReader(RetryPolicy(seconds=60.0, tries=3, first_s=0.01, longest_s=0.05))
    assert reader.read(URL, START, LENGTH) == DATA[START : START + LENGTH]
    assert reader.stats.retries == 6


@pytest.mark.stores("moto", "swift")
def test_the_version_stays_pinned_through_retries(shard, proxy):
    new = DATA[::-1]

    def overwritten_meanwhile(request):
        if request.number == 0:
            return Fault("cut", AT)
        shard.put_object(Bucket="faces", Key=KEY, Body=new)
        return None

    proxy.faults = overwritten_meanwhile
    with pytest.raises(DataError, match=f"{URL}: overwritten while it was read .*new prefix"):
        RangeReader(QUICK).read(URL, START, LENGTH)
    assert len(proxy.log) == 2


def test_retry_after_is_waited_for(shard, proxy):
    proxy.faults = first(Fault("status", retry_after=1))
    reader = RangeReader(QUICK)
    began = time.monotonic()
    assert reader.read(URL, 0, 10) == DATA[:10]
    assert time.monotonic() - began >= 1 and reader.stats.waited_s == 1


def test_a_trickle_is_a_stall(shard, proxy):
    proxy.bandwidth = 3000.0
    with pytest.raises(DataError, match=f"{URL}: stalled"):
        RangeReader(RetryPolicy(seconds=0.5), stall_s=0.3).read(URL, 0, LENGTH)


def test_a_slow_connection_is_none(shard, proxy):
    proxy.bandwidth = 400_000.0
    reader = RangeReader(RetryPolicy(seconds=0.0), stall_s=1.0)
    assert reader.read(URL, 0, 300_000) + reader.read(URL, 300_000, 300_000) == DATA[:600_000]


def test_an_endpoint_that_is_away_for_a_while(shard, endpoint, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    lines: list[str] = []
    with FaultProxy(endpoint, port=port) as back:
        back.close()

        def comes_back(line: str) -> None:
            lines.append(line)
            if len(lines) == 3:
                back.start()

        reader = RangeReader(QUICK, on_retry=comes_back)
        assert reader.read(URL, 0, 100) == DATA[:100]
    assert len(lines) >= 3 and all("cannot be reached" in line for line in lines)


def test_an_endpoint_that_stays_away(shard, proxy):
    reader = RangeReader(RetryPolicy(seconds=0.3, first_s=0.05))
    assert reader.read(URL, 0, 100) == DATA[:100]
    proxy.close()
    with pytest.raises(DataError, match=f"{URL}: the store cannot be reached.*AWS_ENDPOINT_URL"):
        reader.read(URL, 0, 100)


@pytest.mark.parametrize("gone", ["object", "bucket"])
def test_what_vanishes_is_an_error_at_once(shard, proxy, gone):
    reader = RangeReader(QUICK)
    assert reader.read(URL, 0, 100) == DATA[:100]
    shard.delete_object(Bucket="faces", Key=KEY)
    if gone == "bucket":
        shard.delete_bucket(Bucket="faces")
    with pytest.raises(DataError, match=f"{URL}: 404 NoSuch.*bucket 'faces'.*deleted"):
        reader.read(URL, 100, 100)
    assert len(proxy.log) == 2


def test_a_flipped_bit_passes_and_is_left_to_the_checksum_of_the_block(shard, proxy):
    proxy.faults = first(Fault("flip", 5))
    block = RangeReader(QUICK).read(URL, 0, 10)
    assert block[:5] == DATA[:5] and block[5] == DATA[5] ^ 1


@pytest.mark.stores("moto", "swift")
def test_a_fifth_of_all_requests_fail_and_every_byte_is_right(shard, proxy):
    proxy.faults = Schedule.even(0.2, seed=3)
    lines: list[str] = []
    reader = RangeReader(QUICK, stall_s=0.3, on_retry=lines.append)
    starts = list(range(0, len(DATA) - 30_000, 20_000))
    with ThreadPoolExecutor(16) as threads:
        blocks = list(threads.map(lambda s: reader.read(URL, s, 30_000), starts))
    assert all(block == DATA[s : s + 30_000] for s, block in zip(starts, blocks, strict=True))
    befell = {entry.done.split(" ")[0] for entry in proxy.log}
    assert befell == {"passed", "503", "500", "cut", "reset", "stall"}
    assert reader.stats.retries == len(lines) >= 10


EVERY_OTHER = {
    "SlowDown": lambda request: None if request.number % 2 else ANSWERS["SlowDown"],
    "InternalError": lambda request: None if request.number % 2 else ANSWERS["InternalError"],
    "reset": lambda request: None if request.number % 2 else Fault("reset"),
    "stall": lambda request: None if request.number % 2 else Fault("stall"),
}


@pytest.mark.parametrize("name", EVERY_OTHER)
def test_listing_and_looking_survive(shard, proxy, name, tmp_path, caplog):
    store.configure(QUICK, stall_s=0.15)
    proxy.faults = EVERY_OTHER[name]
    with caplog.at_level(logging.WARNING, "vmcmc_dist"):
        assert list(store.list_files("s3://faces/set")) == ["shard-000000.tar"]
        assert store.list_files(URL) == {"shard-000000.tar": store.list_files("s3://faces")[KEY]}
        assert store.exists(URL) and not store.exists(f"{URL}.not")
        assert store.read_bytes(URL) == DATA
        with store.open_file(URL) as file:
            assert file.read(1000) == DATA[:1000]
        assert store.fetch("s3://faces/set", tmp_path).read_bytes() == DATA
        assert store.fetch(URL, tmp_path / "one").read_bytes() == DATA
    assert any("s3://faces" in record.getMessage() for record in caplog.records)


def test_a_long_listing_goes_on_from_its_page(s3, proxy, monkeypatch):
    monkeypatch.setattr("vmcmc_dist.data.storage.objects.PAGE", 4)
    for i in range(7):
        s3.put_object(Bucket="faces", Key=f"many/{i}", Body=b"")
    pages: list[str] = []

    def second_page_fails_once(request):
        pages.append(request.path)
        return Fault("status") if "continuation-token" in request.path and len(pages) == 2 else None

    proxy.faults = second_page_fails_once
    assert list(store.list_files("s3://faces/many")) == list("0123456")
    assert len(pages) == 3 and pages[1] == pages[2] != pages[0]


SMALL, LARGE = 1000, (17 << 20) + 5  # by one request, and in parts


@pytest.mark.stores("moto", "swift")
@pytest.mark.parametrize(
    "name, size", [*((name, SMALL) for name in EVERY_OTHER), ("SlowDown", LARGE), ("reset", LARGE)]
)
def test_writes_survive(s3, proxy, tmp_path, name, size):
    store.configure(QUICK, stall_s=0.3)
    proxy.faults = EVERY_OTHER[name]
    data = np.random.default_rng(1).bytes(size)
    (tmp_path / "file").write_bytes(data)
    etag = store.upload(tmp_path / "file", "s3://faces/up")
    assert s3.get_object(Bucket="faces", Key="up")["Body"].read() == data
    assert etag == s3.head_object(Bucket="faces", Key="up")["ETag"]
    if name != "reset":  # a lost answer leaves an upload, without parts
        assert "Uploads" not in s3.list_multipart_uploads(Bucket="faces")
    if size == SMALL:
        assert store.write_bytes("s3://faces/up", data) == etag
        store.write_bytes("s3://faces/up", b"")
        assert store.read_bytes("s3://faces/up") == b""


@pytest.mark.stores("moto", "swift")
def test_a_write_that_fails_leaves_nothing(s3, proxy, tmp_path):
    (tmp_path / "file").write_bytes(bytes(33 << 20))
    store.configure(RetryPolicy(seconds=0.3, first_s=0.05), stall_s=2.0)

    def third_part_fails(request):
        return Fault("status") if "partNumber=3" in request.path else None

    proxy.faults = third_part_fails
    with pytest.raises(DataError, match=r"s3://faces/up: 503 SlowDown \(\d+ tries"):
        store.upload(tmp_path / "file", "s3://faces/up")
    assert not store.exists("s3://faces/up")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="faces")

    def nothing_ends(request):
        return Fault("status") if "uploadId" in request.path and request.method != "PUT" else None

    proxy.faults = nothing_ends
    with pytest.raises(DataError, match="parts of it are left in the bucket"):
        store.upload(tmp_path / "file", "s3://faces/up")


@pytest.mark.stores("moto", "swift")
def test_a_finished_upload_whose_answer_was_lost_is_finished(s3, proxy):
    data = np.random.default_rng(2).bytes(20 << 20)
    lost: list[str] = []

    def last_answer_is_lost(request):
        if request.method == "POST" and "uploadId" in request.path and not lost:
            lost.append(request.path)
            return Fault("cut")
        return None

    proxy.faults = last_answer_is_lost
    store.write_bytes("s3://faces/up", data)
    assert lost and s3.get_object(Bucket="faces", Key="up")["Body"].read() == data


def test_a_part_that_changes_on_its_way_is_sent_again(s3, proxy):
    proxy.faults = lambda request: (
        Fault("status", status=400, code="BadDigest") if request.number == 0 else None
    )
    store.write_bytes("s3://faces/up", b"data")
    assert len(proxy.log) == 2
    assert s3.get_object(Bucket="faces", Key="up")["Body"].read() == b"data"


def test_a_file_that_changes_while_it_is_uploaded(s3, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr("vmcmc_dist.data.storage.upload.PARTS_AT_ONCE", 1)
    path = tmp_path / "file"
    path.write_bytes(bytes(40 << 20))

    def grows(request):
        if "partNumber" in request.path:
            with open(path, "ab") as file:
                file.write(b"more")
        return None

    proxy.faults = grows
    with pytest.raises(DataError, match="changed while it was copied to s3://faces/up"):
        store.upload(path, "s3://faces/up")
    assert not store.exists("s3://faces/up")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="faces")
