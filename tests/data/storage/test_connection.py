"""Reads through TLS, through proxies, and from servers of their own manners."""

from __future__ import annotations

import multiprocessing
import os
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import ThreadingHTTPServer

import numpy as np
import pytest
import s3fs

from tests.data.storage import doors
from vmcmc_dist.data.storage import RangeReader, RetryPolicy
from vmcmc_dist.data.storage.connection import Connections, Route
from vmcmc_dist.errors import ConfigError, DataError

URL = "s3://faces/shard"
DATA = np.random.default_rng(0).bytes(900_001)
QUICK = RetryPolicy(seconds=2.0, first_s=0.01, longest_s=0.1)
NONE = RetryPolicy(seconds=0.0)


@pytest.fixture
def shard(s3, endpoint, monkeypatch):
    """(host, port) of a store that holds the shard; proxies are used where one is named."""
    s3.put_object(Bucket="faces", Key="shard", Body=DATA)
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    host, port = endpoint.rsplit("/", 1)[1].split(":")
    return host, int(port)


@pytest.fixture
def through(monkeypatch):
    """Point the environment at another door of the store."""

    def point(endpoint: str, **environment: str) -> None:
        for name, value in {"AWS_ENDPOINT_URL": endpoint, **environment}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()

    yield point
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def trusted(tmp_path_factory):
    """The file of a certificate, and the server's side of TLS with it."""
    public, whole = doors.certificate(tmp_path_factory.mktemp("tls"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(whole)
    return str(public), context


@pytest.mark.stores("moto", "swift")
def test_tls(shard, through, trusted):
    public, context = trusted
    door = doors.Door(shard, context)
    with doors.serving(door):
        through(f"https://{door.address}", AWS_CA_BUNDLE=public)
        reader = RangeReader(NONE)
        for start in (0, 5, 300_000):
            assert reader.read(URL, start, 200_000) == DATA[start : start + 200_000]
        assert door.connections


def test_a_certificate_that_nobody_vouches_for(shard, through, trusted, monkeypatch):
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    door = doors.Door(shard, trusted[1])
    with doors.serving(door):
        through(f"https://{door.address}")
        with pytest.raises(DataError, match=f"{URL}: TLS with the store failed.*AWS_CA_BUNDLE"):
            RangeReader(QUICK).read(URL, 0, 10)
        assert door.connections == 1  # no second try


def test_a_proxy_before_tls(shard, through, trusted):
    public, context = trusted
    door, proxy = doors.Door(shard, context), doors.Door(shard, asked=True)
    with doors.serving(door), doors.serving(proxy):
        through(
            f"https://{door.address}",
            AWS_CA_BUNDLE=public,
            HTTPS_PROXY=f"http://user:word@{proxy.address}",
        )
        reader = RangeReader(NONE)
        assert reader.read(URL, 7, 100_000) == DATA[7:100_007]
        assert reader.read(URL, 0, 10) == DATA[:10]
        assert door.connections == proxy.connections == len(proxy.heads)
        assert proxy.heads[0].startswith(f"CONNECT {door.address} HTTP/1.")
        assert "Proxy-Authorization: Basic dXNlcjp3b3Jk" in proxy.heads[0]


def test_a_proxy_that_refuses(shard, through, trusted):
    public, context = trusted
    door, proxy = doors.Door(shard, context), doors.Door(shard, asked=True, refuses=True)
    with doors.serving(door), doors.serving(proxy):
        through(
            f"https://{door.address}",
            AWS_CA_BUNDLE=public,
            HTTPS_PROXY=f"http://{proxy.address}",
        )
        with pytest.raises(DataError, match=f"{URL}: the store cannot be reached"):
            RangeReader(NONE).read(URL, 0, 10)


def test_a_proxy_before_a_plain_store(shard, through):
    doors.PlainProxy.asked.clear()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), doors.PlainProxy)
    with doors.serving(proxy):
        address = f"127.0.0.1:{proxy.server_address[1]}"
        through(f"http://127.0.0.1:{shard[1]}", HTTP_PROXY=f"http://user:word@{address}")
        reader = RangeReader(NONE)
        assert reader.read(URL, 7, 100_000) == DATA[7:100_007]
    assert doors.PlainProxy.asked == [
        (f"http://127.0.0.1:{shard[1]}/faces/shard", "Basic dXNlcjp3b3Jk")
    ]


def test_an_https_proxy_before_tls_is_refused_at_the_door():
    context = ssl.create_default_context()
    with pytest.raises(ConfigError, match="only http:// proxies"):
        Route("https://store", tls=context, proxy="https://proxy", proxy_tls=context)
    assert Route("http://store", proxy="https://proxy", proxy_tls=context).connection().port == 443


@pytest.fixture
def odd(through):
    """A store of the manner that is set."""
    server = doors.odd_store()
    doors.OddStore.data, doors.OddStore.connections = DATA, 0

    def of(manner: str) -> type[doors.OddStore]:
        doors.OddStore.manner = manner
        through(
            f"http://127.0.0.1:{server.server_address[1]}",
            AWS_ACCESS_KEY_ID="id",
            AWS_SECRET_ACCESS_KEY="secret",
            AWS_DEFAULT_REGION="us-east-1",
            NO_PROXY="127.0.0.1",
        )
        return doors.OddStore

    with doors.serving(server):
        yield of


@pytest.mark.parametrize(
    "manner, connections",
    [("closing", 3), ("leaving", 3), ("chunked", 3), ("old", 3), ("keeping", 1)],
)
def test_manners_of_servers(odd, manner, connections):
    store = odd(manner)
    reader = RangeReader(NONE)  # so none of them takes a second try
    for start in (0, 9, 600_000):
        assert reader.read(URL, start, 250_000) == DATA[start : start + 250_000]
        time.sleep(0.05)
    assert store.connections == connections


def test_connections_are_kept(odd, through, trusted):
    public, context = trusted
    odd("keeping")
    door = doors.Door(("127.0.0.1", int(os.environ["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])), context)
    with doors.serving(door):
        through(f"https://{door.address}", AWS_CA_BUNDLE=public)
        reader = RangeReader(NONE)
        for start in range(0, 90_000, 9_000):
            assert reader.read(URL, start, 9_000) == DATA[start : start + 9_000]
        assert door.connections == 1
        with ThreadPoolExecutor(4) as threads:
            parts = list(threads.map(lambda s: reader.read(URL, s, 9_000), range(0, 720_000, 9000)))
        assert b"".join(parts) == DATA[:720_000]
        assert 1 < door.connections <= 4


def _child(reader: RangeReader, answers) -> None:
    answers.put(reader.read(URL, 9_000, 9_000))


def test_a_fork_leaves_the_parents_connections_alone(odd):
    store = odd("keeping")
    reader = RangeReader(NONE)
    assert reader.read(URL, 0, 9_000) == DATA[:9_000]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_child, args=(reader, answers))
    child.start()
    assert answers.get(timeout=30) == DATA[9_000:18_000]
    child.join()
    assert store.connections == 2
    assert reader.read(URL, 18_000, 9_000) == DATA[18_000:27_000]
    assert store.connections == 2  # the parent's own is still good


def test_something_else_than_http(odd):
    odd("babbling")
    with pytest.raises(DataError, match=f"{URL}: an answer that is not S3's"):
        RangeReader(QUICK).read(URL, 0, 10)


def test_chunks_that_end_too_early(odd):
    odd("torn")
    with pytest.raises(
        DataError, match=f"{URL}: the (connection broke within the body|body ended)"
    ):
        RangeReader(NONE).read(URL, 0, 250_000)


def test_a_trickle_is_a_stall(odd):
    odd("trickling")
    began = time.monotonic()
    with pytest.raises(DataError, match=f"{URL}: stalled: no answer for 0.5 s"):
        RangeReader(NONE, stall_s=0.5).read(URL, 0, 20_000)
    assert time.monotonic() - began < 10  # all of it would take twenty seconds


def test_no_answer_at_all(odd):
    odd("silent")
    with pytest.raises(DataError, match=f"{URL}: the connection was closed or reset"):
        RangeReader(QUICK).read(URL, 0, 10)


def test_a_host_that_does_not_take_the_connection(odd, through):
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # nobody accepts these, and there is no room for more
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        odd("keeping")
        through(f"http://127.0.0.1:{full.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(DataError, match=f"{URL}: the store cannot be reached"):
            RangeReader(NONE, stall_s=0.5).read(URL, 0, 10)
        assert time.monotonic() - began < 20


def test_a_body_that_is_shorter_than_its_range(odd):
    odd("short")
    began = time.monotonic()
    with pytest.raises(DataError, match=f"{URL}: the body ended 50000 bytes too early"):
        RangeReader(NONE, stall_s=30.0).read(URL, 0, 100_000)
    assert time.monotonic() - began < 20  # not waited for


def test_a_refusal_that_is_not_read_to_its_end(odd):
    store = odd("angry")
    lines: list[str] = []
    assert RangeReader(QUICK, on_retry=lines.append).read(URL, 5, 100) == DATA[5:105]
    assert len(lines) == 1 and "503" in lines[0]
    assert store.connections == 2


def test_bodies_may_be_taken_in_small_parts(odd):
    odd("keeping")
    store = Connections(Route(os.environ["AWS_ENDPOINT_URL"]))
    for _ in range(2):
        answer = store.get("/any", {"Range": "bytes=100-30099"}, 10.0)
        assert (answer.status, answer.headers["etag"]) == (206, '"odd"')
        body = bytearray(30_000)
        have = 0
        while have < 30_000:
            have += answer.receive(memoryview(body)[have : have + 1_000])
        assert body == DATA[100:30_100] and answer.receive(memoryview(bytearray(1))) == 0
        answer.release()
    assert doors.OddStore.connections == 1


def test_a_connection_with_an_unread_body_is_not_kept(odd):
    odd("angry")
    store = Connections(Route(os.environ["AWS_ENDPOINT_URL"]))
    answer = store.get("/any", {}, 10.0)
    assert answer.status == 503 and answer.error_body().startswith(b"<Error>xxx")
    answer.release()
    assert not store._idle
    answer.close()
