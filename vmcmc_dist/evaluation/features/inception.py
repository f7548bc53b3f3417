"""Inception-v3 of 2015, the net of the published FID (Heusel et al. 2017), by torch-fidelity.

    pip install 'vmcmc_dist[fid]'

Its resizing and pooling are those of the original TensorFlow graph, so the numbers are too.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation.features.base import Features
from vmcmc_dist.evaluation.features.weights import Published, fetch, load_state

WEIGHTS = Published(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
DIM, CLASSES = 2048, 1008


def inception_features(
    *, weights: Path | None = None, device: str | torch.device = "cpu"
) -> Features:
    """2048 pooled features, and the logits without bias that the inception score is taken from.

    Raises:
        ConfigError: torch-fidelity or torchvision is not installed.
        CheckpointError: another file of weights. ResourceError: it cannot be downloaded.
    """
    try:
        from torch_fidelity import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ConfigError(
            f"features=inception needs torch-fidelity and torchvision ({error}): "
            "pip install 'vmcmc_dist[fid]'"
        ) from None
    extractor = FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        feature_extractor_weights_path=_tensors_alone(fetch(WEIGHTS, weights)),
    )
    extractor = extractor.to(device).eval().requires_grad_(False)

    def net(pixels: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = extractor(pixels.expand(-1, 3, -1, -1))
        return features, logits

    return Features("inception", DIM, CLASSES, WEIGHTS.sha256, net, device=device, batch_size=50)


def _tensors_alone(path: Path) -> io.BytesIO:
    """The file written anew from its tensors: the library would unpickle whatever is in it."""
    buffer = io.BytesIO()
    torch.save(load_state(path), buffer)
    buffer.seek(0)
    return buffer
