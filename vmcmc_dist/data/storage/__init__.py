"""Bytes from disks and stores: ranged reads, retries, a cache."""
