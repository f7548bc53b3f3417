"""What a preparation has finished so far, kept beside its shards until the manifest is written.

OUT/shard-000007.tar                       a finished shard, whole
OUT/.preparing-KEY/shard-000007.json       its record: samples, count, sha256, blocks, bad ones

A shard counts only if its record is there, and a record is written after its shard. The folder of
records goes when manifest.json, which makes the set complete, is there.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vmcmc_dist.data import store
from vmcmc_dist.data.index import DTYPE
from vmcmc_dist.data.shard_info import ShardInfo
from vmcmc_dist.errors import DataError, ResourceError

PREFIX = ".preparing-"
LOCK = ".preparing.lock"
SHARD = re.compile(r"shard-\d{6,}\.tar")
THREADS = 16  # records of a bucket are read side by side


@dataclass(frozen=True)
class Written:
    """Shard ``name`` of samples [first, stop): its record for the manifest, its blocks (DTYPE [K]),
    the samples that did not decode, and how many images were smaller than the size asked for.
    """

    name: str
    first: int
    stop: int
    info: ShardInfo
    blocks: np.ndarray
    bad: tuple[str, ...] = ()
    small: int = 0

    def to_json(self) -> bytes:
        """The content of its record."""
        blocks = [[int(n) for n in row] for row in self.blocks[list(DTYPE.names or ())].tolist()]
        return json.dumps({**asdict(self), "blocks": blocks}).encode()

    @staticmethod
    def from_json(text: bytes) -> Written:
        """Read a record; raises ValueError, KeyError or TypeError if it is none."""
        record = json.loads(text)
        blocks = np.array([tuple(row) for row in record["blocks"]], dtype=DTYPE)
        return Written(
            str(record["name"]),
            int(record["first"]),
            int(record["stop"]),
            ShardInfo(**record["info"]),
            blocks,
            tuple(record["bad"]),
            int(record["small"]),
        )


class Unfinished:
    """The records of one preparation (by its key) into one folder or s3:// prefix."""

    def __init__(self, out: str, key: str) -> None:
        self.out, self.folder = out, f"{PREFIX}{key[:12]}"

    def begin(self) -> None:
        """Make the place for records."""
        if not store.is_remote(self.out):
            with errors_of_writing(self.out):
                (Path(self.out).expanduser() / self.folder).mkdir(parents=True, exist_ok=True)

    def keep(self, written: Written) -> None:
        """Record a shard that lies in its place."""
        with errors_of_writing(self.out):
            store.write_bytes(self._record(written.name), written.to_json())

    def finished(self) -> dict[str, Written]:
        """Shard's name → its record, of shards that are there in their full length."""
        files = store.list_files(self.out, missing_ok=True)
        names = [n for n in files if n.startswith(f"{self.folder}/") and n.endswith(".json")]
        with ThreadPoolExecutor(THREADS) as pool:
            contents = pool.map(lambda name: store.read_bytes(store.join(self.out, name)), names)
            records = [_read(content) for content in contents]
        return {
            r.name: r
            for r in records
            if r is not None
            and (not r.info.count or files.get(r.name, (-1, ""))[0] == r.info.bytes)
        }

    def others(self) -> list[str]:
        """Folders of records here that belong to other preparations."""
        tops = {name.split("/", 1)[0] for name in store.list_files(self.out, missing_ok=True)}
        if not store.is_remote(self.out) and Path(self.out).expanduser().is_dir():
            tops |= {path.name for path in Path(self.out).expanduser().glob(f"{PREFIX}*")}
        return sorted(t for t in tops if t.startswith(PREFIX) and t != self.folder)

    def sweep(self) -> None:
        """Delete what unfinished preparations left here: records and shards, nothing else."""
        names = list(store.list_files(self.out, missing_ok=True))
        if any(name.startswith(PREFIX) for name in names):
            _delete(self.out, [n for n in names if n.startswith(PREFIX) or SHARD.fullmatch(n)])
        if not store.is_remote(self.out):
            for folder in Path(self.out).expanduser().glob(f"{PREFIX}*"):
                shutil.rmtree(folder)

    def end(self) -> None:
        """Delete the records: the manifest holds them now."""
        if store.is_remote(self.out):
            names = [
                n
                for n in store.list_files(self.out, missing_ok=True)
                if n.startswith(f"{self.folder}/")
            ]
            _delete(self.out, names)
        else:
            shutil.rmtree(Path(self.out).expanduser() / self.folder, ignore_errors=True)

    def end_if_empty(self) -> None:
        """Leave no trace of a preparation that finished no shard."""
        if store.is_remote(self.out) or self.finished():
            return
        self.end()
        out = Path(self.out).expanduser()
        if not any(path.name != LOCK for path in out.iterdir()):
            (out / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # somebody put a file there just now
                out.rmdir()

    def _record(self, shard: str) -> str:
        return store.join(self.out, f"{self.folder}/{shard.removesuffix('.tar')}.json")


def is_unfinished(names: list[str]) -> bool:
    """True if among a folder's files there are records of a preparation."""
    return any(name.startswith(PREFIX) and name != LOCK for name in names)


@contextmanager
def errors_of_writing(path: str) -> Iterator[None]:
    """Turn what goes wrong as ``path`` is written into errors that say what to do."""
    try:
        yield
    except PermissionError:
        raise DataError(
            f"{path}: permission denied; make it writable, or give another data.shards"
        ) from None
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"{path}: a file is in the way; give another data.shards") from None
    except OSError as error:
        raise ResourceError(
            f"{path}: cannot be written ({error.strerror or error}); free some space, or set "
            "data.shards or VMCMC_CACHE to another disk. Finished shards are kept: run the same "
            "command again to go on"
        ) from None


def _read(content: bytes) -> Written | None:
    """A record; None for one that is torn, whose shard is then made again."""
    try:
        return Written.from_json(content)
    except (ValueError, KeyError, TypeError):
        return None


def _delete(out: str, names: list[str]) -> None:
    with ThreadPoolExecutor(THREADS) as pool, errors_of_writing(out):
        for _ in pool.map(lambda name: store.delete(store.join(out, name)), names):
            pass
