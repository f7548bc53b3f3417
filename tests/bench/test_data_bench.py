"""The benchmarks of the data plane in miniature: what is measured is real, what is said is so."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.bench.cores import split_cores
from vmcmc_dist.bench.jpegs import jpegs_of, parse_size
from vmcmc_dist.bench.peers import OURS, PEERS, PeerRow, PeersBench, bench_peers
from vmcmc_dist.bench.readers import Reader, Variant
from vmcmc_dist.bench.shard_set import write_shards
from vmcmc_dist.bench.shuffle import bench_shuffle, epoch_rows, made_up_manifest, perfect, quality
from vmcmc_dist.bench.start import bench_start
from vmcmc_dist.bench.store import serving
from vmcmc_dist.bench.stream import BASE, CACHED, LOCAL, REMOTE, bench_stream
from vmcmc_dist.data import DataConfig, ShardStream, open_manifest
from vmcmc_dist.data.order import EpochOrder
from vmcmc_dist.errors import ConfigError, DataError, ResourceError


def jpeg(width: int, height: int, value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (value, 90, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


# -- the images -------------------------------------------------------------------------------


def test_files_of_the_size_are_read_as_they_are_else_larger_ones_cropped(tmp_path: Path) -> None:
    right, larger = jpeg(64, 48), jpeg(100, 80)
    (tmp_path / "a.jpg").write_bytes(right)
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("x/b.JPEG")
        info.size = len(larger)
        tar.addfile(info, io.BytesIO(larger))
    roots = [tmp_path, tmp_path / "b.tar.gz"]
    assert jpegs_of(64, 48, roots).files == (right,)
    cropped = jpegs_of(90, 70, roots)
    assert Image.open(io.BytesIO(cropped.files[0])).size == (90, 70) and len(cropped.files) == 1
    with pytest.raises(DataError, match="no colour JPEG of 200x200"):
        jpegs_of(200, 200, roots)
    drawn = jpegs_of(32, 24)
    assert Image.open(io.BytesIO(drawn.files[0])).size == (32, 24)
    assert len(set(drawn.files)) == len(drawn.files) and "drawn" in str(drawn)


def test_sizes_are_width_and_height() -> None:
    assert parse_size("481x321") == (481, 321)
    for wrong in ("481", "0x3", "x", "axb"):
        with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
            parse_size(wrong)


def test_shards_hold_the_very_bytes(tmp_path: Path) -> None:
    files = [jpeg(16, 16, value) for value in (10, 250)]
    manifest = write_shards(tmp_path, files, count=7, shards=3)
    assert [shard.count for shard in manifest.shards] == [3, 3, 1]
    assert open_manifest(str(tmp_path)) == manifest and manifest.shape == (3, 16, 16)
    with tarfile.open(tmp_path / "shard-00001.tar") as tar:
        member = tar.extractfile("00000003.jpg")
        assert member is not None and member.read() == files[1]


# -- readers in processes of their own --------------------------------------------------------


def variant(folder: Path, reader: str, **changes: object) -> Variant:
    values = {"name": reader, "reader": reader, "workers": 1, "data": str(folder / "shards")}
    return Variant(**{**values, "size": (16, 16), "batch": 4, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 16x16 in shards/."""
    folder = tmp_path_factory.mktemp("images")
    files = [jpeg(16, 16, 10 * i) for i in range(24)]
    write_shards(folder / "shards", files, 24, 4)
    return folder


def test_a_reader_gives_batches_without_end(images: Path, tmp_path: Path) -> None:
    one = Reader(variant(images, "webdataset"), tmp_path / "log.txt")
    try:
        assert one.open() > 0
        one.stop()
        assert one.process.poll() is None
        one.go_on()
        rate, cpu, beside = one.read(20, lambda: 0.0)  # more than an epoch
        assert rate > 0 and cpu >= 0 and beside == 0
        assert one.memory() > 0
    finally:
        one.close()
    assert one.process.poll() is not None


def test_a_reader_that_fails_says_why(images: Path, tmp_path: Path) -> None:
    one = Reader(variant(images, "ours", data=str(tmp_path)), tmp_path / "log.txt")
    try:
        with pytest.raises(ResourceError, match="no manifest.json and no .tar"):
            one.open()
    finally:
        one.close()


def test_streams_from_disk_s3_and_cache_beside_plain_decoding() -> None:
    said: list[str] = []
    bench = bench_stream(
        [(24, 16)], workers=[1], batch=8, mebibytes=0, rounds=1, seconds=0.05, starts=1,
        latency_s=0.005, progress=said.append,
    )  # fmt: skip
    assert said == ["24x16, 1 decode thread"]
    assert [row.source for row in bench.rows] == [BASE, LOCAL, REMOTE, CACHED]
    for row in bench.rows:
        assert row.images_s > 0 and row.overhead < 1 and row.first_s > 0
        assert (row.server_cores is not None) == (row.source in (REMOTE, CACHED))
    assert bench.rows[0].overhead == 0
    table = str(bench)
    assert "512 in all" in table and "5 ms of added latency" in table
    assert table.count("\n| 24x16 |") == 4 and "(target 10%)" in table
    assert bench.reader_cores == max(0, len(os.sched_getaffinity(0)) - 1)


def test_no_reader_runs_on_the_cores_of_the_server(images: Path, tmp_path: Path) -> None:
    readers_on, server_on = split_cores()
    if not server_on:
        pytest.skip("one core alone")
    assert not readers_on & server_on
    with serving(images, 0.0, server_on) as store:
        assert set(store.process.cpu_affinity()) == server_on
        one = Reader(variant(images, "ours", cores=readers_on), tmp_path / "log.txt")
        try:
            one.open()
            threads = [thread.id for thread in one._ps.threads()]
            assert len(threads) > 1
            assert all(os.sched_getaffinity(thread) == readers_on for thread in threads)
        finally:
            one.close()


def test_the_store_serves_ranges_of_one_version(images: Path, monkeypatch) -> None:
    from vmcmc_dist.data.storage.ranges import RangeReader

    with serving(images, latency_s=0.0) as store:
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        shard = images / "shards" / "shard-00000.tar"
        reader = RangeReader()
        got = reader.read("s3://bench/shards/shard-00000.tar", 512, 1000)
        assert got == shard.read_bytes()[512:1512]
        manifest = open_manifest("s3://bench/shards")
        cfg = DataConfig(source="shards", root="s3://bench/shards", cache_mb=0, workers=1)
        with ShardStream(manifest, cfg, seed=0, local_batch=24) as stream:
            assert sorted(next(stream).row.tolist()) == list(range(24))
        os.utime(shard, (1, 1))
        with pytest.raises(DataError, match="shard-00000.tar"):
            reader.read("s3://bench/shards/shard-00000.tar", 0, 512)
        with pytest.raises(DataError, match="nothing.tar"):
            reader.read("s3://bench/nothing.tar", 0, 512)
        assert store.cpu() > 0


def test_peers_are_named_with_who_is_ahead() -> None:
    bench = bench_peers(
        [(24, 16)], workers=[1], batch=8, mebibytes=0, rounds=1, seconds=0.05, starts=1,
        peers=[PEERS[0], PEERS[2], PEERS[5]],
    )  # fmt: skip
    assert [row.name for row in bench.rows] == [OURS, "webdataset", "PyTorch DataLoader, folder"]
    assert [row.decoder for row in bench.rows] == ["fast", "pillow", "fast"]
    assert bench.rows[0].ours_ahead == 1 and "left out; give --peers-venv" in str(bench)

    def row(name: str, images_s: float, first_s: float, memory_mb: float) -> PeerRow:
        return PeerRow("64x64", 2, name, "fast", images_s, 1.0, first_s, 0.1, memory_mb)

    rows = [row(OURS, 100, 0.2, 50), row("a", 90, 0.1, 60), row("b", 80, 0.3, 40)]
    made = PeersBench("machine", 64, 1, 1.0, [], [], rows)
    assert made.verdicts() == [
        "64x64, 2 workers: images/s: ours ahead; first batch: a (fast) ahead; "
        "memory: b (fast) ahead"
    ]


# -- start and order --------------------------------------------------------------------------


def test_start_reads_nothing_and_is_measured_in_a_new_process() -> None:
    bench = bench_start(shards=50, samples=100, sample_kib=(4, 600), rank=3, world_size=8, rounds=1)
    small, large = bench.rows
    assert small.blocks == 50 and large.blocks == 5000  # 128 samples of 4 KiB would fit a block
    for row in bench.rows:
        assert row.seconds > 0 and row.memory_mib >= 0
    assert "50 shards of 100 samples, reader 3 of 8" in str(bench)


def test_quality_of_a_random_permutation_is_that_of_the_formulas() -> None:
    """20 permutations against the closed form: each figure within 4 standard errors."""
    rng = np.random.default_rng(1)
    counts = rng.integers(3, 30, 400)
    number, batch = int(counts.sum()), 64
    classes = np.arange(number) * 7 // number
    found = [quality(rng.permutation(number), counts, classes, batch) for _ in range(20)]
    expected = perfect(counts, classes, batch)
    for name in expected.__dataclass_fields__:
        values = np.array([getattr(one, name) for one in found])
        error = values.std(ddof=1) / len(values) ** 0.5
        assert abs(values.mean() - getattr(expected, name)) < 4 * error + 1e-12, name


def test_quality_of_no_shuffle_at_all() -> None:
    counts = np.full(10, 8)
    classes = np.repeat([0, 1], 40)
    found = quality(np.arange(80), counts, classes, batch=8)
    assert (found.distance_mean, found.distance_median, found.closer_than_batch) == (1, 1, 1)
    assert found.serial_correlation == pytest.approx(1) and found.same_block == 1
    assert found.chi_square == pytest.approx(8)  # (8 − 4)²/4 + (0 − 4)²/4


def test_larger_windows_shuffle_better_and_cost_more() -> None:
    manifest = made_up_manifest(shards=20, samples=500, sample_bytes=16 << 10)
    assert manifest.num_samples == 10_000 and len(manifest.blocks) == 20 * 16
    bench = bench_shuffle(manifest, [(8, 1), (8, 8)], batch=128)
    narrow, wide = bench.rows
    assert wide.memory == 8 * narrow.memory
    assert wide.quality.same_block < narrow.quality.same_block
    assert wide.quality.chi_square < narrow.quality.chi_square
    order = EpochOrder(manifest.blocks["count"], seed=0, epoch=0, streams=8, shuffle_blocks=8)
    rows = epoch_rows(order, at_once=777)
    assert sorted(rows.tolist()) == list(range(10_000))
    assert quality(rows, manifest.blocks["count"].astype(np.int64),
                   np.arange(10_000) * 10 // 10_000, 128) == wide.quality  # fmt: skip
    assert f"| 8 | 8 | {wide.memory / 2**20:.0f} MiB |" in str(bench)
