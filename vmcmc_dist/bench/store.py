"""The process of an S3 server on loopback, so that it does not share our interpreter's lock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

import vmcmc_dist
from vmcmc_dist.bench.cores import pin
from vmcmc_dist.errors import ResourceError

SCRIPT = Path(__file__).with_name("store_process.py")


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


@contextmanager
def serving(folder: Path, latency_s: float, cores: frozenset[int] = frozenset()) -> Iterator[Store]:
    """Serve the files below ``folder`` as s3://bench/NAME, each request ``latency_s`` late, on
    these ``cores`` alone (empty = all)."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(latency_s)],
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
