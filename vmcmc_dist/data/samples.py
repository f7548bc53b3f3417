"""The samples of one block: still encoded, each with its label, or the reason why it is bad."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from vmcmc_dist.data import tar
from vmcmc_dist.data.decoding import UndecodableError, header
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.data.tar import IMAGES, INPUT, TARGET, VECTORS
from vmcmc_dist.errors import DataError

_WHOLE = (*IMAGES, *VECTORS)


class Encoded(NamedTuple):
    """One image or vector as it lies in the shard; ``source`` is the input image of a pair."""

    key: str
    extension: str
    data: bytes | memoryview
    label: Any
    source: Encoded | None = None


class Bad(NamedTuple):
    """A sample that cannot be used, and why."""

    key: str
    reason: str


class AlikeBlock(Sequence["Encoded | Bad"]):
    """Samples of a block that all have the same members, made as they are asked for: sample i is
    ``data[starts[i]:stops[i]]``, with ``labels[i]`` if there are labels.

    A block is held for long and each sample is read once: objects made beforehand would be gone
    through by every garbage collection meanwhile, which took longer than making them.
    """

    def __init__(
        self,
        alike: tar.Alike,
        extension: str,
        data: memoryview,
        labels: list[int] | None,
    ) -> None:
        self._keys, self.extension, self.data, self.labels = alike.keys, extension, data, labels
        self.starts, self.stops = alike.members[extension]

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, i: int) -> Encoded | Bad: ...
    @overload
    def __getitem__(self, i: slice) -> list[Encoded | Bad]: ...
    def __getitem__(self, i: int | slice) -> Encoded | Bad | list[Encoded | Bad]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        label = None if self.labels is None else self.labels[i]
        data = self.data[self.starts[i] : self.stops[i]]
        return Encoded(self._keys[i].decode(), self.extension, data, label)


def split_block(
    data: bytes, where: str, count: int, labels: LabelInfo, *, pairs: bool
) -> Sequence[Encoded | Bad]:
    """The ``count`` samples of a block whose bytes are right.

    A sample without a readable label or image is Bad. Raises DataError if the block does not hold
    what the block table says.
    """
    view, kind, width = memoryview(data), labels.kind, labels.width or len(labels.names)
    alike = None if pairs else _alike(data, view, kind, width)
    if alike is not None and len(alike) == count:
        return alike
    found: list[Encoded | Bad] = []
    for sample in tar.block_samples(data, where):
        try:
            label = _label(sample, view, kind, width)
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            known = f": {error}" if type(error) is ValueError else ""
            found.append(Bad(sample.key, f"no readable label ({kind}{known})"))
            continue
        found.append(_pair(sample, view, label) if pairs else _single(sample, view, label))
    if len(found) != count:
        raise DataError(
            f"{where}: {len(found)} samples, the block table says {count}; run `vmcmc data index`"
        )
    return found


def _alike(data: bytes, view: memoryview, kind: str, width: int) -> AlikeBlock | None:
    """The samples of a block of images with or without classes, if all is as usual."""
    alike = tar.alike_samples(data) if kind in ("none", "class") else None
    extension = next((e for e in _WHOLE if alike and e in alike.members), None)
    if alike is None or extension is None:
        return None
    labels: list[int] | None = None
    if kind == "class":
        if "cls" not in alike.members:
            return None
        try:
            labels = [int(data[a:b]) for a, b in zip(*alike.members["cls"], strict=True)]
        except ValueError:
            return None
        if min(labels) < 0 or max(labels) >= width:
            return None
    return AlikeBlock(alike, extension, view, labels)


def _label(sample: tar.Sample, view: memoryview, kind: str, width: int) -> Any:
    """The label; raises KeyError, ValueError or TypeError where there is none of this kind."""
    if kind == "none":
        return None
    start, stop = sample.members["cls" if kind == "class" else "json"]
    if kind == "class":
        label = int(bytes(view[start:stop]))
        if not 0 <= label < width:
            raise ValueError(f"{label} is not below {width}")
        return label
    attributes = [int(value) for value in json.loads(bytes(view[start:stop]))["attributes"]]
    if len(attributes) != width:
        raise ValueError(f"{len(attributes)} attributes, not {width}")
    return attributes


def _single(sample: tar.Sample, view: memoryview, label: Any) -> Encoded | Bad:
    for extension in _WHOLE:
        if extension in sample.members:
            start, stop = sample.members[extension]
            return Encoded(sample.key, extension, view[start:stop], label)
    return Bad(sample.key, f"no {'/'.join(_WHOLE)} member (it has {_names(sample)})")


def _pair(sample: tar.Sample, view: memoryview, label: Any) -> Encoded | Bad:
    parts = []
    for name in (INPUT, TARGET):
        extension = next((e for e in IMAGES if f"{name}.{e}" in sample.members), None)
        if extension is None:
            what = f"{INPUT}.EXT and {TARGET}.EXT"
            return Bad(sample.key, f"no {what} member (it has {_names(sample)})")
        start, stop = sample.members[f"{name}.{extension}"]
        parts.append(Encoded(sample.key, extension, view[start:stop], label))
    return parts[1]._replace(source=parts[0])


def _names(sample: tar.Sample) -> str:
    return ", ".join(sorted(sample.members))


_PAIRS = (
    "; pairs are KEY.input.EXT and KEY.target.EXT, or of any names with data.source=pairs and the "
    "tar itself as data.root"
)


def shapes_of(
    where: str, sample: tar.Sample, data: bytes
) -> tuple[tuple[int, ...], str, tuple[int, ...] | None]:
    """Shape, dtype and shape of the input image of one sample, off its headers alone.

    Raises DataError if it holds no readable image or vector.
    """
    pair = any(f"{n}.{e}" in sample.members for n in (INPUT, TARGET) for e in IMAGES)
    found = (_pair if pair else _single)(sample, memoryview(data), None)
    if isinstance(found, Bad):
        dotted = any("." in extension for extension in sample.members)
        raise DataError(
            f"{where}: sample {sample.key}: {found.reason}" + (_PAIRS if dotted else "")
        )
    shape, dtype = _shape(where, found)
    source_shape = None if found.source is None else _shape(where, found.source)[0]
    if source_shape is not None and source_shape[1:] != shape[1:]:
        raise DataError(
            f"{where}: sample {sample.key}: input of {source_shape[2]}x{source_shape[1]} and "
            f"target of {shape[2]}x{shape[1]} pixels; both images of a pair have the same size"
        )
    return shape, dtype, source_shape


def _shape(where: str, found: Encoded) -> tuple[tuple[int, ...], str]:
    if found.extension in VECTORS:
        return np.load(io.BytesIO(found.data), allow_pickle=False).shape, "float32"
    try:
        width, height, channels = header(found.data)
    except UndecodableError as error:
        raise DataError(f"{where}: sample {found.key} does not decode ({error})") from None
    return (channels, height, width), "uint8"
