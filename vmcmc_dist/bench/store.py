"""S3 servers on loopback, in processes of their own: they do not share our interpreter's lock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

import vmcmc_dist
from vmcmc_dist.bench.cores import pin
from vmcmc_dist.errors import ResourceError

READING = Path(__file__).with_name("store_process.py")
WRITING = Path(__file__).with_name("moto_process.py")


@dataclass(frozen=True)
class Store:
    """A running server: its bucket, and what a client's environment must say."""

    url: str
    process: psutil.Process

    def environment(self) -> Mapping[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }

    def cpu(self) -> float:
        """CPU seconds that it has taken so far."""
        times = self.process.cpu_times()
        return times.user + times.system


def serving(
    folder: Path, latency_s: float, cores: frozenset[int] = frozenset()
) -> AbstractContextManager[Store]:
    """Serve the files below ``folder`` as s3://bench/NAME, each request ``latency_s`` late, on
    these ``cores`` alone (empty = all)."""
    return _process(cores, READING, str(folder), str(latency_s))


def serving_s3(bucket: str, latency_s: float) -> AbstractContextManager[Store]:
    """A whole S3 server (moto's) with an empty bucket, each request ``latency_s`` late.

    Raises:
        ResourceError: moto is not installed.
    """
    if find_spec("moto") is None:
        raise ResourceError("the S3 server is moto's: pip install 'vmcmc-dist[dev]'")
    return _process(frozenset(), WRITING, bucket, str(latency_s))


@contextmanager
def _process(cores: frozenset[int], *words: str | Path) -> Iterator[Store]:
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={"PYTHONPATH": str(Path(vmcmc_dist.__file__).parents[1])},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        pin(process.pid, cores)
        url = process.stdout.readline().strip()
        if not url:
            raise ResourceError("the S3 server of the bench did not start; see above")
        yield Store(url, psutil.Process(process.pid))
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
