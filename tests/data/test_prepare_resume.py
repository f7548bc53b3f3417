"""A preparation that is killed goes on where it was, and gives the same bytes."""

from __future__ import annotations

import dataclasses
import fcntl
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from vmcmc_dist.data import DataConfig, Manifest, ensure_prepared, open_manifest, prepare
from vmcmc_dist.data.file_lock import locked
from vmcmc_dist.errors import DataError, ResourceError


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """3,000 images of noise, slow enough to be interrupted."""
    path = tmp_path / "many.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (3000, 48, 48, 3), dtype=np.uint8))
    return path


def config(root: Path, out: Path, **changes) -> DataConfig:
    cfg = DataConfig(
        source="arrays", root=str(root), shards=str(out), shard_samples=10, prepare_workers=1
    )
    return dataclasses.replace(cfg, **changes)


def contents(manifest: Manifest) -> dict[str, bytes]:
    """Every file of a set by its name."""
    base = Path(manifest.base)
    return {p.relative_to(base).as_posix(): p.read_bytes() for p in base.rglob("*") if p.is_file()}


class Stop(Exception):
    """Thrown in the middle."""


def interrupted(cfg: DataConfig, after: int, **options) -> None:
    """Prepare until ``after`` samples are written."""

    def stop(stage: str, done: int, total: int) -> None:
        if done >= after:
            raise Stop

    with pytest.raises(Stop):
        prepare(cfg, stop, **options)


def started(root: Path, out: Path, until: int) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """``vmcmc data prepare`` with two workers, in a process group of its own, that has finished
    ``until`` shards; and its family.
    """
    words = ["data", "prepare", "arrays", "--root", str(root), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "vmcmc_dist", *words, "prepare_workers=2", "shard_samples=50"],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob(".preparing-*/*.json"))) < until and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    return process, family


def test_killed_and_run_again_it_is_as_if_never_killed(many, tmp_path):
    out = tmp_path / "out"
    process, family = started(many, out, until=6)
    os.kill(process.pid, signal.SIGKILL)  # the parent alone: its workers end by themselves
    process.communicate()
    assert not psutil.wait_procs(family, timeout=10)[1] and not (out / "manifest.json").exists()
    with pytest.raises(DataError, match="its preparation is not finished"):
        open_manifest(str(out))
    records = {p.stem for p in out.glob(".preparing-*/*.json")}
    stamps = {name: (out / f"{name}.tar").stat().st_mtime_ns for name in records}
    assert 6 <= len(stamps) < 60
    calls: list[tuple[str, int, int]] = []
    again = prepare(config(many, out, shard_samples=50), lambda *call: calls.append(call))
    assert calls[0] == ("shards", 50 * len(stamps), 3000)
    assert {n: (out / f"{n}.tar").stat().st_mtime_ns for n in records} == stamps
    whole = prepare(config(many, tmp_path / "whole", shard_samples=50))
    assert contents(again) == contents(whole) and again.num_samples == 3000


@pytest.mark.slow
@pytest.mark.parametrize("until", [1, 8])
def test_ctrl_c_ends_every_process_without_a_traceback(many, tmp_path, until):
    process, family = started(many, tmp_path / "out", until)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.communicate(timeout=20)[1] == "vmcmc: interrupted\n"
    assert process.returncode == 130 and not psutil.wait_procs(family, timeout=10)[1]


def test_interrupted_at_any_shard_it_gives_the_same_bytes(arrays, tmp_path):
    whole = contents(prepare(config(arrays, tmp_path / "whole")))
    for after in (10, 30, 45):
        cfg = config(arrays, tmp_path / str(after))
        interrupted(cfg, after)
        assert contents(prepare(cfg)) == whole


def test_a_shard_whose_record_or_end_is_missing_is_made_again(arrays, tmp_path):
    whole = contents(prepare(config(arrays, tmp_path / "whole")))
    cfg = config(arrays, tmp_path / "out")
    interrupted(cfg, 40)
    records = sorted((tmp_path / "out").glob(".preparing-*/*.json"))
    records[0].unlink()
    records[1].write_text('{"first": 10,')
    (tmp_path / "out" / "shard-000002.tar").write_bytes(b"torn")
    (tmp_path / "out" / "shard-000003.tar").unlink()
    assert contents(prepare(cfg)) == whole


def test_other_numbers_of_samples_do_not_mix(arrays, tmp_path):
    """A record of other samples than the plan's is not believed."""
    cfg, other = (config(arrays, tmp_path / n, shard_samples=s) for n, s in (("a", 10), ("b", 7)))
    interrupted(cfg, 10)
    interrupted(other, 14)
    for path in (tmp_path / "b").rglob("shard-000001.*"):
        to = next((tmp_path / "a").glob(".prep*-*")) if path.suffix == ".json" else tmp_path / "a"
        shutil.copy(path, to)
    assert contents(prepare(cfg)) == contents(prepare(config(arrays, tmp_path / "whole")))


def test_leftovers_of_other_settings_are_named_and_swept_on_request(arrays, tmp_path):
    out = tmp_path / "out"
    interrupted(config(arrays, out), 20)
    other = config(arrays, out, limit=25)
    with pytest.raises(DataError, match=r"unfinished.*other.*\.preparing-.*--restart"):
        prepare(other)
    assert len(list(out.glob("*.tar"))) == 2, "nothing may be lost by that"
    (out / "notes.txt").write_text("mine")
    assert prepare(other, restart=True).num_samples == 25
    assert sorted(p.name for p in out.iterdir()) == [
        "index.npy", "manifest.json", "notes.txt",
        "shard-000000.tar", "shard-000001.tar", "shard-000002.tar",
    ]  # fmt: skip


def test_restart_deletes_nothing_where_no_preparation_was(tmp_path, arrays):
    out = tmp_path / "out"
    out.mkdir()
    (out / "shard-000000.tar").write_bytes(b"somebody's")
    with pytest.raises(DataError, match="not a prepared data set"):
        prepare(config(arrays, out), restart=True)
    assert (out / "shard-000000.tar").read_bytes() == b"somebody's"


def test_two_at_once_into_one_folder(arrays, tmp_path):
    cfg = config(arrays, tmp_path / "out")

    def meanwhile(stage: str, done: int, total: int) -> None:
        with pytest.raises(ResourceError, match="another process is preparing it"):
            prepare(cfg)
        raise Stop

    with pytest.raises(Stop):
        prepare(cfg, meanwhile)
    assert prepare(cfg).num_samples == 45
    assert not list((tmp_path / "out").glob(".prep*"))


def test_a_lock_goes_with_its_process(tmp_path):
    """A second process waits for the first, and has the lock when that one is killed."""
    path = tmp_path / "lock"
    code = (
        "import fcntl, sys, time\nfile = open(sys.argv[1], 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(ResourceError, match="in the way"):
        with locked(path, wait=False, what="in the way"):
            pass
    process.kill()
    with locked(path, wait=True, what="in the way"):
        assert path.exists()
    process.communicate()
    assert not path.exists()


def test_a_lock_file_that_its_holder_removed_is_not_held(tmp_path, monkeypatch):
    """Opened before the holder removed it, locked after: another would find no file to lock."""
    path, flock = tmp_path / "lock", fcntl.flock

    def removed_just_before(handle: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", removed_just_before)
    with locked(path, wait=False, what="in the way"):
        with pytest.raises(ResourceError, match="in the way"):
            with locked(path, wait=False, what="in the way"):
                pass


def test_nothing_is_left_of_a_preparation_that_finished_no_shard(tmp_path):
    root = tmp_path / "raw"
    root.mkdir()
    (root / "a.png").write_bytes(b"no picture")
    cfg = DataConfig(source="folder", root=str(root), shards=str(tmp_path / "out"), image_size=8)
    with pytest.raises(DataError, match="none of its 1 images|do not decode"):
        ensure_prepared(cfg)


def test_a_folder_that_may_not_be_written(arrays, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file.*another data.shards"):
        prepare(config(arrays, tmp_path / "file"))
    with pytest.raises(DataError, match="file.*another data.shards"):
        prepare(config(arrays, tmp_path / "file" / "below"))


def test_a_shard_that_cannot_be_written_to_its_end(tmp_path, capsys):
    """The kernel refuses to let a file grow; the shards before it are kept."""
    path = tmp_path / "a.npy"
    images = np.zeros((40, 64, 64, 3), dtype=np.uint8)
    images[30:] = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3))
    np.save(path, images)
    cfg = config(path, tmp_path / "out", format="png")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    try:
        with pytest.raises(ResourceError, match="out: cannot be written.*run the same command"):
            prepare(cfg)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    gc.collect()
    assert capsys.readouterr().err == ""
    left = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert left == [f"shard-00000{i}.{e}" for i in range(3) for e in ("json", "tar")]
    assert prepare(cfg).num_samples == 40
