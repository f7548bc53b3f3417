"""Any WebDataset (tars of samples) as raw data, to be cut into shards of another size or number."""

from __future__ import annotations

import io
import json
import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vmcmc_dist.data import tar
from vmcmc_dist.data.config import DataConfig
from vmcmc_dist.data.fitting import MARGIN
from vmcmc_dist.data.image_header import UndecodableError, header
from vmcmc_dist.data.manifest import NAME, LabelInfo
from vmcmc_dist.data.sources.base import NoSplitError, Raw, missing
from vmcmc_dist.data.sources.folder import ALIASES
from vmcmc_dist.data.sources.images import EXTENSIONS, decode, square
from vmcmc_dist.data.tar import INPUT, TARGET
from vmcmc_dist.errors import ConfigError, DataError

IMAGES = tuple(extension[1:] for extension in sorted(EXTENSIONS))
OPEN_TARS = 32
CLASS_MEMBERS = ("cls", "cls.txt", "label", "label.txt")
CLASS_ENTRIES = ("cls", "class", "label", "label_id", "class_id")


class Place(NamedTuple):
    """A sample: its tar, its key, its members by extension as (first byte, end)."""

    tar: int
    key: str
    members: dict[str, tuple[int, int]]


class WebDataset:
    """``root``: a folder of .tar files, read recursively in the order of their names, or one .tar.

    The image of a sample is its only member with an image's extension, whatever comes before it
    (KEY.jpg, KEY.image.png); ``data.image_column`` names it where there are several. KEY.input.EXT
    with KEY.target.EXT are a pair; KEY.npy is a vector. The class is KEY.cls (a number or a name),
    or an entry of KEY.json (`label`, `class`, …, or the one that ``data.label_column`` names);
    attributes are the list `attributes` of KEY.json. What our manifest.json says beside the tars is
    kept. Splits are subfolders train/valid/test, or begin the tars' names; without them everything
    is train.
    """

    def __init__(self, cfg: DataConfig, root: Path) -> None:
        self.root, self.max_pixels, self.label_column = root, cfg.max_pixels, cfg.label_column
        self.side = cfg.image_size
        self.tars = _tars(root, cfg.split)
        self.views: dict[int, memoryview] = {}
        self.places: list[Place] = []
        for number, path in enumerate(self.tars):
            self.places += _samples(self._view(number), number, str(path))
        if not self.places:
            raise DataError(f"{root}: the tars hold no samples")
        self.places = self.places[: cfg.limit]
        self.licence, self.name = "unknown: a WebDataset of the user's", f"webdataset:{root.stem}"
        self.input_channels: int | None = None
        self._member = _member(self.places[0], cfg.image_column, str(root))
        self._first(cfg)
        self._labels()

    def _first(self, cfg: DataConfig) -> None:
        """Size and channels by default: those of the first sample."""
        place = self.places[0]
        if self._member == "npy":
            self.image_size, self.channels = None, 0
            return
        found = [_header(self._bytes(place, m), self._where(place)) for m in self._images(place)]
        self.channels = cfg.channels or found[-1][1]
        self.image_size = cfg.image_size or found[-1][0]
        if len(found) == 2:
            self.input_channels = cfg.input_channels or found[0][1]

    def _labels(self) -> None:
        """Kind and names of the labels, by those of all samples."""
        note = (self.root if self.root.is_dir() else self.root.parent) / NAME
        kept = _of_manifest(note) if note.is_file() else None
        raw = [self._label(place) for place in self.places]
        values = [value for value in raw if value is not None]
        self.labels, self.numbers = LabelInfo(), {}
        if not values:
            return
        if len(values) != len(raw):
            lost = self.places[raw.index(None)]
            raise DataError(f"{self._where(lost)}: no label, where others have one")
        if kept is not None:
            self.name, self.licence, self.labels = kept
        if isinstance(values[0], list):
            if self.labels.kind != "attributes":
                width = range(len(values[0]))
                self.labels = LabelInfo("attributes", tuple(str(a) for a in width))
        elif all(isinstance(value, int) for value in values):
            if min(values) < 0:
                raise DataError(f"{self.root}: negative classes")
            if self.labels.kind != "class" or max(values) >= len(self.labels.names):
                self.labels = LabelInfo("class", tuple(str(c) for c in range(max(values) + 1)))
        else:
            names = sorted({str(value) for value in values})
            self.labels = LabelInfo("class", tuple(names))
            self.numbers = {name: i for i, name in enumerate(names)}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "views": {}}

    def __len__(self) -> int:
        return len(self.places)

    def describe(self, i: int) -> str:
        return self._where(self.places[i])

    def load(self, i: int) -> Raw:
        place = self.places[i]
        label = self._label(place)
        if self.labels.kind == "class":
            label = self.numbers[str(label)] if self.numbers else label
        if self._member == "npy":
            return Raw(_vector(self._bytes(place, "npy"), self._where(place)), label)
        images = [
            decode(
                bytes(self._bytes(place, m)),
                self._where(place),
                self.max_pixels,
                None if self.side is None else MARGIN * self.side,
            )
            for m in self._images(place)
        ]
        if len(images) == 1:
            return Raw(images[0], label)
        if images[0].mode == "P":  # a label map: its colours are not blended
            images[0] = square(images[0], self.side or self.image_size or 1)
        return Raw(images[1], label, images[0])

    def _images(self, place: Place) -> list[str]:
        """The member of the image; those of input and target of a pair."""
        if self._member != TARGET:
            stem = self._member.rsplit(".", 1)[0] if "." in self._member else ""
            own = [m for m in place.members if _is_image(m) and _stem(m) == stem]
            if not own:
                raise UndecodableError(f"{self._where(place)}: no member {self._member}")
            return own[:1]
        pair = [
            next((m for m in place.members if _is_image(m) and _stem(m) == name), "")
            for name in (INPUT, TARGET)
        ]
        if not all(pair):
            raise UndecodableError(f"{self._where(place)}: not both images of a pair")
        return pair

    def _label(self, place: Place) -> Any:
        """A class as a number or a name, attributes as a list of 0 and 1; None without either."""
        if self.label_column is None:
            member = next((m for m in CLASS_MEMBERS if m in place.members), None)
            if member is not None:
                return _number(bytes(self._bytes(place, member)).decode("utf-8", "replace").strip())
        if "json" not in place.members:
            return None
        try:
            record = json.loads(bytes(self._bytes(place, "json")))
        except (ValueError, RecursionError):
            raise DataError(f"{self._where(place)}: its .json is torn") from None
        if not isinstance(record, dict):
            return None
        if self.label_column is None and isinstance(record.get("attributes"), list):
            return _attributes(record["attributes"], self._where(place))
        entries = [self.label_column] if self.label_column else CLASS_ENTRIES
        found = next((record[e] for e in entries if isinstance(record.get(e), (int, str))), None)
        if self.label_column and found is None:
            raise DataError(f"{self._where(place)}: its .json has no entry {self.label_column!r}")
        return _number(found) if isinstance(found, str) else found

    def _where(self, place: Place) -> str:
        return f"{self.tars[place.tar].name}: {place.key}"

    def _bytes(self, place: Place, member: str) -> memoryview:
        start, stop = place.members[member]
        return self._view(place.tar)[start:stop]

    def _view(self, number: int) -> memoryview:
        """A tar in memory as the kernel maps it."""
        if number not in self.views:
            while len(self.views) >= OPEN_TARS:
                self.views.pop(next(iter(self.views)))
            path = self.tars[number]
            try:
                with open(path, "rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: cannot be read ({error})") from None
            self.views[number] = memoryview(mapped)
        return self.views[number]


def _tars(root: Path, split: str) -> list[Path]:
    if root.is_file():
        found = [root] if root.suffix == ".tar" else []
    else:
        found = sorted(root.rglob("*.tar"))
    if not found:
        raise missing(root, "any .tar", "a WebDataset is a folder of uncompressed .tar files")
    parts = {path: _part(path.relative_to(root) if path != root else path) for path in found}
    if split == "all" or (split == "train" and not any(parts.values())):
        return found
    chosen = [path for path, part in parts.items() if part == split]
    if not chosen:
        raise NoSplitError(f"{root}: no tars of split {split!r}; use data.split=all")
    return chosen


def _part(path: Path) -> str | None:
    """The split that a tar's folder or the start of its name says."""
    folders = () if path.is_absolute() else path.parts[:-1]
    words = {*folders, path.name.replace("_", "-").split("-", 1)[0].split(".")[0]}
    return next((s for s, aliases in ALIASES.items() if words & set(aliases)), None)


def _samples(data: memoryview, number: int, where: str) -> list[Place]:
    """The samples of a tar: runs of members of one key, whatever their extensions are."""
    places: list[Place] = []
    if bytes(data[:2]) == b"\x1f\x8b":
        raise DataError(f"{where}: compressed; unpack it first (gunzip)")
    for member in tar.members(data, where, strict=True):
        base = member.name.rfind("/") + 1
        dot = member.name.find(".", base)
        if dot <= base or (member.name.startswith("__", base) and member.name.endswith("__")):
            continue
        key, extension = member.name[:dot], member.name[dot + 1 :].lower()
        if not places or places[-1].key != key or extension in places[-1].members:
            places.append(Place(number, key, {}))
        places[-1].members[extension] = (member.content, member.content + member.size)
    return [p for p in places if any(_is_image(m) or m == "npy" for m in p.members)]


def _is_image(member: str) -> bool:
    return member.rsplit(".", 1)[-1] in IMAGES


def _stem(member: str) -> str:
    return member.rpartition(".")[0]


def _member(place: Place, named: str | None, where: str) -> str:
    """What holds the image: a member, TARGET for pairs, or npy."""
    images = [m for m in place.members if _is_image(m)]
    if named is not None:
        found = next((m for m in images if named in (m, _stem(m))), None)
        if found is None:
            raise ConfigError(
                f"data.image_column={named}: {where} has the images {', '.join(images) or 'none'}"
            )
        return found
    if {INPUT, TARGET} <= {_stem(m) for m in images}:
        return TARGET
    plain = [m for m in images if "." not in m]
    if len(images) != 1 and len(plain) != 1:
        if not images:
            return "npy"
        raise ConfigError(
            f"{where}: several images in a sample ({', '.join(images)}); say which with "
            "data.image_column"
        )
    return plain[0] if plain else images[0]


def _header(data: memoryview, where: str) -> tuple[int, int]:
    """Shorter side, and channels (1 or 3)."""
    try:
        width, height, channels = header(data)
    except UndecodableError:
        image = decode(bytes(data), where, 1 << 30)
        width, height, channels = *image.size, len(image.getbands())
    return min(width, height), 1 if channels < 3 else 3


def _vector(data: memoryview, where: str) -> np.ndarray:
    try:
        vector = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UndecodableError(f"{where}: not a .npy array ({error})") from None
    if vector.ndim != 1 or vector.dtype.kind not in "fiu" or not np.isfinite(vector).all():
        raise UndecodableError(f"{where}: {vector.dtype}{vector.shape}, not finite numbers [D]")
    return vector.astype(np.float32)


def _attributes(values: list[Any], where: str) -> list[int]:
    try:
        return [int(float(value) > 0) for value in values]
    except (TypeError, ValueError):
        raise DataError(f"{where}: attributes that are no numbers") from None


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def _of_manifest(path: Path) -> tuple[str, str, LabelInfo] | None:
    """Name, licence and labels that a manifest.json of ours gives; None for another's."""
    try:
        record = json.loads(path.read_bytes())
        labels = LabelInfo(record["labels"]["kind"], tuple(record["labels"]["names"]))
        return str(record["source"]), str(record["licence"]), labels
    except (ValueError, KeyError, TypeError):
        return None
