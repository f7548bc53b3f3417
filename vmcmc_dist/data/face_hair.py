"""Hair and hats of the built-in faces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vmcmc_dist.data.face_painter import HEAD, ellipse, soft

if TYPE_CHECKING:
    from vmcmc_dist.data.face_painter import Painter


def _strands(p: Painter, along: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Colour of hair [H, W, 3]: fine strands over ``around``, a band of gloss over ``along``."""
    f = p.f
    wave = 0.5 * f.curl * np.sin(6 * along + 2 * np.sin(3 * around))
    s = around + 0.12 * wave
    phases = p.grain.uniform(0, 6.28, 5).tolist()
    fine = sum(
        a * np.sin(k * s + phase + d * along)
        for a, k, d, phase in zip(
            (0.34, 0.3, 0.26, 0.22, 0.2),
            (9, 17, 29, 47, 71),
            (0.5, 1, 0.8, 1.5, 1),
            phases,
            strict=True,
        )
    )
    if f.style == "curly":
        x, y = p.x, p.y
        fine = 0.35 * fine + 0.75 * np.sin(11 * x + 3 * np.sin(9 * y)) * np.sin(
            12 * y + 3 * np.sin(8 * x)
        )
    gloss = np.exp(-(((along - 0.62 - 0.08 * fine) / 0.2) ** 2)) * (0.5 + 0.5 * fine)
    side = np.clip(0.5 + 0.42 * (p.x * f.light[0] - p.y * 0.35), 0.12, 1.1)
    shade = (0.5 + 0.5 * f.ambient) * (0.62 + 0.5 * side) * (1 + 0.2 * fine)
    shine = 0.22 * np.clip(gloss, 0, 1) * side
    return p.hair * shade[..., None] * p.tint + shine[..., None] * (0.35 * p.hair + 0.3)


def _from_crown(p: Painter) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the crown, and the angle around it."""
    dx, dy = p.x - 0.3 * p.f.part, p.y + 1.25
    return np.hypot(dx, 0.8 * dy), np.arctan2(dx, dy + 0.25)


def _curls(p: Painter, size: float) -> np.ndarray:
    """A bumpy offset of the outline for curly hair."""
    angle = np.arctan2(p.x, -p.y)
    lumps = np.sin(11 * angle + p.f.grain % 5) + 0.6 * np.sin(19 * angle + p.f.grain % 3)
    return size * lumps


def back(p: Painter) -> None:
    """What hangs or stands behind the head."""
    if p.f.style in ("bald", "short", "parted"):
        return
    p = p.part((-1.9, 1.9), (-9, 9))
    f, x, y = p.f, p.x, p.y
    along, around = _from_crown(p)
    wide = f.width + 0.2 + 0.16 * f.volume
    if f.style == "curly":
        shape = ellipse(x, y, 0, -0.28, wide + 0.16, 1.28 + 0.2 * f.volume) - _curls(p, 0.03)
    else:
        end = 0.95 + 0.35 * f.volume if f.style == "bob" else 3.0
        flare = wide + 0.12 * np.clip(y, -0.2, 1.6) + 0.05 * f.curl * np.sin(4.5 * y + f.grain % 6)
        top = ellipse(x, y, 0, -0.2, wide, 1.34 + 0.06 * f.volume)
        fall = np.maximum(np.maximum(np.abs(x) - flare, -0.2 - y), (y - end) * 0.8)
        shape = np.minimum(top, fall)
    colour = _strands(p, along, around)
    p.over(colour * 0.72, soft(shape, 0.03 + p.edge))


def front(p: Painter) -> None:
    """The hair over the skull down to the hairline, locks beside the face, bangs."""
    if p.f.style == "bald":
        return
    p = p.part((-1.9, 1.9), (-2, 9 if p.f.style in ("bob", "long") else 0.75))
    f, x, y, u, v = p.f, p.x, p.y, p.u, p.v
    along, around = _from_crown(p)
    lift = {"short": 0.05, "parted": 0.1, "bob": 0.12, "long": 0.11, "curly": 0.2}[f.style]
    lift += 0.07 * f.volume
    skull = ellipse(x, y, 0, -0.06 - 0.3 * lift, f.width + 0.055 + 0.5 * lift, HEAD + 0.8 * lift)
    if f.style == "curly":
        skull = skull - _curls(p, 0.02)
    away = np.abs(u - f.part * 0.7)
    line = -0.80 + 0.12 * f.age * (f.style in ("short", "parted")) * -1
    if f.bangs:
        hairline = -0.42 + 0.03 * np.sin(24 * u + f.grain % 9) + 0.1 * np.abs(u) ** 2
    elif f.style == "short":
        hairline = line + 0.05 * np.cos(5 * u) + 0.15 * np.clip(np.abs(u) - 0.4, 0, 1)
    else:
        hairline = line - 0.06 + 0.42 * away**1.5 + 0.015 * np.sin(30 * u)
    reach = {"short": 0.02, "parted": 0.02, "curly": 0.15, "bob": 1.2, "long": 3.0}[f.style]
    inner = f.width * (0.86 if f.style in ("bob", "long") else 0.93)
    temple = inner + 0.02 * np.sin(13 * v) - 0.1 * np.clip(-v - 0.3, 0, 1) - np.abs(u)
    temple = np.minimum(temple, -0.05 - p.outline)
    cap = np.maximum(skull, np.minimum(v - hairline, np.maximum(temple, v - reach)))
    if f.style in ("bob", "long"):
        end = 0.95 + 0.35 * f.volume if f.style == "bob" else 3.0
        wide = f.width + 0.2 + 0.16 * f.volume
        edge = f.width * 0.9 + 0.08 * np.sin(2.6 * y + f.grain % 6) * (0.3 + f.curl)
        ax = np.abs(x + 0.1 * math.sin(f.yaw))
        lock = np.maximum(np.maximum(edge - ax, ax - wide - 0.12 * np.clip(y, 0, 2)), -0.5 - y)
        lock = np.maximum(lock, y - end)
        cap = np.minimum(cap, lock)
    blur = 0.035 if f.style != "curly" else 0.05
    p.rgb *= (1 - 0.22 * soft(cap - 0.03, 0.07) * soft(p.outline, 0.05))[..., None]
    colour = _strands(p, along, around)
    p.over(colour, soft(cap, blur + p.edge))


def hat(p: Painter) -> None:
    """A knitted beanie or a hat with a brim."""
    if p.f.hat == "none":
        return
    p = p.part((-2.1, 2.1), (-2, 0))
    f, x, y = p.f, p.x, p.y
    colour = np.array(f.colours[3], np.float32)
    side = np.clip(0.62 + 0.4 * (x * f.light[0] - 0.3 * y), 0.25, 1.1)
    crown = ellipse(x, y, 0, -0.3, f.width + 0.2, 1.28)
    rim = -0.62 + 0.1 * x * x - 0.3 * f.pitch
    p.rgb *= (1 - 0.3 * soft(y - rim - 0.06, 0.1) * soft(p.outline, 0.05))[..., None]
    body = soft(np.maximum(crown, y - rim), p.edge * 1.5)
    knit = 1 + 0.07 * np.sin(38 * x) * (f.hat == "beanie")
    p.over(colour * (side * knit)[..., None], body)
    if f.hat == "beanie":
        band = np.maximum(np.maximum(crown - 0.03, y - rim - 0.02), rim - 0.26 - y)
        ribs = 0.82 + 0.12 * np.sin(60 * x)
        p.over(colour * (side * ribs)[..., None], soft(band, p.edge * 1.5))
    else:
        brim = ellipse(x, y - 0.1 * x * x, 0, -0.62, 1.75, 0.16)
        p.over(colour * (0.75 * side)[..., None], soft(brim, p.edge * 1.5))
        ribbon = np.maximum(np.maximum(crown, y - rim + 0.08), rim - 0.26 - y)
        p.over(colour * 0.4, soft(ribbon, p.edge * 1.5))
