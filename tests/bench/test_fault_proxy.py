"""The proxy that makes stores fail: all passes unchanged, but what its schedule breaks."""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from vmcmc_dist.bench.fault_proxy import FaultProxy
from vmcmc_dist.bench.fault_schedule import Fault, Request, Schedule

BODY = os.urandom(700_001)


class Store(BaseHTTPRequestHandler):
    """Ranged GET, HEAD, chunked and endless bodies, and PUT that answers with what it got."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, str]] = []

    def do_GET(self) -> None:
        self.seen.append({"method": self.command, "peer": str(self.client_address)})
        self.seen[-1].update({k.lower(): v for k, v in self.headers.items()})
        if self.path == "/chunked":
            return self.chunked()
        if self.path == "/endless":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(BODY)
            self.close_connection = True
            return None
        first, last, status = 0, len(BODY) - 1, 200
        if "Range" in self.headers:
            a, b = self.headers["Range"][6:].split("-")
            first, last, status = int(a), int(b or last), 206
        self.send_response(status)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(BODY)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(BODY[first : last + 1])
        return None

    do_HEAD = do_GET

    def chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(BODY), 100_000):
            piece = BODY[at : at + 100_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def do_PUT(self) -> None:
        got = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append({k.lower(): v for k, v in self.headers.items()})
        self.send_response(200)
        self.send_header("Content-Length", str(len(got)))
        self.end_headers()
        self.wfile.write(got)

    def log_message(self, *args) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address) -> None:
        """A proxy that breaks connections makes the store's sends fail; that is no news."""


@pytest.fixture(scope="module")
def store_url():
    server = Server(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(store_url):
    Store.seen.clear()
    with FaultProxy(store_url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy):
    where = urlsplit(proxy.url)
    client = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
    yield client
    client.close()


def get(client, path="/key", method="GET", body=None, **headers):
    client.request(method, path, body, headers)
    answer = client.getresponse()
    return answer, answer.read()


def test_it_listens_on_the_loopback_device_alone(proxy):
    assert proxy.url.startswith("http://127.0.0.1:")


def test_bodies_and_headers_pass_unchanged_over_kept_connections(proxy, client):
    for _ in range(3):
        answer, body = get(client, Range="bytes=5-600004", Host="bucket.example", X_Sign="a b")
        assert answer.status == 206 and body == BODY[5:600005]
        assert answer.getheader("Content-Range") == f"bytes 5-600004/{len(BODY)}"
    assert all(s["host"] == "bucket.example" and s["x_sign"] == "a b" for s in Store.seen)
    assert len({s["peer"] for s in Store.seen}) == 1
    assert [(e.method, e.path, e.range, e.done) for e in proxy.log] == [
        ("GET", "/key", (5, 600004), "passed")
    ] * 3
    assert proxy.log[0].bytes == 600_000


def test_every_kind_of_body(proxy, client):
    assert get(client)[1] == BODY
    assert get(client, "/chunked")[1] == BODY
    answer, body = get(client, method="HEAD")
    assert body == b"" and answer.getheader("Content-Length") == str(len(BODY))
    assert get(client, method="PUT", body=BODY)[1] == BODY
    assert get(client, Range="bytes=7-")[1] == BODY[7:]
    assert get(client, "/endless")[1] == BODY


def test_a_client_that_waits_for_100_continue(proxy):
    where = urlsplit(proxy.url)
    with socket.create_connection((where.hostname, where.port), timeout=10) as link:
        link.sendall(
            b"PUT /key HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert link.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        link.sendall(b"hello")
        answer = b""
        while not answer.endswith(b"hello"):
            answer += link.recv(1000)
    proxy.faults = lambda request: Fault("status")
    with socket.create_connection((where.hostname, where.port), timeout=10) as link:
        link.sendall(
            b"PUT /key HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert link.recv(1000).startswith(b"HTTP/1.1 503 SlowDown\r\n")


def test_status_faults_are_s3s_and_keep_the_connection(proxy, client):
    proxy.faults = lambda request: Fault("status", retry_after=3) if request.number else None
    assert get(client)[1] == BODY
    answer, body = get(client)
    assert answer.status == 503 and answer.getheader("Retry-After") == "3"
    assert b"<Code>SlowDown</Code>" in body
    assert get(client, method="PUT", body=b"abc")[0].status == 503
    assert get(client, method="HEAD")[1] == b""
    assert len(Store.seen) == 1
    assert [e.done for e in proxy.log] == ["passed"] + ["503 SlowDown"] * 3


@pytest.mark.parametrize("path", ["/key", "/chunked", "/endless"])
def test_bodies_are_cut_where_the_fault_says(proxy, client, path):
    proxy.faults = lambda request: Fault("cut", 123_456)
    client.request("GET", path)
    answer = client.getresponse()
    if path == "/endless":
        assert answer.read() == BODY[:123_456]
    else:
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
        got = caught.value.partial
        # of a chunk that is torn, http.client gives nothing
        assert got == BODY[: 123_456 if path == "/key" else 100_000]
    assert proxy.log[0].done == "cut at 123456" and proxy.log[0].bytes == 123_456


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_resets(proxy, client, method):
    proxy.faults = lambda request: Fault("reset", 0)
    with pytest.raises(ConnectionResetError):
        get(client, method=method)
    assert proxy.log[0].done == "reset at 0"


def test_stalls(proxy, client):
    proxy.faults = lambda request: Fault("stall", 10, seconds=0.5)
    began = time.monotonic()
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(client)
    assert caught.value.partial == BODY[:10] and 0.4 < time.monotonic() - began < 5


def test_wrong_ranges_and_flipped_bits(proxy, client):
    faults = [Fault("whole"), Fault("shifted"), Fault("flip", 3)]
    proxy.faults = lambda request: faults[request.number]
    assert get(client, Range="bytes=5-9")[1] == BODY
    assert get(client, Range="bytes=5-9")[1] == BODY[6:11]
    expected = bytearray(BODY[5:10])
    expected[3] ^= 1
    assert get(client, Range="bytes=5-9")[1] == expected


def test_latency_is_added_to_all_at_once(store_url):
    with FaultProxy(store_url, latency_s=0.2) as proxy:
        where = urlsplit(proxy.url)

        def one(_):
            client = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
            try:
                return get(client, Range="bytes=0-9")[1]
            finally:
                client.close()

        began = time.monotonic()
        with ThreadPoolExecutor(16) as threads:
            assert list(threads.map(one, range(16))) == [BODY[:10]] * 16
        assert 0.2 <= time.monotonic() - began < 1.6


def test_bandwidth_is_shared(store_url):
    with FaultProxy(store_url, bandwidth=2_000_000) as proxy:
        where = urlsplit(proxy.url)
        client = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
        began = time.monotonic()
        assert get(client)[1] == BODY
        client.close()
        assert time.monotonic() - began >= len(BODY) / 2_000_000


def test_a_store_that_is_away_is_a_bad_gateway():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with FaultProxy(f"http://127.0.0.1:{port}") as proxy:
        where = urlsplit(proxy.url)
        client = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
        assert get(client)[0].status == 502
        client.close()


def test_a_port_that_is_taken_is_an_error(proxy, store_url):
    with pytest.raises(OSError, match="in use"):
        FaultProxy(store_url, port=urlsplit(proxy.url).port).start()


def request(number: int) -> Request:
    return Request(number, "GET", "/key", (100, 1099))


def test_the_schedule_is_a_function_of_seed_and_number():
    schedule = Schedule.even(0.5, seed=7)
    first = [schedule(request(n)) for n in range(500)]
    assert first == [Schedule.even(0.5, seed=7)(request(n)) for n in range(500)]
    assert first != [Schedule.even(0.5, seed=8)(request(n)) for n in range(500)]
    assert all(0 <= fault.after < 1000 for fault in first if fault)


def test_the_shares_of_the_schedule_are_kept():
    schedule = Schedule(1, slow_down=0.1, internal_error=0.05, cut=0.2, reset=0.02, stall=0.03)
    drawn = Counter()
    for n in range(20_000):
        fault = schedule(request(n))
        drawn[f"{fault.kind} {fault.status}" if fault else ""] += 1
    wanted = {"status 503": 0.1, "status 500": 0.05, "cut 503": 0.2, "reset 503": 0.02}
    for name, share in {**wanted, "stall 503": 0.03, "": 0.6}.items():
        assert abs(drawn[name] / 20_000 - share) < 5 * (share * (1 - share) / 20_000) ** 0.5


@pytest.mark.parametrize("shares", [{"cut": 0.7, "stall": 0.4}, {"cut": -0.1}])
def test_shares_that_are_none(shares):
    with pytest.raises(ValueError, match="shares"):
        Schedule(0, **shares)
