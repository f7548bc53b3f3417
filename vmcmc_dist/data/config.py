"""What is trained on, where it lies, and how it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.settings import setting


@dataclass
class DataConfig:
    """Data of one run: a raw source, its prepared shards, and the stream over them."""

    source: Literal[
        "celeba",
        "celeba_hq",
        "ffhq",
        "imagenet",
        "lsun",
        "cifar10",
        "mnist",
        "fashion_mnist",
        "folder",
        "arrays",
        "pairs",
        "webdataset",
        "huggingface",
        "faces",
        "toy2d",
        "shards",
    ] = setting("faces", "what the raw data is; `faces` is the built-in procedural renderer")
    root: Optional[str] = setting(  # noqa: UP045  (OmegaConf reads this spelling)
        None, "raw data: folder, zip or s3://bucket/prefix; a folder of shards is used as it is"
    )
    shards: Optional[str] = setting(  # noqa: UP045
        None, "where prepared shards are written and read, local or s3://; empty = in the cache"
    )
    split: Literal["train", "valid", "test", "all"] = setting("train", "part of the data set")
    image_size: Optional[int] = setting(  # noqa: UP045
        None,
        "side of the square images; empty = the source's own (64 for faces). Shards of larger "
        "images are cut square and made smaller as they are read",
        unit="pixels",
        ge=4,
        le=4096,
    )
    channels: Optional[int] = setting(  # noqa: UP045
        None, "colour channels, 1 or 3; empty = the source's own", ge=1, le=3
    )
    limit: Optional[int] = setting(  # noqa: UP045
        None, "use only the first this many samples", unit="samples", ge=1
    )
    faces: int = setting(6000, "how many built-in faces to render", unit="images", ge=1, le=202599)
    image_column: Optional[str] = setting(  # noqa: UP045
        None, "huggingface, webdataset: column or member of the images; empty = the only one"
    )
    label_column: Optional[str] = setting(  # noqa: UP045
        None, "huggingface, webdataset: column or .json entry of the class; empty = as usual"
    )
    density: Literal["rings", "pinwheel", "checkerboard", "gaussians"] = setting(
        "rings", "which 2-D density `toy2d` draws from"
    )
    input: Optional[str] = setting(  # noqa: UP045
        None,
        "pairs: names of the input images with one *, e.g. *.edge.png or input/*; *.jpg:left is "
        "the left half of each image",
    )
    target: Optional[str] = setting(  # noqa: UP045
        None, "pairs: names of the target images, in the same way; what * stands for makes the pair"
    )
    input_channels: Optional[int] = setting(  # noqa: UP045
        None, "pairs: channels of the input images, 1 or 3; empty = as the first", ge=1, le=3
    )
    crops: int = setting(
        0, "pairs: random crops from each pair; 0 = its centre alone", unit="crops", ge=0
    )
    crop_resize: Optional[int] = setting(  # noqa: UP045
        None,
        "pairs: shorter side of an image before it is cropped at random; empty = unscaled",
        unit="pixels",
        ge=4,
    )
    flip: bool = setting(False, "mirror images left to right with probability 1/2")
    shuffle: bool = setting(True, "a new order every epoch; off = the order of the shards")
    shuffle_blocks: int = setting(
        4,
        "blocks (of about 512 KiB) shuffled together within one stream; memory grows with it",
        unit="blocks",
        ge=1,
    )
    streams: int = setting(
        24,
        "canonical streams that an epoch is dealt into; best a multiple of the world size",
        ge=1,
    )
    readers: int = setting(
        8, "blocks fetched at once, each by a thread", unit="threads", ge=1, le=256
    )
    workers: int = setting(2, "threads that decode; 0 = none", unit="threads", ge=0, le=256)
    prefetch: int = setting(4, "batches made ahead", unit="batches", ge=1)
    cache_mb: int = setting(
        1024, "decoded samples are kept in memory if all of them fit in this", unit="MiB", ge=0
    )
    block_cache: Optional[str] = setting(  # noqa: UP045
        None,
        "folder on a local disk that keeps what was read from s3://, shared by all workers of a "
        "node; empty = none",
    )
    block_cache_gb: float = setting(
        100, "the block cache is never larger than this; least lately used goes", unit="GiB", gt=0
    )
    retry_s: float = setting(
        120.0, "a read from S3 that fails is tried again for this long", unit="seconds", ge=0
    )
    stall_s: float = setting(
        15.0, "a connection that brings nothing for this long is dropped", unit="seconds", gt=0
    )
    verify: bool = setting(True, "check each block's checksum when it is read")
    max_bad: float = setting(
        0.01, "share of undecodable images that is skipped before it is an error", ge=0, le=1
    )
    max_pixels: int = setting(
        64_000_000, "larger raw images are refused as decompression bombs", unit="pixels", ge=1
    )
    format: Literal["auto", "png", "jpeg"] = setting(
        "auto", "image coding in shards; auto = png up to 32 pixels, jpeg above"
    )
    jpeg_quality: int = setting(95, "quality of JPEG in shards", ge=1, le=100)
    shard_samples: Optional[int] = setting(  # noqa: UP045
        None,
        "samples in one shard; empty = 32 to 64 MiB of them, less where that gives under 16 shards",
        unit="samples",
        ge=1,
    )
    prepare_workers: int = setting(
        0,
        "processes that prepare shards; 0 = one per CPU, where that is quicker",
        unit="processes",
        ge=0,
    )

    def check(self) -> None:
        """What can be said of the places before they are looked at."""
        for place in (self.root, self.shards):
            if place and place.startswith("s3://"):
                refuse_credentials(place)


def refuse_credentials(url: str) -> None:
    """ConfigError, which does not repeat them, for an s3:// URL that holds credentials."""
    bucket = url[5:].split("/", 1)[0]
    # an S3 secret may hold a slash, so a colon in front of it is as telling as an @ behind;
    # only access points (arn:aws:s3:…) have colons of their own
    if "@" in bucket or (":" in bucket and not bucket.startswith("arn:")):
        raise ConfigError(
            "s3://…: the URL holds credentials; take them out (and renew them if it was saved "
            "anywhere), then set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


@dataclass
class ConditionConfig:
    """What a conditional model is told beside x: the condition c, made from each sample."""

    kind: Literal["none", "class", "attributes", "pair", "inpaint", "colour", "upscale"] = setting(
        "none",
        "class or attributes: the label; pair: the sample's input image; inpaint: x with a part "
        "hidden; colour: x in grey; upscale: x in low resolution",
    )
    mask: Literal["left", "right", "top", "bottom", "centre", "random", "free_form", "mixed"] = (
        setting("mixed", "inpaint: what is hidden; mixed = for each sample one of them, by chance")
    )
    mask_share: Optional[float] = setting(  # noqa: UP045
        None, "inpaint: hidden share of the pixels; empty = the mask's own (1/4 or 1/2)", gt=0, lt=1
    )
    upscale_factor: int = setting(4, "upscale: low resolution is smaller by this", ge=2, le=64)


def cache_dir() -> Path:
    """Where prepared data lies by default: ``$VMCMC_CACHE``, else ``~/.cache/vmcmc_dist``."""
    return Path(os.environ.get("VMCMC_CACHE") or Path.home() / ".cache" / "vmcmc_dist")
