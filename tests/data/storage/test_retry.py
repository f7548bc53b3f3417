"""When a failed read is tried again, with time and chance held in hand."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
)

from vmcmc_dist.data.storage.failures import classify
from vmcmc_dist.data.storage.retry import Failure, Kind, RetryPolicy, Tries

BUSY = Failure(Kind.TRANSIENT, "503 SlowDown", "try later")


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def policy(clock: Clock, **changes) -> RetryPolicy:
    """Jitter at its upper end, so that the bound itself is seen."""
    settings = {"first_s": 1.0, "longest_s": 8.0, "uniform": lambda low, high: high} | changes
    return RetryPolicy(clock=clock, **settings)


def test_the_bound_of_the_wait_doubles_up_to_the_longest():
    tries = Tries(policy(Clock()))
    assert [tries.wait(BUSY) for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    assert tries.waited == 31


def test_jitter_is_full():
    drawn = []
    tries = Tries(policy(Clock(), uniform=lambda low, high: drawn.append((low, high)) or 0.0))
    assert [tries.wait(BUSY) for _ in range(3)] == [0, 0, 0]
    assert drawn == [(0, 1), (0, 2), (0, 4)]


def test_the_budget_of_seconds_counts_from_the_first_failure_and_is_never_overspent():
    clock = Clock()
    tries = Tries(policy(clock, seconds=10.0, longest_s=60.0))
    clock.now += 1000  # a first try that takes long is no failure
    waits = []
    while (wait := tries.wait(BUSY)) is not None:
        waits.append(wait)
        clock.now += wait
    assert waits == [1, 2, 4, 3] and tries.failed == 5 and tries.seconds == 10


def test_the_budget_of_tries_counts_those_without_a_byte():
    tries = Tries(policy(Clock(), tries=3))
    assert tries.wait(BUSY) == 1 and tries.wait(BUSY) == 2
    assert tries.wait(BUSY, progress=True) == 1 and tries.wait(BUSY) == 2
    assert tries.wait(BUSY) is None and tries.failed == 5


def test_no_retries_at_all():
    assert Tries(policy(Clock(), seconds=0.0)).wait(BUSY) is None


def test_retry_after_is_honoured_within_the_budget():
    clock = Clock()
    tries = Tries(policy(clock, seconds=20.0))
    assert tries.wait(Failure(Kind.TRANSIENT, "503", "", retry_after=7.0)) == 7
    assert tries.wait(Failure(Kind.TRANSIENT, "503", "", retry_after=1.0)) == 2
    assert tries.wait(Failure(Kind.TRANSIENT, "503", "", retry_after=30.0)) is None


def test_permanent_failures_are_not_tried_again_and_wrong_answers_only_a_few_times():
    assert Tries(policy(Clock())).wait(Failure(Kind.PERMANENT, "404", "")) is None
    tries = Tries(policy(Clock()))
    wrong = Failure(Kind.TRANSIENT, "wrong", "", limit=3)
    assert [tries.wait(wrong) for _ in range(3)] == [1, 2, None]


def test_credentials_are_refreshed_once():
    tries = Tries(policy(Clock()))
    expired = Failure(Kind.CREDENTIALS, "400 ExpiredToken", "")
    assert tries.wait(BUSY) == 1 and tries.wait(expired) == 0 and tries.wait(expired) is None


def test_a_late_try_waits_no_longer_for_a_byte_than_the_budget_lasts():
    clock = Clock()
    tries = Tries(policy(clock, seconds=20.0))
    assert tries.patience(15.0) == 15
    tries.wait(BUSY)
    clock.now += 12
    assert tries.patience(15.0) == 8
    clock.now += 100
    assert tries.patience(15.0) == 1


def answer(status: int, code: str = "", **headers: str) -> ClientError:
    about = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    error = {"Error": {"Code": code or str(status), "Message": "hunter2"}}
    return ClientError({**error, "ResponseMetadata": about}, "GetObject")


@pytest.mark.parametrize(
    "error, kind, what",
    [
        (answer(503, "SlowDown"), Kind.TRANSIENT, "503 SlowDown"),
        (answer(503), Kind.TRANSIENT, "503"),
        (answer(500, "InternalError"), Kind.TRANSIENT, "500 InternalError"),
        (answer(502), Kind.TRANSIENT, "502"),
        (answer(504), Kind.TRANSIENT, "504"),
        (answer(429, "TooManyRequests"), Kind.TRANSIENT, "429"),
        (answer(400, "RequestTimeout"), Kind.TRANSIENT, "RequestTimeout"),
        (answer(404, "NoSuchKey"), Kind.PERMANENT, "no such bucket or object"),
        (answer(404, "NoSuchBucket"), Kind.PERMANENT, "no such bucket"),
        (answer(404), Kind.PERMANENT, "no such bucket or object"),
        (answer(403, "AccessDenied"), Kind.PERMANENT, "access denied"),
        (answer(403, "SignatureDoesNotMatch"), Kind.PERMANENT, "access denied"),
        (answer(403, "RequestTimeTooSkewed"), Kind.PERMANENT, "RequestTimeTooSkewed"),
        (answer(403), Kind.CREDENTIALS, "access denied"),
        (answer(400), Kind.CREDENTIALS, "access denied"),
        (answer(400, "ExpiredToken"), Kind.CREDENTIALS, "expired"),
        (answer(403, "InvalidAccessKeyId"), Kind.CREDENTIALS, "unknown"),
        (answer(412, "PreconditionFailed"), Kind.PERMANENT, "overwritten"),
        (answer(416, "InvalidRange"), Kind.PERMANENT, "nothing there"),
        (answer(301, "PermanentRedirect"), Kind.PERMANENT, "another region"),
        (answer(501, "NotImplemented"), Kind.PERMANENT, "refused"),
        (EndpointConnectionError(endpoint_url="x"), Kind.TRANSIENT, "cannot be reached"),
        (ConnectionClosedError(endpoint_url="x"), Kind.TRANSIENT, "closed or reset"),
        (ConnectionResetError(), Kind.TRANSIENT, "closed or reset"),
        (TimeoutError(), Kind.TRANSIENT, "stalled"),
        (TimeoutError(), Kind.TRANSIENT, "stalled"),
        (NoCredentialsError(), Kind.CREDENTIALS, "no credentials"),
        (CredentialRetrievalError(provider="x", error_msg="hunter2"), Kind.TRANSIENT, "fetched"),
    ],
)
def test_what_failures_are(error, kind, what):
    failure = classify(error, "faces", 15.0)
    assert failure.kind is kind and what in failure.what
    assert failure.hint and "hunter2" not in failure.what + failure.hint


def test_an_error_of_our_own_is_not_the_stores():
    assert classify(TypeError("a mistake"), "faces", 15.0) is None


@pytest.mark.parametrize("after, seconds", [("3", 3.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_retry_after_is_read_off_the_answer(after, seconds):
    error = answer(503, "SlowDown", **{"retry-after": after})
    assert classify(error, "faces", 15.0).retry_after == seconds
