"""What is drawn during training: a grid, and cheap figures of the samples in it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from vmcmc_dist.config import Config
from vmcmc_dist.data.conditions import conditions
from vmcmc_dist.data.densities import density
from vmcmc_dist.data.manifest import Manifest
from vmcmc_dist.data.open import open_stream
from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.engine.run_folder import RunFolder, complete_lines
from vmcmc_dist.evaluation.density_picture import save_density_picture
from vmcmc_dist.evaluation.metrics import MomentSums, frechet_distance
from vmcmc_dist.evaluation.pictures import caption_line, save_pair_grid
from vmcmc_dist.evaluation.quadrature import Divergences, measure
from vmcmc_dist.models import VAE, Condition
from vmcmc_dist.trained import Trained

THUMBNAIL = 4
REFERENCE = 2048
SHOWN = 64
KLS = ("data_model", "model_sampler", "revised_model", "data_sampler")


class Recorder(Protocol):
    """Draws a picture of the averaged nets and returns its record for metrics.jsonl."""

    last_picture: Path | None

    def write(self, energy: nn.Module, vae: VAE, images: int) -> dict[str, Any]: ...


def make_recorder(
    config: Config, manifest: Manifest, folder: RunFolder, condition: Condition | None
) -> Recorder:
    """Grids for images; densities and their divergences for 2-D data; figures for the rest."""
    if config.data.source == "toy2d":
        return DensityRecorder(config, folder)
    return SampleRecorder(config, manifest, folder, condition)


class SampleRecorder:
    """Draws the same codes z each time, so that grids over training show the same samples grow.

    ``fd_thumbnail`` is the Fréchet distance between samples and data in 4×4-pixel averages: it
    sees colour, layout and variety, not detail, and costs next to nothing. It is biased upwards
    by the small number of samples; compare it within a run only.
    """

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        folder: RunFolder,
        condition: Condition | None = None,
    ):
        self.config, self.manifest, self.folder = config, manifest, folder
        self.condition = condition
        self._c: Tensor | None = None
        self.shape = tuple(manifest.shape)
        self.last_picture: Path | None = None
        self._reference: tuple[Tensor, Tensor] | None = None

    def write(self, energy: nn.Module, vae: VAE, images: int) -> dict[str, Any]:
        """Draw, save ``samples/IMAGES.png``, and return the record for metrics.jsonl."""
        device = next(energy.parameters()).device
        count, seed = self.config.train.sample_count, self.config.seed
        model = Trained(
            self.config,
            self.shape,
            energy,
            vae,
            condition=self.condition,
            images=images,
            device=device,
        )
        c = self._conditions(count)
        refined, proposals = model.sample(count, c=c, seed=seed, return_proposals=True)
        steps = model.chain_config().steps
        if len(self.shape) == 3 and self.config.train.pictures:
            columns = None
            if self.condition is not None and self.condition.kind == "class":
                columns = self.condition.size if self.condition.size <= 16 else None
            shown = min(count, SHOWN) if columns is None else min(count, 8 * columns)
            self.last_picture = save_pair_grid(
                self.folder.samples / f"{images:09d}.png",
                proposals[:shown],
                refined[:shown],
                given=self._shown(c, shown),
                title=self.config.name,
                caption=caption_line(self.config.name, images, steps),
                columns=columns,
            )
        return {
            "kind": "sample",
            "images": images,
            "count": self.config.train.sample_count,
            "steps": steps,
            "ema": self.config.sampling.ema,
            "fd_thumbnail": self._distance(refined),
            "fd_thumbnail_proposals": self._distance(proposals),
            "spread": float(refined.std(0).mean()),
            "spread_proposals": float(proposals.std(0).mean()),
        }

    def _conditions(self, count: int) -> Tensor | None:
        """Conditions of the grid: every class in turn, else those of the data's first samples."""
        if self.condition is None or self._c is not None:
            return self._c
        if self.condition.kind == "class":
            self._c = torch.arange(count) % self.condition.size
            return self._c
        with open_stream(
            self.config.data, seed=self.config.seed, local_batch=count, manifest=self.manifest
        ) as stream:
            batch = next(iter(stream))
        x = to_model_range(batch.x)
        self._c = conditions(self.config.condition, batch, x, self.config.seed)
        return self._c

    def _shown(self, c: Tensor | None, count: int) -> Tensor | None:
        """The part of an image condition that can be looked at."""
        if c is None or c.ndim != 4:
            return None
        channels = c.shape[1] - (self.config.condition.kind == "inpaint")
        return c[:count, :channels]

    def _distance(self, x: Tensor) -> float:
        if self._reference is None:
            self._reference = self._data_moments()
        sums = MomentSums.empty(self._reference[0].numel())
        sums.add(thumbnails(x))
        return frechet_distance(*sums.moments(), *self._reference)

    def _data_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance over the first samples of the first epoch's order."""
        with open_stream(
            self.config.data, seed=self.config.seed, local_batch=256, manifest=self.manifest
        ) as stream:
            parts, seen = [], 0
            for batch in stream:
                parts.append(thumbnails(to_model_range(batch.x)))
                seen += len(batch.x)
                if seen >= REFERENCE:
                    break
        features = torch.cat(parts)
        sums = MomentSums.empty(features.shape[1])
        sums.add(features)
        return sums.moments()


class DensityRecorder:
    """For 2-D data: the three divergences of the alternating projection, by quadrature."""

    def __init__(self, config: Config, folder: RunFolder):
        self.config, self.folder = config, folder
        self.last_picture: Path | None = None

    def write(self, energy: nn.Module, vae: VAE, images: int) -> dict[str, Any]:
        """KLs in nats (``kl_data_model`` = KL(p_data‖p_θ), …) and a picture of the densities."""
        config = self.config
        now, logs = measure(
            density(config.data.density).log_prob,
            energy,
            vae.decode,
            config.vae.latent_dim,
            config.vae.sigma,
            config.langevin,
            images=images,
        )
        if config.train.pictures:
            history = [*self._history(), now]
            self.last_picture = save_density_picture(
                self.folder.samples / f"{images:09d}.png", logs, history, title=config.name
            )
        figures = {f"kl_{name}": getattr(now, name) for name in KLS}
        return {
            "kind": "density",
            "images": images,
            **{name: value if math.isfinite(value) else None for name, value in figures.items()},
            "log_z": now.log_z,
            "smoothing": now.smoothing,
        }

    def _history(self) -> list[Divergences]:
        records = complete_lines(self.folder.metrics) if self.folder.metrics.exists() else []
        return [
            Divergences(
                images=r["images"],
                **{n: math.inf if r[f"kl_{n}"] is None else r[f"kl_{n}"] for n in KLS},
                log_z=r["log_z"],
                smoothing=r["smoothing"],
            )
            for r in records
            if r["kind"] == "density"
        ]


def thumbnails(x: Tensor) -> Tensor:
    """[B, C, H, W] → [B, C·16]: averages over a 4×4 grid of cells; vectors as they are."""
    if x.ndim != 4:
        return x.float().flatten(1).cpu()
    return functional.adaptive_avg_pool2d(x.float(), THUMBNAIL).flatten(1).cpu()
