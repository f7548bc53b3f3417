"""Freed memory stays with the process: no page faults the second time."""

from __future__ import annotations

import subprocess
import sys

from vmcmc_dist.langevin import memory

PROGRAM = """
import resource, runpy, sys
if sys.argv[1] == "keep":
    assert runpy.run_path(sys.argv[2])["keep_freed_memory"]()
def work():
    kept = [b"x" * 8_000_000 for _ in range(4)]
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    command = [sys.executable, "-c", PROGRAM, mode, memory.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_kept() -> None:
    assert faults("keep") < 1000 < faults("plain")
