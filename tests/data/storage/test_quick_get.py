"""Requests of our own making are signed as botocore signs, and only where they are usual."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from vmcmc_dist.data.storage.quick_get import Pattern, QuickGet, pattern_of

SIGNED = {
    "User-Agent": "agent",
    "Range": "bytes=0-9",
    "X-Amz-Date": "20261124T120000Z",
    "X-Amz-Content-SHA256": "e3b0",
    "Authorization": "AWS4-HMAC-SHA256 Credential=AKID/20261124/eu-west-1/s3/aws4_request, "
    "SignedHeaders=host;range, Signature=00",
}


@pytest.mark.parametrize("token", [None, "temporary/token=="])
@pytest.mark.parametrize("key", ["shard-000000.tar", "a b/ü+&=~*(1)!.tar"])
def test_signatures_are_botocores(token: str | None, key: str, monkeypatch) -> None:
    from urllib.parse import quote

    credentials = Credentials("AKID", "secret/+key", token)
    url = "https://bucket.s3.eu-west-1.amazonaws.com/" + quote(key, safe="/~")
    theirs = AWSRequest("GET", url, headers={"Host": "bucket.s3.eu-west-1.amazonaws.com"})
    theirs.context["payload_signing_enabled"] = True
    S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(theirs)
    date = theirs.context["timestamp"]
    pattern = Pattern(url[: -len(quote(key, safe="/~"))], theirs.headers["Host"], "eu-west-1", "")
    path = "/" + quote(key, safe="/~")
    quick = QuickGet()
    for _ in range(2):  # the second with the signing key of the first
        now = time.strptime(date, "%Y%m%dT%H%M%SZ")
        ours = quick.signed(path, pattern, credentials, now)
        assert ours["Authorization"] == theirs.headers["Authorization"]
    assert ours.get("x-amz-security-token") == token


def test_a_new_secret_is_signed_with_at_once() -> None:
    quick, now = QuickGet(), time.gmtime(0)
    pattern = Pattern("http://127.0.0.1/b/", "127.0.0.1", "us-east-1", "")
    old, new = (
        quick.signed("/b/k", pattern, Credentials("AKID", secret), now)["Authorization"]
        for secret in ("one", "two")
    )
    fresh = QuickGet().signed("/b/k", pattern, Credentials("AKID", "two"), now)
    assert old != new == fresh["Authorization"]


def pattern(url: str, key: str, **changes: Any) -> Pattern | None:
    headers = {**SIGNED, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return pattern_of(url, key, {n: v for n, v in headers.items() if v is not None})


def test_the_pattern_of_a_usual_request() -> None:
    path_style = pattern("http://127.0.0.1:9000/bucket/a/b.tar", "a/b.tar")
    assert path_style == Pattern(
        "http://127.0.0.1:9000/bucket/", "127.0.0.1:9000", "eu-west-1", "agent"
    )
    virtual = pattern("https://bucket.s3.amazonaws.com/b%20c.tar", "b c.tar")
    assert virtual is not None and virtual.base == "https://bucket.s3.amazonaws.com/"
    unsigned = pattern(
        "https://x.org/b/k", "k", Authorization=None, X_Amz_Date=None, X_Amz_Content_SHA256=None
    )
    assert unsigned is not None and unsigned.region is None


@pytest.mark.parametrize(
    ("url", "changes"),
    [
        ("https://x.org/b/k", {"x_amz_request_payer": "requester"}),
        ("https://x.org/b/k", {"x_amz_server_side_encryption_customer_key": "secret"}),
        ("https://x.org/b/k?versionId=7", {}),
        ("https://x.org/b/other", {}),
        ("https://x.org/b/k", {"Authorization": "AWS AKID:signature"}),
        (
            "https://x.org/b/k",
            {"Authorization": SIGNED["Authorization"].replace("/s3/", "/s3express/")},
        ),
    ],
)
def test_unusual_requests_are_left_to_botocore(url: str, changes: dict[str, str]) -> None:
    assert pattern(url, "k") is not None or "other" in url or "versionId" in url
    assert pattern(url, "k", **changes) is None
