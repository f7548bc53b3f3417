"""Writing objects: whole and checked, or not there at all."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vmcmc_dist.data.storage.client import S3, Client, GaveUp, done, on_loop
from vmcmc_dist.data.storage.failures import WrongAnswer
from vmcmc_dist.data.storage.paths import bucket_and_key, local_errors
from vmcmc_dist.data.storage.retry import Failure, Kind
from vmcmc_dist.errors import DataError

PART_BYTES = 16 << 20
"""Larger objects are written in parts of this size, or of a 10,000th of the object."""
MAX_PARTS = 10_000
PARTS_AT_ONCE = 3
SLOWEST = 128 << 10
"""Bytes per second below which a request that sends data is a stall (``stall_s`` is added)."""

Read = Callable[[int, int], bytes]


def write(s3: S3, url: str, data: bytes) -> str:
    """Write ``data`` to one object; returns its ETag. Raises DataError after the budget.

    Every request is checked by MD5, by the store and against the ETag it answers with.
    """
    return _write(s3, url, len(data), lambda start, end: data[start:end])


def upload(s3: S3, path: Path, url: str) -> str:
    """Write a local file to one object, as ``write`` does."""
    with local_errors(str(path)), open(path, "rb") as file:
        handle = file.fileno()
        before = os.fstat(handle)

        def read(start: int, end: int) -> bytes:
            data = os.pread(handle, end - start, start)
            now = os.fstat(handle)
            if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise DataError(f"{path}: changed while it was copied to {url}; copy it again")
            return data

        return _write(s3, url, before.st_size, read)


def _write(s3: S3, url: str, size: int, read: Read) -> str:
    if size <= PART_BYTES:
        return s3.call(url, _Put(url, "put_object", read(0, size)).attempt)
    return done(on_loop(_Multipart(s3, url, size, read).run()))


@dataclass
class _Put:
    """One request that sends data, and the check that the store received the same bytes."""

    url: str
    method: str
    data: bytes
    part: dict[str, Any] | None = None

    async def attempt(self, client: Client, patience: float) -> str:
        bucket, key = bucket_and_key(self.url)
        md5 = await asyncio.to_thread(hashlib.md5, self.data, usedforsecurity=False)
        async with asyncio.timeout(patience + len(self.data) / SLOWEST):
            answer = await client.request(
                self.method,
                Bucket=bucket,
                Key=key,
                Body=self.data,
                ContentMD5=base64.b64encode(md5.digest()).decode(),
                **(self.part or {}),
            )
        etag = str(answer.get("ETag", ""))
        if _is_md5(answer) and etag.strip('"') != md5.hexdigest():
            raise WrongAnswer(_other_bytes())
        return etag


def _is_md5(answer: dict[str, Any]) -> bool:
    """Whether the ETag is the MD5 of the bytes: not where the store encrypts with other keys."""
    keyed = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
    plain = not keyed and "SSECustomerAlgorithm" not in answer
    return plain and re.fullmatch(r'"?[0-9a-f]{32}"?', str(answer.get("ETag", ""))) is not None


def _other_bytes() -> Failure:
    return Failure(
        Kind.TRANSIENT,
        "the store holds other bytes than were sent (checksums differ)",
        "something between here and the store changes data; check proxies and memory",
        limit=3,
    )


class _Multipart:
    """A multipart upload: invisible until its last request, aborted if anything fails before."""

    def __init__(self, s3: S3, url: str, size: int, read: Read) -> None:
        self.s3, self.url, self.size, self.read = s3, url, size, read
        bucket, key = bucket_and_key(url)
        self.object = {"Bucket": bucket, "Key": key}
        self.part_bytes = max(PART_BYTES, -(-size // MAX_PARTS))
        self.upload: dict[str, Any] = {}

    async def run(self) -> str | GaveUp:
        """The ETag of the finished object, or why it was given up (and aborted)."""
        made = await self.s3.persist(self.url, self._create)
        if isinstance(made, GaveUp):
            return made
        self.upload = {**self.object, "UploadId": made}
        gate = asyncio.Semaphore(PARTS_AT_ONCE)
        starts = range(0, self.size, self.part_bytes)
        sends = [asyncio.create_task(self._send(gate, n, at)) for n, at in enumerate(starts, 1)]
        done: str | bool | GaveUp | None = None
        try:
            etags: list[str] = []
            for send in sends:
                sent = await send
                if isinstance(sent, GaveUp):
                    done = sent
                    break
                etags.append(sent)
            else:
                done = await self.s3.persist(self.url, _Complete(self, etags).attempt)
                if not isinstance(done, GaveUp):
                    done = await self._checked()
        finally:
            for send in sends:
                send.cancel()
            await asyncio.gather(*sends, return_exceptions=True)
            aborted = isinstance(done, str) or await self._abort()
        assert done is not None and not isinstance(done, bool)
        if isinstance(done, GaveUp) and not aborted:
            left = "; parts of it are left in the bucket, let a lifecycle rule remove them"
            done = replace(done, failure=replace(done.failure, hint=done.failure.hint + left))
        return done

    async def request(self, client: Client, patience: float, method: str, **fields: Any) -> Any:
        async with asyncio.timeout(patience):
            return await client.request(method, **self.upload, **fields)

    async def _create(self, client: Client, patience: float) -> str:
        # should its answer be lost, an upload without parts stays behind: it holds no bytes
        answer = await self._ask(client, patience, "create_multipart_upload")
        return str(answer["UploadId"])

    async def _send(self, gate: asyncio.Semaphore, number: int, start: int) -> str | GaveUp:
        async with gate:
            end = min(self.size, start + self.part_bytes)
            data = await asyncio.to_thread(self.read, start, end)
            part = {"PartNumber": number, "UploadId": self.upload["UploadId"]}
            return await self.s3.persist(
                self.url, _Put(self.url, "upload_part", data, part).attempt
            )

    async def _checked(self) -> str | GaveUp:
        """The finished object's ETag, after a look at its size; one of another size is deleted."""
        found = await self.s3.persist(
            self.url, lambda client, patience: self._ask(client, patience, "head_object")
        )
        if isinstance(found, GaveUp) or found["ContentLength"] == self.size:
            return found if isinstance(found, GaveUp) else str(found.get("ETag", ""))
        await self.s3.persist(
            self.url, lambda client, patience: self._ask(client, patience, "delete_object")
        )
        return GaveUp(self.url, _other_bytes(), 1, 0.0, None)

    async def _ask(self, client: Client, patience: float, method: str) -> Any:
        async with asyncio.timeout(patience):
            return await client.request(method, **self.object)

    async def _abort(self) -> bool:
        policy = replace(self.s3.policy, seconds=min(10.0, self.s3.policy.seconds))
        quick = replace(self.s3, policy=policy)
        found = await quick.persist(
            self.url, lambda client, patience: self.request(client, patience, _ABORT)
        )
        return not isinstance(found, GaveUp) or found.failure.what.startswith("404")


_ABORT = "abort_multipart_upload"


class _Complete:
    """The last request of a multipart upload: it makes the object visible."""

    def __init__(self, whole: _Multipart, etags: list[str]) -> None:
        self.whole, self.etags, self.tried = whole, etags, False

    async def attempt(self, client: Client, patience: float) -> bool:
        from botocore.exceptions import ClientError

        parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(self.etags, 1)]
        again, self.tried = self.tried, True
        try:
            await self.whole.request(
                client,
                patience,
                "complete_multipart_upload",
                MultipartUpload={"Parts": parts},
            )
        except ClientError as error:
            # the answer to an earlier try may have been lost, and the object be complete
            if not again or error.response.get("Error", {}).get("Code") != "NoSuchUpload":
                raise
        return True
