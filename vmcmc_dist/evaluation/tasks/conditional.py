"""Conditional models: does what is generated fit what was asked for?

Labels. A classifier judges images generated for classes in turn, or for the attributes of
held-out images; WHAT is ``refined``, ``proposals`` or ``real`` (held-out images, the mark):

    accuracy_WHAT                 share judged to be as asked; of attributes the mean over them
    accuracy_each_WHAT            for each class or attribute, in the order of ``labels``
    balanced_accuracy[_each]_WHAT attributes: mean over asked for and asked against
    fd_NET_WHAT, fd_NET_each_WHAT classes: Fréchet distance of each class to training images of
                                  that class, and the mean over classes

Images. k samples of each held-out condition against the truth; WHAT is refined or proposals:

    psnr_WHAT, ssim_WHAT          mean over samples and conditions (PSNR in dB); psnr_best_WHAT,
                                  ssim_best_WHAT of the best of k; psnr_average_WHAT of their mean
    diversity_WHAT, pixel_std_WHAT among the k samples, pixels in [-1, 1]
    psnr_condition_WHAT           colour, upscale: the condition, read off the sample again
    psnr_given, ssim_given        colour, upscale: the condition itself taken for the answer

Of inpainting, PSNR and diversity count the hidden pixels alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vmcmc_dist.errors import ConfigError
from vmcmc_dist.evaluation import conditional_scores as scores
from vmcmc_dist.evaluation.features import Features, features_for
from vmcmc_dist.evaluation.job import Job, Result, TaskSettings
from vmcmc_dist.evaluation.pictures import caption_line, save_panels
from vmcmc_dist.evaluation.quality import psnr, ssim
from vmcmc_dist.evaluation.real import held_out, held_out_name, real_batches
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.settings import setting
from vmcmc_dist.trained import Trained

COLUMNS, ROWS = 8, 8  # of the pictures


@dataclass
class Settings(TaskSettings):
    """How many samples of how many conditions."""

    n: int = setting(2000, "samples in all", unit="samples", ge=2)
    draws: int = setting(4, "image conditions: samples of each, k", unit="samples", ge=2)
    features: str = setting("auto", "labels: the net that judges; it must know these labels")
    distances: bool = setting(True, "classes: Fréchet distance of each class")
    reference: int = setting(
        20_000, "classes: training images that distances are measured to", unit="images", ge=2
    )


def fits(model: Trained) -> str | None:
    """A condition, of images."""
    if model.condition is None:
        return "the model is unconditional: nothing is asked of its samples"
    if len(model.shape) != 3:
        return "conditions are judged on images; this run's data are vectors"
    return None


def run(job: Job[Settings]) -> Result:
    """Judge by labels or by images, as the model's condition is."""
    condition = job.model.condition
    if condition is not None and condition.kind == "image":
        return _run_images(job)
    net = features_for(
        job.model.config.data,
        job.settings.features,
        device=job.model.device,
        progress=lambda done, total, _: job.progress("classifier", done, total),
    )
    return _run_labels(job, net)


def _run_labels(job: Job[Settings], net: Features) -> Result:
    model, settings = job.model, job.settings
    condition = model.condition
    assert condition is not None
    classes = condition.kind == "class"
    x, real = held_out(model, settings.n, settings.seed)
    phi, logits = net(x)
    assert real is not None
    if logits is None or net.labels != condition.kind or logits.shape[1] != condition.size:
        raise ConfigError(
            f"features={net.name} does not judge these {condition.size} labels of kind "
            f"{condition.kind}: set features=classifier"
        )
    turn = torch.arange(settings.n)
    asked = turn % condition.size if classes else real[turn % len(real)]
    if classes and settings.distances:
        scores.check_per_class(settings.n, condition.size, net.dim)
    judged = _judged(job, net, asked)
    judged["real"] = phi, logits
    figures: dict[str, Any] = {
        "n": len(asked),
        "labels": list(model.label_names),
        "judge": net.name,
        "judge_accuracy": net.accuracy,
        "real": held_out_name(model.config.data),
    }
    wanted = {"refined": asked, "proposals": asked, "real": real}
    for what, (_, found) in judged.items():
        figures |= _label_figures(what, found, wanted[what], classes)
    if classes and settings.distances:
        figures |= _distances(job, net, {k: v[0] for k, v in judged.items()}, wanted)
    picture = _class_picture(job) if classes else _attribute_picture(job, asked)
    note = f"judged by {net.name}" + (
        f", itself right on {net.accuracy:.1%} of held-out images" if net.accuracy else ""
    )
    return Result({k: v for k, v in figures.items() if v is not None}, [picture], note)


def _judged(job: Job[Settings], net: Features, asked: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Features [n, D] and logits [n, K] of refined samples and proposals for ``asked``."""
    settings, parts = job.settings, []
    for start in range(0, len(asked), settings.batch_size):
        c = asked[start : start + settings.batch_size]

        def judge(c: Tensor = c, start: int = start) -> dict[str, Tensor]:
            found: dict[str, Tensor] = {}
            for what, x in zip(("refined", "proposals"), _samples(job, c, start), strict=True):
                phi, logits = net(x)
                assert logits is not None
                found |= {f"phi_{what}": phi, f"logits_{what}": logits}
            return found

        parts.append(job.part(f"labels-{start}", judge))
        job.progress("samples", min(start + settings.batch_size, len(asked)), len(asked))
    return {
        what: (
            torch.cat([part[f"phi_{what}"] for part in parts]),
            torch.cat([part[f"logits_{what}"] for part in parts]),
        )
        for what in ("refined", "proposals")
    }


def _samples(job: Job[Settings], c: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Refined samples and proposals for conditions c; a function of the seed and ``start``."""
    seed = stream_seed(job.settings.seed, "conditional", start)
    refined, proposals = job.model.sample(
        len(c),
        c=c,
        steps=job.steps,
        temperature=job.settings.temperature,
        seed=seed,
        return_proposals=True,
    )
    return refined.cpu().clamp(-1, 1), proposals.cpu().clamp(-1, 1)


def _label_figures(what: str, logits: Tensor, asked: Tensor, classes: bool) -> dict[str, Any]:
    if classes:
        total, each = scores.class_accuracy(logits, asked)
        return {f"accuracy_{what}": total, f"accuracy_each_{what}": each}
    each, balanced = scores.attribute_accuracy(logits, asked)
    return {
        f"accuracy_{what}": sum(each) / len(each),
        f"accuracy_each_{what}": each,
        f"balanced_accuracy_{what}": sum(balanced) / len(balanced),
        f"balanced_accuracy_each_{what}": balanced,
    }


def _distances(
    job: Job[Settings],
    net: Features,
    phi: dict[str, Tensor],
    wanted: dict[str, Tensor],
) -> dict[str, Any]:
    classes = len(job.model.label_names)
    reference = job.part("reference", lambda: _reference(job, net))
    moments = scores.class_moments(reference["phi"], reference["labels"], classes)
    figures: dict[str, Any] = {"reference_n": len(reference["phi"])}
    for what, labels in wanted.items():
        samples = scores.class_moments(phi[what], labels, classes)
        each = scores.class_distances(samples, moments)
        figures[f"fd_{net.name}_{what}"] = sum(each) / classes
        figures[f"fd_{net.name}_each_{what}"] = each
    return figures


def _reference(job: Job[Settings], net: Features) -> dict[str, Tensor]:
    phi, labels, settings = [], [], job.settings
    for batch in real_batches(job.model.config.data, "train", limit=settings.reference):
        assert batch.y is not None
        phi.append(net(batch.x)[0])
        labels.append(batch.y)
        job.progress("training images", sum(len(y) for y in labels), settings.reference)
    return {"phi": torch.cat(phi), "labels": torch.cat(labels)}


def _class_picture(job: Job[Settings]) -> Path:
    """One row a class, proposals beside refined samples."""
    classes = len(job.model.label_names)
    c = torch.arange(classes).repeat_interleave(COLUMNS)
    refined, proposals = _samples(job, c, -1)
    panels = [("proposals", proposals, COLUMNS), ("refined", refined, COLUMNS)]
    return _picture(job, panels, "classes, from above: " + ", ".join(job.model.label_names))


def _attribute_picture(job: Job[Settings], asked: Tensor) -> Path:
    """One row an attribute: the same codes without and with it, all others as in held-out data.

    The attributes shown are those that come nearest to one half of the data.
    """
    attributes = (asked.mean(0) - 0.5).abs().argsort()[:ROWS].sort().values.tolist()
    names = [job.model.label_names[a] for a in attributes]
    c = asked[torch.arange(COLUMNS) % len(asked)].repeat(len(names), 1)
    pair = []
    for value in (0.0, 1.0):
        for row, attribute in enumerate(attributes):
            c[row * COLUMNS : (row + 1) * COLUMNS, attribute] = value
        pair.append(_samples(job, c, -1)[0])
    panels = [("refined, without", pair[0], COLUMNS), ("refined, with", pair[1], COLUMNS)]
    return _picture(job, panels, "attributes, from above: " + ", ".join(names))


def _run_images(job: Job[Settings]) -> Result:
    model, settings = job.model, job.settings
    kind, k = model.config.condition, settings.draws
    x, c = held_out(model, max(2, settings.n // k), settings.seed)
    assert c is not None
    rows = max(1, settings.batch_size // k)
    parts = []
    for start in range(0, len(x), rows):

        def judge(start: int = start) -> dict[str, Tensor]:
            truth, given = x[start : start + rows], c[start : start + rows]
            found: dict[str, Tensor] = {}
            for what, images in _draws(job, given, start).items():
                each = scores.image_scores(images, truth, scores.hidden_pixels(kind, given))
                each |= scores.condition_scores(kind, images, given)
                found |= {f"{name}_{what}": values for name, values in each.items()}
            answer = scores.given_image(kind, given, model.shape[0])
            if answer is not None:
                found |= {"psnr_given": psnr(answer, truth), "ssim_given": ssim(answer, truth)}
            return found

        parts.append(job.part(f"images-{start}", judge))
        job.progress("conditions", min(start + rows, len(x)), len(x))
    figures: dict[str, Any] = {"n": len(x) * k, "conditions": len(x), "draws": k}
    figures["real"] = held_out_name(model.config.data)
    for name in parts[0]:
        figures[name] = float(torch.cat([part[name] for part in parts]).mean())
    return Result(figures, [_image_picture(job, x[:ROWS], c[:ROWS])])


def _draws(job: Job[Settings], c: Tensor, start: int) -> dict[str, Tensor]:
    """k samples of each condition, refined and proposals: [B, k, C, H, W]."""
    k = job.settings.draws
    both = _samples(job, c.repeat_interleave(k, 0), start)
    names = ("refined", "proposals")
    return {what: x.unflatten(0, (len(c), k)) for what, x in zip(names, both, strict=True)}


def _image_picture(job: Job[Settings], x: Tensor, c: Tensor) -> Path:
    """Condition | truth | refined | proposals, one row a condition."""
    shown = min(job.settings.draws, COLUMNS // 2)
    drawn = {what: images[:, :shown].flatten(0, 1) for what, images in _draws(job, c, -1).items()}
    condition = scores.shown_condition(job.model.config.condition, c)
    panels = [("given", condition, 1), ("truth", x, 1)]
    panels += [(what, images, shown) for what, images in drawn.items()]
    return _picture(job, panels, "one row a held-out condition")


def _picture(job: Job[Settings], panels: list[tuple[str, Tensor, int]], caption: str) -> Path:
    model = job.model
    line = caption_line(model.config.name, model.images, job.steps)
    return save_panels(
        job.folder / "conditional.png",
        panels,
        title=f"{model.config.name}: {model.config.condition.kind}",
        caption=f"{line}\n{caption}",
    )
