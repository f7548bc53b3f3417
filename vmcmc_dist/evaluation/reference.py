"""Statistics of the real data that distances are measured to, made once and kept in the cache.

reference = reference_for(config.data, features)
scores.record(reference)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vmcmc_dist.data import DataConfig, cache_dir
from vmcmc_dist.errors import CheckpointError, ResourceError
from vmcmc_dist.evaluation.features import Features
from vmcmc_dist.evaluation.judge import training_split
from vmcmc_dist.evaluation.real import find_part, real_batches
from vmcmc_dist.evaluation.scores import Scores

FORMAT = 1  # of the stored statistics, and of how they are made


@dataclass
class Reference:
    """Scores of real images, and which images these are."""

    scores: Scores
    data_checksum: str
    split: str

    @property
    def n(self) -> int:
        """Real images."""
        return self.scores.n

    @property
    def whole_training_split(self) -> bool:
        """What the published FID measures to."""
        return self.split == "train"

    def save(self, path: Path) -> Path:
        """Write all at once or not at all; ResourceError if the disk does not take it."""
        tensors = {k: v.contiguous() for k, v in self.scores.state_dict().items()}
        metadata = {
            "format": str(FORMAT),
            "features": self.scores.features.name,
            "fingerprint": self.scores.features.fingerprint,
            "data_checksum": self.data_checksum,
            "split": self.split,
            "sha256": _digest(tensors),
        }
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(save(tensors, metadata))
            partial.replace(path)
        except OSError as error:
            raise ResourceError(
                f"{path}: cannot be written ({error.strerror}); free space or set VMCMC_CACHE"
            ) from None
        finally:
            if partial.exists():
                partial.unlink()
        return path

    @classmethod
    def load(cls, path: Path, features: Features, data_checksum: str) -> Reference:
        """What ``save`` wrote.

        CheckpointError: missing, torn, damaged, or of other data or another net.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} holds no reference statistics ({error}): delete it, they are made again"
            ) from error
        wanted = {
            "format": str(FORMAT),
            "fingerprint": features.fingerprint,
            "data_checksum": data_checksum,
            "sha256": _digest(tensors),
        }
        for key, value in wanted.items():
            if metadata.get(key) != value:
                raise CheckpointError(
                    f"{path}: {key} is {str(metadata.get(key))[:12]}…, not {value[:12]}…: these "
                    "are the statistics of something else, or damaged; delete the file"
                )
        return cls(Scores.from_state(features, tensors), data_checksum, metadata["split"])


def reference_for(
    data: DataConfig,
    features: Features,
    progress: Callable[[str, int, int], None] | None = None,
    batch_size: int = 500,
) -> Reference:
    """Statistics of the whole training split of ``data`` in ``features``.

    From the cache, under the data's checksum and the weights' fingerprint; made (and kept) where
    they are missing or their file is damaged. ``progress(what, done, total)``.
    """
    cfg = training_split(data)
    part = find_part(cfg, "train")
    path = reference_path(data, features)
    if path.is_file():
        try:
            return Reference.load(path, features, part.checksum)
        except CheckpointError:  # damaged: made again below, and replaced
            path.unlink(missing_ok=True)
    scores = Scores.empty(features)
    for batch in real_batches(cfg, "train", batch_size):
        scores.add(batch.x)
        if progress is not None:
            progress(f"reference statistics in {features.name}", scores.n, len(part.rows))
    reference = Reference(scores, part.checksum, "train")
    reference.save(path)
    return reference


def reference_path(data: DataConfig, features: Features) -> Path:
    """Where the statistics of this data in this net are kept."""
    checksum = find_part(training_split(data), "train").checksum
    identity = json.dumps([FORMAT, checksum, features.fingerprint])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return cache_dir() / "statistics" / f"{data.source}-{features.name}-{key}.safetensors"


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(f"{key} {tensors[key].dtype} {tuple(tensors[key].shape)}".encode())
        digest.update(tensors[key].contiguous().numpy().tobytes())
    return digest.hexdigest()
