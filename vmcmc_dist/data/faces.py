"""The built-in faces: a procedural renderer, ours, so that the whole system runs without any data.

Face i is a function of i alone. Two dozen factors (pose, shape, skin, hair, eyes, brows, nose,
mouth, beard, glasses, hat, light, background, ...) are drawn from it; those that are yes or no are
its attributes, named as in CelebA where the meaning is the same. No person is or can be shown.

    image = render(7, 64)          # uint8 [64, 64, 3], the region of CelebA's central crop
    names = ATTRIBUTES; values = attributes(factors(7))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vmcmc_dist.data.order import rng

NAME = "builtin-faces"
VERSION = 1
LICENCE = (
    "Procedural drawings made by vmcmc_dist (Apache-2.0); not CelebA, not photographs, "
    "nobody's face."
)

SKIN = np.array(
    [
        (0.99, 0.87, 0.79),
        (0.95, 0.79, 0.68),
        (0.89, 0.70, 0.56),
        (0.77, 0.56, 0.41),
        (0.58, 0.39, 0.27),
        (0.40, 0.26, 0.19),
    ],
    dtype=np.float32,
)
HAIR = {
    "black": (0.10, 0.085, 0.09),
    "brown": (0.27, 0.17, 0.11),
    "chestnut": (0.42, 0.26, 0.15),
    "blond": (0.83, 0.67, 0.42),
    "red": (0.58, 0.27, 0.13),
    "gray": (0.66, 0.65, 0.65),
}
IRIS = ((0.29, 0.17, 0.09), (0.18, 0.11, 0.07), (0.30, 0.47, 0.62), (0.33, 0.44, 0.27),
        (0.45, 0.33, 0.16))  # fmt: skip
STYLES = ("bald", "short", "parted", "bob", "long", "curly")


@dataclass(frozen=True)
class Face:
    """The factors of one face. Angles in radians; lengths in units of 45 aligned pixels."""

    yaw: float
    pitch: float
    roll: float
    width: float
    jaw: float
    skin: float
    style: str
    hair: str
    hair_light: float
    volume: float
    bangs: bool
    part: float
    curl: float
    iris: int
    eye_size: float
    eye_open: float
    eye_gap: float
    gaze: float
    brow_weight: float
    brow_arch: float
    nose: float
    mouth_width: float
    lips: float
    lipstick: float
    smile: float
    mouth_open: float
    beard: str
    glasses: str
    hat: str
    earrings: bool
    blush: float
    freckles: bool
    age: float
    light: tuple[float, float, float]
    ambient: float
    warmth: float
    colours: tuple[tuple[float, float, float], ...]
    grain: int


def factors(index: int) -> Face:
    """Draw the factors of face ``index`` ≥ 0. Some go together as they do in people."""
    g = rng(VERSION, 0xFACE, index)

    def uniform(low: float, high: float) -> float:
        return float(g.uniform(low, high))

    def chance(p: float) -> bool:
        return bool(g.random() < p)

    def pick(options: dict[str, float]) -> str:
        weights = np.array(list(options.values()))
        return str(g.choice(list(options), p=weights / weights.sum()))

    rugged = g.random() < 0.5
    age = float(g.beta(1.6, 2.6))
    skin = uniform(0, len(SKIN) - 1.001)
    short = {"bald": 0.4 + age, "short": 4, "parted": 4, "bob": 0.3, "long": 0.5, "curly": 1}
    long = {"bald": 0.02, "short": 0.9, "parted": 1, "bob": 2.6, "long": 4.2, "curly": 1.4}
    dark = skin > 3.2
    colours = {
        "black": 6.0 if dark else 1.6, "brown": 1.5 if dark else 2.4,
        "chestnut": 0.3 if dark else 1.8, "blond": 0.06 if dark else 1.9,
        "red": 0.03 if dark else 0.7, "gray": max(0.0, 4 * (age - 0.5)),
    }  # fmt: skip
    beards = {"none": 5.0, "stubble": 1.4, "mustache": 0.8, "goatee": 0.9, "full": 1.6}
    style = pick(short if rugged else long)
    smile = uniform(-0.25, 1.0)
    azimuth, height = uniform(-1.15, 1.15), uniform(-0.75, -0.1)
    light = np.array([np.sin(azimuth), height, 0.9 * np.cos(azimuth) + 0.25])
    light /= np.linalg.norm(light)
    hue, value = uniform(0, 1), uniform(0.25, 0.95)
    backdrop = [
        _hsv(hue + uniform(-0.1, 0.1), uniform(0.08, 0.5), value * uniform(0.65, 1.05))
        for _ in range(2)
    ]
    clothes = _hsv(uniform(0, 1), uniform(0.05, 0.65), uniform(0.15, 0.85))
    accent = _hsv(uniform(0, 1), uniform(0.1, 0.6), uniform(0.2, 0.8))
    return Face(
        yaw=float(np.clip(g.normal(0, 0.24), -0.6, 0.6)),
        pitch=float(np.clip(g.normal(0.02, 0.08), -0.2, 0.2)),
        roll=float(np.clip(g.normal(0, 0.06), -0.18, 0.18)),
        width=uniform(0.87, 0.98) + 0.03 * rugged,
        jaw=uniform(0.1, 0.75) + 0.3 * rugged,
        skin=skin,
        style=style,
        hair=pick(colours),
        hair_light=uniform(0.85, 1.18),
        volume=uniform(0.0, 1.0),
        bangs=style in ("bob", "long", "parted") and chance(0.3),
        part=uniform(-0.55, 0.55),
        curl=uniform(0.0, 1.0),
        iris=int(g.integers(2)) if dark else int(g.integers(len(IRIS))),
        eye_size=uniform(0.19, 0.235),
        eye_open=uniform(0.38, 0.6) - 0.1 * max(smile, 0) * uniform(0, 1),
        eye_gap=uniform(0.40, 0.46),
        gaze=uniform(-0.25, 0.25),
        brow_weight=uniform(0.028, 0.05) + 0.018 * rugged,
        brow_arch=uniform(0.02, 0.11) - 0.02 * rugged,
        nose=uniform(0.8, 1.1) + 0.12 * rugged,
        mouth_width=uniform(0.31, 0.4),
        lips=uniform(0.65, 1.25),
        lipstick=0.0 if rugged or chance(0.45) else uniform(0.5, 1.0),
        smile=smile,
        mouth_open=max(0.0, uniform(-0.9, 1.0)) * (0.35 + 0.65 * max(smile, 0)),
        beard=pick(beards) if rugged else "none",
        glasses=pick({"none": 5.0, "round": 0.6, "square": 0.6, "sun": 0.4}),
        hat=pick({"none": 9.0, "beanie": 0.55, "brim": 0.4}),
        earrings=not rugged and chance(0.4),
        blush=uniform(0.0, 0.5) + (0.35 if not rugged and chance(0.35) else 0),
        freckles=skin < 2 and chance(0.15),
        age=age,
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=uniform(0.36, 0.6),
        warmth=uniform(-1, 1),
        colours=(backdrop[0], backdrop[1], clothes, accent),
        grain=int(g.integers(2**31)),
    )


def _hsv(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    k = (np.array([5.0, 3.0, 1.0]) + 6 * (hue % 1)) % 6
    rgb = value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1))
    return (float(min(rgb[0], 1)), float(min(rgb[1], 1)), float(min(rgb[2], 1)))


RULES = {
    "5_o_Clock_Shadow": lambda f: f.beard == "stubble",
    "Arched_Eyebrows": lambda f: f.brow_arch > 0.07,
    "Bald": lambda f: f.style == "bald",
    "Bangs": lambda f: f.bangs,
    "Big_Lips": lambda f: f.lips > 1.05,
    "Big_Nose": lambda f: f.nose > 1.08,
    "Black_Hair": lambda f: f.style != "bald" and f.hair == "black",
    "Blond_Hair": lambda f: f.style != "bald" and f.hair == "blond",
    "Brown_Hair": lambda f: f.style != "bald" and f.hair in ("brown", "chestnut"),
    "Bushy_Eyebrows": lambda f: f.brow_weight > 0.052,
    "Eyeglasses": lambda f: f.glasses != "none",
    "Goatee": lambda f: f.beard == "goatee",
    "Gray_Hair": lambda f: f.style != "bald" and f.hair == "gray",
    "Long_Hair": lambda f: f.style in ("long", "bob"),
    "Mouth_Slightly_Open": lambda f: f.mouth_open > 0.12,
    "Mustache": lambda f: f.beard in ("mustache", "goatee", "full"),
    "Narrow_Eyes": lambda f: f.eye_open < 0.42,
    "No_Beard": lambda f: f.beard in ("none", "mustache"),
    "Pale_Skin": lambda f: f.skin < 0.7,
    "Red_Hair": lambda f: f.style != "bald" and f.hair == "red",
    "Rosy_Cheeks": lambda f: f.blush > 0.5,
    "Smiling": lambda f: f.smile > 0.4,
    "Sunglasses": lambda f: f.glasses == "sun",
    "Wavy_Hair": lambda f: f.style == "curly" or (f.style in ("long", "bob") and f.curl > 0.6),
    "Wearing_Earrings": lambda f: f.earrings,
    "Wearing_Hat": lambda f: f.hat != "none",
    "Wearing_Lipstick": lambda f: f.lipstick > 0,
    "Young": lambda f: f.age < 0.5,
}
ATTRIBUTES = tuple(RULES)


def attributes(face: Face) -> list[int]:
    """The yes/no factors as 0/1, in the order of ATTRIBUTES."""
    return [int(rule(face)) for rule in RULES.values()]


def render(index: int, size: int) -> np.ndarray:
    """Face ``index`` at any size: uint8 [size, size, 3]; the region of CelebA's 140x140 crop."""
    from vmcmc_dist.data.face_painter import Canvas, paint

    return paint(factors(index), Canvas(size, size, left=19, top=39, scale=size / 140))


def render_aligned(index: int, scale: float = 1.0) -> np.ndarray:
    """Face ``index`` as CelebA's aligned images are: uint8 [218 · scale, 178 · scale, 3]."""
    from vmcmc_dist.data.face_painter import Canvas, paint

    width, height = round(178 * scale), round(218 * scale)
    return paint(factors(index), Canvas(width, height, left=0, top=0, scale=height / 218))
