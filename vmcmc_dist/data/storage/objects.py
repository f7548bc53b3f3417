"""Objects of a bucket as wholes: what is there, and taking it away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from vmcmc_dist.data.storage.client import S3, Client
from vmcmc_dist.data.storage.paths import bucket_and_key
from vmcmc_dist.data.storage.transfer import Version

PAGE = 1000
"""Objects in one answer to a listing; a listing that fails goes on at its page."""


def head(s3: S3, url: str) -> Version:
    """ETag and size of one object; raises DataError if it is not there or not permitted."""
    bucket, key = bucket_and_key(url)

    async def attempt(client: Client, patience: float) -> Version:
        async with asyncio.timeout(patience):
            found = await client.request("head_object", Bucket=bucket, Key=key)
        return Version(found.get("ETag", ""), found["ContentLength"])

    return s3.call(url, attempt)


def exists(s3: S3, url: str) -> bool:
    """True if the object is there; a missing bucket or a refusal raises DataError."""
    bucket, key = bucket_and_key(url)
    if not key:
        return False
    if _answers(s3, url, "head_object", {404}, Bucket=bucket, Key=key):
        return True
    # no object, or not even a bucket? Who may read objects may not always look at the bucket.
    _answers(s3, url, "head_bucket", {403}, Bucket=bucket)
    return False


def _answers(s3: S3, url: str, method: str, no: set[int], **fields: str) -> bool:
    """False where the answer's status is one of ``no``; any other refusal raises DataError."""

    async def attempt(client: Client, patience: float) -> bool:
        from botocore.exceptions import ClientError

        try:
            async with asyncio.timeout(patience):
                await client.request(method, **fields)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in no:
                raise
            return False
        return True

    return s3.call(url, attempt)


def find(s3: S3, url: str, *, missing_ok: bool = False) -> dict[str, tuple[int, str]]:
    """Objects below a prefix (or the one of that name): name below it → (bytes, ETag), sorted.

    Raises DataError if there is none and not ``missing_ok``, or the bucket is missing or not
    permitted.
    """
    bucket, key = bucket_and_key(url.rstrip("/"))
    prefix = f"{key}/" if key else ""
    found = {
        item["Key"][len(prefix) :]: (int(item["Size"]), str(item.get("ETag", "")))
        for item in _listing(s3, url, bucket, prefix)
        if not item["Key"].endswith("/")
    }
    if not found and key and not missing_ok:
        version = head(s3, url)
        found = {key.rsplit("/", 1)[-1]: (version.size, version.etag)}
    return dict(sorted(found.items()))


def delete(s3: S3, url: str) -> None:
    """Delete one object, or find it gone; raises DataError when refused."""
    bucket, key = bucket_and_key(url)

    async def attempt(client: Client, patience: float) -> None:
        async with asyncio.timeout(patience):
            await client.request("delete_object", Bucket=bucket, Key=key)

    s3.call(url, attempt)


def _listing(s3: S3, url: str, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    token: dict[str, str] = {}
    while True:

        async def attempt(
            client: Client, patience: float, token: dict[str, str] = token
        ) -> dict[str, Any]:
            async with asyncio.timeout(patience):
                return await client.request(
                    "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **token
                )

        page = s3.call(url, attempt)
        yield from page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def abort_uploads(s3: S3, url: str) -> int:
    """Abort the multipart uploads below a prefix that nobody finished; returns how many."""
    bucket, prefix = bucket_and_key(url.rstrip("/"))

    async def listing(client: Client, patience: float) -> list[dict[str, Any]]:
        async with asyncio.timeout(patience):
            found = await client.request(
                "list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/"
            )
        return list(found.get("Uploads", []))

    left = s3.call(url, listing)
    for upload in left:

        async def abort(client: Client, patience: float, upload: dict[str, Any] = upload) -> None:
            from botocore.exceptions import ClientError

            try:
                async with asyncio.timeout(patience):
                    await client.request(
                        "abort_multipart_upload",
                        Bucket=bucket,
                        Key=upload["Key"],
                        UploadId=upload["UploadId"],
                    )
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
                    raise

        s3.call(url, abort)
    return len(left)
