"""What is drawn on a built-in face in its frontal coordinates: brows, eyes, nose, mouth, beard."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vmcmc_dist.data.faces import IRIS

if TYPE_CHECKING:
    from vmcmc_dist.data.face_painter import Painter

DARK = np.array([0.09, 0.06, 0.055], np.float32)


def _window(p: Painter, u: tuple[float, float], v: tuple[float, float]) -> tuple[slice, slice]:
    """The box of pixels whose frontal coordinates can lie in the given ranges."""
    near = (p.u > u[0]) & (p.u < u[1]) & (p.v > v[0]) & (p.v < v[1]) & (p.outline < 0.03)
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _lay(p: Painter, box: tuple[slice, slice], colour: np.ndarray, alpha: np.ndarray) -> None:
    part = p.rgb[box]
    alpha = alpha * p.on_head[box]
    part += alpha[..., None] * (np.asarray(colour, np.float32) - part)


def _dim(p: Painter, box: tuple[slice, slice], amount: np.ndarray, tint: np.ndarray) -> None:
    p.rgb[box] *= 1 - (amount * p.on_head[box])[..., None] * tint


def _soft(distance: np.ndarray, blur: float) -> np.ndarray:
    t = np.clip(0.5 - distance / (2 * blur), 0, 1)
    return t * t * (3 - 2 * t)


def brows(p: Painter) -> None:
    """Arched strokes, thinner to the outside."""
    f = p.f
    box = _window(p, (-0.9, 0.9), (-0.6, -0.1))
    u, v = np.abs(p.u[box]), p.v[box]
    along = np.clip((u - 0.17) / 0.5, -0.2, 1.2)
    line = -0.32 - 0.02 * f.eye_open - f.brow_arch * np.sin(np.pi * np.clip(along, 0, 1) ** 0.8)
    line += 0.05 * np.clip(along - 0.6, 0, 1)
    thick = f.brow_weight * np.clip(1.25 - along, 0.2, 1.0)
    ends = np.maximum(0.17 - u, u - 0.68)
    alpha = _soft(np.maximum(np.abs(v - line) - thick, ends), 0.03 + p.edge)
    colour = p.hair * 0.75 if f.hair not in ("gray", "blond") else p.hair * 0.62
    _lay(p, box, 0.8 * colour + 0.2 * p.skin * 0.5, 0.8 * alpha)


def eyes(p: Painter) -> None:
    """White, iris, pupil, catch light, lids and lashes, for each eye."""
    f = p.f
    iris_colour = np.array(IRIS[f.iris], np.float32)
    for side in (-1, 1):
        cx = side * f.eye_gap
        box = _window(p, (cx - 0.36, cx + 0.36), (-0.32, 0.2))
        u, v = (p.u[box] - cx) * side, p.v[box] + 0.05
        w, h = f.eye_size, f.eye_size * f.eye_open
        t = np.clip(u / w, -1, 1)
        arc = np.sqrt(np.clip(1 - t * t, 0, 1))
        slant = -0.025 * t
        upper, lower = slant - h * arc**0.85, slant + 0.72 * h * arc
        inside = np.maximum(np.maximum(upper - v, v - lower), np.abs(u) - w)
        opening = _soft(inside, p.edge)
        shadow = np.exp(-np.clip(v - upper, 0, 1) / 0.055)
        white = np.array([0.93, 0.91, 0.9], np.float32) * (0.72 + 0.28 * f.ambient)
        _lay(p, box, white * (1 - 0.42 * shadow[..., None]), opening)
        gx = (f.gaze * 0.35 + 0.25 * math.sin(f.yaw)) * w * side
        r = np.hypot(u - gx, v + 0.05 * h)
        radius = 0.47 * w
        ring = 1 - 0.55 * np.clip((r - 0.7 * radius) / (0.3 * radius), 0, 1)
        ring *= 1 - 0.45 * shadow
        ring += 0.35 * np.clip((v + 0.02) / radius, 0, 1)
        _lay(p, box, iris_colour * ring[..., None], opening * _soft(r - radius, p.edge))
        _lay(p, box, DARK * 0.5, opening * _soft(r - 0.42 * radius, p.edge))
        glint = np.hypot(
            u - gx - 0.3 * radius * math.copysign(1, f.light[0]) * side, v + 0.38 * radius
        )
        _lay(p, box, np.ones(3), 0.9 * opening * _soft(glint - 0.17 * radius, p.edge))
        made_up = 0.35 * (f.lipstick > 0)
        reach = np.clip(1.14 - np.abs(u) / w, 0, 0.14) / 0.14
        lash = np.abs(v - upper + 0.006) - (0.011 + 0.012 * made_up + 0.012 * np.clip(t, 0, 1))
        _lay(p, box, DARK, (0.85 * reach) * _soft(lash, 0.014 + p.edge))
        crease = np.abs(v - upper + 0.055) - 0.004
        _dim(p, box, 0.38 * reach * _soft(crease, 0.03), np.array([0.6, 0.8, 0.8], np.float32))
        _dim(p, box, 0.3 * reach * _soft(np.abs(v - lower - 0.004) - 0.003, 0.02),
             np.array([0.6, 0.85, 0.85], np.float32))  # fmt: skip
        bag = np.abs(v - lower - 0.06) - 0.006
        _dim(p, box, (0.12 + 0.3 * f.age) * reach * _soft(bag, 0.035),
             np.array([0.5, 0.7, 0.6], np.float32))  # fmt: skip


def nostrils(p: Painter) -> None:
    """Two dark spots and the shadow of the wings."""
    f = p.f
    box = _window(p, (-0.35, 0.35), (0.2, 0.62))
    u, v = np.abs(p.u[box]), p.v[box]
    hole = np.hypot((u - 0.075 * f.nose) / 1.5, v - 0.425) - 0.017
    _dim(p, box, 0.62 * _soft(hole, 0.022 + p.edge), np.array([0.7, 0.85, 0.85], np.float32))
    wing = np.abs(np.hypot((u - 0.1 * f.nose), (v - 0.385) * 1.1) - 0.062 * f.nose) - 0.004
    outer = (u > 0.1 * f.nose) * np.clip(1 - np.abs(v - 0.39) / 0.09, 0, 1)
    _dim(p, box, 0.32 * outer * _soft(wing, 0.025), np.array([0.6, 0.8, 0.8], np.float32))


def mouth(p: Painter) -> None:
    """Lips whose corners rise with the smile; teeth where the mouth is open."""
    f = p.f
    box = _window(p, (-0.62, 0.62), (0.52, 1.08))
    u, v = p.u[box], p.v[box]
    smile = max(f.smile, 0.0)
    half = f.mouth_width * (1 + 0.22 * smile)
    t = np.clip(u / half, -1, 1)
    arc = np.clip(1 - t * t, 0, 1)
    line = 0.745 + 0.02 * np.cos(3 * t) - (0.1 * f.smile) * t * t + 0.04 * smile
    gape = 0.115 * f.mouth_open * arc**0.7
    bow = 0.018 * np.exp(-((np.abs(u) - 0.07) ** 2) / 0.003) - 0.008 * np.exp(-(u**2) / 0.0012)
    upper = line - gape * 0.35 - (0.058 * f.lips * arc**0.8 + bow * arc)
    lower = line + gape + 0.088 * f.lips * arc**0.72
    outside = np.abs(u) - half
    natural = p.skin * np.array([0.86, 0.62, 0.6], np.float32)
    painted = np.array([0.68, 0.16, 0.2], np.float32)
    colour = natural * (1 - 0.75 * f.lipstick) + painted * 0.75 * f.lipstick
    depth = np.clip((v - line) / 0.09, -1, 1)
    shade = 0.66 + 0.3 * np.clip(depth, 0, 1) + 0.16 * np.exp(-(((depth - 0.5) / 0.3) ** 2))
    shade += 0.1 * f.ambient - 0.1 * (depth < 0)
    body = np.maximum(np.maximum(upper - v, v - lower), outside)
    _lay(p, box, colour * shade[..., None], 0.9 * _soft(body, 0.016 + p.edge))
    if f.mouth_open > 0.05:
        gap = np.maximum(np.maximum(line - 0.35 * gape - v, v - line - gape), outside + 0.03)
        _lay(p, box, np.array([0.25, 0.09, 0.09]), _soft(gap, 0.01 + p.edge))
        teeth = np.maximum(gap, v - line - 0.55 * gape)
        bright = (0.86 - 0.35 * t * t)[..., None] * np.array([1.0, 0.98, 0.94], np.float32)
        _lay(p, box, bright, _soft(teeth, 0.012 + p.edge))
    seam = np.abs(v - line) - 0.006
    reach = np.clip((1.03 - np.abs(u) / half) / 0.08, 0, 1)
    closed = 1 - min(1.0, 4 * f.mouth_open)
    _lay(p, box, colour * 0.36, (0.75 * closed * reach) * _soft(seam, 0.012 + p.edge))
    corner = np.hypot(np.abs(u) - half, (v - line) * 1.2) - 0.015
    _dim(p, box, 0.4 * _soft(corner, 0.035), np.array([0.6, 0.8, 0.8], np.float32))
    below = np.abs(v - lower - 0.035) - 0.01
    _dim(p, box, 0.2 * arc * _soft(below, 0.045), np.array([0.7, 0.8, 0.8], np.float32))


def beard(p: Painter) -> None:
    """Stubble, mustache, goatee or a full beard: soft masks with fine hairs."""
    f = p.f
    if f.beard == "none":
        return
    box = _window(p, (-1.1, 1.1), (0.1, 1.4))
    u, v = p.u[box], p.v[box]
    au = np.abs(u)
    lip = _soft(np.abs(v - 0.60 + 0.1 * f.smile * (u / 0.4) ** 2 - 0.12 * au) - 0.05, 0.06)
    lip *= np.clip((0.44 - au) / 0.1, 0, 1)
    chin = _soft(np.hypot(u / 0.3, (v - 1.08) / 0.3) - 1, 0.5)
    sides = _soft(np.maximum(0.52 - 0.9 * np.clip(au - 0.35, 0, 1) - v, 0.0) - 0.0, 0.16)
    jaw = sides * _soft(0.36 - np.hypot(u / 1.15, (v - 0.55) / 1.0), 0.22)
    jaw = np.clip(jaw * np.clip((v - 0.1 - 0.25 * (0.9 - au)) / 0.3, 0, 1), 0, 1)
    full = np.maximum.reduce([lip, chin, jaw])
    mask = {"stubble": 0.42 * full, "mustache": lip, "goatee": np.maximum(lip, chin), "full": full}
    open_lips = _soft(np.hypot(u / (f.mouth_width * 1.12), (v - 0.77) / 0.13) - 1, 0.12)
    alpha = mask[f.beard] * (1 - open_lips)
    hairs = 0.8 + 0.1 * p.grain.standard_normal(u.shape, dtype=np.float32)
    hairs *= 0.92 + 0.12 * np.sin(52 * u + 14 * v)
    colour = p.hair * (0.55 + 0.5 * f.ambient) * np.array([1.05, 1, 0.96], np.float32)
    _lay(p, box, colour * hairs[..., None], 0.82 * np.clip(alpha, 0, 1))


def glasses(p: Painter) -> None:
    """Round or square frames, or sunglasses, with a bridge, temples and a reflection."""
    f = p.f
    if f.glasses == "none":
        return
    box = _window(p, (-1.2, 1.2), (-0.5, 0.5))
    u, v = np.abs(p.u[box]), p.v[box]
    x, y = u - f.eye_gap, v + 0.02
    if f.glasses == "round":
        rim = np.hypot(x, y) - 0.3
    else:
        power = 4.0 if f.glasses == "square" else 3.0
        rim = ((np.abs(x) / 0.33) ** power + (np.abs(y) / 0.25) ** power) ** (1 / power) * 0.26
        rim -= 0.26
    lens = _soft(rim, p.edge)
    frame = np.array(f.colours[3], np.float32) * 0.3 + 0.04
    streak = np.exp(-(((x + y * 0.8 + 0.08) / 0.07) ** 2))
    if f.glasses == "sun":
        tint = np.array([0.07, 0.07, 0.08], np.float32) + 0.16 * np.clip(0.4 + y, 0, 1)[..., None]
        _lay(p, box, tint, 0.93 * lens)
    _lay(p, box, np.ones(3), (0.16 if f.glasses == "sun" else 0.1) * streak * lens)
    thick = 0.02 if f.glasses == "round" else 0.026
    _dim(p, box, 0.25 * _soft(np.abs(rim + 0.0) - thick - 0.01, 0.05), np.full(3, 0.8, np.float32))
    wire = np.minimum(np.abs(rim) - thick, np.maximum(np.abs(y + 0.05) - 0.018, u - 0.12))
    wire = np.minimum(wire, np.maximum(np.abs(y + 0.08) - 0.02, f.eye_gap + 0.28 - u))
    _lay(p, box, frame, _soft(wire, p.edge))
