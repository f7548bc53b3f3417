"""GET of an object past most of botocore, which takes longer over a request than over its bytes.

botocore itself makes the request once for each bucket and client: address, headers and way of
signing are its own, as environment and files of settings say. For each object the key is put in
and the request signed, by botocore's signer, and sent by its HTTP session (so with its proxies,
TLS, certificates and pool). What is left out is checking and building the same fields anew, and
hooks and parsing of an answer of which three headers are needed.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from vmcmc_dist.data.storage.client import Client

ANY_KEY = "vmcmc-dist-any-key"
ELSEWHERE = {
    "301", "302", "307", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}  # fmt: skip
"""Codes of answers by which botocore finds that a bucket is in another region."""


@dataclass(frozen=True)
class Recipe:
    """The GET of any object of one bucket: where ``ANY_KEY`` stands comes the key."""

    url: str
    auth_path: str | None
    headers: dict[str, str]
    context: dict[str, Any]
    signer: Any

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
        request.stream_output = True
        return request


def _put(text: str, key: str) -> str:
    before, _, after = text.rpartition(ANY_KEY)
    return f"{before}{key}{after}"


_recipes: weakref.WeakKeyDictionary[Any, dict[str, Recipe]] = weakref.WeakKeyDictionary()


async def get(client: Client, bucket: str, key: str, headers: dict[str, str]) -> Any:
    """The answer with its body unread: ``status_code``, ``headers`` in small letters, and in
    ``raw`` aiohttp's response, to be released or closed.

    Raises botocore's errors, as ``get_object`` of its client would.
    """
    from botocore.exceptions import ClientError

    known = _recipes.setdefault(client.raw, {})
    if bucket not in known:
        known[bucket] = await _recipe(client, bucket)
    try:
        return await _send(client, known[bucket], key, headers)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in ELSEWHERE:
            raise
    # botocore follows by itself, and then knows the region
    await client.request("head_object", Bucket=bucket, Key=key)
    known[bucket] = await _recipe(client, bucket)
    return await _send(client, known[bucket], key, headers)


async def _recipe(client: Client, bucket: str) -> Recipe:
    """What botocore would send, taken from it before it is sent."""
    client.raw.meta.events.register_last("before-call.s3", _take, unique_id="vmcmc-dist")
    taken = await client.request("get_object", Bucket=bucket, Key=ANY_KEY)
    made = taken["request"]
    return Recipe(
        made["url"],
        made.get("auth_path"),
        dict(made["headers"]),
        made["context"],
        taken["signer"],
    )


def _take(params: dict[str, Any], request_signer: Any, **_: Any) -> Any:
    """Answer in the store's place where the object is ``ANY_KEY``."""
    if ANY_KEY not in params["url_path"]:
        return None
    return SimpleNamespace(status_code=200), {"request": params, "signer": request_signer}


async def _send(client: Client, recipe: Recipe, key: str, headers: dict[str, str]) -> Any:
    from botocore.exceptions import ClientError
    from botocore.parsers import create_parser

    request = recipe.request(key, headers)
    await recipe.signer.sign("GetObject", request)
    answer = await client.raw._endpoint.http_session.send(request.prepare())
    if answer.status_code < 300:
        return answer
    told = {
        "status_code": answer.status_code,
        "headers": answer.headers,
        "body": await answer.content,
    }
    raise ClientError(create_parser("rest-xml").parse(told, None), "GetObject")
