"""Raw folders, made small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vmcmc_dist.data import DataConfig
from vmcmc_dist.data.sources import OPENERS, Source


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., Path]:
    """(names, size=12) → a folder with an image of each name; image i is of colour (i, i, i)."""

    def make(*names: str, size: int = 12, root: str = "raw") -> Path:
        for i, name in enumerate(names):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            form = {"JPEG": "JPEG"}.get(path.suffix[1:], None)
            Image.new("RGB", (size, size), (i, i, i)).save(path, form)
        return tmp_path / root

    return make


@pytest.fixture
def opened() -> Callable[..., Source]:
    """(name, root, **config) → the source."""

    def open_(name: str, root: Path, **changes) -> Source:
        return OPENERS[name](DataConfig(source=name, root=str(root), **changes), root)

    return open_
