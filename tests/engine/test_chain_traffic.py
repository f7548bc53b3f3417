"""Chains never communicate: counted by torch's profiler on the real loop of two workers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("chain_traffic.py")


@pytest.mark.parametrize(
    ("stages", "chatty"),
    [
        ("03", False),
        pytest.param("12", False, marks=pytest.mark.slow),
        pytest.param("0", True, marks=pytest.mark.slow, id="the count sees those that do"),
    ],
)
def test_no_collective_between_start_and_end_of_a_chain(
    tmp_path: Path, stages: str, chatty: bool
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    workers = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path), stages, *(["--chatty"] * chatty)],
            env=os.environ | world | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        for worker in workers:
            text = worker.communicate(timeout=200)[0]
            assert worker.returncode == 0, text[-3000:]
    finally:
        for worker in workers:
            worker.kill()
    for rank in (0, 1):
        found = json.loads((tmp_path / f"traffic-{rank}.json").read_text())
        assert set(found) == set(stages)
        for stage, counts in found.items():
            assert counts["chains"] == 3 and counts["outside"] > 0, (stage, counts)
            assert (counts["during"] > 0) == chatty, (stage, counts)
