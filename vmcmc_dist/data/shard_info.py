"""What a manifest says of one shard."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShardInfo:
    """One tar file: its name below the manifest, samples, bytes and sha256 (empty = unknown)."""

    name: str
    count: int
    bytes: int
    sha256: str = ""
