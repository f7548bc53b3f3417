"""HTTP/1.1 GETs over connections that are kept, by the thread that wants the bytes.

The standard library's client alone, without an event loop: bytes go from the socket into the memory
of who asked for them.
"""

from __future__ import annotations

import http.client
import select
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from vmcmc_dist.errors import ConfigError

CONNECT_S = 5.0
ERROR_BYTES = 64 << 10
"""How much of the answer of a store that refuses is read: its code stands there."""


@dataclass(frozen=True)
class Route:
    """How the host of ``url`` is reached.

    tls            of the connection to the host, if it is https
    proxy          URL of the proxy between, or None
    proxy_headers  that the proxy is to be told
    proxy_tls      of the connection to an https proxy
    """

    url: str
    tls: ssl.SSLContext | None = None
    proxy: str | None = None
    proxy_headers: Mapping[str, str] = field(default_factory=dict)
    proxy_tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if self.tls is not None and (self.proxy or "").startswith("https:"):
            raise ConfigError(
                "an https:// proxy before an https:// store: only http:// proxies are spoken to "
                "there; change HTTPS_PROXY to the proxy's http:// address"
            )

    def connection(self) -> http.client.HTTPConnection:
        """One that is not open yet."""
        to = urlsplit(self.proxy or self.url)
        tls = self.tls if self.proxy is None or self.tls is not None else self.proxy_tls
        if tls is not None:
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                to.hostname or "", to.port or (80 if to.scheme == "http" else 443), context=tls
            )
        else:
            made = http.client.HTTPConnection(to.hostname or "", to.port or 80)
        if self.proxy is not None and self.tls is not None:
            host = urlsplit(self.url)
            made.set_tunnel(host.hostname or "", host.port or 443, dict(self.proxy_headers))
        return made


class Connections:
    """Connections to one host, each used by one thread at a time and kept for the next."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self._plain_proxy = route.proxy is not None and route.tls is None
        self._idle: deque[http.client.HTTPConnection] = deque()

    def get(self, path: str, headers: Mapping[str, str], patience: float) -> Answer:
        """The answer to a GET of ``path`` (with its query) at the host, its body unread.

        Raises botocore's errors for a host that is not reached, TimeoutError after ``patience``
        seconds without a byte, ConnectionError where the connection ends, HTTPException for what
        is not HTTP.
        """
        connection = self._kept() or self._connect(patience)
        done = False
        try:
            connection.sock.settimeout(patience)
            target = self.route.url + path if self._plain_proxy else path
            connection.putrequest("GET", target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if self._plain_proxy:
                for name, value in self.route.proxy_headers.items():
                    connection.putheader(name, value)
            connection.endheaders()
            answer = Answer(connection, connection.getresponse(), self._idle)
            done = True
        except ssl.SSLError:
            raise ConnectionError("broken TLS") from None
        finally:
            if not done:
                connection.close()
        return answer

    def _kept(self) -> http.client.HTTPConnection | None:
        """One whose other end has not closed it meanwhile."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            unasked = select.poll()  # what comes before a request is the end, or nobody's answer
            unasked.register(connection.sock, select.POLLIN)
            if not unasked.poll(0):
                return connection
            connection.close()
        return None

    def _connect(self, patience: float) -> http.client.HTTPConnection:
        from botocore import exceptions as boto

        connection = self.route.connection()
        connection.timeout = min(CONNECT_S, patience)
        try:
            connection.connect()
        except ssl.SSLError as error:
            raise boto.SSLError(endpoint_url=self.route.url, error=error) from None
        except TimeoutError as error:
            raise boto.ConnectTimeoutError(endpoint_url=self.route.url, error=error) from None
        except OSError as error:
            raise boto.EndpointConnectionError(endpoint_url=self.route.url, error=error) from None
        return connection


class Answer:
    """Status, headers (names in small letters) and body of one answer; to be closed."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        idle: deque[http.client.HTTPConnection],
    ) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self._connection, self._response, self._idle = connection, response, idle
        # without a length, or where the line ends with the answer, the library takes the body
        self._sock = connection.sock if response.length is not None else None
        self._left = response.length or 0
        self._with_head = True
        self._released = False

    def receive(self, into: memoryview) -> int:
        """Wait for some of the body: how many bytes came ``into``; 0 at its end.

        Raises TimeoutError after the seconds of patience that it was asked for with, OSError or
        HTTPException where it breaks.
        """
        if self._sock is None:
            some = self._response.read1(len(into))
            into[: len(some)] = some
            return len(some)
        into = into[: self._left]
        if not len(into):
            return 0
        if self._with_head:  # what came along with the head lies in the library's buffer
            came = len(self._response.fp.peek())
            count = self._response.fp.readinto(into[:came])
            self._with_head = count < came
        else:
            count = self._sock.recv_into(into)
        self._left -= count
        return count

    def error_body(self) -> bytes:
        """What the store says of a refusal."""
        said = self._response.read(ERROR_BYTES)
        self._left = 0 if self._response.isclosed() else 1
        return said

    def release(self) -> None:
        """Keep the connection for the next request, if the whole body was read."""
        if self._sock is not None and not self._left:
            self._response.close()
            self._released = True
            self._idle.append(self._connection)

    def close(self) -> None:
        """Close the connection if it was not released."""
        if not self._released:
            self._response.close()
            self._connection.close()
