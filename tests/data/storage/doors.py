"""What may stand between a reader and a store: TLS, proxies, and servers of their own manners."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(folder: Path) -> tuple[Path, Path]:
    """Files of a certificate for 127.0.0.1 that vouches for itself, and of it with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    public, whole = folder / "certificate.pem", folder / "server.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    whole.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + public.read_bytes()
    )
    return public, whole


class _Pipe(socketserver.BaseRequestHandler):
    """Bytes to and from another server, as they are."""

    server: Door

    def handle(self) -> None:
        here, to = self.request, self.server.to
        self.server.connections += 1
        if self.server.tls is not None:
            try:
                here = self.server.tls.wrap_socket(here, server_side=True)
            except OSError:  # a client that does not trust us
                return
        if self.server.asked:
            head = b""
            while b"\r\n\r\n" not in head:
                head += here.recv(4096)
            self.server.heads.append(head.decode())
            if self.server.refuses:
                here.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            host, _, port = head.split()[1].decode().rpartition(":")
            to = (host, int(port))
            here.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(to) as there:
            back = threading.Thread(target=_pump, args=(there, here), daemon=True)
            back.start()
            _pump(here, there)
            back.join(5)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


class Door(socketserver.ThreadingTCPServer):
    """In front of ``to``: with TLS if there is a context, by CONNECT (``asked``) if it is a proxy.

    connections  so far; heads  of the CONNECTs
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        to: tuple[str, int],
        tls: ssl.SSLContext | None = None,
        *,
        asked: bool = False,
        refuses: bool = False,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Pipe)
        self.to, self.tls, self.asked, self.refuses = to, tls, asked, refuses
        self.connections = 0
        self.heads: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """The server at work in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class PlainProxy(BaseHTTPRequestHandler):
    """A proxy as http:// stores are asked through: the whole URL stands in the request."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str | None]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        url = urlsplit(self.path)
        store = HTTPConnection(url.hostname or "", url.port)
        headers = {n: v for n, v in self.headers.items() if not n.lower().startswith("proxy-")}
        store.request("GET", url.path, headers=headers)
        answer = store.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name in ("ETag", "Content-Range", "Content-Length"):
            if answer.headers.get(name):
                self.send_header(name, answer.headers[name])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


class OddStore(BaseHTTPRequestHandler):
    """Right bytes, each server after its own fashion: ``manner`` is set by the test.

    closing   the connection ends with each answer, and the answer says so
    leaving   the connection ends after each answer, unannounced
    chunked   no length, the body in chunks
    torn      the same, up to its middle
    trickling 100 bytes at a time, ten times a second
    old       HTTP/1.0
    short     less than asked for, and says so
    angry     a long refusal at first
    silent    no answer, the connection ends
    babbling  something else than HTTP
    """

    manner = "closing"
    data = b""
    connections = 0

    def setup(self) -> None:
        type(self).connections += 1
        self.protocol_version = "HTTP/1.0" if self.manner == "old" else "HTTP/1.1"
        super().setup()

    def do_GET(self) -> None:
        if self.manner == "babbling":
            self.wfile.write(b"220 welcome to the mail server\r\n")
            self.close_connection = True
            return
        if self.manner == "silent":
            self.close_connection = True
            return
        if self.manner == "angry":
            type(self).manner = "keeping"
            self.send_response(503)
            self.send_header("Content-Length", "300000")
            self.end_headers()
            self.wfile.write(b"<Error>" + b"x" * 299_993)
            return
        first, last = (int(n) for n in self.headers["Range"][6:].split("-"))
        body = self.data[first : last + 1]
        self.send_response(206)
        self.send_header("ETag", '"odd"')
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.data)}")
        if self.manner == "closing":
            self.send_header("Connection", "close")
        if self.manner in ("chunked", "torn"):
            self._chunks(body)
            return
        if self.manner == "short":
            body = body[: len(body) // 2]
        if self.manner != "old":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.manner == "trickling":
            self._trickle(body)
            return
        self.wfile.write(body)
        if self.manner == "leaving":
            self.close_connection = True

    def _chunks(self, body: bytes) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(body), 30_000):
            part = body[at : at + 30_000]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            if self.manner == "torn" and at >= len(body) // 2:
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")

    def _trickle(self, body: bytes) -> None:
        try:
            for at in range(0, len(body), 100):
                self.wfile.write(body[at : at + 100])
                time.sleep(0.1)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


def odd_store() -> ThreadingHTTPServer:
    """One that is not at work yet."""
    return ThreadingHTTPServer(("127.0.0.1", 0), OddStore)
