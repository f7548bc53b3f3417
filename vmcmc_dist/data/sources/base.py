"""What a raw data set is to the shard writer."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from vmcmc_dist.data.image_header import UndecodableError
from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.errors import DataError

__all__ = ["NoSplitError", "Raw", "Source", "UndecodableError", "missing"]


class Raw(NamedTuple):
    """One raw sample: an image, or a float32 vector [D]; its label as LabelInfo says.

    ``source`` is the input image of a pair, of the same size as the image. ``short`` is the
    shorter side before the source itself resized the image; None where it did not.
    """

    value: Image.Image | np.ndarray
    label: int | list[int] | None
    source: Image.Image | None = None
    short: int | None = None


class Source(Protocol):
    """Random access to raw samples; picklable, so that worker processes can hold it.

    ``load(i)`` may raise UndecodableError: the sample is then counted, named and skipped.
    """

    @property
    def name(self) -> str: ...

    @property
    def licence(self) -> str: ...

    @property
    def labels(self) -> LabelInfo: ...

    @property
    def image_size(self) -> int | None:
        """Side of the images by default; None for vectors."""

    @property
    def channels(self) -> int: ...

    def __len__(self) -> int: ...

    def describe(self, i: int) -> str:
        """Name of sample i for messages."""

    def load(self, i: int) -> Raw:
        """Sample i, decoded."""


class NoSplitError(DataError):
    """The data set has no such part: it is not torn, there is none."""


def missing(path: Path, what: str, how: str) -> DataError:
    """The error for a raw data set that is not where it should be."""
    return DataError(f"{path}: {what} not found there; {how}")
