"""What an error of the store means, in our own words: never the text of the error itself.

Errors of botocore and aiohttp carry the request, and with it the signed headers; so nothing of
them but the class, the HTTP status and the store's error code goes into a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from vmcmc_dist.data.storage.retry import Failure, Kind

TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
TRANSIENT_CODES = {
    "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "InternalError",
    "RequestTimeout", "RequestTimeoutException", "Throttling", "ThrottlingException",
    "TooManyRequests", "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded",
    "OperationAborted", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch",
    "ConditionalRequestConflict",
}  # fmt: skip
CREDENTIAL_CODES = {
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken",
    "TokenRefreshRequired", "RequestExpired",
}  # fmt: skip

REACH = "check the network and AWS_ENDPOINT_URL, or give it more time with data.retry_s"
BUSY = (
    "try again later; if it stays so, read with fewer nodes at once, spread the shards over more "
    "prefixes, or give it more time with data.retry_s"
)
RENEW = (
    "renew the credentials: log in again, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN anew"
)
NO_CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


class WrongAnswer(Exception):
    """The store answered, but not with what was asked for; carries the failure it amounts to."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.what)
        self.failure = failure


def overwritten() -> Failure:
    """The object is no longer the one whose first bytes were read."""
    return Failure(
        Kind.PERMANENT,
        "overwritten while it was read (its ETag changed)",
        "start again to read the new version; write changed shards below a new prefix, never over "
        "those of a run",
    )


def not_http() -> Failure:
    """Whoever answers does not speak as S3 does."""
    return Failure(Kind.TRANSIENT, "an answer that is not S3's", REACH, limit=8)


def classify(error: BaseException, bucket: str, stall_s: float) -> Failure | None:
    """The failure that ``error`` stands for, or None if it is none of the store's."""
    from aiohttp import ClientError as HttpError
    from aiohttp import ClientPayloadError
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    name = type(error).__name__
    if isinstance(error, WrongAnswer):
        return error.failure
    if isinstance(error, boto.ClientError):
        return answered(error.response, bucket)
    if isinstance(error, (asyncio.TimeoutError, boto.ReadTimeoutError)):
        return Failure(Kind.TRANSIENT, f"stalled: no answer for {stall_s:g} s", REACH)
    if isinstance(error, (boto.EndpointConnectionError, boto.ConnectTimeoutError)):
        return Failure(Kind.TRANSIENT, "the store cannot be reached", REACH)
    if isinstance(error, ClientPayloadError):
        return Failure(Kind.TRANSIENT, "the connection broke within the body", REACH)
    if isinstance(error, (boto.ConnectionClosedError, ConnectionError)):
        return Failure(Kind.TRANSIENT, "the connection was closed or reset", REACH)
    if isinstance(error, ResponseParserError):
        return not_http()
    if isinstance(error, boto.NoCredentialsError):
        return Failure(Kind.CREDENTIALS, "no credentials", NO_CREDENTIALS)
    if isinstance(error, (boto.CredentialRetrievalError, boto.MetadataRetrievalError)):
        return Failure(Kind.TRANSIENT, "the credentials could not be fetched", RENEW)
    if isinstance(error, boto.SSLError):
        return Failure(
            Kind.PERMANENT,
            "TLS with the store failed",
            "check AWS_ENDPOINT_URL (https or http?) and AWS_CA_BUNDLE",
        )
    if isinstance(error, (boto.HTTPClientError, HttpError)):
        return Failure(Kind.TRANSIENT, f"the connection failed ({name})", REACH)
    if isinstance(error, boto.BotoCoreError):
        return Failure(
            Kind.PERMANENT,
            f"the request could not be made ({name})",
            "check the URL, AWS_PROFILE and AWS_ENDPOINT_URL",
        )
    return None


def answered(response: Mapping[str, Any], bucket: str) -> Failure:
    """The failure that an error answer of the store (as botocore parsed it) stands for."""
    from s3fs.errors import ERROR_CODE_TO_EXCEPTION as OTHER_CODES

    about = response.get("ResponseMetadata", {})
    status = int(about.get("HTTPStatusCode") or 0)
    code = str(response.get("Error", {}).get("Code", ""))
    # the answer to a HEAD has no body, so botocore puts the status where the code would be
    bodiless = code in ("", str(status))
    # a code that is not S3's is not shown: who knows what of the request it repeats
    shown = not bodiless and (code in TRANSIENT_CODES | CREDENTIAL_CODES | OTHER_CODES.keys())
    what = f"{status} {code}" if shown else str(status)
    if code in TRANSIENT_CODES or (status in TRANSIENT_STATUS and code not in CREDENTIAL_CODES):
        after = about.get("HTTPHeaders", {}).get("retry-after", "")
        return Failure(Kind.TRANSIENT, what, BUSY, float(after) if after.isdecimal() else None)
    if code in CREDENTIAL_CODES:
        return Failure(Kind.CREDENTIALS, f"{what}: credentials expired or unknown", RENEW)
    if status == 412:
        return overwritten()
    if code == "NoSuchBucket":
        return Failure(
            Kind.PERMANENT,
            f"{what}: no such bucket",
            f"check the name of bucket {bucket!r}, whether it was deleted, and AWS_ENDPOINT_URL if "
            "the store is not AWS",
        )
    if status == 404:
        return Failure(
            Kind.PERMANENT,
            f"{what}: no such bucket or object",
            f"check the name of bucket {bucket!r} and the prefix, whether it was deleted, and "
            "AWS_ENDPOINT_URL if the store is not AWS",
        )
    if status == 416:
        return Failure(
            Kind.PERMANENT, f"{what}: nothing there", "copy it again or prepare the data again"
        )
    if code == "RequestTimeTooSkewed":
        return Failure(Kind.PERMANENT, what, "set this machine's clock (it runs ahead or behind)")
    if status in (401, 403) or (bodiless and status == 400):
        # an expired token is a 400 or 403 too, and without a body they cannot be told apart
        return Failure(
            Kind.CREDENTIALS if bodiless else Kind.PERMANENT,
            f"{what}: access denied",
            "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to an account that may "
            f"use bucket {bucket!r} (s3:ListBucket and s3:GetObject to read; also s3:PutObject and "
            "s3:DeleteObject to write)",
        )
    if status in (301, 307) or code in ("AuthorizationHeaderMalformed", "PermanentRedirect"):
        return Failure(
            Kind.PERMANENT,
            f"{what}: the bucket is in another region",
            "set AWS_DEFAULT_REGION to the bucket's",
        )
    return Failure(
        Kind.PERMANENT, f"the store refused ({what})", "check the URL and AWS_ENDPOINT_URL"
    )
