"""GETs of objects without the work that botocore does for each request.

botocore takes more than a millisecond of Python to make, sign and parse one GET, which is as long
as a decoder takes for some images of the block that it fetches. So its first GET in a bucket is
taken as the pattern (address, region, usual headers), and later ones go out over the same
connections with a signature of our own: AWS Signature Version 4, of the host and the x-amz-
headers, as https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html has it.
Where the pattern has anything unusual, botocore goes on making all requests.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

EMPTY = hashlib.sha256(b"").hexdigest()
"""Of the body of a GET."""

SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=\S+/\d{8}/([\w-]+)/s3/aws4_request,")
CONDITIONS = {"range", "if-match"}
COMMON = {
    "host", "user-agent", "accept", "accept-encoding", "authorization", "amz-sdk-invocation-id",
    "amz-sdk-request", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token",
    "x-amz-checksum-mode",
}  # fmt: skip
ERROR_BYTES = 64 << 10


@dataclass(frozen=True)
class Pattern:
    """Of a bucket: URL before the key, its host, region to sign for (None: unsigned), agent."""

    base: str
    host: str
    region: str | None
    agent: str


def pattern_of(url: str, key: str, headers: Mapping[str, str]) -> Pattern | None:
    """The pattern of a request that botocore sent; None if it is an unusual one."""
    names = {name.lower(): value for name, value in headers.items()}
    parts, path = urlsplit(url), quote(key, safe="/~")
    if not names.keys() <= COMMON | CONDITIONS or not parts.path.endswith(f"/{path}"):
        return None
    if set(parts.query.split("&")) - {"", "x-id=GetObject"}:
        return None
    host = names.get("host", parts.netloc)
    base = f"{parts.scheme}://{parts.netloc}{parts.path[: len(parts.path) - len(path)]}"
    signature = names.get("authorization")
    if signature is None:
        return Pattern(base, host, None, names.get("user-agent", ""))
    scope = SCOPE.match(signature)
    return None if scope is None else Pattern(base, host, scope[1], names.get("user-agent", ""))


class QuickGet:
    """The patterns that one botocore client has shown, and requests made after them."""

    def __init__(self) -> None:
        self._patterns: dict[str, Pattern | None] = {}
        self._signing: tuple[tuple[str, str, str], bytes] = ("", "", ""), b""

    def learn(self, bucket: str, key: str, http: Any) -> None:
        """Take the request behind an answer that botocore got as the bucket's pattern."""
        if bucket not in self._patterns:
            sent = http.request_info
            self._patterns[bucket] = pattern_of(str(sent.url), key, sent.headers)

    async def send(self, raw: Any, bucket: str, key: str, conditions: Mapping[str, str]) -> Any:
        """The answer to GET, whatever it is, with Range and If-Match as given: botocore's
        AioAWSResponse. None where there is no pattern. Raises what botocore raises.
        """
        pattern = self._patterns.get(bucket)
        if pattern is None:
            return None
        from botocore.awsrequest import AWSPreparedRequest

        url = pattern.base + quote(key, safe="/~")
        headers = {"Host": pattern.host, "User-Agent": pattern.agent, **conditions}
        if pattern.region is not None:
            credentials = await raw._request_signer._credentials.get_frozen_credentials()
            headers |= self.signed(urlsplit(url).path, pattern, credentials, time.gmtime())
        request = AWSPreparedRequest("GET", url, headers, None, True)
        return await raw._endpoint.http_session.send(request)

    def signed(
        self, path: str, pattern: Pattern, credentials: Any, now: time.struct_time
    ) -> dict[str, str]:
        """Headers that sign GET of ``path`` (encoded as it is sent) at the UTC time ``now``."""
        date = time.strftime("%Y%m%dT%H%M%SZ", now)
        headers = {"x-amz-content-sha256": EMPTY, "x-amz-date": date}
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        of_all = {"host": pattern.host, **headers}
        names = ";".join(of_all)
        lines = "".join(f"{name}:{value}\n" for name, value in of_all.items())
        asked = hashlib.sha256(f"GET\n{path}\n\n{lines}\n{names}\n{EMPTY}".encode()).hexdigest()
        scope = f"{date[:8]}/{pattern.region}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{asked}"
        key = self._signing_key(credentials.secret_key, date[:8], str(pattern.region))
        signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def _signing_key(self, secret: str, day: str, region: str) -> bytes:
        if self._signing[0] != (secret, day, region):
            key = f"AWS4{secret}".encode()
            for part in (day, region, "s3", "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._signing = (secret, day, region), key
        return self._signing[1]


_OF: weakref.WeakKeyDictionary[Any, QuickGet] = weakref.WeakKeyDictionary()


def quick_get(raw: Any) -> QuickGet:
    """The QuickGet of a botocore client; it goes with the client."""
    found = _OF.get(raw)
    if found is None:
        found = _OF[raw] = QuickGet()
    return found


async def error_answer(response: Any) -> dict[str, Any]:
    """An answer that is an error, as botocore would give it: status, headers, the store's code."""
    body = await response.raw.content.read(ERROR_BYTES)
    code = re.search(rb"<Code>\s*([A-Za-z0-9]+)\s*</Code>", body)
    return {
        "Error": {"Code": code[1].decode() if code else ""},
        "ResponseMetadata": {
            "HTTPStatusCode": response.status_code,
            "HTTPHeaders": {name.lower(): value for name, value in response.headers.items()},
        },
    }
