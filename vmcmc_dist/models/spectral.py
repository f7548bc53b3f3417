"""Spectral norm as layers: the weight is used as W/σ, σ its largest singular value."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmcmc_dist.models.layers import Foldable


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp_min(1e-12)


def divide_by_sigma(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """W/(uᵀWv), float32, for W as a matrix [out, rest]; u and v are constants to autograd."""
    with torch.autocast(weight.device.type, enabled=False):
        weight = weight.float()
        return weight / torch.dot(u.detach().float(), weight.flatten(1) @ v.detach().float())


class SpectralNorm(Foldable):
    """Mixin for a layer with a ``weight``: it is used as W/σ with σ = uᵀWv by power iteration.

    W is a plain parameter and u, v are plain buffers, so engines may partition it. A training
    forward of a weight that requires a gradient makes one power iteration; a frozen one, as inside
    a chain, makes none, so the energy does not move under the chain.
    Source: arXiv:1802.05957.
    """

    weight: Tensor
    u: Tensor
    v: Tensor

    def _start(self, iterations: int = 15) -> None:
        rows = self.weight.detach().flatten(1)
        self.register_buffer("u", _unit(torch.randn(rows.shape[0])))
        self.register_buffer("v", _unit(torch.randn(rows.shape[1])))
        for _ in range(iterations):
            self.power_iteration()
        self.fold_names = ("weight", "u", "v") + (() if self.bias is None else ("bias",))

    @torch.no_grad()
    def power_iteration(self) -> None:
        """v ← Wᵀu/|Wᵀu|, u ← Wv/|Wv|."""
        with torch.autocast(self.weight.device.type, enabled=False):
            rows = self.weight.flatten(1).float()
            v = _unit(rows.T @ self.u.float())
            self.v.copy_(v)
            self.u.copy_(_unit(rows @ v))

    def normalised_weight(self) -> Tensor:
        """W/σ in the weight's dtype, after a power iteration where one is due."""
        if self.training and self.weight.requires_grad and torch.is_grad_enabled():
            self.power_iteration()
        weight = divide_by_sigma(self.weight, self.u.clone(), self.v.clone())
        return weight.to(self.weight.dtype)

    @staticmethod
    def fold(own: dict[str, Tensor]) -> dict[str, Tensor]:
        folded = {"weight": divide_by_sigma(own["weight"], own["u"], own["v"])}
        return folded | ({"bias": own["bias"]} if "bias" in own else {})


class SpectralConv2d(SpectralNorm, nn.Conv2d):
    """``nn.Conv2d`` whose weight, as a matrix [out, in·k·k], has spectral norm 1."""

    def __init__(self, *args, **kwargs) -> None:
        nn.Conv2d.__init__(self, *args, **kwargs)
        self._start()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalised_weight(), self.bias)

    def folded(self) -> nn.Module:
        return nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,  # type: ignore[arg-type]
            self.stride,  # type: ignore[arg-type]
            self.padding,  # type: ignore[arg-type]
            self.dilation,  # type: ignore[arg-type]
            self.groups,
            self.bias is not None,
            self.padding_mode,
        )


class SpectralLinear(SpectralNorm, nn.Linear):
    """``nn.Linear`` whose weight has spectral norm 1."""

    def __init__(self, *args, **kwargs) -> None:
        nn.Linear.__init__(self, *args, **kwargs)
        self._start()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised_weight(), self.bias)

    def folded(self) -> nn.Module:
        return nn.Linear(self.in_features, self.out_features, self.bias is not None)
