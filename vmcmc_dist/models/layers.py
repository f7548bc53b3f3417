"""Layers shared by the nets: SAME padding, shift-only batch norm, the energy head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """(before, after) of TensorFlow's SAME padding: the output has ⌈size/stride⌉ pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution with SAME padding: [B, C, H, W] → [B, C', ⌈H/stride⌉, ⌈W/stride⌉]."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        top, bottom = same_padding(x.shape[-2], kernel, stride)
        left, right = same_padding(x.shape[-1], kernel, stride)
        if top == bottom and left == right:
            return F.conv2d(x, self.weight, self.bias, stride, (top, left))
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, self.bias, stride)


class SameConvTranspose2d(nn.ConvTranspose2d):
    """The transpose of a SAME convolution from ``size_out`` pixels a side: [B, C', size_out²]."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, size_out: int
    ) -> None:
        before, _ = same_padding(size_out, kernel, stride)
        super().__init__(in_channels, out_channels, kernel, stride, padding=before)
        self.size_out, self.same_before = size_out, before

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        padding = self.same_before
        x = F.conv_transpose2d(x, self.weight, self.bias, self.stride, padding)
        return x[:, :, : self.size_out, : self.size_out]


class ShiftBatchNorm(nn.Module):
    """Batch norm with a shift, no scale, and no memory: (x − mean)/√(var + ε) + b.

    Mean and variance are those of the batch at hand, in training and sampling alike (as in the
    method's reference code), so a sample depends on its batch. x: [B, C, H, W].
    """

    def __init__(self, channels: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, None, self.bias, training=True, eps=self.eps)


class Foldable(nn.Module):
    """A layer that is simpler once its weights stand still (see ``SamplerCopy``)."""

    fold_names: tuple[str, ...]  # parameters and buffers that ``fold`` takes

    def folded(self) -> nn.Module:
        """The simpler layer, its weights not yet set."""
        raise TypeError(f"{type(self).__name__} does not fold")

    @staticmethod
    def fold(own: dict[str, Tensor]) -> dict[str, Tensor]:
        """The simpler layer's weights from this one's."""
        return own


class EnergyHead(Foldable):
    """The last reduction of an energy net, in float32: Σ_k (w_k · h + b_k), [B, …] → [B].

    ``terms`` linear outputs k are summed. As Σ_k w_k · h = (Σ_k w_k) · h, the sum is taken over
    the weights first. h: [B, *features], weight: [terms, *features], bias: [terms].
    """

    keep_fp32 = True
    fold_names = ("weight", "bias")

    def __init__(self, *features: int, terms: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(terms, *features))
        self.bias = nn.Parameter(torch.zeros(terms))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, h: Tensor) -> Tensor:
        with torch.autocast(h.device.type, enabled=False):
            weight = self.weight.float()
            if len(weight) > 1:
                weight = weight.sum(0, keepdim=True)
            if h.dim() == 4 and not h.is_contiguous():  # channels last: flatten without a copy
                h, weight = h.permute(0, 2, 3, 1), weight.permute(0, 2, 3, 1)
            return h.flatten(1).float() @ weight.flatten() + self.bias.float().sum()

    def folded(self) -> nn.Module:
        return EnergyHead(*self.weight.shape[1:])

    @staticmethod
    def fold(own: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.float().sum(0, keepdim=True) for name, tensor in own.items()}
