"""Metadata services of EC2 and Compute Engine on loopback, and the program that asks them."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

CLUSTER = Path(__file__).parents[2] / "cluster"


class Clouds:
    """Both services at one address, with what they would say.

    Attributes:
        action: EC2's ``spot/instance-action``; None: 404.
        preempted: Compute Engine's ``instance/preempted``; a change wakes those who wait for it.
        tokens: EC2's session tokens that are still valid.
        broken: answers 503 to everything.
        asked: paths of all requests.
    """

    def __init__(self) -> None:
        self.action: str | None = None
        self.preempted, self.etag = "FALSE", 1
        self.tokens: set[str] = set()
        self.handed_out = 0
        self.broken = False
        self.asked: list[str] = []
        self.changed = threading.Condition()
        clouds = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_PUT(self) -> None:
                clouds.asked.append(self.path)
                ttl = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                if clouds.broken or self.path != "/latest/api/token" or not ttl:
                    return self.answer(503 if clouds.broken else 400)
                clouds.handed_out += 1
                token = f"token-{clouds.handed_out}"
                clouds.tokens.add(token)
                self.answer(200, token)

            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                clouds.asked.append(self.path)
                if clouds.broken:
                    self.answer(503)
                elif path == "/latest/meta-data/spot/instance-action":
                    if self.headers["X-aws-ec2-metadata-token"] not in clouds.tokens:
                        self.answer(401)
                    elif clouds.action is None:
                        self.answer(404)
                    else:
                        self.answer(200, clouds.action)
                elif path == "/computeMetadata/v1/instance/preempted":
                    if self.headers["Metadata-Flavor"] != "Google":
                        return self.answer(403)
                    wanted = dict(pair.split("=") for pair in query.split("&") if pair)
                    with clouds.changed:
                        if wanted.get("wait_for_change") == "true":
                            clouds.changed.wait_for(
                                lambda: str(clouds.etag) != wanted["last_etag"],
                                timeout=min(1, float(wanted["timeout_sec"])),
                            )
                        self.answer(200, clouds.preempted, ETag=str(clouds.etag))
                else:
                    self.answer(404)

            def answer(self, status: int, body: str = "", **headers: str) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def preempt(self) -> None:
        with self.changed:
            self.preempted, self.etag = "TRUE", self.etag + 1
            self.changed.notify_all()


@pytest.fixture
def clouds() -> Iterator[Clouds]:
    made = Clouds()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture(scope="session")
def spot_notice() -> ModuleType:
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("spot_notice", CLUSTER / "spot_notice.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["spot_notice"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cluster() -> Path:
    """The folder of files for clusters."""
    return CLUSTER
