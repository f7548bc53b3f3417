"""Pictures of runs made small enough for a page: thinned out over time, scaled down, as WebP."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vmcmc_dist.report.run import Record, Run

QUALITY = 88
UNNAMED = 12
"""Most pictures of a task's folder that no record names."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Picture:
    """One picture inside the page, as a data URI, and its size in pixels there."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Frame:
    """A grid of training at a number of images seen."""

    images: int
    minutes: float
    picture: Picture


@dataclass
class PictureBook:
    """Reads pictures within a width, and notes in ``problems`` those that cannot be read."""

    width: int
    problems: list[str]
    after_each: Callable[[int], None]
    done: int = 0

    def read(self, path: Path) -> Picture | None:
        """The picture at ``path``: WebP, lossless where that is not much larger than lossy."""
        self.done += 1
        self.after_each(self.done)
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            self.problems.append(f"{path} cannot be read as a picture ({error}) and is left out")
            return None
        if image.width > self.width:
            height = max(1, round(image.height * self.width / image.width))
            image = image.resize((self.width, height), Image.Resampling.LANCZOS)
        lossy = _webp(image, quality=QUALITY)
        exact = _webp(image, lossless=True) if _is_flat(image) else lossy
        content = exact if len(exact) <= 1.3 * len(lossy) else lossy
        uri = "data:image/webp;base64," + base64.b64encode(content).decode()
        return Picture(uri, *image.size)


def _webp(image: Image.Image, **how: int | bool) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", method=2, **how)
    return file.getvalue()


def _is_flat(image: Image.Image) -> bool:
    """Few colours (plots, enlarged pixels in grey): worth trying without loss."""
    return image.getcolors(4096) is not None


def spread_out(count: int, most: int) -> list[int]:
    """Indices of at most ``most`` of ``count`` things, evenly, the first and the last among them.

    With ``most`` = 1 the last.
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def task_pictures(run: Run) -> dict[str, list[tuple[Path, Record]]]:
    """Task → (picture, the newest record that names it), then pictures that no record names.

    Paths that lead out of the run folder are not followed.
    """
    home = run.path.resolve()
    named: dict[str, dict[Path, Record]] = {}
    for record in reversed(run.evaluations):
        task = str(record.get("task", "evaluation"))
        for name in record.get("pictures") or []:
            path = _inside(home, task, str(name))
            if path is not None:
                named.setdefault(task, {}).setdefault(path, record)
    folder = home / "evaluation"
    lying = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir()} if folder.is_dir() else {}
    found = {}
    for task in [*named, *(name for name in lying if name not in named)]:
        pictures = named.get(task, {})
        files = sorted(lying[task].glob("*.png")) if task in lying else []
        unnamed = [path for path in files if path.resolve() not in pictures]
        everything = [*pictures.items(), *((path, {}) for path in unnamed[:UNNAMED])]
        if everything:
            found[task] = everything
    return found


def drawn_pictures(run: Run) -> list[Path]:
    """Pictures of samples/ that ``vmcmc sample`` made, not the training."""
    found = sorted((run.path / "samples").glob("*.png"))
    return [path for path in found if not path.stem.isdecimal()][:UNNAMED]


def _inside(home: Path, task: str, name: str) -> Path | None:
    """The file ``name`` of a record, relative to the run folder or to its task's; else None."""
    for folder in (home, home / "evaluation" / task):
        path = (folder / name).resolve()
        if path.is_file() and path.is_relative_to(home):
            return path
    return None


def frames(
    run: Run, book: PictureBook, most: int, minutes: Callable[[float], float]
) -> Sequence[Frame]:
    """At most ``most`` grids of training, evenly over those there are."""
    grids = run.grids
    kept = []
    for index in spread_out(len(grids), most):
        images, path = grids[index]
        picture = book.read(path)
        if picture is not None:
            kept.append(Frame(images, minutes(images), picture))
    return kept
