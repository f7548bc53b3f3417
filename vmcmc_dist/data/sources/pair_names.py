"""Which files make a pair: two patterns with one ``*`` each, and the splits of what they match."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from PIL import Image

from vmcmc_dist.data.sources.base import NoSplitError
from vmcmc_dist.data.sources.folder import ALIASES
from vmcmc_dist.data.sources.images import ImageFiles
from vmcmc_dist.errors import ConfigError, DataError

HELD_OUT = 10  # one pair in this many is the test split where there are no split folders


@dataclass(frozen=True)
class Pattern:
    """File names with one ``*``: ``*.edge.png``, ``input/*``; ``:left`` and ``:right`` are halves.

    It is matched against the end of a path, whole folder names at a time; a ``*`` at its end
    stands for a name without its extension. ``key`` is its place in the config.
    """

    key: str
    text: str
    names: re.Pattern[str]
    half: str

    @staticmethod
    def of(key: str, text: str | None) -> Pattern:
        """Raises ConfigError unless ``text`` is a pattern."""
        if not text:
            raise ConfigError(f"data.source=pairs needs data.{key}, e.g. data.{key}={key}/*")
        name, _, half = text.partition(":")
        if name.count("*") != 1 or half not in ("", "left", "right"):
            raise ConfigError(
                f"data.{key}={text}: a pattern has one *, and may end in :left or :right"
            )
        before, after = (re.escape(part) for part in name.split("*"))
        after = after or r"\.[^./]+"
        return Pattern(key, text, re.compile(rf"((?:.*/)?){before}(.+?){after}"), half)

    def paths(self, names: list[str]) -> dict[str, str]:
        """Stem → path of the names that match. The images of a pair have the same stem.

        Raises DataError where none does, or two of one stem do.
        """
        found: dict[str, str] = {}
        for name in names:
            match = self.names.fullmatch(name)
            if match is None:
                continue
            stem = match[1] + match[2]
            if stem in found:
                raise DataError(f"data.{self.key}={self.text} finds both {found[stem]} and {name}")
            found[stem] = name
        if not found:
            raise DataError(
                f"no image is named as data.{self.key}={self.text} says; there are "
                f"{', '.join(names[:3]) or 'none at all'}"
            )
        return found

    def image(self, files: ImageFiles, path: str) -> Image.Image:
        """The image at ``path``, or the half of it that is meant."""
        image = files.image(path)
        if not self.half:
            return image
        if image.width % 2:
            raise DataError(f"{path}: {image.width} pixels wide: it has no two equal halves")
        middle = image.width // 2
        left = 0 if self.half == "left" else middle
        return image.crop((left, 0, left + middle, image.height))


@dataclass(frozen=True)
class Pair:
    """The names of one pair."""

    stem: str
    input: str
    target: str

    def __str__(self) -> str:
        return self.input if self.input == self.target else f"{self.input} with {self.target}"


def match_pairs(input: Pattern, target: Pattern, names: list[str]) -> list[Pair]:
    """All pairs among ``names``, by stem. Raises DataError where an image has no partner."""
    if input.text == target.text:
        raise ConfigError(f"data.input and data.target are both {input.text}")
    inputs, targets = input.paths(names), target.paths(names)
    for pattern, found, partners in ((target, targets, inputs), (input, inputs, targets)):
        lonely = [path for stem, path in partners.items() if stem not in found]
        if lonely:
            raise DataError(
                f"no {pattern.key} image, by data.{pattern.key}={pattern.text}, belongs to "
                f"{', '.join(lonely[:3])}" + (f" … ({len(lonely)} in all)" if lonely[3:] else "")
            )
    return [Pair(stem, inputs[stem], targets[stem]) for stem in sorted(inputs)]


def of_split(pairs: list[Pair], split: str) -> list[Pair]:
    """The pairs of one split: by folders train, valid (val) and test in their paths; without them
    the tenth whose stems have the largest sha256 is the test split, and the rest is train.
    """
    known = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
    folders = [{known[f] for f in p.stem.split("/")[:-1] if f in known} for p in pairs]
    if split == "all":
        return pairs
    if all(len(names) == 1 for names in folders):
        chosen = [p for p, names in zip(pairs, folders, strict=True) if split in names]
    else:
        by_hash = sorted(pairs, key=lambda p: hashlib.sha256(p.stem.encode()).digest())
        held_out = set(by_hash[len(pairs) - max(1, len(pairs) // HELD_OUT) :])
        wanted = {"train": set(pairs) - held_out, "test": held_out}.get(split, set())
        chosen = [p for p in pairs if p in wanted]
    if not chosen:
        raise NoSplitError(f"no pairs of split {split!r}: no folder of that name in their paths")
    return chosen
