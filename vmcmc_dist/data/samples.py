"""The samples of one block: still encoded, each with its label, or the reason why it is bad."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

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


def split_block(
    data: bytes, where: str, count: int, labels: LabelInfo, *, pairs: bool
) -> list[Encoded | Bad]:
    """The ``count`` samples of a block whose bytes are right.

    A sample without a readable label or image is Bad. Raises DataError if the block does not hold
    what the block table says.
    """
    view = memoryview(data)
    found: list[Encoded | Bad] = []
    for sample in tar.samples(view, where):
        members = {e: view[a:b] for e, (a, b) in sample.members.items()}
        found.append(_encoded(sample.key, members, labels, pairs))
    if len(found) != count:
        raise DataError(
            f"{where}: {len(found)} samples, the block table says {count}; run `vmcmc data index`"
        )
    return found


def _encoded(
    key: str, members: Mapping[str, bytes | memoryview], labels: LabelInfo, pairs: bool
) -> Encoded | Bad:
    source = None
    if pairs:
        extension, of_source = _member(members, TARGET, IMAGES), _member(members, INPUT, IMAGES)
        if of_source is not None:
            source = Encoded(key, of_source.rsplit(".", 1)[-1], members[of_source], None)
        wanted = source is not None
    else:
        extension, wanted = next((e for e in _WHOLE if e in members), None), True
    if extension is None or not wanted:
        return Bad(key, f"no {_wanted(pairs)} member (it has {', '.join(sorted(members))})")
    try:
        label = _label(members, labels)
    except (KeyError, ValueError, TypeError, RecursionError):
        return Bad(key, f"no readable label ({labels.kind})")
    if labels.kind == "class" and not 0 <= label < len(labels.names):
        return Bad(key, f"class {label} is not below {len(labels.names)}")
    if labels.width is not None and len(label) != labels.width:
        return Bad(key, f"{len(label)} attributes, not {labels.width}")
    return Encoded(key, extension.rsplit(".", 1)[-1], members[extension], label, source)


def _label(members: Mapping[str, bytes | memoryview], labels: LabelInfo) -> Any:
    if labels.kind == "class":
        return int(bytes(members["cls"]))
    if labels.kind == "attributes":
        return [int(value) for value in json.loads(bytes(members["json"]))["attributes"]]
    return None


def _member(members: Mapping[str, Any], name: str, extensions: tuple[str, ...]) -> str | None:
    return next((f"{name}.{e}" for e in extensions if f"{name}.{e}" in members), None)


def _wanted(pairs: bool) -> str:
    return f"{INPUT}.EXT and {TARGET}.EXT" if pairs else "/".join(_WHOLE)


def is_pair(members: Mapping[str, Any]) -> bool:
    """True if a sample has an input or a target image."""
    return any(_member(members, name, IMAGES) for name in (INPUT, TARGET))


_PAIRS = (
    "; pairs are KEY.input.EXT and KEY.target.EXT, or of any names with data.source=pairs and the "
    "tar itself as data.root"
)


def shapes_of(
    where: str, key: str, members: Mapping[str, bytes]
) -> tuple[tuple[int, ...], str, tuple[int, ...] | None]:
    """Shape, dtype and shape of the input image of one sample, off its headers alone.

    Raises DataError if it holds no readable image or vector.
    """
    found = _encoded(key, members, LabelInfo(), is_pair(members))
    if isinstance(found, Bad):
        raise DataError(
            f"{where}: sample {key}: {found.reason}" + (_PAIRS if "." in found.reason else "")
        )
    shape, dtype = _shape(where, found)
    source_shape = None if found.source is None else _shape(where, found.source)[0]
    if source_shape is not None and source_shape[1:] != shape[1:]:
        raise DataError(
            f"{where}: sample {key}: input of {source_shape[2]}x{source_shape[1]} and target "
            f"of {shape[2]}x{shape[1]} pixels; both images of a pair have the same size"
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
