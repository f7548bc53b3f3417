"""Image conditions from files: any photo, fitted to a model as in preparation.

names, c = given_conditions(model.config.condition, "photos/", model.shape, channels)
x = model.sample(len(c), c=c)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vmcmc_dist.data.conditions import enlarged, low_resolution, luminance, masked
from vmcmc_dist.data.config import ConditionConfig, DataConfig
from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.data.sources.images import EXTENSIONS, MODES, decode, square
from vmcmc_dist.data.sources.pairs import channels_of
from vmcmc_dist.errors import ConfigError, DataError


def given_conditions(
    cfg: ConditionConfig,
    path: str,
    shape: tuple[int, ...],
    channels: int,
    mask: str | None = None,
) -> tuple[list[str], Tensor]:
    """Names and conditions [B, ``channels``, H, W] of an image file, or of a folder's images.

    Images are cropped to a square in the middle and resized to H × W = ``shape[1:]``; smaller
    ones are refused. What is made of them, by kind:

    pair     the input image. A colour image is refused where inputs are grey
    inpaint  its transparent pixels are hidden, or those that are white in the image ``mask``, of
             the same size; a pixel of which any part is hidden is hidden
    colour   its luminance
    upscale  its low resolution; an image that is H / factor × W / factor is taken for that itself

    Raises DataError naming the file that is missing, no image, of another size or mode.
    """
    if mask is not None and cfg.kind != "inpaint":
        raise ConfigError(f"a mask is for inpainting; this model's condition is {cfg.kind}")
    hiding = None if mask is None else _open(_files(mask)[0])
    names, rows = [], []
    for file in _files(path):
        names.append(file.name)
        rows.append(_condition(cfg, _open(file), str(file), shape, channels, hiding))
    return names, torch.stack(rows)


def _files(path: str) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DataError(f"{path}: no such image or folder of images")
    files = sorted(file for file in place.iterdir() if file.suffix.lower() in EXTENSIONS)
    if not files:
        raise DataError(f"{path}: no images in it; known are {', '.join(sorted(EXTENSIONS))}")
    return files


def _open(file: Path) -> Image.Image:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    return decode(data, str(file), DataConfig().max_pixels)


def _condition(
    cfg: ConditionConfig,
    image: Image.Image,
    name: str,
    shape: tuple[int, ...],
    channels: int,
    hiding: Image.Image | None,
) -> Tensor:
    """One condition [channels, H, W]."""
    found, side = channels_of(image, name), shape[1]
    if cfg.kind == "upscale" and image.size == (side // cfg.upscale_factor,) * 2:
        return enlarged(_pixels(image, shape[0]), shape[1:])[0]
    if min(image.size) < side:
        raise DataError(
            f"{name}: {image.width}x{image.height} pixels; this model needs {side}x{side} or more"
        )
    match cfg.kind:
        case "pair":
            if found > channels:
                raise DataError(f"{name}: a colour image; this model's input images are grey")
            return _pixels(square(image, side), channels)[0]
        case "inpaint":
            hidden = _hidden(image, name, hiding, side)
            return masked(_pixels(square(image, side), shape[0]), hidden)[0]
        case "colour":
            return luminance(_pixels(square(image, side), 3))[0]
        case "upscale":
            return low_resolution(_pixels(square(image, side), shape[0]), cfg.upscale_factor)[0]
    raise ConfigError(f"a condition of kind {cfg.kind} is no image")


def _pixels(image: Image.Image, channels: int) -> Tensor:
    """[1, channels, H, W] in [−1, 1]."""
    pixels = np.array(image.convert(MODES[channels]))
    rows = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    return to_model_range(torch.from_numpy(rows.copy()))[None]


def _hidden(image: Image.Image, name: str, hiding: Image.Image | None, side: int) -> Tensor:
    """[1, 1, side, side], 1 = hidden: by the mask, or where the image is transparent."""
    if hiding is None:
        if "A" not in image.getbands() and "transparency" not in image.info:
            raise DataError(
                f"{name}: which pixels are hidden? Make them transparent, or give --mask FILE, "
                "white where hidden"
            )
        opaque = np.asarray(image.convert("RGBA"))[..., 3]
        hidden = opaque < 128
    else:
        if hiding.size != image.size:
            raise DataError(
                f"{name}: {image.width}x{image.height} pixels, and the mask {hiding.width}x"
                f"{hiding.height}: both have the same size"
            )
        hidden = np.asarray(hiding.convert("L")) >= 128
    covered = Image.fromarray(hidden.astype(np.float32), "F")
    short = min(covered.size)
    left, top = (covered.width - short) // 2, (covered.height - short) // 2
    box = (left, top, left + short, top + short)
    share = np.asarray(covered.resize((side, side), Image.Resampling.BOX, box))
    if share.max() == 0:
        raise DataError(f"{name}: nothing of it is hidden: there is nothing to fill")
    return torch.from_numpy((share > 1e-3).astype(np.float32))[None, None]
