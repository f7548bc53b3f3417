"""Writing CelebA's layout, so that other images take the very same path as CelebA.

FOLDER/img_align_celeba/000001.jpg ...   FOLDER/list_attr_celeba.txt (-1/1)
FOLDER/list_eval_partition.txt (0 train, 1 valid, 2 test)   FOLDER/SOURCE.json (what it is)
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from vmcmc_dist.data import faces
from vmcmc_dist.data.config import DataConfig, cache_dir
from vmcmc_dist.data.sources.celeba import ALIGNED, ATTRIBUTES, CROP, FOLDER, NOTE, PARTITION
from vmcmc_dist.data.sources.images import EXTENSIONS, decode
from vmcmc_dist.errors import DataError, ResourceError

QUALITY = 95
CHUNK = 100
SMALL = 400  # below this many faces, starting processes costs more than it saves


def partition(index: int) -> int:
    """Split of image ``index``: 18 of 20 train (0), one valid (1), one test (2)."""
    return {18: 1, 19: 2}.get(index % 20, 0)


def write_celeba_layout(
    images: Iterable[tuple[bytes, Sequence[int]]],
    out: Path,
    *,
    attributes: Sequence[str],
    name: str,
    licence: str,
) -> int:
    """Write (JPEG bytes, 0/1 attributes) pairs; returns their number.

    ``out`` appears at once, complete, or not at all. ``name`` says what the images are, in every
    manifest made from them. Raises DataError if ``out`` exists or there are no images.
    """
    if out.exists():
        raise DataError(f"{out}: exists; give another folder or delete it")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        (partial / FOLDER).mkdir()
        table, parts = [], []
        for i, (data, values) in enumerate(images):
            file = f"{i + 1:06d}.jpg"
            (partial / FOLDER / file).write_bytes(data)
            table.append(" ".join([file, *(" 1" if value else "-1" for value in values)]))
            parts.append(f"{file} {partition(i)}")
        if not table:
            raise DataError(f"{out}: no images to write")
        header = [str(len(table)), " ".join(attributes)]
        (partial / f"{ATTRIBUTES}.txt").write_text("\n".join([*header, *table]) + "\n")
        (partial / f"{PARTITION}.txt").write_text("\n".join(parts) + "\n")
        (partial / NOTE).write_text(json.dumps({"name": name, "licence": licence}, indent=1) + "\n")
        partial.chmod(0o755)
        partial.rename(out)
    except OSError as error:
        raise ResourceError(
            f"{out}: cannot be written ({error.strerror}); free space or set VMCMC_CACHE elsewhere"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(table)


def builtin_faces(
    count: int, size: int, workers: int, progress: Callable[[str, int, int], None] | None = None
) -> Path:
    """The folder of the first ``count`` built-in faces in the cache, rendered if need be.

    They are 178x218 as CelebA's, rendered with the detail that ``size`` x ``size`` pictures of the
    central crop can show; where that crop would be enlarged (``size`` > 140) they are square, of
    that size.
    """
    out = cache_dir() / "raw" / f"{faces.NAME}-v{faces.VERSION}-{count}-for-{size}"
    if not out.exists():
        write_celeba_layout(
            _rendered(count, size, workers, progress),
            out,
            attributes=faces.ATTRIBUTES,
            name=faces.NAME,
            licence=faces.LICENCE,
        )
    return out


def face_jpegs(indices: Sequence[int], size: int) -> list[tuple[bytes, list[int]]]:
    """JPEGs of built-in faces, fit to be used at ``size``, and their attributes."""
    return [(_jpeg(_face(i, size)), faces.attributes(faces.factors(i))) for i in indices]


def _face(index: int, size: int) -> Image.Image:
    if size > CROP:
        return Image.fromarray(faces.render(index, size))
    detail = min(1.0, 1.2 * size / CROP)
    image = Image.fromarray(faces.render_aligned(index, detail))
    return image if image.size == ALIGNED else image.resize(ALIGNED, Image.Resampling.BICUBIC)


def _rendered(
    count: int, size: int, workers: int, progress: Callable[[str, int, int], None] | None
) -> Iterator[tuple[bytes, list[int]]]:
    chunks = [range(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
    pool = (
        ProcessPoolExecutor(workers, get_context("spawn"))
        if workers > 1 and count >= SMALL
        else None
    )
    try:
        done = 0
        sizes = [size] * len(chunks)
        for part in (pool.map if pool else map)(face_jpegs, chunks, sizes):
            yield from part
            done += len(part)
            if progress is not None:
                progress("faces", done, count)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def to_celeba_layout(
    source: Path,
    out: Path,
    *,
    name: str,
    licence: str = "unknown: the user's images",
    attributes: dict[str, Sequence[int]] | None = None,
    attribute_names: Sequence[str] = ("Labelled",),
    limit: int | None = None,
) -> int:
    """Bring a folder of images, or a .tar(.gz) of them, into CelebA's layout; returns their number.

    Images keep their size: CelebA's central 140x140 crop applies to 178x218 images alone, square
    ones are later only resized, others cut to their central square. JPEG bytes are kept as they
    are; other formats are coded anew at quality 95. ``attributes`` gives 0/1 values by base name;
    images without an entry get zeros. ``name`` must say what the images are, never `celeba`.

    Raises DataError if ``source`` is missing, torn or has no images.
    """
    if name == "celeba":
        raise DataError("only CelebA itself may be called celeba; give another name")
    blank = [0] * len(attribute_names)

    def pairs() -> Iterator[tuple[bytes, Sequence[int]]]:
        for number, (file, data) in enumerate(_image_files(source)):
            if limit is not None and number >= limit:
                return
            if not file.lower().endswith((".jpg", ".jpeg")):
                data = _jpeg(decode(data, file, DataConfig().max_pixels).convert("RGB"))
            yield data, (attributes or {}).get(os.path.basename(file), blank)

    return write_celeba_layout(pairs(), out, attributes=attribute_names, name=name, licence=licence)


def _image_files(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in EXTENSIONS:
                yield path.name, path.read_bytes()
        return
    try:
        with tarfile.open(source, "r|*") as tar:
            for member in tar:
                if member.isreg() and Path(member.name).suffix.lower() in EXTENSIONS:
                    content = tar.extractfile(member)
                    if content is not None:
                        yield member.name, content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{source}: not a folder or a whole tar of images ({error})") from None


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
