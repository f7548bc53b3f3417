"""A small HTTP proxy in front of an S3 endpoint that makes the network and the store fail.

    with FaultProxy("http://127.0.0.1:9000", Schedule.even(0.02), latency_s=0.02) as proxy:
        ...  # AWS_ENDPOINT_URL=proxy.url
        print(proxy.log[-1])

The Host header passes unchanged, for signatures cover it; so do all bodies, as they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, replace
from types import TracebackType
from urllib.parse import urlsplit

from vmcmc_dist.bench.fault_schedule import Fault, Faults, Request, no_faults
from vmcmc_dist.bench.http_messages import (
    CHUNK,
    Head,
    byte_range,
    no_delay,
    nowhere,
    pass_body,
    read_head,
    to,
)

XML = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
    "<RequestId>{number:016X}</RequestId><HostId>fault-proxy</HostId></Error>"
)
MESSAGES = {
    "SlowDown": "Please reduce your request rate.",
    "InternalError": "We encountered an internal error. Please try again.",
}


@dataclass
class Logged:
    """One request, from its arrival on, and what became of it.

    ``done`` is ``passed``, the fault, or ``client left``; ``bytes`` of body were sent so far.
    """

    number: int
    method: str
    path: str
    range: tuple[int, int | None] | None
    done: str = "passed"
    bytes: int = 0
    seconds: float = 0.0


class _Broken(Exception):
    """The client's connection was broken on purpose, or by the client."""


class FaultProxy:
    """An HTTP/1.1 reverse proxy on 127.0.0.1, in a thread of its own.

    endpoint   the store, http:// or https://
    faults     (Request) → Fault or None, e.g. a Schedule; may be replaced while it runs
    latency_s  added to every request, at the same time for all that run at once
    bandwidth  bytes of answers per second to all clients together; None = no limit
    port       to listen at; 0 = a free one
    """

    def __init__(
        self,
        endpoint: str,
        faults: Faults = no_faults,
        *,
        latency_s: float = 0.0,
        bandwidth: float | None = None,
        port: int = 0,
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the endpoint is http://host:port or https://host:port")
        self.faults, self.latency_s, self.bandwidth = faults, latency_s, bandwidth
        self.log: list[Logged] = []
        self.url = ""
        self._host, self._tls = parts.hostname, parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._number, self._listen = 0, port
        self._free_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> FaultProxy:
        """Listen; ``url`` is where. Raises OSError if the port is taken."""
        listening = socket.create_server(("127.0.0.1", self._listen), backlog=256)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listening, ready)),
            name="fault-proxy",
            daemon=True,
        )
        self._thread.start()
        ready.wait()
        return self

    def close(self) -> None:
        """Drop all connections and stop listening. Safe to call twice."""
        if self._thread is not None and self._loop is not None and self._stop is not None:
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _serve(self, listening: socket.socket, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        clients: set[asyncio.Task[None]] = set()

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            clients.add(task)
            try:
                await self._client(reader, writer)
            except (_Broken, OSError, EOFError):
                pass  # broken on purpose, or the client left: the log holds it
            except asyncio.CancelledError:
                pass  # closing; asyncio of Python 3.11 logs a cancelled client as an error
            finally:
                clients.discard(task)
                writer.close()

        server = await asyncio.start_server(client, sock=listening, limit=CHUNK)
        ready.set()
        await self._stop.wait()
        server.close()
        for task in list(clients):
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        for _, writer in self._idle:
            writer.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """All requests of one connection, one after the other."""
        no_delay(writer)
        keep = True
        while keep:
            head = await read_head(reader)
            if head is None:
                return
            method, path, _ = head.line.split(" ", 2)
            request = Request(self._number, method, path, byte_range(head), head.fields)
            self._number += 1
            fault = self.faults(request)
            entry = Logged(request.number, method, path, request.range)
            self.log.append(entry)
            began = time.monotonic()
            try:
                keep = await _Exchange(self, request, fault, entry, reader, writer).run(head)
            except (OSError, EOFError):
                entry.done = "client left"
                raise
            finally:
                entry.seconds = time.monotonic() - began

    async def upstream(
        self, *, fresh: bool
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bool]:
        """A connection to the store, and whether it was used before."""
        while self._idle and not fresh:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer, True
            writer.close()
        reader, writer = await asyncio.open_connection(
            self._host, self._port, ssl=True if self._tls else None, limit=CHUNK
        )
        no_delay(writer)
        return reader, writer, False

    def keep(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Put a connection to the store back for the next request."""
        self._idle.append((reader, writer))

    async def pace(self, count: int) -> None:
        """Wait until ``count`` more bytes fit into the bandwidth."""
        if self.bandwidth:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + count / self.bandwidth
            await asyncio.sleep(self._free_at - now)


class _Exchange:
    """One request, its answer, and the fault that befalls it."""

    def __init__(
        self,
        proxy: FaultProxy,
        request: Request,
        fault: Fault | None,
        entry: Logged,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.proxy, self.request, self.fault = proxy, request, fault
        self.reader, self.writer = reader, writer
        self.entry = entry

    async def run(self, head: Head) -> bool:
        """Answer; returns whether the connection can be used again."""
        keep = head.fields.get("connection", "").lower() != "close" and "HTTP/1.1" in head.line
        expects = head.fields.get("expect", "").lower() == "100-continue"
        if self.proxy.latency_s:
            await asyncio.sleep(self.proxy.latency_s)
        if self.fault and self.fault.kind == "status":
            if not expects:
                await pass_body(head, self.reader, nowhere, nowhere)
            self.entry.done = str(self.fault)
            await self._refuse()
            return keep and not expects
        if expects:
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            return await self._pass_on(head) and keep
        except (OSError, asyncio.IncompleteReadError):
            if self.entry.bytes == 0 and not self.writer.is_closing():
                await self._reply(502, "BadGateway", "The store cannot be reached.")
            return False

    async def _pass_on(self, head: Head) -> bool:
        out = self._altered(head)
        has_body = (
            "transfer-encoding" in head.fields or head.fields.get("content-length", "0") != "0"
        )
        while True:
            reader, writer, used = await self.proxy.upstream(fresh=has_body)
            with contextlib.ExitStack() as unless_kept:
                unless_kept.callback(writer.close)
                send = to(writer)
                writer.write(out)
                await pass_body(head, self.reader, send, send)
                answer = await read_head(reader)
                while answer is not None and answer.line.split(" ")[1] == "100":
                    answer = await read_head(reader)
                if answer is not None:
                    whole = await self._answer(answer, reader)
                    if whole and answer.fields.get("connection", "").lower() != "close":
                        unless_kept.pop_all()
                        self.proxy.keep(reader, writer)
                    return whole
            if not used:  # a connection that waited may have been closed meanwhile; a new one not
                raise ConnectionResetError

    def _altered(self, head: Head) -> bytes:
        """The head for the store: all that is signed unchanged, unless that is the fault."""
        drop: tuple[str, ...] = ("expect", "connection")
        if self.fault and self.fault.kind == "whole":
            self.entry.done = "whole"
            return head.encode((*drop, "range"))
        if self.fault and self.fault.kind == "shifted" and self.request.range:
            first, last = self.request.range
            self.entry.done = "shifted"
            moved = f"bytes={first + 1}-{'' if last is None else last + 1}"
            return head.encode((*drop, "range"), Range=moved)
        return head.encode(drop)

    async def _answer(self, answer: Head, reader: asyncio.StreamReader) -> bool:
        """Pass the answer on; returns whether both connections can be used again."""
        status = int(answer.line.split(" ")[1])
        length = answer.fields.get("content-length")
        bodiless = self.request.method == "HEAD" or status in (204, 304) or length == "0"
        if self.fault and self.fault.kind in ("cut", "reset", "stall", "flip"):
            if bodiless and self.fault.kind != "flip":
                await self._break(self.fault)
            elif length is not None and not bodiless:
                at = min(self.fault.after, int(length) - 1)
                self.fault = replace(self.fault, after=at)
        framed = "content-length" in answer.fields or "transfer-encoding" in answer.fields
        line = "HTTP/1.1 " + answer.line.split(" ", 1)[1]
        close = {} if framed or bodiless else {"Connection": "close"}
        self.writer.write(Head(line, answer.raw).encode(("connection", "keep-alive"), **close))
        if not bodiless:
            await pass_body(answer, reader, self._send, self._frame, to_end=not framed)
        await self.writer.drain()
        return framed or bodiless

    async def _send(self, data: bytes) -> None:
        """Body bytes to the client, up to the fault's place."""
        await self.proxy.pace(len(data))
        fault = self.fault
        if fault is not None and fault.kind in ("cut", "reset", "stall", "flip"):
            left = fault.after - self.entry.bytes
            if 0 <= left < len(data):
                if fault.kind == "flip":
                    self.entry.done = str(fault)
                    data = data[:left] + bytes([data[left] ^ 1]) + data[left + 1 :]
                else:
                    self.writer.write(data[:left])
                    self.entry.bytes += left
                    await self.writer.drain()
                    await self._break(fault)
        self.writer.write(data)
        self.entry.bytes += len(data)
        await self.writer.drain()

    async def _frame(self, data: bytes) -> None:
        self.writer.write(data)

    async def _break(self, fault: Fault) -> None:
        self.entry.done = str(fault)
        if fault.kind == "stall":
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(fault.seconds):
                    await self.reader.read(1)  # returns when the client has left
        elif fault.kind == "reset":
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
            self.writer.transport.abort()
        self.writer.close()
        raise _Broken

    async def _refuse(self) -> None:
        assert self.fault is not None
        after = self.fault.retry_after
        message = MESSAGES.get(self.fault.code, "The request was refused.")
        extra = {} if after is None else {"Retry-After": str(after)}
        await self._reply(self.fault.status, self.fault.code, message, **extra)

    async def _reply(self, status: int, code: str, message: str, **extra: str) -> None:
        body = XML.format(code=code, message=message, number=self.request.number).encode()
        if self.request.method == "HEAD":
            body = b""
        fields = {"Content-Type": "application/xml", "Content-Length": str(len(body)), **extra}
        self.writer.write(Head(f"HTTP/1.1 {status} {code}", []).encode((), **fields) + body)
        await self.writer.drain()
