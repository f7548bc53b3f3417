"""A spot notice becomes a drain: the clouds' protocols on loopback, and a real Ray node."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HOW_IT_ENDED = """
import sys, time
from ray._raylet import GcsClient
from ray.core.generated.common_pb2 import NodeDeathInfo
from ray.core.generated.gcs_pb2 import GcsNodeInfo

client, until = GcsClient(address=sys.argv[1]), time.monotonic() + 20
while time.monotonic() < until:
    (node,) = client.get_all_node_info().values()
    if node.state == GcsNodeInfo.DEAD:
        print(NodeDeathInfo.Reason.Name(node.death_info.reason), node.death_info.reason_message)
        break
    time.sleep(0.2)
"""


def in_seconds(seconds: float) -> str:
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})


def later(seconds: float, what: Any) -> None:
    timer = threading.Timer(seconds, what)
    timer.daemon = True
    timer.start()


def test_ec2_notice_is_seen_and_says_how_long_is_left(clouds: Any, spot_notice: ModuleType) -> None:
    later(0.3, lambda: setattr(clouds, "action", in_seconds(110)))
    notice = spot_notice.watch_aws(clouds.url, every=0.05)
    assert notice.action == "terminate"
    assert 100 < notice.seconds <= 111
    assert clouds.asked[0] == "/latest/api/token" and clouds.handed_out == 1
    assert len(clouds.asked) > 3  # it asked on while nothing was planned


def test_ec2_token_that_runs_out_is_renewed(clouds: Any, spot_notice: ModuleType) -> None:
    later(0.2, clouds.tokens.clear)
    later(0.4, lambda: setattr(clouds, "action", in_seconds(60)))
    assert spot_notice.watch_aws(clouds.url, every=0.05).action == "terminate"
    assert clouds.handed_out == 2


def test_outage_of_the_service_is_told_once_and_outlived(
    clouds: Any, spot_notice: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    later(0.2, lambda: setattr(clouds, "broken", True))
    later(0.4, lambda: setattr(clouds, "broken", False))
    later(0.6, lambda: setattr(clouds, "action", in_seconds(60)))
    assert spot_notice.watch_aws(clouds.url, every=0.02).action == "terminate"
    said = capsys.readouterr().out
    assert said.count("does not answer") == said.count("answers again") == 1


def test_notice_of_another_form_is_taken_at_the_usual_time(
    clouds: Any, spot_notice: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    clouds.action = '{"instance-action": "none of the kind"}'
    assert spot_notice.watch_aws(clouds.url, every=1).seconds == 120
    assert "another form" in capsys.readouterr().out


def test_compute_engine_notice_wakes_the_question(clouds: Any, spot_notice: ModuleType) -> None:
    later(0.4, clouds.preempt)
    begun = time.monotonic()
    notice = spot_notice.watch_gcp(clouds.url, every=5)
    assert (notice.action, notice.seconds) == ("preempted", 30)
    assert time.monotonic() - begun < 0.9  # neither a poll of 5 s nor the wait's own end
    assert len(clouds.asked) == 2 and "last_etag=1" in clouds.asked[1]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(__file__).parents[2] / "cluster/spot_notice.py"
    return subprocess.run(
        [sys.executable, str(program), *words],
        capture_output=True, text=True, timeout=60, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_no_metadata_service_is_said_at_once(cloud: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = run(cloud, "--metadata", url, "--node-id", "00ff")
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: no metadata service of") and "Traceback" not in done.stderr
    )


def test_raylets_are_read_off_their_command_lines(tmp_path: Path, spot_notice: ModuleType) -> None:
    def process(pid: int, *words: str) -> None:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes("\0".join([*words, ""]).encode())

    (tmp_path / "self").mkdir()
    process(1, "/sbin/init")
    process(2)
    process(7, "/x/ray/core/raylet", "--node_id=ab12", "--gcs-address=10.0.0.1:6379", "--head")
    process(8, "bash", "-c", "raylet --node_id=cd34 --gcs-address=no")
    found = list(spot_notice.raylets(tmp_path))
    assert found == [spot_notice.Raylet(7, "ab12", "10.0.0.1:6379")]


def test_no_ray_node_here_is_said(clouds: Any) -> None:
    clouds.action = in_seconds(1)
    done = run("aws", "--metadata", clouds.url, "--node-id", "00ff")
    assert done.returncode == 1
    assert "not drained: no such Ray node on this machine" in done.stdout
    ended = run("now", "--node-id", "00ff", "--seconds", "60")  # a pod whose Ray is gone already
    assert ended.returncode == 0 and "nothing to drain" in ended.stdout


class Node:
    """A Ray of one node, with token authentication, its own ports and its own folder."""

    def __init__(self, folder: Path, spot_notice: ModuleType):
        self.folder = folder
        token = folder / "token"
        token.write_text(secrets.token_hex(16))
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        subprocess.run(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}",
                "--num-cpus=1", "--object-store-memory=80000000", f"--temp-dir={folder}/ray",
                "--include-dashboard=false", "--disable-usage-stats",
            ],
            env=os.environ | self.environment, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        (self.raylet,) = [
            raylet for raylet in spot_notice.raylets() if raylet.address.endswith(f":{port}")
        ]

    def how_it_ended(self) -> str:
        """What the control store says of the node's end; asked by a process with the token."""
        return subprocess.run(
            [sys.executable, "-c", HOW_IT_ENDED, self.raylet.address],
            env=os.environ | self.environment, check=True, stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip

    def end(self) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(self.folder).encode() in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except (OSError, ProcessLookupError):
                continue


@pytest.fixture
def node(spot_notice: ModuleType) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="spot", ignore_cleanup_errors=True) as folder:
        started = Node(Path(folder), spot_notice)
        try:
            yield started
        finally:
            started.end()


def test_a_notice_drains_the_ray_node_of_this_machine(clouds: Any, node: Node) -> None:
    clouds.action = in_seconds(100)
    done = run(
        "aws", "--metadata", clouds.url, "--address", node.raylet.address, **node.environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"node {node.raylet.node_id} of {node.raylet.address} drains" in done.stdout
    ended = node.how_it_ended()  # a drained node without work ends by itself
    assert ended.startswith("AUTOSCALER_DRAIN_PREEMPTED") and "spot notice: terminate" in ended
