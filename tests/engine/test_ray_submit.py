"""Jobs of a real Ray head that asks for a token: submitted, followed, refused, tried again."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from vmcmc_dist.engine import ray_dashboard
from vmcmc_dist.engine.ray_dashboard import connect, dashboard_address
from vmcmc_dist.engine.ray_submit import plan
from vmcmc_dist.engine.versions import versions_here
from vmcmc_dist.errors import ConfigError, ResourceError


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What connecting leaves in the environment goes with the test."""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def answers(*bodies: bytes) -> tuple[str, http.server.HTTPServer]:
    """A server that gives these bodies in turn, and its address."""
    left = list(bodies)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(left.pop(0) if len(left) > 1 else left[0])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}", server


def test_addresses() -> None:
    assert dashboard_address("head") == "http://head:8265"
    assert dashboard_address("https://ray.example.org/cluster/") == (
        "https://ray.example.org/cluster"
    )
    assert dashboard_address("[::1]:99") == "http://[::1]:99"
    for wrong in ("auto", "ray://head:10001", "http://", "http://head:port"):
        with pytest.raises(ConfigError, match="kubectl port-forward"):
            dashboard_address(wrong)
    with pytest.raises(ConfigError, match="no user or password"):
        dashboard_address("http://me:hidden@head")


def test_nobody_at_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ResourceError, match="no Ray cluster at .*refused.*--address"):
            connect(address)
    with pytest.raises(ResourceError, match="no Ray cluster at"):
        connect("http://no-such-host.invalid:8265")


def test_an_address_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_dashboard, "PATIENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(ResourceError, match="no answer in 0.5 s"):
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_something_else_at_the_address() -> None:
    address, server = answers(b"<html>hello</html>")
    with pytest.raises(ResourceError, match="is no Ray dashboard"):
        connect(address)
    server.shutdown()


def test_another_ray_on_the_cluster() -> None:
    version = json.dumps({"version": "4", "ray_version": "2.55.1"}).encode()
    address, server = answers(b'{"authentication_mode": "disabled"}', version)
    with pytest.raises(ResourceError, match=r"runs Ray 2\.55\.1.*pip install 'ray\[.*==2\.55\.1'"):
        connect(address)
    server.shutdown()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "a b").mkdir()
    path = tmp_path / "a b" / "it's.yaml"
    path.write_text(
        f"out: {tmp_path}/out\ndata: {{source: toy2d}}\nenergy: {{net: mlp}}\nvae: {{net: mlp}}\n"
    )
    return path


def test_a_plan_quotes_what_is_odd(small: Path) -> None:
    job = plan(
        str(small), ["name=my run", "watch.wandb=a'b$(c)"], working_dir=str(small.parents[1])
    )
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {job.entrypoint}"], capture_output=True, text=True
    ).stdout.splitlines()
    assert words == [
        "python", "-m", "vmcmc_dist", "train", "a b/it's.yaml", "name=my run",
        "watch.wandb=a'b$(c)", "resources.address=auto",
    ]  # fmt: skip
    assert re.fullmatch(r"my_run-[0-9a-f]{6}", job.submission_id)
    assert json.loads(job.runtime_env["env_vars"]["VMCMC_SUBMITTED_WITH"])["python"] == (
        versions_here().python
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["langevin.stepz=3"], "steps"),
        (["resources.address=10.0.0.1:6379"], "as --address"),
        (["launcher=local"], "launcher=ray"),
        (["out=runs"], "absolute path of a folder that all nodes share"),
        (["data.root=faces"], "data.root=faces would lie"),
        (["watch.mlflow=https://me:hidden@host"], "holds a password"),
    ],
)
def test_what_would_fail_there_is_refused_here(small, settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan(str(small), settings, working_dir=str(small.parent))
    assert said in str(error.value) and "hidden" not in str(error.value)


def test_a_config_outside_the_working_directory(small: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="lies outside the working directory"):
        plan(str(small), working_dir=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="is not a folder"):
        plan(str(small), working_dir=str(tmp_path / "nowhere"))


def test_no_token_and_a_wrong_one(desk) -> None:
    for token, said in (("", "asks for a token"), ("wrong-token" * 4, "refuses this token")):
        status, out, err = desk(
            "submit", "small.yaml", RAY_AUTH_TOKEN_PATH="", RAY_AUTH_TOKEN=token
        )
        assert status == 2 and said in err and "RAY_AUTH_TOKEN_PATH" in err, out + err
        assert "wrong-token" not in out + err


@pytest.mark.slow
def test_the_plain_command_does_the_same(desk) -> None:
    status, command, err = desk("submit", "small.yaml", "name=plain", "--dry-run", "--follow")
    assert status == 0 and "ray job submit" in command, err
    status, out, err = desk(shell=command)
    assert status == 0, out + err
    assert "pre-flight of plain" in out and "done at 640 images" in out
    assert (desk.out / "plain" / "checkpoints" / "000000640").exists()
    jobs = [job for job in desk.head.get("/api/jobs/") if job["metadata"].get("vmcmc_run")]
    assert f"{desk.out}/plain" in [job["metadata"]["vmcmc_run"] for job in jobs]
    assert desk.head.token.read_text() not in json.dumps(jobs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["resources.workers=8"], "room for 2: set resources.workers=2 or fewer"),
        (["resources.device=cuda"], "there are no GPUs"),
        (["resources.cpus_per_worker=3"], "no machine has 3 CPUs"),
        (["out=s3://no-such-bucket-here/runs"], "bucket"),
        (["out=/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_what_a_cluster_cannot_do_is_said_within_a_minute(desk, settings, said) -> None:
    began = time.monotonic()
    status, out, err = desk("submit", "small.yaml", "name=bad", *settings, "--follow")
    assert status == 2 and said in out, out + err
    assert "Traceback" not in out
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_other_versions_where_it_was_submitted(desk) -> None:
    _, command, _ = desk("submit", "small.yaml", "name=old", "--dry-run", "--follow")
    mine = versions_here().python
    changed = command.replace(f'\\"python\\":\\"{mine}', '\\"python\\":\\"3.9.1', 1)
    assert changed != command
    status, out, err = desk(shell=changed)
    assert status == 1 and "use an image with Python 3.9" in out and "cannot run old" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "said"),
    [("/usr/bin/python3", "has no module"), ("/no/such/python", "no such interpreter")],
)
def test_an_image_that_lacks_the_package(desk, python: str, said: str) -> None:
    """Told even without --follow: the start of a job is watched."""
    status, out, err = desk("submit", "small.yaml", "name=bare", "--python", python)
    assert status != 0 and said in err and "--python" in err, out + err


@pytest.mark.slow
def test_an_environment_that_ray_cannot_make(desk) -> None:
    (desk.folder / "cluster").mkdir()
    (desk.folder / "cluster" / "runtime_env.yaml").write_text("conda: no-such-environment\n")
    status, out, err = desk("submit", "small.yaml", "name=env")
    assert status == 1 and "could not set up its environment" in err, out + err


@pytest.mark.slow
def test_a_killed_driver_is_submitted_again_and_the_run_goes_on(desk) -> None:
    long = ("name=long", "train.images=200000", "resources.preflight=none")
    process = desk.start("submit", "small.yaml", *long, "--follow", "--retries", "1")
    checkpoints, until = desk.out / "long" / "checkpoints", time.monotonic() + 120
    while not list(checkpoints.glob("0*")) and time.monotonic() < until:
        time.sleep(0.2)
    status, _, err = desk("submit", "small.yaml", "name=long")
    assert status == 2 and "already trains" in err and "ray job stop" in err, err
    drivers = [p for p in desk.head.pids("vmcmc_dist train") if is_python(p)]
    os.kill(drivers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert "submitted again as" in err and "-try2" in err, out + err
    assert "going on from" in out and process.returncode == 0 and "done at 200,000" in out


def is_python(pid: int) -> bool:
    return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]


@pytest.mark.slow
def test_a_full_pre_flight_sums_over_the_ranks(desk) -> None:
    status, out, err = desk("preflight", "small.yaml", "name=full", "resources.workers=2")
    assert status == 0, out + err
    for said in ("0–1 on", "64 MiB", "GB/s", "ready after"):
        assert said in out, out
    assert not (desk.out / "full").exists() and not list(desk.out.glob(".preflight*"))
