"""Nearest neighbours: refined samples beside their closest training images; are they copies?

Distances to the nearest training image, of samples and of held-out data, in pixels (L2 of images
in [-1, 1]) and in the features of a net. Figures, for SPACE = pixel and the net's name:

    distance_samples_SPACE, distance_held_out_SPACE   medians
    ratio_SPACE    the first over the second; ≈ 1: as new data, ≪ 1: memorised
    closer_SPACE   share of samples nearer than 99 % of held-out data are; 0.01: as new data

Held-out images that were trained on (no split is held out) are compared with all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.evaluation.features import features_for
from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.neighbours import Nearest, closeness, nearest
from vmcmc_dist.evaluation.neighbours_picture import save_distances
from vmcmc_dist.evaluation.pictures import caption_line, save_chain_strips
from vmcmc_dist.evaluation.real import find_part, held_out, real_batches
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained

PIXEL = "pixel"
TITLES = {
    "neighbours": "Nearest neighbours",
    "closest": "The samples nearest to training images",
}


@dataclass
class Settings(TaskSettings):
    """How many samples, compared in what."""

    n: int = setting(500, "samples, and held-out images", unit="samples", ge=100)
    neighbours: int = setting(3, "closest training images shown", unit="images", ge=1)
    features: str = setting(
        "auto", "net of the feature space; auto: by the data; none: pixels only"
    )
    shown: int = setting(8, "samples in each picture", unit="samples", ge=1)


def fits(model: Trained) -> str | None:
    """Images."""
    return None if len(model.shape) == 3 else "neighbours are shown as images; this run has none"


def run(job: Job[Settings]) -> Result:
    """Samples and held-out images against all training images."""
    settings, model = job.settings, job.model
    real, c = held_out(model, settings.n, settings.seed)
    samples = torch.cat(list(draw_samples(job, c))).clamp(-1, 1)
    spaces = {PIXEL: job.part(PIXEL, lambda: search(job, samples, real, None))}
    if settings.features != "none":
        net = features_for(
            model.config.data,
            settings.features,
            device=model.device,
            progress=lambda update, updates, loss: job.progress("classifier", update, updates),
        )
        spaces[net.name] = job.part(net.name, lambda: search(job, samples, real, net))
    figures: dict[str, Any] = {"n": len(samples), "n_held_out": len(real)}
    found, distances = {}, {}
    for space, tensors in spaces.items():
        both = Nearest(tensors["distance"], tensors["row"])
        mine, theirs = both[: len(samples)], both[len(samples) :]
        if held_out_was_trained_on(model):
            theirs = theirs.without_itself()
        found[space] = mine
        distances[space] = mine.distance[:, 0], theirs.distance[:, 0]
        close = closeness(*distances[space])
        figures[f"distance_samples_{space}"] = close.samples
        figures[f"distance_held_out_{space}"] = close.held_out
        figures[f"ratio_{space}"], figures[f"closer_{space}"] = close.ratio, close.closer

    chosen = {
        "neighbours": torch.arange(len(samples))[: settings.shown],
        "closest": distances[PIXEL][0].argsort()[: settings.shown],
    }
    rows = [near.row[some].flatten() for near in found.values() for some in chosen.values()]
    training = training_images(job, torch.cat(rows))
    pictures = [draw(job, name, samples, found, some, training) for name, some in chosen.items()]
    caption = caption_line(model.config.name, model.images, job.steps)
    pictures.append(save_distances(job.folder / "distances.png", distances, caption))
    return Result(figures, pictures, note=NOTE)


NOTE = (
    "Blurred and simple images lie nearer to everything than detailed ones do, so a ratio somewhat "
    "below 1 is no memorisation by itself: look at the closest pairs."
)


def held_out_was_trained_on(model: Trained) -> bool:
    """Are the held-out images among the training images?"""
    data = model.config.data
    train, held = find_part(data, "train"), find_part(data, "held out")
    return data.split == "all" or held.manifest.checksum == train.manifest.checksum


def draw_samples(job: Job[Settings], c: Tensor | None) -> Iterator[Tensor]:
    """Refined samples [B, C, H, W], under the conditions of held-out data in turn."""
    settings = job.settings
    for start in range(0, settings.n, settings.batch_size):
        job.progress("samples", start, settings.n)
        rows = torch.arange(start, min(start + settings.batch_size, settings.n))
        given = None if c is None else c[rows % len(c)]
        yield job.part(f"samples-{start}", lambda r=rows, g=given: refined(job, r, g))["x"]  # type: ignore[misc]


def refined(job: Job[Settings], rows: Tensor, c: Tensor | None) -> dict[str, Tensor]:
    """One batch of refined samples, as a part."""
    settings = job.settings
    x = job.model.sample(
        len(rows),
        c=c,
        steps=job.steps,
        temperature=settings.temperature,
        seed=stream_seed(settings.seed, "neighbours", int(rows[0])),
    )
    return {"x": x.cpu()}


def search(job: Job[Settings], samples: Tensor, real: Tensor, net: Any) -> dict[str, Tensor]:
    """Neighbours of samples and held-out images, one after the other, in one of the spaces."""
    images = torch.cat([samples, real])
    total = len(find_part(job.model.config.data, "train").rows)

    def batches() -> Iterator[Tensor]:
        for images in training_batches(job, total):
            yield to_model_range(images) if net is None else net(images)[0]

    queries = images if net is None else net(images)[0]
    found = nearest(queries, batches(), job.settings.neighbours + 1)
    return {"distance": found.distance, "row": found.row}


def training_batches(job: Job[Settings], total: int) -> Iterator[Tensor]:
    """All training images, uint8 [B, C, H, W]."""
    done = 0
    for batch in real_batches(job.model.config.data, "train"):
        job.progress("training images", done, total)
        done += len(batch.x)
        yield batch.x


def training_images(job: Job[Settings], rows: Tensor) -> dict[int, Tensor]:
    """Row → training image [C, H, W] in [-1, 1], for these rows; one pass over the data."""
    wanted, start, found = rows.unique(), 0, {}
    for batch in real_batches(job.model.config.data, "train"):
        end = start + len(batch.x)
        for row in wanted[(wanted >= start) & (wanted < end)].tolist():
            found[row] = to_model_range(batch.x[row - start])
        start = end
    return found


def draw(
    job: Job[Settings],
    name: str,
    samples: Tensor,
    found: dict[str, Nearest],
    chosen: Tensor,
    training: dict[int, Tensor],
) -> Path:
    """sample | closest in pixels | closest in features, a row per chosen sample."""
    columns, labels = [samples[chosen]], ["sample"]
    for space, near in found.items():
        for rank in range(job.settings.neighbours):
            rows = near.row[chosen, rank].tolist()
            columns.append(torch.stack([training[row] for row in rows]))
            labels.append(f"{space} {rank + 1}")
    model = job.model
    return save_chain_strips(
        job.folder / f"{name}.png",
        columns,
        labels,
        title=TITLES[name],
        caption=caption_line(model.config.name, model.images, job.steps)
        + "\nLeft: refined samples. Then the closest training images, nearest first.",
    )
