"""Conditions: what a conditional model is told beside x, made from a batch of data.

    condition = condition_of(cfg.condition, manifest)       # ("image", 4), say
    for batch in stream:
        x = to_model_range(batch.x)
        c = conditions(cfg.condition, batch, x, seed)       # float32 [B, 4, H, W]

kind        c
class       int64 [B], the label
attributes  float32 [B, A], 0 or 1
pair        float32 [B, C', H, W] in [−1, 1], the sample's input image
inpaint     float32 [B, C+1, H, W]: x with its hidden pixels 0, then a channel 1 where visible
            and 0 where hidden
colour      float32 [B, 1, H, W] in [−1, 1], the luminance of x
upscale     float32 [B, C, H, W] in [−1, 1], x in low resolution, brought back to full size
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vmcmc_dist.data.config import ConditionConfig
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.masks import masks_at
from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.data.stream import Batch
from vmcmc_dist.errors import ConfigError, DataError

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue. Source: ITU-R BT.601."""


def condition_of(cfg: ConditionConfig, manifest: Manifest) -> tuple[str, int] | None:
    """Kind (class, attributes or image) and size of c, or None for an unconditional model.

    Raises ConfigError where the data cannot give such a condition.
    """
    labels, shape, where = manifest.labels, manifest.shape, manifest.base or manifest.source
    match cfg.kind:
        case "none":
            return None
        case "class" | "attributes" as kind:
            if labels.kind != kind:
                has = "no labels" if labels.kind == "none" else f"labels of kind {labels.kind}"
                other = "none" if labels.kind == "none" else labels.kind
                raise ConfigError(
                    f"condition.kind={kind}, but {where} has {has}: set condition.kind={other}, "
                    f"or use data with {'one class' if kind == 'class' else 'attributes'} a sample"
                )
            return kind, len(labels.names)
        case "pair":
            if manifest.source_shape is None:
                raise ConfigError(
                    f"condition.kind=pair, but {where} holds single images: prepare pairs with "
                    "data.source=pairs, or shards with KEY.input.EXT and KEY.target.EXT"
                )
            return "image", manifest.source_shape[0]
    if len(shape) != 3:
        raise ConfigError(f"condition.kind={cfg.kind} is for images, but {where} has {shape}")
    if cfg.kind == "inpaint":
        return "image", shape[0] + 1
    if cfg.kind == "colour":
        if shape[0] != 3:
            raise ConfigError(f"condition.kind=colour needs colour images, but {where} is grey")
        return "image", 1
    _check_factor(cfg.upscale_factor, shape)
    return "image", shape[0]


def conditions(cfg: ConditionConfig, batch: Batch, x: Tensor, seed: int) -> Tensor | None:
    """c of a batch, as the table above says, on the device of x; None for kind ``none``.

    Args:
        x: the batch's images in the model's range, float [B, C, H, W] in [−1, 1].
        seed: of the masks. A mask is a function of (seed, batch.index), so a resumed run and any
            number of workers see the same.
    """
    match cfg.kind:
        case "none":
            return None
        case "class" | "attributes":
            if batch.y is None:
                raise DataError(f"condition.kind={cfg.kind}: the samples have no labels")
            return (batch.y if cfg.kind == "class" else batch.y.float()).to(x.device)
        case "pair":
            if batch.source is None:
                raise DataError("condition.kind=pair: the samples have no input images")
            return to_model_range(batch.source).to(x.device)
        case "inpaint":
            hidden = masks_at(cfg.mask, tuple(x.shape[1:]), batch.index, seed, cfg.mask_share)
            return masked(x, hidden.to(x.device))
        case "colour":
            return luminance(x)
    return low_resolution(x, cfg.upscale_factor)


def masked(x: Tensor, hidden: Tensor) -> Tensor:
    """x [B, C, H, W] and hidden [B, 1, H, W] (1 = hidden) → c [B, C+1, H, W] of inpainting."""
    visible = 1 - hidden.to(x)
    return torch.cat([x * visible, visible], 1)


def visible(c: Tensor) -> tuple[Tensor, Tensor]:
    """The known pixels of an inpainting condition and where x is free to be filled in.

        known, free = visible(c)
        x = known + free * proposal         # the start of a chain with these pixels fixed

    c [B, C+1, H, W] → known [B, C, H, W], 0 where hidden, and free [B, 1, H, W], 1 = hidden.
    """
    return c[:, :-1], 1 - c[:, -1:]


def luminance(x: Tensor) -> Tensor:
    """Y = 0.299 R + 0.587 G + 0.114 B: x [B, 3, H, W] in [−1, 1] → [B, 1, H, W] in [−1, 1]."""
    return (x * x.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)


def low_resolution(x: Tensor, factor: int) -> Tensor:
    """x [B, C, H, W] averaged over ``factor``² pixels and brought back to H × W, in [−1, 1].

    ConfigError where ``factor`` does not divide H and W.
    """
    _check_factor(factor, tuple(x.shape[1:]))
    return enlarged(F.avg_pool2d(x, factor), tuple(x.shape[2:]))


def enlarged(small: Tensor, size: tuple[int, ...]) -> Tensor:
    """[B, C, h, w] → [B, C, *size], bicubic, clamped to [−1, 1].

    The kernel is Keys' (a = −1/2, as in PIL), exact on linear ramps.
    """
    return F.interpolate(small, size, mode="bicubic", antialias=True).clamp(-1, 1)


def _check_factor(factor: int, shape: tuple[int, ...]) -> None:
    height, width = shape[1:]
    if height % factor or width % factor:
        raise ConfigError(
            f"condition.upscale_factor={factor} does not divide {height}x{width} images; "
            "take a divisor, or another data.image_size"
        )
