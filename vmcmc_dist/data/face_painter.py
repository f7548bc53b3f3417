"""Painting one built-in face: layers of soft shapes over a shaded head, back to front.

Coordinates are (x right, y down) in units of 45 pixels of CelebA's aligned 178x218 frame, the
origin between nose and eyes. The head is an ellipsoid: each pixel on it is turned back by the pose
to the frontal frame (u, v), where all features are drawn; so they foreshorten as they should.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import numpy as np

from vmcmc_dist.data.faces import HAIR, SKIN, Face

Array = np.ndarray
UNIT = 45.0
CENTRE = (89.0, 116.0)
HEAD = 1.32  # half height


@dataclass(frozen=True)
class Canvas:
    """A window of the aligned frame: ``width`` x ``height`` pixels, ``scale`` to one of its own."""

    width: int
    height: int
    left: float
    top: float
    scale: float

    @property
    def pixel(self) -> float:
        """Side of one pixel in scene units."""
        return 1 / (self.scale * UNIT)

    def grid(self) -> tuple[Array, Array]:
        """Pixel centres in scene units, float32 [H, W] each."""
        x = (self.left + (np.arange(self.width) + 0.5) / self.scale - CENTRE[0]) / UNIT
        y = (self.top + (np.arange(self.height) + 0.5) / self.scale - CENTRE[1]) / UNIT
        xx, yy = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
        return xx, yy


def soft(distance: Array, blur: float) -> Array:
    """Coverage of a shape from its signed distance (negative inside): smoothstep over ±blur."""
    t = np.clip(0.5 - distance / (2 * blur), 0, 1)
    return t * t * (3 - 2 * t)


def bump(x: Array, y: Array, cx: float, cy: float, sx: float, sy: float) -> Array:
    """exp(−½|.|²), a Gaussian spot."""
    return np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))


def ellipse(x: Array, y: Array, cx: float, cy: float, rx: float, ry: float) -> Array:
    """About the signed distance to an ellipse."""
    return (np.hypot((x - cx) / rx, (y - cy) / ry) - 1) * min(rx, ry)


class Painter:
    """The picture under way: float32 [H, W, 3] in [0, 1], and the fields all layers share."""

    def __init__(self, face: Face, canvas: Canvas) -> None:
        self.f = face
        self.edge = max(0.75 * canvas.pixel, 0.012)
        px, py = canvas.grid()
        c, s = math.cos(face.roll), math.sin(face.roll)
        self.px, self.py = px, py
        self.x, self.y = c * px + s * py, c * py - s * px
        self.pixel = canvas.pixel
        self.rgb = np.empty((*px.shape, 3), dtype=np.float32)
        self.light = np.array(face.light, dtype=np.float32)
        self.tint = np.array([1 + 0.05 * face.warmth, 1.0, 1 - 0.06 * face.warmth], np.float32)
        low = int(face.skin)
        part = face.skin - low
        self.skin = SKIN[low] * (1 - part) + SKIN[low + 1] * part
        self.hair = np.array(HAIR[face.hair], np.float32) * face.hair_light
        self.grain = np.random.Generator(np.random.PCG64(face.grain))
        self._head()

    def over(self, colour: Array | tuple[float, ...], alpha: Array) -> None:
        """Lay ``colour`` ([3] or [H, W, 3]) over the picture, only where alpha is not 0."""
        rows = np.flatnonzero(alpha.max(1) > 0.002)
        if not len(rows):
            return
        columns = np.flatnonzero(alpha.max(0) > 0.002)
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        colour = np.asarray(colour, np.float32)
        colour = colour[box] if colour.ndim == 3 else colour
        self.rgb[box] += alpha[box][..., None] * (colour - self.rgb[box])

    def part(self, x: tuple[float, float], y: tuple[float, float]) -> Painter:
        """The same painter restricted to a box in scene units: views, so painting in it counts."""
        columns = slice(*np.searchsorted(self.px[0], np.array(x, np.float32)).tolist())
        rows = slice(*np.searchsorted(self.py[:, 0], np.array(y, np.float32)).tolist())
        view = copy(self)
        for name in ("px", "py", "x", "y", "u", "v", "rgb", "outline", "on_head", "normal"):
            setattr(view, name, getattr(self, name)[rows, columns])
        return view

    def _head(self) -> None:
        """The ellipsoid: distance to its outline, normals, and frontal coordinates (u, v)."""
        f, x, y = self.f, self.x, self.y
        lower = np.clip(y / HEAD, 0, 1.2)
        width = f.width * (1 - (0.34 - 0.2 * f.jaw) * lower**2.2)
        sx, sy = x / width, y / HEAD
        norm = np.hypot(sx, sy)
        self.outline = (norm - 1) * 0.95
        self.on_head = soft(self.outline, 1.5 * self.edge)
        sz = np.sqrt(np.clip(1 - norm * norm, 0, 1))
        cy, s_y = math.cos(f.yaw), math.sin(f.yaw)
        cp, s_p = math.cos(f.pitch), math.sin(f.pitch)
        ty, tz = cp * sy - s_p * sz, s_p * sy + cp * sz
        self.u = (cy * sx - s_y * tz) * f.width
        self.v = ty * HEAD
        self.normal = np.stack([sx / f.width, sy / HEAD, sz + 0.12], -1)

    def lit(self, normal: Array, wrap: float = 0.35) -> Array:
        """Wrapped Lambert shading in [0, 1] of normals [H, W, 3] (not unit)."""
        length = np.sqrt((normal * normal).sum(-1)) + 1e-6
        return np.clip(((normal @ self.light) / length + wrap) / (1 + wrap), 0, 1)


def paint(face: Face, canvas: Canvas) -> Array:
    """The picture of a face: uint8 [H, W, 3]."""
    from vmcmc_dist.data import face_features, face_hair

    p = Painter(face, canvas)
    _background(p)
    face_hair.back(p)
    _body(p)
    _ears(p)
    _skin(p)
    for layer in (face_features.brows, face_features.eyes, face_features.nostrils,
                  face_features.mouth, face_features.beard):  # fmt: skip
        layer(p)
    face_hair.front(p)
    face_features.glasses(p)
    face_hair.hat(p)
    return _finish(p)


def _background(p: Painter) -> None:
    """A gradient between two colours with a soft glow behind the head."""
    first, second = (np.array(c, np.float32) for c in p.f.colours[:2])
    slope = p.f.light[0] * p.px * 0.25 + p.py * 0.22 + 0.5
    glow = 0.16 * bump(p.px, p.py, 1.2 * p.f.light[0], -0.6, 1.3, 1.3)
    blend = np.clip(slope, 0, 1)[..., None]
    p.rgb[:] = first * (1 - blend) + second * blend + glow[..., None]


def _body(p: Painter) -> None:
    """Neck, the chin's shadow on it, shoulders."""
    p = p.part((-9, 9), (0.5, 9))
    f, x, y = p.f, p.px, p.py
    half = 0.56 + 0.08 * f.jaw + 0.25 * np.clip(y - 1.5, 0, 1) ** 2
    across = (x - 0.12 * math.sin(f.yaw)) / half
    neck = soft(np.maximum((np.abs(across) - 1) * half, 0.6 - y), 2 * p.edge)
    normal = np.stack([across, 0 * x - 0.1, np.sqrt(np.clip(1 - across**2, 0, 1)) + 0.15], -1)
    shade = 0.5 * f.ambient + 0.62 * p.lit(normal)
    shade *= 1 - 0.4 * np.exp(-np.clip(y - 1.2, 0, 9) / 0.2)
    p.over(p.skin * shade[..., None] * p.tint, neck)
    drop = 1.72 + 0.24 * np.abs(x) ** 1.5 - 0.1 * np.exp(-((np.abs(x) - 0.62) ** 2) / 0.02)
    collar = ellipse(x, y, 0.05 * math.sin(f.yaw), 1.6, 0.52, 0.52)
    body = soft(np.maximum(drop - y, -collar), 2 * p.edge)
    folds = 1 + 0.06 * np.sin(5 * x + 3 * y + f.grain % 7)
    light = 0.55 + 0.35 * np.clip(0.5 + 0.5 * x * f.light[0], 0, 1)
    p.over(np.array(f.colours[2], np.float32) * (light * folds)[..., None], body)


def _ears(p: Painter) -> None:
    """One on each side, hidden as the head turns."""
    f = p.f
    for side in (-1, 1):
        cx = side * (f.width * 1.0) - 0.16 * math.sin(f.yaw)
        q = p.part((cx - 0.35, cx + 0.35), (-0.4, 0.7))
        alpha = soft(ellipse(q.x, q.y, cx, 0.1 - 0.3 * f.pitch, 0.13, 0.27), 2 * p.edge)
        inner = bump(q.x, q.y, cx + 0.02 * side, 0.08, 0.05, 0.14)
        shade = 0.72 + 0.2 * side * f.light[0] - 0.22 * inner
        q.over(p.skin * shade[..., None] * np.array([1.02, 0.95, 0.93], np.float32), alpha)
        if f.earrings:
            q.over((0.95, 0.86, 0.55), soft(ellipse(q.x, q.y, cx, 0.44, 0.055, 0.055), p.edge))


def _skin(p: Painter) -> None:
    """The head's skin: sphere normals tilted by the relief of the face, warm shadows, blush."""
    p = p.part((-1.25, 1.25), (-1.5, 1.5))
    f, u, v = p.f, p.u, p.v
    n = f.nose
    au = np.abs(u)
    relief = 0.34 * n * bump(u, v, 0, 0.30, 0.085 * n, 0.17)
    relief += 0.15 * bump(u, v, 0, 0.02, 0.075, 0.26)
    relief += 0.10 * n * bump(au, v, 0.12 * n, 0.38, 0.06, 0.06)
    relief -= 0.17 * bump(au, v, f.eye_gap, -0.10, 0.2, 0.13)
    relief += 0.11 * bump(au, v, 0.42, -0.32, 0.26, 0.09)
    relief += (0.13 + 0.08 * max(f.smile, 0)) * bump(au, v, 0.52, 0.32, 0.2, 0.2)
    relief += 0.10 * bump(u, v, 0, 0.76, 0.3, 0.1)
    relief -= 0.08 * bump(u, v, 0, 0.97, 0.24, 0.06)
    relief += 0.15 * bump(u, v, 0, 1.12, 0.26, 0.13)
    fold = (0.015 + 0.05 * f.age) * (0.5 + max(f.smile, 0))
    crease = au - (0.24 + 0.2 * (v - 0.35))
    relief -= fold * np.exp(-((crease / 0.05) ** 2)) * bump(v, v, 0.55, 0.55, 0.16, 1e9)
    gy, gx = np.gradient(relief, p.pixel)
    normal = p.normal.copy()
    normal[..., 0] -= 0.42 * gx
    normal[..., 1] -= 0.42 * gy
    lit = p.lit(normal)
    shade = f.ambient + (1.12 - f.ambient) * lit
    shade *= 1 - 0.18 * bump(au, v, f.eye_gap, -0.06, 0.2, 0.1)
    shade *= 1 - 0.2 * bump(u, v, 0, 0.475, 0.13 * n, 0.035)
    shade *= 1 - 0.3 * np.clip((np.hypot(p.x / f.width, p.y / HEAD) - 0.8) / 0.2, 0, 1) ** 2
    if f.age > 0.45:
        lines = np.exp(-((((v + 0.62) % 0.115 - 0.057) / 0.016) ** 2))
        lines *= bump(u, v, 0, -0.62, 0.3, 0.1)
        shade *= 1 - 0.3 * (f.age - 0.45) * lines
    warm = np.stack([1 + 0.07 * (1 - lit), 1 - 0.02 * (1 - lit), 1 - 0.05 * (1 - lit)], -1)
    colour = p.skin * shade[..., None] * warm * p.tint
    red = f.blush * 0.4 * bump(au, v, 0.52, 0.36, 0.2, 0.16)
    red += 0.16 * bump(u, v, 0, 0.34, 0.12, 0.1)
    colour *= 1 - red[..., None] * np.array([0.02, 0.28, 0.24], np.float32)
    if f.freckles:
        dots = np.sin(47 * u + 9 * np.sin(31 * v)) * np.sin(53 * v + 7 * np.sin(29 * u))
        spots = np.clip(dots - 0.55, 0, 1) * bump(au, v, 0.3, 0.28, 0.28, 0.14)
        colour *= 1 - spots[..., None] * np.array([0.35, 0.55, 0.7], np.float32)
    half = normal + 0.0
    half /= np.sqrt((half * half).sum(-1, keepdims=True)) + 1e-6
    towards = p.light + np.array([0, 0, 1], np.float32)
    gloss = np.clip(half @ (towards / np.linalg.norm(towards)), 0, 1) ** 26
    colour += (0.13 * gloss)[..., None]
    p.over(colour, p.on_head)


def _finish(p: Painter) -> Array:
    """A gentle tone curve, vignette and film grain."""
    rgb = np.clip(p.rgb, 0, 1)
    rgb *= (1 - 0.05 * (p.px**2 + p.py**2) / 4)[..., None]
    rgb += p.grain.standard_normal(rgb.shape[:2], dtype=np.float32)[..., None] * 0.008
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)
