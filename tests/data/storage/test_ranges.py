"""Ranged reads: the bytes asked for, of one version, from disk and from S3."""

from __future__ import annotations

import multiprocessing
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vmcmc_dist.bench.fault_schedule import Fault
from vmcmc_dist.data import store
from vmcmc_dist.data.storage import RangeReader, RetryPolicy, Stats
from vmcmc_dist.data.storage.client import s3_filesystem
from vmcmc_dist.errors import ConfigError, DataError, ResourceError

pytestmark = pytest.mark.stores("moto", "swift")

URL = "s3://faces/set/shard-000000.tar"
DATA = np.random.default_rng(0).bytes(3_000_001)
QUICK = RetryPolicy(seconds=20.0, first_s=0.01, longest_s=0.1)


def put(s3, data: bytes = DATA) -> None:
    s3.put_object(Bucket="faces", Key="set/shard-000000.tar", Body=data)


@pytest.fixture(params=["disk", "s3"])
def shard(request, tmp_path):
    """(where, overwrite): the shard on disk or on S3, and a function that writes it anew."""
    if request.param == "disk":
        path = tmp_path / "shard-000000.tar"
        path.write_bytes(DATA)
        os.utime(path, ns=(1, 1))
        return str(path), path.write_bytes
    s3 = request.getfixturevalue("s3")
    put(s3)
    return URL, lambda data: put(s3, data)


def test_any_range_from_many_threads(shard):
    reader = RangeReader(QUICK)
    rng = np.random.default_rng(1)
    starts = rng.integers(0, len(DATA), 60)
    lengths = [int(rng.integers(0, len(DATA) - s + 1)) for s in starts]
    with ThreadPoolExecutor(16) as threads:
        blocks = list(threads.map(reader.read, [shard[0]] * 60, map(int, starts), lengths))
    assert all(b == DATA[s : s + n] for b, s, n in zip(blocks, starts, lengths, strict=True))


def test_whole_files(shard, tmp_path, monkeypatch):
    monkeypatch.setattr("vmcmc_dist.data.storage.ranges.PART_BYTES", 1 << 20)
    reader = RangeReader(QUICK)
    assert reader.size(shard[0]) == len(DATA)
    parts = list(reader.stream(shard[0]))
    assert [len(p) for p in parts] == [1 << 20, 1 << 20, len(DATA) - (2 << 20)]
    assert b"".join(parts) == DATA
    assert b"".join(reader.stream(shard[0], start=2_500_000)) == DATA[2_500_000:]
    assert reader.read_all(shard[0]) == DATA
    assert reader.copy(shard[0], tmp_path / "copy") == len(DATA)
    assert (tmp_path / "copy").read_bytes() == DATA
    with pytest.raises(ResourceError, match="no-folder/copy: cannot be written"):
        reader.copy(shard[0], tmp_path / "no-folder" / "copy")


def test_an_empty_file(shard, tmp_path):
    shard[1](b"")
    reader = RangeReader(QUICK)
    assert reader.read_all(shard[0]) == b"" == reader.read(shard[0], 0, 0)
    assert reader.copy(shard[0], tmp_path / "copy") == 0
    with pytest.raises(DataError, match="shard-000000.tar"):
        RangeReader(QUICK).read(shard[0], 0, 1)


@pytest.mark.parametrize("start", [len(DATA) - 5, len(DATA) + 5])
def test_a_file_that_ends_too_early(shard, start):
    with pytest.raises(DataError, match="shard-000000.tar: .*(nothing there|3000001 bytes).*again"):
        RangeReader(QUICK).read(shard[0], start, 10)


@pytest.mark.parametrize("first", ["read", "version", "read_all", "stream"])
def test_overwritten_while_read(shard, first):
    reader = RangeReader(QUICK)
    result = reader.read(shard[0], 5, 10) if first == "read" else getattr(reader, first)(shard[0])
    if first == "stream":
        next(result)
    shard[1](DATA[::-1])
    with pytest.raises(DataError, match="shard-000000.tar: overwritten while it was read.*start"):
        reader.read(shard[0], 0, 10)
    assert RangeReader(QUICK).read(shard[0], 0, 10) == DATA[::-1][:10]


def test_versions(shard):
    old = RangeReader(QUICK)
    assert old.version(shard[0]) == old.version(shard[0])
    shard[1](DATA[1:])
    new = RangeReader(QUICK)
    assert new.version(shard[0]) != old.version(shard[0])


def test_the_version_costs_no_request_after_a_read(s3, proxy):
    put(s3)
    reader = RangeReader(QUICK)
    reader.read(URL, 0, 10)
    etag = reader.version(URL)
    assert etag.strip('"') == s3.head_object(Bucket="faces", Key=URL[11:])["ETag"].strip('"')
    assert [r.method for r in proxy.log] == ["GET"]


def test_one_request_a_read_and_none_before(s3, proxy):
    put(s3)
    reader = RangeReader(QUICK)
    assert proxy.log == []
    reader.read(URL, 1000, 512 << 10)
    reader.read_all(URL)
    assert [(r.method, r.range) for r in proxy.log] == [
        ("GET", (1000, 1000 + (512 << 10) - 1)),
        ("GET", None),
    ]
    assert reader.stats == Stats(2, (512 << 10) + len(DATA), 0, 0.0)


def _child(reader: RangeReader, sessions, answers) -> None:
    for session in sessions:  # as happens when the parent's clients are collected as garbage
        session.connector._close()
    with ThreadPoolExecutor(4) as threads:
        blocks = list(threads.map(lambda s: reader.read(URL, s, 1000), range(0, 8000, 1000)))
    answers.put(b"".join(blocks))


def test_after_a_fork(s3, proxy):  # which keeps its connections
    put(s3)
    reader = RangeReader(QUICK)
    assert reader.read(URL, 0, 100) == DATA[:100]
    sessions = list(s3_filesystem().s3._endpoint.http_session._sessions.values())
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_child, args=(reader, sessions, answers))
    child.start()
    assert answers.get(timeout=30) == DATA[:8000]
    child.join()
    assert reader.read(URL, 100, 100) == DATA[100:200]
    assert reader.stats.retries == 0  # the child has let the parent's connections be


def test_a_missing_file(shard):
    for use in (
        lambda r: r.read(f"{shard[0]}.not", 0, 1),
        lambda r: r.version(f"{shard[0]}.not"),
        lambda r: r.read_all(f"{shard[0]}.not"),
        lambda r: list(r.stream(f"{shard[0]}.not")),
    ):
        with pytest.raises(DataError, match=r"shard-000000.tar.not: .*(not found|no such).*check"):
            use(RangeReader(QUICK))


@pytest.mark.parametrize("url", ["pipe:cat /etc/passwd", "http://host/x.tar", "gs://bucket/x"])
def test_other_schemes_are_refused(url):
    with pytest.raises(ConfigError, match="only local paths and s3://"):
        RangeReader().read(url, 0, 1)


@pytest.mark.stores("moto")  # the fault changes what is signed
def test_a_store_that_ignores_ranges_gives_an_error_not_wrong_bytes(s3, proxy):
    put(s3)
    proxy.faults = lambda request: Fault("whole")
    with pytest.raises(DataError, match=f"{URL}: the whole object came.*ranged reads; copy"):
        RangeReader(QUICK).read(URL, 1000, 10)
    assert len(proxy.log) == 3
    with pytest.raises(DataError, match="the whole object came"):
        RangeReader(QUICK).read(URL, 0, 10)
    assert RangeReader(QUICK).read(URL, 0, len(DATA)) == DATA
    with pytest.raises(DataError, match="3000001 bytes"):
        RangeReader(QUICK).read(URL, 0, len(DATA) + 1)


@pytest.mark.stores("moto")
@pytest.mark.parametrize("kind", ["whole", "shifted"])
def test_a_wrong_answer_now_and_then(s3, proxy, kind):
    put(s3)
    proxy.faults = lambda request: Fault(kind) if request.number % 2 == 0 else None
    reader = RangeReader(QUICK)
    for start in (0, 77, 100_000):
        assert reader.read(URL, start, 5000) == DATA[start : start + 5000]


@pytest.mark.stores("moto")  # the fault changes what is signed
def test_other_bytes_than_asked_for_are_an_error_if_it_stays_so(s3, proxy):
    put(s3)
    proxy.faults = lambda request: Fault("shifted")
    with pytest.raises(DataError, match=f"{URL}: bytes 8 to 17 came, not those asked for"):
        RangeReader(QUICK).read(URL, 7, 10)


def test_an_s3_object_is_a_file(s3, proxy, tmp_path):
    names = [f"{i}.bin" for i in range(20)]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, name in enumerate(names):
            (tmp_path / name).write_bytes(DATA[i * 1000 : i * 1000 + 997])
            tar.add(tmp_path / name, name)
    s3.upload_file(str(tmp_path / "a.tar"), "faces", "a.tar")
    with store.open_file("s3://faces/a.tar") as file, tarfile.open(fileobj=file) as tar:
        for i in (19, 3, 0):
            assert tar.extractfile(names[i]).read() == DATA[i * 1000 : i * 1000 + 997]
        assert file.seek(0, os.SEEK_END) == (tmp_path / "a.tar").stat().st_size
        assert file.read() == b"" and file.seek(-3, os.SEEK_CUR) == file.tell()
        assert file.read(10) == b"\0\0\0"
    assert len([r for r in proxy.log if r.method == "GET"]) <= 4
