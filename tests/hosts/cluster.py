"""A Ray cluster over the hosts of a :class:`Network`, and jobs sent to it from outside."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.hosts.network import Host, Network

ROOT = Path(__file__).resolve().parents[2]
OBJECT_STORE = 80_000_000
PORT, DASHBOARD = 6379, 8265
SYSTEM = {
    "RAY_memory_monitor_refresh_ms": "0",  # the machine's memory is not ours alone
    "RAY_worker_niceness": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_prestart_worker_first_driver": "0",
    # a host that is cut off counts as dead after about 10 seconds, not 30
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
}


class Cluster:
    """A head without CPUs, and workers' hosts with one each."""

    def __init__(self, network: Network, workers: int, cpus: int = 1):
        self.network, self.cpus = network, cpus
        self.draining: list[Host] = []
        self.token = network.folder / "token"
        self.token.write_text(secrets.token_hex(32))
        self.token.chmod(0o600)
        self.environment = SYSTEM | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "DS_BUILD_OPS": "0",
        }
        self.head = network.add("head")
        self.hosts = [network.add(f"host{n}") for n in range(1, workers + 1)]
        self.address = f"http://{self.head.address}:{DASHBOARD}"
        for host in network.hosts:
            host.environment = self.environment
        self._started(self.head, self._start(self.head))
        starting = [self._start(host) for host in self.hosts]
        for host, process in zip(self.hosts, starting, strict=True):
            self._started(host, process)
        self.wait_for_nodes(workers + 1)

    # -- nodes ----------------------------------------------------------------------------------

    def start(self, host: Host) -> None:
        """``ray start`` on a host, until the cluster knows it."""
        self._started(host, self._start(host))
        wait_until(lambda: host.address in self.nodes(), 60, f"{host.name} among the nodes")

    def _start(self, host: Host) -> subprocess.Popen:
        own = ["--node-ip-address", host.address, "--object-store-memory", str(OBJECT_STORE)]
        if host is self.head:
            own += [
                "--head", "--port", str(PORT), "--num-cpus", "0",
                "--dashboard-host", host.address, "--dashboard-port", str(DASHBOARD),
            ]  # fmt: skip
        else:
            own += ["--address", f"{self.head.address}:{PORT}", "--num-cpus", str(self.cpus)]
        return subprocess.Popen(
            host.command(sys.executable, "-m", "ray.scripts.scripts", "start", *own),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | host.environment,
        )

    def _started(self, host: Host, process: subprocess.Popen) -> None:
        """Wait for it; once more if it failed: Ray gives a node 30 seconds, also on a full CPU."""
        output, _ = process.communicate(timeout=120)
        if process.returncode:
            self.stop(host)
            process = self._start(host)
            output, _ = process.communicate(timeout=120)
        if process.returncode:
            raise RuntimeError(f"ray start on {host.name}: {output[-3000:]}")

    def stop(self, host: Host) -> None:
        """Everything of Ray on a host ends at once."""
        while host.kill("ray"):
            time.sleep(0.1)

    def nodes(self) -> dict[str, str]:
        """Address → id of the nodes that are alive."""
        found = self._get("/nodes?view=summary")["data"]["summary"]
        return {
            node["ip"]: node["raylet"]["nodeId"]
            for node in found
            if node["raylet"].get("state") == "ALIVE"
        }

    def wait_for_nodes(self, count: int, timeout: float = 120) -> None:
        wait_until(lambda: len(self.nodes()) == count, timeout, f"{count} nodes")

    def drain(self, host: Host, seconds: int) -> None:
        """A spot notice: the host goes away after that long."""
        self.draining.append(host)
        self.head.run(
            sys.executable, "-m", "ray.scripts.scripts", "drain-node",
            "--address", f"{self.head.address}:{PORT}",
            "--node-id", self.nodes()[host.address],
            "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot notice",
            "--deadline-remaining-seconds", str(seconds),
        )  # fmt: skip

    def mend(self) -> None:
        """Ends all jobs, and mends the hosts."""
        for job in self._get("/api/jobs/"):
            if job["status"] in ("PENDING", "RUNNING"):
                self.head.kill("vmcmc_dist", "train")
        self.mend_hosts()
        wait_until(
            lambda: not any(host.processes("TrainWorker") for host in self.hosts), 60, "free hosts"
        )

    def mend_hosts(self) -> None:
        """Joins all cables, wakes what is stopped, starts Ray where it is gone or going."""
        going = [*self.draining, *self.network.cut_off]  # Ray finds out late, and ends them then
        for host in self.network.hosts:
            if host.name in self.network.cables:
                self.network.good(host)
            self.network.join(host)
            host.kill("ray::", signal_=signal.SIGCONT)
        for host in self.hosts:
            gone = host.address not in self.nodes() or not host.processes("raylet/raylet")
            if gone or host in going:
                self.restart(host)
        self.draining.clear()
        self.wait_for_nodes(len(self.network.hosts))

    def restart(self, host: Host) -> None:
        """Ray ends on a host, and starts anew."""
        self.stop(host)
        wait_until(lambda: host.address not in self.nodes(), 120, f"the loss of {host.name}")
        self.start(host)

    # -- jobs -----------------------------------------------------------------------------------

    def submit(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        """``ray job submit`` from outside of the cluster's hosts; the job's id."""
        job = f"job-{secrets.token_hex(4)}"
        runtime = json.dumps({"env_vars": dict(environment or {})})
        done = subprocess.run(
            [
                sys.executable, "-m", "ray.scripts.scripts", "job", "submit",
                "--address", self.address, "--submission-id", job, "--no-wait",
                "--runtime-env-json", runtime, "--",
                sys.executable, "-m", "vmcmc_dist", *words,
            ],
            capture_output=True, text=True, timeout=120, env=os.environ | self.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return job

    def stop_job(self, job: str) -> None:
        """``ray job stop`` from outside."""
        subprocess.run(
            [
                sys.executable, "-m", "ray.scripts.scripts", "job", "stop",
                "--address", self.address, "--no-wait", job,
            ],
            check=True, capture_output=True, timeout=120, env=os.environ | self.environment,
        )  # fmt: skip

    def status(self, job: str) -> str:
        return self._get(f"/api/jobs/{job}")["status"]

    def logs(self, job: str) -> str:
        return self._get(f"/api/jobs/{job}/logs")["logs"]

    def wait(self, job: str, timeout: float = 240) -> str:
        """The status that a job ends with."""
        ended = ("SUCCEEDED", "FAILED", "STOPPED")
        wait_until(lambda: self.status(job) in ended, timeout, f"the end of {job}")
        return self.status(job)

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"Bearer {self.token.read_text()}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


def wait_until(done: Callable[[], bool], timeout: float, what: str, pause: float = 0.5) -> float:
    """Seconds until ``done()``; AssertionError after ``timeout``."""
    started = time.monotonic()
    while time.monotonic() - started < timeout:
        if done():
            return time.monotonic() - started
        time.sleep(pause)
    raise AssertionError(f"no {what} within {timeout:g} s")


def memory(hosts: Sequence[Host]) -> int:
    """Bytes that the hosts' processes hold, shared pages counted once a sharer (PSS)."""
    total = 0
    for host in hosts:
        for pid in host.processes():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next(int(x.split()[1]) for x in text.splitlines() if x.startswith("Pss:"))
    return total * 1024
