"""Data: raw sources → WebDataset shards → a stream that is exact, ordered and resumable.

cfg = DataConfig(source="fashion_mnist", root="~/data/fashion")
ensure_prepared(cfg)
with open_stream(cfg, seed=0, local_batch=64) as stream:
    batch = next(stream)          # Batch(x uint8 [64, 1, 28, 28], y int64 [64], index, row)
"""

from vmcmc_dist.data.celeba_layout import to_celeba_layout, write_celeba_layout
from vmcmc_dist.data.conditions import condition_of, conditions, visible
from vmcmc_dist.data.config import ConditionConfig, DataConfig, cache_dir
from vmcmc_dist.data.densities import DENSITIES, Density, DensityStream, density
from vmcmc_dist.data.inspect import Inspection, inspect, write_grid
from vmcmc_dist.data.manifest import LabelInfo, Manifest, holds_shards, open_manifest
from vmcmc_dist.data.mapping import Mapper
from vmcmc_dist.data.mirror import mirror
from vmcmc_dist.data.open import ensure_prepared, open_stream
from vmcmc_dist.data.prepare import prepare, prepare_sizes
from vmcmc_dist.data.scan import write_index
from vmcmc_dist.data.shard_info import ShardInfo
from vmcmc_dist.data.stream import Batch, ShardStream
from vmcmc_dist.data.verify import Verified, verify

__all__ = [
    "DENSITIES",
    "Batch",
    "ConditionConfig",
    "DataConfig",
    "Density",
    "DensityStream",
    "Inspection",
    "LabelInfo",
    "Manifest",
    "Mapper",
    "ShardInfo",
    "ShardStream",
    "Verified",
    "cache_dir",
    "condition_of",
    "conditions",
    "density",
    "ensure_prepared",
    "holds_shards",
    "inspect",
    "mirror",
    "open_manifest",
    "open_stream",
    "prepare",
    "prepare_sizes",
    "to_celeba_layout",
    "verify",
    "visible",
    "write_celeba_layout",
    "write_grid",
    "write_index",
]
