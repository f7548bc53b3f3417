"""The thread beside a worker: a train function that stands still is ended, and says where."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import sys, threading, time
from vmcmc_dist.engine.ray_worker import Watch

watch = Watch(hang_timeout=2.0, draining=False, missing=0, each={}, grow_after=0)

def stuck_in_here():
    threading.Event().wait()

for _ in range(30):
    watch.beat()
    time.sleep(0.1)
print("three seconds of beats", flush=True)
if sys.argv[1:] == ["ends"]:
    watch.close()
    time.sleep(4)
    sys.exit(0)
stuck_in_here()
"""


def run(tmp_path: Path, *words: str) -> tuple[int, str, str, float]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - started


def test_a_thread_that_is_stuck_ends_the_process_and_is_named(tmp_path: Path) -> None:
    status, out, err, _ = run(tmp_path)
    assert status == 1 and "three seconds of beats" in out
    assert "watch: no progress for" in err and "stuck_in_here" in err


def test_beats_keep_it_and_an_end_is_no_silence(tmp_path: Path) -> None:
    status, out, err, _ = run(tmp_path, "ends")
    assert status == 0 and err == ""
