"""Between the data room and the store: reads and writes that survive faults, or say why not."""

from vmcmc_dist.data.storage.block_cache import BlockCache, CacheCounts, block_key
from vmcmc_dist.data.storage.client import Stats
from vmcmc_dist.data.storage.ranges import RangeReader
from vmcmc_dist.data.storage.retry import RetryPolicy

__all__ = ["BlockCache", "CacheCounts", "RangeReader", "RetryPolicy", "Stats", "block_key"]
