"""A Ray head of its own: its ports, folder and token, beside any other Ray of the machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import vmcmc_dist

BIN = Path(sys.executable).parent
CONFIG = """\
data: {source: toy2d, density: gaussians}
energy: {net: mlp, width: 24, depth: 2, lr: 1e-3}
vae: {net: mlp, width: 24, depth: 2, latent_dim: 2, sigma: 0.3, lr: 1e-3, data_weight: 0.5}
langevin: {steps: 5, step_size: 0.2}
train: {images: 640, batch_size: 32, log_images: 320, sample_images: 12800,
        checkpoint_images: 320, precision: fp32}
resources: {threads: 1, cpus_per_worker: 1}
watch: {tensorboard: false}
"""


def free_ports(count: int) -> list[int]:
    taken = [socket.socket() for _ in range(count)]
    try:
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]
    finally:
        for one in taken:
            one.close()


class Head:
    """``ray start --head --block`` in a process group of its own, with token authentication."""

    def __init__(self, *more: str, cpus: int = 2):
        # short: Ray puts sockets into it, whose paths may have 107 letters
        self.folder = Path(tempfile.mkdtemp(prefix="rh"))
        self.token = self.folder / "token"
        self.token.write_text(secrets.token_hex(32))
        ports = free_ports(9)
        self.address = f"http://127.0.0.1:{ports[0]}"
        names = ("PYTHONPATH", "VMCMC_TEST_OF", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
        plain = {k: v for k, v in os.environ.items() if k not in names}
        plain |= {"RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{BIN}:{os.environ['PATH']}"}
        plain["HOME"] = str(self.folder)  # where no other token is
        self.environment = plain | {"RAY_AUTH_TOKEN_PATH": str(self.token)}
        options = {
            "port": ports[1], "dashboard-host": "127.0.0.1", "dashboard-port": ports[0],
            "ray-client-server-port": ports[2], "dashboard-agent-listen-port": ports[3],
            "dashboard-agent-grpc-port": ports[4], "metrics-export-port": ports[5],
            "runtime-env-agent-port": ports[6], "node-manager-port": ports[7],
            "object-manager-port": ports[8], "num-cpus": cpus, "temp-dir": self.folder / "r",
            "object-store-memory": 100_000_000,
        }  # fmt: skip
        words = [f"--{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [
                str(BIN / "ray"),
                "start",
                "--head",
                "--block",
                "--disable-usage-stats",
                *words,
                *more,
            ],
            stdout=(self.folder / "head.log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=self.environment | {"RAY_AUTH_MODE": "token"},
        )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            try:
                self.get("/api/jobs/")
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self.folder / "head.log").read_text())

    def get(self, path: str):
        """What the dashboard answers, with the token."""
        headers = {"Authorization": f"Bearer {self.token.read_text()}"}
        request = urllib.request.Request(self.address + path, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def close(self) -> None:
        """End it at once (a SIGTERM would drain it first), and whatever of it stands elsewhere."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def pids(self, word: str = "") -> list[int]:
        """Processes that carry this head's token file in their environment."""
        mark, found = f"RAY_AUTH_TOKEN_PATH={self.token}".encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if mark in (entry / "environ").read_bytes() and word in line:
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


class Desk:
    """A folder with a config and this package, and ``vmcmc`` run in it as a user of a head."""

    def __init__(self, folder: Path, head: Head):
        self.folder, self.head, self.out = folder / "work", head, folder / "out"
        package = Path(vmcmc_dist.__file__).parent
        shutil.copytree(
            package, self.folder / "vmcmc_dist", ignore=shutil.ignore_patterns("__pycache__")
        )
        (self.folder / "small.yaml").write_text(f"out: {self.out}\n" + CONFIG)

    def start(self, *words: str, shell: str = "", **environment: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "vmcmc_dist", *words]
        if words and words[0] in ("submit", "preflight"):
            command += ["--address", self.head.address]
            command += [] if "--python" in words else ["--python", sys.executable]
        return subprocess.Popen(
            ["bash", "-c", shell] if shell else command,
            cwd=self.folder,
            env=self.head.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *words: str, timeout: float = 120, **options: str) -> tuple[int, str, str]:
        """(exit status, stdout, stderr)"""
        process = self.start(*words, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(process.communicate()) from None
        assert "Traceback" not in err, err
        return process.returncode, out, err
