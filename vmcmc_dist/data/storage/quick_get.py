"""GET of an object past most of botocore, which takes longer over a request than over its bytes.

botocore itself makes the request once for each bucket and client: address, headers, proxy, TLS and
way of signing are its own, as environment and files of settings say. For each object the key is put
in, the request signed by botocore's signer, and sent over a connection that is kept, all by the
thread that waits for the bytes. What is left out is checking and building the same fields anew,
hooks, and parsing of an answer of which three headers are needed.
"""

from __future__ import annotations

import asyncio
import http.client
import time
import weakref
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from vmcmc_dist.data.storage.client import Client, on_loop
from vmcmc_dist.data.storage.connection import Answer, Connections, Route
from vmcmc_dist.data.storage.failures import WrongAnswer, not_http

ANY_KEY = "vmcmc-dist-any-key"
ELSEWHERE = {
    "301", "302", "307", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}  # fmt: skip
"""Codes of answers by which botocore finds that a bucket is in another region."""
PLAIN = ("v4", "s3v4")
"""Ways of signing that need nothing but the credentials; for others (S3 Express, …) botocore is
asked each time."""
FRESH_S = 60.0
"""After so long the credentials are asked for again: botocore renews them minutes before they
expire."""


class Signing:
    """botocore's signature under requests of one bucket, with the credentials of now."""

    def __init__(self, signer: Any, context: dict[str, Any]) -> None:
        self._signer, self._context = signer, context
        self._auth: Any = None
        self._until = -1.0
        self._always_asked = False

    def add(self, request: Any, patience: float) -> None:
        """Sign it; raises botocore's errors where there are no credentials."""
        if time.monotonic() >= self._until:
            on_loop(self._renew(), patience)
        if self._always_asked:
            on_loop(self._signer.sign("GetObject", request), patience)
        elif self._auth is not None:
            self._auth.add_auth(request)

    async def _renew(self) -> None:
        from botocore import UNSIGNED

        version = await self._signer._choose_signer("GetObject", "standard", self._context)
        where = self._context.get("signing", {})
        self._always_asked = version is not UNSIGNED and (
            version not in PLAIN or "request_credentials" in where
        )
        if version in PLAIN:
            self._auth = await self._signer.get_auth_instance(
                where.get("signing_name") or self._signer._signing_name,
                where.get("region") or self._signer._region_name,
                version,
            )
        self._until = time.monotonic() + FRESH_S


@dataclass(frozen=True)
class Recipe:
    """The GET of any object of one bucket: where ``ANY_KEY`` stands comes the key."""

    url: str
    auth_path: str | None
    headers: dict[str, str]
    context: dict[str, Any]
    signing: Signing
    connections: Connections

    def request(self, key: str, headers: dict[str, str]) -> Any:
        """Of one object, not yet signed."""
        from botocore.awsrequest import AWSRequest
        from botocore.utils import percent_encode

        written = percent_encode(key, safe="/~")
        request = AWSRequest(
            method="GET",
            url=_put(self.url, written),
            headers={**self.headers, **headers},
            auth_path=None if self.auth_path is None else _put(self.auth_path, written),
        )
        request.context = dict(self.context)
        return request


def _put(text: str, key: str) -> str:
    before, _, after = text.rpartition(ANY_KEY)
    return f"{before}{key}{after}"


_recipes: weakref.WeakKeyDictionary[Any, dict[str, Recipe]] = weakref.WeakKeyDictionary()


def get(client: Client, bucket: str, key: str, headers: dict[str, str], patience: float) -> Answer:
    """The answer with its body unread.

    Raises botocore's errors, as ``get_object`` of its client would, TimeoutError after ``patience``
    seconds without a byte, ConnectionError where the connection ends.
    """
    from botocore.exceptions import ClientError

    known = _recipes.setdefault(client.raw, {})
    if bucket not in known:
        known.setdefault(bucket, on_loop(_recipe(client, bucket), patience))
    try:
        return _send(known[bucket], key, headers, patience)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in ELSEWHERE:
            raise
    # botocore follows by itself, and then knows the region
    on_loop(client.request("head_object", Bucket=bucket, Key=key), patience)
    known[bucket] = on_loop(_recipe(client, bucket), patience)
    return _send(known[bucket], key, headers, patience)


async def _recipe(client: Client, bucket: str) -> Recipe:
    """What botocore would send, taken from it before it is sent."""
    client.raw.meta.events.register_last("before-call.s3", _take, unique_id="vmcmc-dist")
    taken = await client.request("get_object", Bucket=bucket, Key=ANY_KEY)
    made, signer = taken["request"], taken["signer"]
    url, session = made["url"], client.raw._endpoint.http_session
    proxy = session._proxy_config.proxy_url_for(url)
    tls, proxy_tls = None, None
    if url.startswith("https:") or (proxy or "").startswith("https:"):
        tls, proxy_tls = await asyncio.to_thread(session._build_ssl_contexts, proxy)
    at = url.index("/", url.index("//") + 2)
    route = Route(
        url[:at],
        tls if url.startswith("https:") else None,
        proxy,
        session._proxy_config.proxy_headers_for(proxy) if proxy else {},
        proxy_tls,
    )
    recipe = Recipe(
        url,
        made.get("auth_path"),
        dict(made["headers"]),
        made["context"],
        Signing(signer, made["context"]),
        Connections(route),
    )
    sample = recipe.request(ANY_KEY, {})
    await signer.sign("GetObject", sample)  # just before, botocore may change what it signs
    return replace(recipe, auth_path=sample.auth_path)


def _take(params: dict[str, Any], request_signer: Any, **_: Any) -> Any:
    """Answer in the store's place where the object is ``ANY_KEY``."""
    if ANY_KEY not in params["url_path"]:
        return None
    return SimpleNamespace(status_code=200), {"request": params, "signer": request_signer}


def _send(recipe: Recipe, key: str, headers: dict[str, str], patience: float) -> Answer:
    from botocore.exceptions import ClientError
    from botocore.parsers import create_parser

    request = recipe.request(key, headers)
    recipe.signing.add(request, patience)
    path = request.url[len(recipe.connections.route.url) :]
    try:
        answer = recipe.connections.get(path, dict(request.headers.items()), patience)
        if answer.status < 300:
            return answer
        try:
            said = answer.error_body()
            answer.release()
        finally:
            answer.close()
    except http.client.HTTPException as error:
        if isinstance(error, ConnectionError):  # it ended before an answer
            raise
        raise WrongAnswer(not_http()) from None
    told = {"status_code": answer.status, "headers": answer.headers, "body": said}
    raise ClientError(create_parser("rest-xml").parse(told, None), "GetObject")
