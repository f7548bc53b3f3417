"""GETs made without most of botocore are those that botocore would have made."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import fsspec
import pytest
import s3fs

from vmcmc_dist.bench.fault_schedule import Fault
from vmcmc_dist.data.storage import RangeReader, RetryPolicy
from vmcmc_dist.data.storage.client import Client, on_loop, s3_filesystem
from vmcmc_dist.data.storage.quick_get import _recipe
from vmcmc_dist.errors import DataError

QUICK = RetryPolicy(seconds=20.0, first_s=0.01, longest_s=0.1)
KEY = "a b/ü+%25=&~/shard-000000.tar"
FIELDS = {"Range": "bytes=5-9", "If-Match": '"abc"'}


class _Caught(Exception):
    def __init__(self, request: Any) -> None:
        self.request = request


def _catch(request: Any, **_: Any) -> None:
    raise _Caught(request)


def ours_and_theirs(bucket: str) -> tuple[Any, Any]:
    """Our request, and the one that botocore would send; nothing is sent."""
    fs = s3_filesystem()
    client = Client(fs, fs.s3)
    recipe = on_loop(_recipe(client, bucket))
    ours = recipe.request(KEY, FIELDS)
    recipe.signing.add(ours, 30.0)
    return ours, on_loop(_theirs(client, bucket))


async def _theirs(client: Client, bucket: str) -> Any:
    client.raw.meta.events.register_first("before-send.s3.GetObject", _catch)
    try:
        await client.request(
            "get_object", Bucket=bucket, Key=KEY, Range=FIELDS["Range"], IfMatch=FIELDS["If-Match"]
        )
    except _Caught as caught:
        return caught.request
    finally:
        client.raw.meta.events.unregister("before-send.s3.GetObject", _catch)
    raise AssertionError


def told(request: Any) -> tuple[str, dict[str, str]]:
    """URL and headers, but for those of time; of the signature, by whom and for where."""
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    signed = re.search(r"Credential=(\S+)|AWS (\w+):", headers.pop("authorization", ""))
    headers["by"] = signed[0] if signed else ""
    return request.url, {
        name: value
        for name, value in headers.items()
        if not name.startswith("amz-sdk-") and name not in ("x-amz-date", "date", "user-agent")
    }


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "virtual hosts": {"config_kwargs": {"s3": {"addressing_style": "virtual"}}},
    "paths": {"config_kwargs": {"s3": {"addressing_style": "path"}}},
    "own endpoint": {"endpoint_url": "https://store.example:9000"},
    "paid by the reader": {"requester_pays": True},
    "not signed": {"anon": True},
    "signed as of old": {"config_kwargs": {"signature_version": "s3"}},
    "customer's key": {
        "s3_additional_kwargs": {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    },
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    "bucket", ["faces", "faces.v2", "arn:aws:s3:us-west-2:123456789012:accesspoint/faces"]
)
def test_as_botocore_makes_them(monkeypatch, name, bucket):
    if bucket.startswith("arn") and name == "paths":
        pytest.skip("access points have no paths")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setitem(fsspec.config.conf, "s3", SETTINGS[name])
    s3fs.S3FileSystem.clear_instance_cache()
    ours, theirs = ours_and_theirs(bucket)
    s3fs.S3FileSystem.clear_instance_cache()
    assert told(ours) == told(theirs)
    assert ours.headers["Range"] == FIELDS["Range"]
    assert "arn" not in ours.auth_path  # nor is it in what botocore signs


@pytest.mark.stores("moto", "swift")
def test_keys_of_all_kinds(s3):
    keys = [KEY, "plain", "dots/../../up", "ends in slash/ ", "twice//"]
    for i, key in enumerate(keys):
        s3.put_object(Bucket="faces", Key=key, Body=bytes([i]) * 100)
    reader = RangeReader(QUICK)
    for i, key in enumerate(keys):
        assert reader.read(f"s3://faces/{key}", 90, 10) == bytes([i]) * 10


def test_botocore_is_asked_once_a_bucket(s3):
    for i in range(5):
        s3.put_object(Bucket="faces", Key=f"{i}", Body=bytes([i]))
    asked: list[str] = []
    fs = s3_filesystem()
    fs.s3.meta.events.register(
        "before-parameter-build.s3.GetObject", lambda params, **_: asked.append(params["Bucket"])
    )
    reader = RangeReader(QUICK)
    assert [reader.read(f"s3://faces/{i}", 0, 1) for i in range(5)] == [
        bytes([i]) for i in range(5)
    ]
    assert asked == ["faces"]


def test_a_bucket_in_another_region_is_found(s3, proxy):
    far = boto3.client("s3", region_name="eu-west-1", endpoint_url=proxy.url)
    far.create_bucket(
        Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    far.put_object(Bucket="far-away", Key="shard", Body=b"0123456789")

    def elsewhere(request):
        here = "/us-east-1/" in request.headers["authorization"] and "/shard" in request.path
        return Fault("status", status=301, code="PermanentRedirect") if here else None

    try:
        proxy.faults = elsewhere
        reader = RangeReader(QUICK)
        assert reader.read("s3://far-away/shard", 2, 3) == b"234"
        before = len(proxy.log)
        assert reader.read("s3://far-away/shard", 5, 3) == b"567"
        assert len(proxy.log) == before + 1
    finally:
        proxy.faults = lambda request: None
        far.delete_object(Bucket="far-away", Key="shard")
        far.delete_bucket(Bucket="far-away")


class _Odd(BaseHTTPRequestHandler):
    """Refuses without saying why."""

    def do_GET(self) -> None:
        body = b'<?xml version="1.0"?><Error><Message>no</Message></Error>'
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


def test_an_error_answer_without_a_code_is_the_stores(s3, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Odd) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            with pytest.raises(DataError, match="s3://faces/shard: 403: access denied"):
                RangeReader(QUICK).read("s3://faces/shard", 0, 1)
        finally:
            server.shutdown()
