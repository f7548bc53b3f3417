"""How fast images are decoded, beside the bare calls of the decoders and beside Pillow."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg
import torch
from PIL import Image

from vmcmc_dist.bench.clock import interleaved_seconds, median_ratio, this_machine
from vmcmc_dist.bench.image_sets import ImageSet, files_of, made
from vmcmc_dist.data.buffers import BufferPool
from vmcmc_dist.data.decoding import decode_into
from vmcmc_dist.data.fitting import MODES, centred, fit_into, scale_for

TARGETS = (64, 128, 256)
MAX_PIXELS = 64_000_000
PASS_SECONDS = 0.02  # what is timed at once takes at least about so long


@dataclass(frozen=True)
class DecodeTiming:
    """``decode_into`` on one set, one thread, into memory of a :class:`BufferPool`.

    ``of_bare``: rate over that of the decoder's bare call into the same buffer; ``of_aligned``:
    over its own into one that begins at a multiple of ``ALIGNMENT``; ``of_pillow``: over Pillow's;
    ``two_threads``: over one thread's.
    """

    images: ImageSet
    per_second: float
    of_bare: float
    of_aligned: float
    of_pillow: float
    two_threads: float


@dataclass(frozen=True)
class ScaledTiming:
    """``fit_into`` at a smaller size: rate over decoding all of it, then cropping and resizing in
    the same way; ``psnr``: of the pixels against those, median over the images, dB.
    """

    images: ImageSet
    side: int
    scale: int
    per_second: float
    of_whole: float
    psnr: float


@dataclass(frozen=True)
class DecodeBench:
    """All timings of one run, and what of. ``str()`` is two markdown tables."""

    machine: str
    about: str
    rows: list[DecodeTiming]
    scaled: list[ScaledTiming]

    def __str__(self) -> str:
        lines = [
            f"{self.machine}; {self.about}",
            "",
            "| decode_into | images | kB each | images/s | × bare decoder | × aligned rows "
            "| × Pillow | 2 threads × 1 |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for r in self.rows:
            size = statistics.mean(map(len, r.images.files)) / 1000
            lines.append(
                f"| {r.images} | {len(r.images.files)} | {size:.1f} | {r.per_second:,.0f} "
                f"| {r.of_bare:.2f} | {r.of_aligned:.2f} | {r.of_pillow:.2f} "
                f"| {r.two_threads:.2f} |"
            )
        lines += [
            "",
            "| fit_into | to | decoded at | images/s | × whole | PSNR to whole |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for s in self.scaled:
            lines.append(
                f"| {s.images} | {s.side} | 1/{s.scale} | {s.per_second:,.0f} "
                f"| {s.of_whole:.2f} | {s.psnr:.1f} dB |"
            )
        return "\n".join(lines)


def bench_decode(
    root: Path | None = None,
    *,
    images: int = 200,
    rounds: int = 9,
    progress: Callable[[str], None] | None = None,
) -> DecodeBench:
    """Time decoding from memory, variants interleaved, medians of ratios within a round.

    CPU seconds of one thread; two threads against one by the clock on the wall, the best rounds
    (on a machine that others use it says little). Up to ``images``
    files of each size from ``root`` (folder, zip or tar), or made by a program without it.
    """
    sets = made(images) if root is None else files_of(root, images, MAX_PIXELS)
    rows: list[DecodeTiming] = []
    scaled: list[ScaledTiming] = []
    for one in sets:
        if progress is not None:
            progress(str(one))
        rows.append(_time_decoding(one, rounds))
        if one.source != "remade":
            scaled += [
                _time_scaled(one, side, rounds)
                for side in TARGETS
                if one.extension == "jpg" and scale_for(one.width, one.height, side, side) > 1
            ]
    cpu = this_machine(torch.device("cpu"))
    packages = ", ".join(f"{name} {version(name)}" for name in ("simplejpeg", "imagecodecs"))
    about = "images made by a program, not photographs" if root is None else f"files of {root}"
    return DecodeBench(
        f"{cpu.processor}, {cpu.cores} cores; {packages}, pillow {version('pillow')}; CPU seconds",
        about,
        rows,
        scaled,
    )


def _bare(images: ImageSet, out: np.ndarray) -> Callable[[bytes], object]:
    if images.extension == "jpg":
        colour = "RGB" if images.channels == 3 else "GRAY"
        return lambda data: simplejpeg.decode_jpeg(data, colour, buffer=out)
    if images.extension == "png":
        return lambda data: imagecodecs.png_decode(data, out=out)
    return lambda data: imagecodecs.webp_decode(data, out=out)


def _pillow(data: bytes) -> object:
    return np.asarray(Image.open(io.BytesIO(data)))


def _each(call: Callable[[bytes], object], files: list[bytes]) -> Callable[[], None]:
    def run() -> None:
        for data in files:
            call(data)

    return run


def _time_decoding(images: ImageSet, rounds: int) -> DecodeTiming:
    shape = (images.height, images.width, images.channels)
    out, extension = BufferPool(shape, np.uint8).array(), images.extension
    aligned = BufferPool(shape, np.uint8, offset=0).array()
    ours = _each(lambda data: decode_into(data, extension, out), images.files)
    start = time.thread_time()
    ours()
    repeats = 1 + int(PASS_SECONDS / (time.thread_time() - start))
    files = images.files * repeats
    variants = {
        "ours": _each(lambda data: decode_into(data, extension, out), files),
        "bare": _each(_bare(images, out), files),
        "aligned": _each(lambda data: decode_into(data, extension, aligned), files),
        "pillow": _each(_pillow, files),
    }
    seconds = interleaved_seconds(variants, rounds=rounds, now=time.thread_time)
    return DecodeTiming(
        images,
        per_second=len(files) / statistics.median(seconds["ours"]),
        of_bare=median_ratio(seconds["bare"], seconds["ours"]),
        of_aligned=median_ratio(seconds["aligned"], seconds["ours"]),
        of_pillow=median_ratio(seconds["pillow"], seconds["ours"]),
        two_threads=_two_threads(images, rounds, repeats),
    )


def _two_threads(images: ImageSet, rounds: int, repeats: int) -> float:
    """Rate of two threads over that of one: two passes over the files, of the best rounds, since
    on the wall's clock whatever else runs here counts.
    """

    def work(out: np.ndarray) -> np.ndarray:
        for _ in range(repeats):
            for data in images.files:
                decode_into(data, images.extension, out)
        return out

    memory = BufferPool((images.height, images.width, images.channels), np.uint8)
    outs = [memory.array() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        variants: dict[str, Callable[[], object]] = {
            "one": lambda: list(map(work, outs)),
            "two": lambda: list(pool.map(work, outs)),
        }
        seconds = interleaved_seconds(variants, rounds=rounds, now=time.perf_counter)
    return min(seconds["one"]) / min(seconds["two"])


def _time_scaled(images: ImageSet, side: int, rounds: int) -> ScaledTiming:
    out = np.empty((side, side, images.channels), dtype=np.uint8)
    whole = np.empty((images.height, images.width, images.channels), dtype=np.uint8)

    def by_whole(data: bytes) -> np.ndarray:
        decode_into(data, images.extension, whole)
        pixels = whole if images.channels == 3 else whole[..., 0]
        picture = Image.fromarray(pixels, MODES[images.channels])
        return np.asarray(centred(picture, side, side)).reshape(out.shape)

    def fitted(data: bytes) -> None:
        fit_into(data, images.extension, out, MAX_PIXELS)

    variants = {"scaled": _each(fitted, images.files), "whole": _each(by_whole, images.files)}
    seconds = interleaved_seconds(variants, rounds=rounds, now=time.thread_time)
    noise = []
    for data in images.files:
        fitted(data)
        noise.append(_psnr(out, by_whole(data)))
    return ScaledTiming(
        images,
        side,
        scale_for(images.width, images.height, side, side),
        per_second=len(images.files) / statistics.median(seconds["scaled"]),
        of_whole=median_ratio(seconds["whole"], seconds["scaled"]),
        psnr=statistics.median(noise),
    )


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    """20·lg(255/RMS difference) in dB; infinite for equal images."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
