"""Credentials: refreshed when they rotate, and never in a message, a log line or an error."""

from __future__ import annotations

import logging
import traceback

import pytest

from vmcmc_dist.bench.fault_schedule import Fault, Schedule
from vmcmc_dist.data import DataConfig, ensure_prepared, store
from vmcmc_dist.data.storage import RangeReader, RetryPolicy
from vmcmc_dist.errors import ConfigError, DataError

URL = "s3://faces/set/shard-000000.tar"
DATA = bytes(range(256)) * 400
KEY_ID, SECRET, TOKEN = "AKIAOLDOLDOLDOLD", "wJalrXUtnFEMI+bPxRfiCY", "FwoGZXIvYXdzEJr"
NEW_KEY_ID = "ASIANEWNEWNEWNEW"
QUICK = RetryPolicy(seconds=0.1, first_s=0.03)


@pytest.fixture
def profile(s3, monkeypatch, tmp_path):
    """Credentials in a file, as they come to machines that rotate them; returns a writer of it."""
    s3.put_object(Bucket="faces", Key="set/shard-000000.tar", Body=DATA)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def write(key_id: str) -> None:
        path.write_text(
            f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {SECRET}\n"
            f"aws_session_token = {TOKEN}\n"
        )

    write(KEY_ID)
    return write


def expired(code: str):
    """The store knows the new key only."""

    def faults(request):
        old = KEY_ID in request.headers["authorization"]
        return (
            Fault("status", status=400 if code == "ExpiredToken" else 403, code=code)
            if old
            else None
        )

    return faults


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId"])
@pytest.mark.parametrize("use", ["read", "version"])
def test_rotated_credentials_are_picked_up(profile, proxy, code, use):
    lines: list[str] = []
    reader = RangeReader(QUICK, on_retry=lines.append)
    reader.read(URL, 0, 10)
    proxy.faults = expired(code)
    profile(NEW_KEY_ID)
    if use == "read":
        assert reader.read(URL, 10, 10) == DATA[10:20]
    else:
        assert RangeReader(QUICK, on_retry=lines.append).version(URL)
    assert len(lines) == 1
    before = len(proxy.log)
    assert reader.read(URL, 20, 10) == DATA[20:30]
    assert len(proxy.log) == before + 1


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId"])
def test_expired_credentials_that_nobody_renews_are_an_error_after_one_refresh(
    profile, proxy, code
):
    proxy.faults = expired(code)
    with pytest.raises(DataError, match=f"{URL}: .*{code}: credentials expired.*; renew") as caught:
        RangeReader(RetryPolicy()).read(URL, 0, 10)
    assert len(proxy.log) == 2
    assert_clean(caught.value)


def test_no_credentials_at_all(profile, proxy, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(DataError, match=f"{URL}: no credentials.*set AWS_PROFILE"):
        RangeReader(RetryPolicy()).read(URL, 0, 10)


def test_refused(profile, proxy):
    proxy.faults = lambda request: Fault("status", status=403, code="AccessDenied")
    with pytest.raises(DataError, match=f"{URL}: 403 AccessDenied: access denied; set AWS_PROFILE"):
        RangeReader(RetryPolicy()).read(URL, 0, 10)
    assert len(proxy.log) == 1


def assert_clean(error: BaseException) -> None:
    """No credential anywhere in the error, and no error of a library's chained to it."""
    text = "".join(traceback.format_exception(error)) + repr(vars(error))
    assert error.__cause__ is None and error.__context__ is None
    for secret in (KEY_ID, SECRET, TOKEN, "Signature=", "Credential="):
        assert secret not in text


ALL = {
    "slow": Fault("status"),
    "error": Fault("status", status=500, code="InternalError"),
    "denied": Fault("status", status=403, code="AccessDenied"),
    "wrong signature": Fault("status", status=403, code="SignatureDoesNotMatch"),
    "unknown key": Fault("status", status=403, code=f"InvalidAccessKeyId{KEY_ID}"),
    "expired": Fault("status", status=400, code="ExpiredToken"),
    "gone": Fault("status", status=404, code="NoSuchBucket"),
    "cut": Fault("cut"),
    "reset": Fault("reset"),
    "stall": Fault("stall"),
    "whole": Fault("whole"),
}


def test_no_credential_leaves_through_an_error_or_a_log(profile, proxy, caplog, capfd):
    store.configure(QUICK, stall_s=0.1)
    caplog.set_level(logging.DEBUG, "vmcmc_dist")
    caplog.set_level(logging.DEBUG, "asyncio")
    uses = [
        lambda: RangeReader(QUICK, stall_s=0.1).read(URL, 5, 10),
        lambda: store.read_bytes(URL),
        lambda: store.list_files("s3://faces/set"),
        lambda: store.write_bytes("s3://faces/new", DATA),
    ]
    for name, fault in ALL.items():
        proxy.faults = lambda request, fault=fault: fault
        caplog.clear()
        for use in uses[: 1 if name == "whole" else None]:
            with pytest.raises(DataError) as caught:
                use()
            assert_clean(caught.value)
        said = [r.getMessage() + str(r.exc_info or "") for r in caplog.records]
        out = capfd.readouterr()
        for secret in (KEY_ID, SECRET, TOKEN):
            assert secret not in "".join(said) + out.out + out.err, name
        permanent = name in ("denied", "wrong signature", "unknown key", "gone")
        assert permanent or any(URL in line for line in said), name


def test_no_credential_is_logged_while_faults_are_mended(profile, proxy, caplog):
    store.configure(RetryPolicy(seconds=20.0, first_s=0.01, longest_s=0.1), stall_s=0.3)
    proxy.faults = Schedule.even(0.4, seed=1)
    caplog.set_level(logging.DEBUG, "vmcmc_dist")
    for _ in range(20):
        assert store.read_bytes(URL) == DATA
    said = [r.getMessage() for r in caplog.records]
    assert len(said) > 5
    assert not any(secret in line for line in said for secret in (KEY_ID, SECRET, TOKEN))


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY_ID}:{SECRET}@faces/set",
        f"s3://{KEY_ID}:wJalr/XUtn@faces/set",
        f"s3://{KEY_ID}@faces/set",
        f"https://{KEY_ID}:{SECRET}@host/faces/set",
    ],
)
@pytest.mark.parametrize("use", ["read", "list", "prepare"])
def test_a_url_with_credentials_is_refused_and_not_repeated(url, use):
    with pytest.raises(ConfigError) as caught:
        if use == "read":
            RangeReader().read(url, 0, 1)
        elif use == "list":
            store.list_files(url)
        else:
            ensure_prepared(DataConfig(source="shards", root=url))
    assert_clean(caught.value)
    assert "wJalr" not in str(caught.value)
    assert "credentials" in str(caught.value) or "https://…" in str(caught.value)


def test_an_access_point_is_no_credential():
    assert store.is_remote("s3://arn:aws:s3:us-east-1:123456789012:accesspoint/faces/set")
    assert store.is_remote("s3://faces/a@b:c")
