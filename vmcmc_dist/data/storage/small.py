"""Small objects that several processes agree by: read if there, written only if not there."""

from __future__ import annotations

import asyncio
import email.utils
from dataclasses import dataclass

from vmcmc_dist.data.storage.client import S3, Client
from vmcmc_dist.data.storage.paths import bucket_and_key


@dataclass(frozen=True)
class Found:
    """A small object; ``age`` is in seconds, by the store's own clock alone (None if it does not
    say)."""

    data: bytes
    age: float | None


def read(s3: S3, url: str) -> Found | None:
    """The object's bytes and age, or None if there is none; other refusals raise DataError."""
    bucket, key = bucket_and_key(url)

    async def attempt(client: Client, patience: float) -> Found | None:
        from botocore.exceptions import ClientError

        try:
            async with asyncio.timeout(patience):
                answer = await client.request("get_object", Bucket=bucket, Key=key)
                data = await answer["Body"].read()
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "NoSuchKey":
                raise
            return None
        said = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
        age = None
        if said and answer.get("LastModified"):
            now = email.utils.parsedate_to_datetime(said)
            age = max(0.0, (now - answer["LastModified"]).total_seconds())
        return Found(data, age)

    return s3.call(url, attempt)


def write_new(s3: S3, url: str, data: bytes) -> bool:
    """Write the object only if there is none (If-None-Match: *); False if there is one.

    An answer that was lost is asked for again, so False may be said of one's own object: look
    into it. Raises DataError where the store refuses, 501 if it cannot do this.
    """
    bucket, key = bucket_and_key(url)

    async def attempt(client: Client, patience: float) -> bool:
        from botocore.exceptions import ClientError

        try:
            async with asyncio.timeout(patience):
                await client.request(
                    "put_object", Bucket=bucket, Key=key, Body=data, IfNoneMatch="*"
                )
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 412:
                raise
            return False
        return True

    return s3.call(url, attempt)
