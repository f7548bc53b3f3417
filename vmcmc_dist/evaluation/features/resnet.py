"""Residual nets for CIFAR-10 (He et al. 2016, section 4.2), with published weights.

``resnet56`` classifies 93.4 % of the test images; distances are measured in the 64 numbers
before its last layer.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmcmc_dist.errors import CheckpointError
from vmcmc_dist.evaluation.features.base import Features
from vmcmc_dist.evaluation.features.weights import Published, fetch, load_state

URL = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
WEIGHTS = {
    20: Published(
        "resnet20-12fca82f.th",
        URL + "resnet20-12fca82f.th",
        "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
    ),
    56: Published(
        "resnet56-4bfd9763.th",
        URL + "resnet56-4bfd9763.th",
        "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
    ),
}
"""Depth → weights of Idelbayev, "Proper ResNet Implementation for CIFAR10" (BSD-2)."""

SHAPE = (3, 32, 32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels in [0, 1]


class Block(nn.Module):
    """relu(x' + bn(conv(relu(bn(conv(x)))))); x' is x, thinned and zero-padded if sizes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        side = self.added // 2
        x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, self.added - side))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """ResNet of depth 6n + 2: three stages of n blocks with 16, 32, 64 channels, option A."""

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, 3, 32, 32] → features [B, 64], logits [B, 10]."""
        x = (pixels.float() / 255 - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.bn1(self.conv1(x)))
        features = self.layer3(self.layer2(self.layer1(x))).mean((2, 3))
        return features, self.linear(features)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride)
    return nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet_features(
    depth: int, *, weights: Path | None = None, device: str | torch.device = "cpu"
) -> Features:
    """CIFAR-10's ResNet of depth 20 or 56 with its published weights (see ``fetch``)."""
    published = WEIGHTS[depth]
    state = load_state(fetch(published, weights))["state_dict"]
    net = CifarResNet(depth)
    try:
        net.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{published.file} does not fit a ResNet-{depth}: {error}") from error
    net = net.to(device).eval().requires_grad_(False)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Features(f"resnet{depth}", 64, 10, published.sha256, net, shape=SHAPE, device=device)
