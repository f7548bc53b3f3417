"""Epochs without end through 2 % faults and outages, with kills and resumes on other world sizes.

VMCMC_SOAK_MINUTES (30) says how long. What it came through is printed, and written to
build/soak.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import webdataset

from vmcmc_dist.bench.fault_schedule import Fault, Schedule
from vmcmc_dist.data import DataConfig, open_manifest
from vmcmc_dist.data.order import EpochOrder
from vmcmc_dist.data.scan import write_index

BATCH = 96
WORLDS = (1, 2, 3, 4)
READER = Path(__file__).with_name("soak_reader.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def faces(shared_data, tmp_path) -> Path:
    """Real photos, 64x64, as a WebDataset of six tars with a block table."""
    folder = tmp_path / "faces"
    folder.mkdir()
    with tarfile.open(shared_data / "faces64" / "faces64.tar.gz") as archive:
        photos = [
            archive.extractfile(m).read()  # type: ignore[union-attr]
            for m in archive
            if m.name.endswith(".jpg")
        ]
    for s in range(6):
        with open(folder / f"{s}.tar", "wb") as file, webdataset.TarWriter(file, mtime=0) as tar:
            for i in range(s, len(photos), 6):
                tar.write({"__key__": f"{i:06d}", "jpg": photos[i]})
    write_index(str(folder))
    return folder


def reference(folder: Path) -> np.ndarray:
    """crc32 of every row's pixels, by Python's tarfile and the decoder alone."""
    sums = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                photo = archive.extractfile(member).read()  # type: ignore[union-attr]
                sums.append(zlib.crc32(simplejpeg.decode_jpeg(photo, "RGB")))
    return np.array(sums)


def read_notes(path: Path, local: int) -> np.ndarray:
    """Whole batches of one reader's notes: int64 [batches, local, 3]."""
    data = path.read_bytes() if path.exists() else b""
    whole = len(data) // (local * 24) * local * 24
    return np.frombuffer(data[:whole], dtype=np.int64).reshape(-1, local, 3)


class Account:
    """Every sample that was given and kept, against the order in closed form."""

    def __init__(self, counts: np.ndarray, sums: np.ndarray) -> None:
        cfg = DataConfig()
        self.sums, self.number, self.images = sums, len(sums), 0
        self.given: dict[int, np.ndarray] = {}
        self.settings = {"streams": cfg.streams, "shuffle_blocks": cfg.shuffle_blocks}
        self.counts, self.orders = counts, {}  # type: ignore[var-annotated]

    def keep(self, parts: list[np.ndarray]) -> int:
        """Take the batches that all readers finished; returns their number."""
        batches = min(len(part) for part in parts)
        if batches:
            notes = np.stack([part[:batches] for part in parts], 2).reshape(-1, 3)
            index, row, crc32 = notes[np.argsort(notes[:, 0])].T
            end = self.images + batches * BATCH
            assert index.tolist() == list(range(self.images, end)), "indices without gap or double"
            assert (crc32 == self.sums[row]).all(), "pixels are those of the row"
            for epoch in np.unique(index // self.number):
                here = index // self.number == epoch
                expected, _ = self.order(int(epoch)).rows(index[here] % self.number)
                assert (row[here] == expected).all(), "the order is that of the closed form"
                given = self.given.setdefault(int(epoch), np.zeros(self.number, dtype=np.int64))
                np.add.at(given, row[here], 1)
            self.images = end
        return batches

    def order(self, epoch: int) -> EpochOrder:
        if epoch not in self.orders:
            self.orders = {
                epoch: EpochOrder(self.counts, seed=11, epoch=epoch, **self.settings)  # type: ignore[arg-type]
            }
        return self.orders[epoch]


def outages(schedule: Schedule, began: float):
    """The schedule; and every 97 seconds, for 4 seconds, a store that refuses everything."""

    def faults(request):
        if (time.monotonic() - began) % 97 > 93:
            return Fault("status")
        return schedule(request)

    return faults


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.stores("swift")
def test_nothing_is_lost_or_doubled(faces, s3, proxy, tmp_path, capsys):
    minutes = float(os.environ.get("VMCMC_SOAK_MINUTES", "30"))
    for path in faces.iterdir():
        s3.upload_file(str(path), "faces", f"set/{path.name}")
    manifest = open_manifest("s3://faces/set")
    account = Account(manifest.blocks["count"], reference(faces))
    began = time.monotonic()
    proxy.faults = outages(Schedule.even(0.02, seed=5, stall_s=5.0), began)
    chance = random.Random(7)
    kills, idle, worlds = 0, 0, Counter()  # type: ignore[var-annotated]
    while time.monotonic() - began < 60 * minutes:
        world = chance.choice(WORLDS)
        worlds[world] += 1
        notes = [tmp_path / f"{kills}-{rank}.notes" for rank in range(world)]
        words = [str(world), str(BATCH), str(account.images)]
        readers = [
            subprocess.Popen(
                [sys.executable, str(READER), manifest.base, str(rank), *words, str(path)],
                stderr=open(tmp_path / "errors.txt", "ab"),
                cwd=ROOT,
            )
            for rank, path in enumerate(notes)
        ]
        deadline = time.monotonic() + chance.uniform(4, 40)
        while time.monotonic() < deadline and all(r.poll() is None for r in readers):
            time.sleep(0.1)
        died = [r.returncode for r in readers if r.poll() is not None]
        for reader in readers:
            reader.send_signal(signal.SIGKILL)
            reader.wait()
        assert not died, (tmp_path / "errors.txt").read_text()[-3000:]
        kept = account.keep([read_notes(path, BATCH // world) for path in notes])
        idle += not kept
        kills += world
        for path in notes:
            path.unlink(missing_ok=True)
    complete = [e for e in account.given if (e + 1) * account.number <= account.images]
    assert complete, "not even one epoch"
    for epoch in complete:
        assert (account.given[epoch] == 1).all(), f"epoch {epoch}: each sample once"
    figures = {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "epochs": len(complete),
        "samples": account.images,
        "processes_killed": kills,
        "resumes": sum(worlds.values()) - 1,
        "world_sizes": dict(sorted(worlds.items())),
        "killed_before_the_first_batch": idle,
        "requests": len(proxy.log),
        "faults": dict(Counter(e.done.split(" at ")[0] for e in proxy.log if e.done != "passed")),
    }
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "soak.json").write_text(json.dumps(figures, indent=1))
    with capsys.disabled():
        print(f"\nsoak: {json.dumps(figures)}")
    assert sum(figures["faults"].values()) > 0.01 * figures["requests"]
