"""Does what is generated fit its condition? Scores of labels and of images, as pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from vmcmc_dist.data.conditions import low_resolution, luminance, visible
from vmcmc_dist.data.config import ConditionConfig
from vmcmc_dist.errors import DataError
from vmcmc_dist.evaluation.metrics import MomentSums, frechet_distance
from vmcmc_dist.evaluation.quality import mse, psnr, ssim

MIN_PER_FEATURE = 2  # samples per feature dimension below which a covariance is mostly noise


def class_accuracy(logits: Tensor, asked: Tensor) -> tuple[float, list[float]]:
    """Share of images whose largest logit is the class asked for: of all, and of each class.

    logits [N, K], asked int64 [N]. DataError where a class does not occur among them.
    """
    counts = torch.bincount(asked, minlength=logits.shape[1])
    if (counts == 0).any():
        raise DataError(
            f"the accuracy of each of {len(counts)} classes needs an image of each; there is none "
            f"of class {int(counts.argmin())} among {len(asked)}: ask for more samples"
        )
    right = (logits.argmax(1) == asked).double()
    each = [float(right[asked == k].mean()) for k in range(logits.shape[1])]
    return float(right.mean()), each


def attribute_accuracy(logits: Tensor, asked: Tensor) -> tuple[list[float], list[float]]:
    """For each attribute the share of images that have it as asked, and the balanced share.

    Balanced: the mean over images asked to have it and asked not to; over one of the two alone
    where the other does not occur. logits [N, A], log odds; asked [N, A], 0 or 1.
    """
    right = ((logits > 0) == (asked > 0.5)).double()
    balanced = []
    for a in range(asked.shape[1]):
        groups = [right[asked[:, a] == value, a] for value in (0, 1)]
        shares = [float(group.mean()) for group in groups if len(group)]
        balanced.append(sum(shares) / len(shares))
    return right.mean(0).tolist(), balanced


def class_moments(phi: Tensor, labels: Tensor, classes: int) -> list[MomentSums]:
    """Sums over the features [N, D] of each class."""
    sums = [MomentSums.empty(phi.shape[1]) for _ in range(classes)]
    for k, one in enumerate(sums):
        one.add(phi[labels == k])
    return sums


def class_distances(samples: list[MomentSums], reference: list[MomentSums]) -> list[float]:
    """Fréchet distance of each class to the real images of that class."""
    pairs = zip(samples, reference, strict=True)
    return [frechet_distance(*a.moments(), *b.moments()) for a, b in pairs]


def check_per_class(n: int, classes: int, dim: int) -> None:
    """DataError where n samples are too few for a distance in each class."""
    needed = MIN_PER_FEATURE * dim * classes
    if n < needed:
        raise DataError(
            f"a Fréchet distance of each of {classes} classes in {dim} features needs n ≥ {needed}"
            f", got n={n}: ask for more samples, or set distances=false"
        )


def image_scores(samples: Tensor, truth: Tensor, where: Tensor | None = None) -> dict[str, Tensor]:
    """k samples of each condition against the truth; float64 [B] for each name.

    psnr, ssim            mean over the k samples
    psnr_best, ssim_best  of the best of them
    psnr_average          of the average of the k images
    diversity             mean over pairs of the samples' root mean square difference
    pixel_std             standard deviation over the samples, mean over pixels

    Args:
        samples: [B, k ≥ 2, C, H, W] in [-1, 1].
        truth: [B, C, H, W].
        where: [B, 1, H, W], 1 at the pixels that count; SSIM counts all of them always.
    """
    rows, k = samples.shape[:2]
    flat, repeated = samples.flatten(0, 1), truth.repeat_interleave(k, 0)
    pixels = None if where is None else where.repeat_interleave(k, 0)
    peak = psnr(flat, repeated, pixels).view(rows, k)
    likeness = ssim(flat, repeated).view(rows, k)
    return {
        "psnr": peak.mean(1),
        "psnr_best": peak.amax(1),
        "psnr_average": psnr(samples.mean(1), truth, where),
        "ssim": likeness.mean(1),
        "ssim_best": likeness.amax(1),
        "diversity": torch.stack(list(_differences(samples, where))).mean(0),
        "pixel_std": _mean(samples.double().std(1), where),
    }


def _mean(values: Tensor, where: Tensor | None) -> Tensor:
    """Mean of [B, C, H, W] over the pixels that count, [B]."""
    weight = torch.ones_like(values) if where is None else where.to(values).expand_as(values)
    return (values * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))


def _differences(samples: Tensor, where: Tensor | None) -> Iterator[Tensor]:
    for i, j in combinations(range(samples.shape[1]), 2):
        yield mse(samples[:, i], samples[:, j], where).sqrt()


def condition_scores(cfg: ConditionConfig, samples: Tensor, c: Tensor) -> dict[str, Tensor]:
    """How well the condition can be read off the samples again, as PSNR in dB; float64 [B].

    ``psnr_condition`` for colour (their luminance) and upscale (their low resolution); nothing
    for other kinds. samples [B, k, C, H, W], c [B, C', H, W].
    """
    if cfg.kind not in ("colour", "upscale"):
        return {}
    rows, k = samples.shape[:2]
    flat = samples.flatten(0, 1)
    again = luminance(flat) if cfg.kind == "colour" else low_resolution(flat, cfg.upscale_factor)
    return {"psnr_condition": psnr(again, c.repeat_interleave(k, 0)).view(rows, k).mean(1)}


def given_image(cfg: ConditionConfig, c: Tensor, channels: int) -> Tensor | None:
    """The condition taken for the answer itself [B, C, H, W]; None where it is another thing.

    colour: grey in all channels. upscale: the low resolution. inpaint, pair: None.
    """
    if cfg.kind == "colour":
        return c.expand(-1, channels, -1, -1)
    return c if cfg.kind == "upscale" else None


def shown_condition(cfg: ConditionConfig, c: Tensor) -> Tensor:
    """The part of an image condition that can be looked at: [B, 1 or 3, H, W]."""
    return visible(c)[0] if cfg.kind == "inpaint" else c


def hidden_pixels(cfg: ConditionConfig, c: Tensor) -> Tensor | None:
    """Where a sample can be right or wrong: the hidden pixels of inpainting, else everywhere."""
    return visible(c)[1] if cfg.kind == "inpaint" else None
