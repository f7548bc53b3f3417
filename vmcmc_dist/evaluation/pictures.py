"""Sample grids as PNG: proposals beside refined samples, single grids, strips of a chain.

    save_pair_grid("grid.png", proposals, refined, title="faces", caption="30 steps")

Images are [N, C, H, W] in [-1, 1] (C = 1 or 3) or uint8 0…255. Small images are enlarged by a
whole factor with nearest neighbour, so a pixel stays a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vmcmc_dist.errors import DataError

PAPER, INK, FAINT, LINE = (255, 255, 255), (28, 32, 38), (105, 112, 122), (214, 218, 224)
MARGIN, GAP, GUTTER = 20, 2, 28
CELL = 84


def to_bytes(images: Tensor) -> np.ndarray:
    """[N, C, H, W] in [-1, 1] (clamped) or uint8 → uint8 [N, H, W, 3].

    DataError: another number of axes or channels, or values that are not finite.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"a picture needs images [N, 1 or 3, H, W], got {list(images.shape)}: "
            "choose the channels to show"
        )
    if images.dtype != torch.uint8:
        if not torch.isfinite(images).all():
            raise DataError("images to draw hold values that are not finite: the sampler diverged")
        images = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels = images.detach().cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels


def tile(images: Tensor, columns: int | None = None, scale: int | None = None) -> Image.Image:
    """One grid, row by row, ``GAP`` pixels apart; ``columns`` defaults to a square."""
    pixels = to_bytes(images)
    if len(pixels) == 0:
        raise DataError("no images to draw: ask for at least one")
    count, height, width = pixels.shape[:3]
    columns = min(count, columns or math.ceil(math.sqrt(count)))
    scale = scale or _enlargement(height, width)
    height, width = height * scale, width * scale
    rows = -(-count // columns)
    sheet = Image.new("RGB", (_extent(columns, width), _extent(rows, height)), PAPER)
    for index, image in enumerate(pixels):
        row, column = divmod(index, columns)
        enlarged = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)
        sheet.paste(Image.fromarray(enlarged), (column * (width + GAP), row * (height + GAP)))
    return sheet


def _enlargement(height: int, width: int) -> int:
    """Whole factor that brings a cell near ``CELL`` pixels: 28 → ×3, 32 → ×3, 64 → ×1, 128 → ×1."""
    return max(1, math.floor(CELL / max(height, width) + 0.5))


def _extent(cells: int, size: int) -> int:
    return cells * size + (cells - 1) * GAP


def save_grid(
    path: str | Path,
    images: Tensor,
    *,
    title: str = "",
    caption: str = "",
    columns: int | None = None,
) -> Path:
    """One labelled grid as PNG; returns the path."""
    return _save(path, _page([("", tile(images, columns))], title, caption))


def save_pair_grid(
    path: str | Path,
    proposals: Tensor,
    refined: Tensor,
    *,
    given: Tensor | None = None,
    title: str = "",
    caption: str = "",
    columns: int | None = None,
) -> Path:
    """Proposals g(z) on the left, the same chains' refined samples on the right, as PNG.

    Cell k on the left started the chain whose end is cell k on the right. ``given``: image
    conditions [N, 1 or 3, H, W], drawn before both.
    """
    if proposals.shape != refined.shape:
        raise DataError(
            f"proposals {list(proposals.shape)} and refined samples {list(refined.shape)} differ "
            "in shape: a chain has one start and one end"
        )
    panels = [] if given is None else [("given · condition", tile(given, columns))]
    panels += [
        ("proposals · VAE decoder", tile(proposals, columns)),
        ("refined · after Langevin", tile(refined, columns)),
    ]
    return _save(path, _page(panels, title, caption))


def save_panels(
    path: str | Path,
    panels: Sequence[tuple[str, Tensor, int | None]],
    *,
    title: str = "",
    caption: str = "",
) -> Path:
    """Labelled grids side by side, as PNG: (label, images [N, C, H, W], columns) of each."""
    grids = [(label, tile(images, columns)) for label, images, columns in panels]
    return _save(path, _page(grids, title, caption))


def save_chain_strips(
    path: str | Path,
    states: Sequence[Tensor],
    labels: Sequence[str],
    *,
    title: str = "",
    caption: str = "",
) -> Path:
    """One row per chain, one labelled column per kept state [N, C, H, W], in time's order."""
    if len(states) == 0 or len(states) != len(labels):
        raise DataError(f"{len(states)} states with {len(labels)} labels: give one label each")
    strips = [(label, tile(state, columns=1)) for label, state in zip(labels, states, strict=True)]
    return _save(path, _page(strips, title, caption, gutter=6))


def caption_line(run: str, images: int, steps: int, *more: str) -> str:
    """``run · 120,000 images seen · 30 Langevin steps · …``, the line under a grid."""
    return " · ".join([run, f"{images:,} images seen", f"{steps} Langevin steps", *more])


def _page(
    panels: Sequence[tuple[str, Image.Image]], title: str, caption: str, gutter: int = GUTTER
) -> Image.Image:
    """Title, panels side by side under their labels, caption; as wide as the widest of them."""
    title_font, label_font, caption_font = _font(22), _font(15), _font(13)
    labelled = any(label for label, _ in panels)
    widths = [
        max(sheet.width, math.ceil(label_font.getlength(label)) if label else 0)
        for label, sheet in panels
    ]
    content = sum(widths) + gutter * (len(panels) - 1)
    lines = [
        line
        for text in caption.splitlines()
        for line in _wrapped(text, caption_font, max(content, 320))
    ]
    text_width = max(
        [title_font.getlength(title), *(caption_font.getlength(line) for line in lines)]
    )
    top = MARGIN + (36 if title else 0)
    body = top + (24 if labelled else 0)
    foot = body + max(sheet.height for _, sheet in panels) + (12 if lines else 0)
    width = 2 * MARGIN + max(content, math.ceil(text_width))
    page = Image.new("RGB", (width, foot + 19 * len(lines) + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((MARGIN, MARGIN - 4), title, fill=INK, font=title_font)
    left = MARGIN
    for index, ((label, sheet), panel_width) in enumerate(zip(panels, widths, strict=True)):
        draw.text((left, top), label, fill=INK, font=label_font)
        page.paste(sheet, (left, body))
        if index and gutter == GUTTER:
            middle = left - gutter // 2
            draw.line([(middle, body), (middle, body + sheet.height - 1)], fill=LINE, width=1)
        left += panel_width + gutter
    for index, line in enumerate(lines):
        draw.text((MARGIN, foot + 19 * index), line, fill=FAINT, font=caption_font)
    return page


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _save(path: str | Path, page: Image.Image) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, format="PNG", optimize=True)
    return path
