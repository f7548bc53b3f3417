"""Synthesis: n samples and the proposals that they began as; pictures, files, scores.

Scores are measured in a named net's features; WHAT is ``refined``, ``proposals`` or ``real``
(held-out images, the mark to reach); NET names the features. Distances are to the training data.

    fd_NET_WHAT      Fréchet distance; ``fid_WHAT`` for Inception's alone, of 50,000 samples
    is_NET_WHAT      inception score, from 1 to the number of classes
    …                see :mod:`vmcmc_dist.evaluation.scores`
    class_shares, class_shares_proposals   share of each class by the largest logit

The work is cut into chunks of ``batch_size`` samples, each a function of the seed and its number,
so memory does not grow with n, and any number of workers gives the same figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import numpy as np
import torch
from torch import Tensor

from vmcmc_dist.data.manifest import LabelInfo
from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation.features import Features, features_for
from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.pictures import caption_line, save_pair_grid
from vmcmc_dist.evaluation.points_picture import save_points
from vmcmc_dist.evaluation.real import held_out, real_batches
from vmcmc_dist.evaluation.records import digest
from vmcmc_dist.evaluation.reference import reference_for
from vmcmc_dist.evaluation.sample_files import SampleFiles
from vmcmc_dist.evaluation.scores import MIN_PER_FEATURE, PUBLISHED, Scores, enough_for_covariance
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained

SHOWN = 64  # samples in the picture
KINDS = ("refined", "proposals")


@dataclass
class Settings(TaskSettings):
    """How many samples, judged in which features, kept in which files."""

    features: Literal["auto", "none", "resnet56", "resnet20", "classifier", "inception"] = setting(
        "auto", "the net that judges; auto: by the data; none: pictures and files alone"
    )
    weights: Optional[str] = setting(  # noqa: UP045  (OmegaConf reads this spelling)
        None, "file of the net's weights; empty = the cache's, else downloaded or trained"
    )
    out: Literal["none", "folder", "shards"] = setting(
        "none", "keep all refined samples: a folder of PNGs, or shards for data.source=shards"
    )


def fits(model: Trained) -> str | None:
    """Any model."""
    return None


def share(job: Job[Settings], rank: int = 0, workers: int = 1) -> None:
    """Make every ``workers``-th chunk."""
    chunks = Chunks(job)
    for k in range(rank, chunks.count, workers):
        chunks.part(k)


def run(job: Job[Settings]) -> Result:
    """Draw, judge, show."""
    chunks, settings = Chunks(job), job.settings
    net = chunks.net
    scores = {kind: Scores.empty(net) for kind in KINDS} if net else {}
    shown: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    written = []
    for k in range(chunks.count):
        part = chunks.part(k)
        job.progress("samples", min((k + 1) * settings.batch_size, settings.n), settings.n)
        for kind in KINDS:
            shown[kind].append(part[kind])
            if kind in scores:
                scores[kind].add_features(part[f"features_{kind}"], part.get(f"logits_{kind}"))
        if chunks.files is not None:
            written.append(part["written"])
    if chunks.files is not None:
        chunks.files.finish(written)
    drawn = {kind: torch.cat(parts) for kind, parts in shown.items()}
    figures: dict[str, Any] = {"n": settings.n}
    note = ""
    if net is not None:
        found, note = judged(job, net, scores)
        figures |= found
    if chunks.files is not None:
        figures["files"] = str(chunks.files.folder.relative_to(job.folder.parent.parent))
    return Result(figures, show(job, drawn), note)


def judged(
    job: Job[Settings], net: Features, scores: dict[str, Scores]
) -> tuple[dict[str, Any], str]:
    """Every metric of refined samples, proposals and held-out images, and the caveat."""
    data, n = job.model.config.data, job.settings.n
    reference = reference_for(data, net, job.progress)
    scores = scores | {"real": Scores.empty(net)}
    for batch in real_batches(data, "held out", limit=n, seed=job.settings.seed):
        scores["real"].add(batch.x)
    few = scores["real"].n < MIN_PER_FEATURE * net.dim
    figures: dict[str, Any] = {"n_real": scores["real"].n}
    if few:
        del scores["real"]
    for what, found in scores.items():
        for name, value in found.record(reference).items():
            if name in ("reference_n", "manifold_n", "biased"):
                figures[name] = max(value, figures.get(name, value))
            elif name != "n":
                figures[f"{name}_{what}"] = value
        if found.predictions is not None:
            figures[f"class_shares_{what}"] = found.predictions.class_shares()
    figures |= {"features": net.name, "fingerprint": net.fingerprint}
    if net.accuracy is not None:
        figures["features_accuracy"] = net.accuracy
    notes = []
    if n < PUBLISHED:
        notes.append(
            f"biased: of {n:,} samples, not 50,000; compare with numbers of as many samples alone"
        )
    if net.name != "inception":
        notes.append(f"distances in the features of {net.name}: not FID")
    if few:
        notes.append("too few held-out images to judge them")
    return figures, "; ".join(notes)


def show(job: Job[Settings], drawn: dict[str, Tensor]) -> list[Path]:
    """The picture of images; the points of vectors, and of the plane a picture too."""
    model = job.model
    name = f"samples-{model.images:09d}"
    if len(model.shape) == 3:
        caption = caption_line(model.config.name, model.images, job.steps)
        path = job.folder / f"{name}.png"
        first = {kind: x[:SHOWN] for kind, x in drawn.items()}
        return [
            save_pair_grid(
                path, first["proposals"], first["refined"], title="synthesis", caption=caption
            )
        ]
    for kind, x in drawn.items():
        np.save(job.folder / f"{name}-{kind}.npy", x.numpy(), allow_pickle=False)
    if model.shape != (2,):
        return []
    real = held_out(model, len(drawn["refined"]), job.settings.seed)[0]
    points = {"held-out data": real, "proposals": drawn["proposals"], "refined": drawn["refined"]}
    title = f"{model.config.name} · {model.images:,} images seen · {job.steps} Langevin steps"
    return [save_points(job.folder / f"{name}.png", points, title)]


def judge_of(job: Job[Settings]) -> Features | None:
    """The net that judges, with enough samples for it; None where nothing is judged.

    ConfigError: features asked for by name for vectors. DataError: too few samples.
    """
    settings, model = job.settings, job.model
    if settings.features == "none" or (len(model.shape) != 3 and settings.features == "auto"):
        return None
    net = features_for(
        model.config.data,
        settings.features,
        weights=None if settings.weights is None else Path(settings.weights),
        device=model.device,
        progress=lambda done, total, _: job.progress("classifier", done, total),
    )
    enough_for_covariance(net, settings.n)
    return net


def files_of(job: Job[Settings]) -> SampleFiles | None:
    """Where all refined samples are kept, if they are."""
    model, out = job.model, job.settings.out
    if out == "none":
        return None
    if len(model.shape) != 3:
        raise ConfigError("out: vectors are always kept, as .npy; leave it out")
    folder = job.folder / f"{out}-{model.images:09d}-{digest(job.identity)[:8]}"
    labels = LabelInfo()
    if model.condition is not None and model.condition.kind != "image":
        labels = LabelInfo(model.condition.kind, model.label_names)
    source = f"samples of {model.config.name} at {model.images} images"
    return SampleFiles(folder, out, model.shape, source, labels)


class Chunks:
    """The samples of a job, some at a time: what is kept of each chunk goes into a part.

    Parts hold ``refined`` and ``proposals`` (the first :data:`SHOWN`, or all vectors), and for
    judged images ``features_KIND`` [B, D] and ``logits_KIND`` [B, K].
    """

    def __init__(self, job: Job[Settings]):
        self.job, self.model, self.settings = job, job.model, job.settings
        self.images = len(job.model.shape) == 3
        self.net = judge_of(job)
        self.files = files_of(job)
        self.count = -(-self.settings.n // self.settings.batch_size)
        self._c: Tensor | None = None

    def part(self, k: int) -> dict[str, Tensor]:
        """Chunk k, made now or before."""
        return self.job.part(f"samples-{k:06d}", lambda: self.make(k))

    def make(self, k: int) -> dict[str, Tensor]:
        first = k * self.settings.batch_size
        count = min(self.settings.batch_size, self.settings.n - first)
        c = self.conditions(first, count)
        refined, proposals = self.model.sample(
            count,
            c=c,
            steps=self.settings.steps,
            temperature=self.settings.temperature,
            seed=stream_seed(self.settings.seed, "synthesis", k),
            return_proposals=True,
        )
        kept: dict[str, Tensor] = {}
        for kind, x in zip(KINDS, (refined, proposals), strict=True):
            shown = max(0, SHOWN - first) if self.images else count
            kept[kind] = x[:shown].clone()  # a view would keep all of x
            if self.net is not None:
                features, logits = self.net(x)
                kept[f"features_{kind}"] = features
                if logits is not None:
                    kept[f"logits_{kind}"] = logits
        if self.files is not None:
            labels = c if c is not None and c.ndim < 4 else None
            kept["written"] = self.files.write(first, refined, labels)
        return kept

    def conditions(self, first: int, count: int) -> Tensor | None:
        """Those of held-out data, from the start again where there are too few."""
        if self.model.condition is None:
            return None
        if self._c is None:
            self._c = held_out(self.model, self.settings.n, self.settings.seed)[1]
        assert self._c is not None
        return self._c[torch.arange(first, first + count) % len(self._c)]
