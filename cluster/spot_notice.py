"""A spot notice becomes a Ray drain: the run saves, and goes on elsewhere, before the node is gone.

    python spot_notice.py aws          # watch EC2's metadata service, drain once, end
    python spot_notice.py gcp          # watch Compute Engine's
    python spot_notice.py now --seconds 60    # no notice needed: drain, wait (preStop of a pod)

EC2 gives two minutes (``spot/instance-action``), Compute Engine 30 seconds
(``instance/preempted``). Ray itself asks neither. The node to drain is that of the raylet that
runs on this machine; its id and its cluster's address stand in the raylet's own command line, so
nothing has to be known when the watch begins, and Ray may be restarted under it.

The standard library alone, so that it runs wherever Ray's own Python is.
Exit status: 0 drained, 1 the drain failed, 2 what was asked cannot be done here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

AWS = "http://169.254.169.254"
GCP = "http://metadata.google.internal"
AWS_SECONDS = 120.0
GCP_SECONDS = 30.0
"""From Compute Engine's notice to the end; it names no time."""


class CannotWatch(Exception):
    """What the user has to mend; exit status 2."""


@dataclass(frozen=True)
class Notice:
    """What the cloud will do, and in how many seconds."""

    action: str
    seconds: float


@dataclass(frozen=True)
class Raylet:
    """A Ray node of this machine: process, id (hex), address of its cluster's control store."""

    pid: int
    node_id: str
    address: str


def say(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}", flush=True)


def raylets(proc: Path = Path("/proc")) -> Iterator[Raylet]:
    """The raylets that run here."""
    for path in proc.glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # that process ended meanwhile, or is another user's
            continue
        flags = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        if Path(words[0]).name == "raylet" and {"--node_id", "--gcs-address"} <= set(flags):
            yield Raylet(int(path.parent.name), flags["--node_id"], flags["--gcs-address"])


def this_node(address: str | None, node_id: str | None) -> Raylet:
    """The one raylet that is meant.

    Raises:
        CannotWatch: there are several, and neither address nor id tells them apart.
        LookupError: there is none (yet).
    """
    here = list(raylets())
    found = [
        raylet
        for raylet in here
        if address in (None, raylet.address) and node_id in (None, raylet.node_id)
    ]
    if not found:
        others = ", ".join(f"{raylet.node_id} at {raylet.address}" for raylet in here)
        raise LookupError("no such Ray node on this machine" + (f", but {others}" if here else ""))
    if len(found) > 1:
        known = ", ".join(f"{raylet.node_id} at {raylet.address}" for raylet in found)
        raise CannotWatch(f"several Ray nodes on this machine ({known}): give --node-id")
    return found[0]


def drain(raylet: Raylet, notice: Notice) -> str | None:
    """Ask Ray to drain the node; None, or why it did not."""
    done = subprocess.run(
        [
            sys.executable, "-m", "ray.scripts.scripts", "drain-node",
            "--address", raylet.address,
            "--node-id", raylet.node_id,
            "--reason", "DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message", f"spot notice: {notice.action}",
            "--deadline-remaining-seconds", str(max(0, int(notice.seconds))),
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode == 0:
        return None
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"ray drain-node ended with status {done.returncode}"


def drain_before(notice: Notice, address: str | None, node_id: str | None) -> Raylet | None:
    """Drain this node, trying again until the notice's end; the node, or None if it failed."""
    end = time.monotonic() + notice.seconds
    while True:
        left = Notice(notice.action, end - time.monotonic())
        why: str | None
        try:
            raylet = this_node(address, node_id)
            why = drain(raylet, left)
        except LookupError as error:
            why = str(error)
        else:
            if why is None:
                say(f"node {raylet.node_id} of {raylet.address} drains, {left.seconds:.0f} s left")
                return raylet
        say(f"not drained: {why}")
        if time.monotonic() + 1 > end:
            return None
        time.sleep(1)


class Metadata:
    """A metadata service: a request, and what to do while it does not answer."""

    def __init__(self, url: str, cloud: str):
        self.url, self.cloud = url.rstrip("/"), cloud
        self.silent = False

    def request(
        self, path: str, headers: dict[str, str], method: str = "GET", timeout: float = 5
    ) -> tuple[str, dict[str, str]]:
        """(body, headers in lower case); ``HTTPError`` for any other status than 200."""
        asked = urllib.request.Request(self.url + path, method=method, headers=headers)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(asked, timeout=timeout) as answer:
            named = {key.lower(): value for key, value in answer.headers.items()}
            return answer.read().decode(), named

    def first_contact(self, error: OSError) -> CannotWatch:
        return CannotWatch(f"no metadata service of {self.cloud} at {self.url}: {error}")

    def fell_silent(self, error: OSError) -> None:
        if not self.silent:
            say(f"{self.url} does not answer ({error}); asking on")
        self.silent = True

    def answers(self) -> None:
        if self.silent:
            say(f"{self.url} answers again")
        self.silent = False


def watch_aws(url: str, every: float) -> Notice:
    """Wait for EC2's notice: ``{"action": "terminate", "time": "2026-01-01T00:00:00Z"}``."""
    service = Metadata(url, "EC2")

    def token() -> dict[str, str]:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
        return {"X-aws-ec2-metadata-token": service.request("/latest/api/token", ttl, "PUT")[0]}

    try:
        headers = token()
    except OSError as error:
        raise service.first_contact(error) from None
    say(f"watching {url} for a spot notice")
    while True:
        try:
            body, _ = service.request("/latest/meta-data/spot/instance-action", headers)
        except urllib.error.HTTPError as error:
            if error.code == 401:  # the token has run out
                try:
                    headers = token()
                    continue
                except OSError as why:
                    service.fell_silent(why)
            elif error.code == 404:  # nothing is planned
                service.answers()
            else:
                service.fell_silent(error)
        except OSError as error:
            service.fell_silent(error)
        else:
            return read_aws(body)
        time.sleep(every)


def read_aws(body: str) -> Notice:
    try:
        planned = json.loads(body)
        action, at = str(planned["action"]), datetime.fromisoformat(planned["time"])
        return Notice(action, (at - datetime.now(UTC)).total_seconds())
    except (ValueError, KeyError, TypeError) as error:
        say(f"a notice of another form ({error!r}): {body!r}; taken as {AWS_SECONDS:.0f} s")
        return Notice("unknown", AWS_SECONDS)


def watch_gcp(url: str, every: float) -> Notice:
    """Wait for Compute Engine's notice: the value ``instance/preempted`` turns to TRUE."""
    service = Metadata(url, "Compute Engine")
    path = "/computeMetadata/v1/instance/preempted"
    flavour = {"Metadata-Flavor": "Google"}
    try:
        value, headers = service.request(path, flavour)
    except OSError as error:
        raise service.first_contact(error) from None
    say(f"watching {url} for a spot notice")
    while value.strip() != "TRUE":
        wait = f"?wait_for_change=true&timeout_sec=60&last_etag={headers.get('etag', '0')}"
        try:
            value, headers = service.request(path + wait, flavour, timeout=90)
            service.answers()
        except OSError as error:
            service.fell_silent(error)
            time.sleep(every)
    return Notice("preempted", GCP_SECONDS)


def wait_for_end(raylet: Raylet, seconds: float) -> bool:
    """Whether the raylet ends in time: it does once it drains and nothing runs on it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if raylet.node_id not in {other.node_id for other in raylets()}:
            return True
        time.sleep(0.5)
    return False


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Turn a spot notice into a Ray drain.")
    parser.add_argument("cloud", choices=("aws", "gcp", "now"), help="now: drain without a notice")
    parser.add_argument("--address", help="host:port of the cluster, where there are several")
    parser.add_argument("--node-id", help="hex id of the node, where there are several")
    parser.add_argument("--metadata", help=f"base URL of the service (default {AWS} or {GCP})")
    parser.add_argument("--every", type=float, default=2, help="seconds between questions")
    parser.add_argument("--seconds", type=float, default=60, help="with now: time that is left")
    given = parser.parse_args(words)
    started = time.monotonic()
    try:
        try:
            this_node(given.address, given.node_id)
        except LookupError as error:  # it may come while we watch; now is now
            if given.cloud == "now":
                say(f"nothing to drain: {error}")
                return 0
        if given.cloud == "aws":
            notice = watch_aws(given.metadata or AWS, given.every)
        elif given.cloud == "gcp":
            notice = watch_gcp(given.metadata or GCP, given.every)
        else:
            notice = Notice("asked for", given.seconds)
        say(f"spot notice: {notice.action} in {notice.seconds:.0f} s")
        raylet = drain_before(notice, given.address, given.node_id)
    except CannotWatch as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    if raylet is None:
        return 1
    if given.cloud == "now":
        gone = wait_for_end(raylet, given.seconds - (time.monotonic() - started))
        say("the node ended" if gone else "time is up, the node still has work")
    return 0


if __name__ == "__main__":
    sys.exit(main())
