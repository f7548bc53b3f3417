"""A trained pair of energy and VAE: what ``vmcmc_dist.load(run)`` gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import overload

import torch
from torch import Tensor, nn

from vmcmc_dist.config import Config, config_from_dict
from vmcmc_dist.errors import CheckpointError
from vmcmc_dist.langevin.chain import run_chain
from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.langevin.noise import Noise, stream_seed
from vmcmc_dist.langevin.record import ChainInfo
from vmcmc_dist.models import VAE, SamplerCopy, build_energy, build_vae


class Trained:
    """An energy U_θ, a VAE that proposes, and the chain between them.

        model = vmcmc_dist.load("runs/faces")
        x = model.sample(64, steps=40)      # [64, 3, 64, 64] in [-1, 1]
        u = model.energy(x)                 # [64], low = likely

    Attributes:
        energy_net, vae: the modules, frozen, in eval mode.
        config: the run's config.
        shape: of one sample.
        images: how many the weights were trained on.
    """

    def __init__(
        self,
        config: Config,
        shape: tuple[int, ...],
        energy_net: nn.Module,
        vae: VAE,
        *,
        images: int = 0,
        device: torch.device | str = "cpu",
        precision: str | None = None,
    ):
        self.config, self.shape, self.images = config, tuple(shape), images
        self.device = torch.device(device)
        self.energy_net = energy_net.to(self.device).eval().requires_grad_(False)
        self.vae = vae.to(self.device).eval().requires_grad_(False)
        self.precision = precision or config.train.precision
        self._chain_energy: nn.Module = self.energy_net
        if self.precision in ("bf16", "fp16"):
            dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
            self._chain_energy = SamplerCopy(self.energy_net, dtype)

    @torch.no_grad()
    def energy(self, x: Tensor) -> Tensor:
        """U(x) [B] in fp32, the Gaussian reference included; low = likely.

        Args:
            x: [B, *shape]; images in [-1, 1].
        """
        x = self._checked(x)
        u = self.energy_net(x).float()
        s = self.config.langevin.reference_std
        return u if s is None else u + x.square().flatten(1).sum(1) / (2 * s**2)

    @torch.no_grad()
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(μ, log v) of q(z|x), each [B, latent_dim]."""
        return self.vae.encode(self._checked(x))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """g(z) [B, *shape] for codes z [B, latent_dim]."""
        return self.vae.decode(z.to(self.device)).float()

    def propose(self, n: int, *, seed: int = 0) -> Tensor:
        """n proposals g(z), z ~ N(0, I): [n, *shape], where chains start."""
        z = Noise(stream_seed(seed, "z"), self.device).normal((n, self.vae.latent_dim))
        return self.decode(z)

    @overload
    def sample(self, n: int, *, steps: int | None = ..., seed: int = ...) -> Tensor: ...

    @overload
    def sample(
        self, n: int, *, steps: int | None = ..., seed: int = ..., return_proposals: bool
    ) -> tuple[Tensor, Tensor]: ...

    def sample(self, n, *, steps=None, seed=0, return_proposals=False):
        """n refined samples [n, *shape]; with ``return_proposals`` also where they started.

        Args:
            steps: Langevin steps; ``sampling.steps`` of the config, else as in training.
        """
        proposals = self.propose(n, seed=seed)
        refined, _ = self.refine(proposals, steps=steps, seed=seed)
        return (refined, proposals) if return_proposals else refined

    def refine(
        self, x: Tensor, *, steps: int | None = None, seed: int = 0
    ) -> tuple[Tensor, ChainInfo]:
        """The chain from x [B, *shape]: refined samples and the chain's record."""
        return run_chain(
            self._chain_energy,
            self._checked(x),
            self.chain_config(steps),
            Noise(stream_seed(seed, "chain"), self.device),
        )

    def chain_config(self, steps: int | None = None) -> LangevinConfig:
        """The training chain's settings with the number of steps used for sampling."""
        chosen = steps or self.config.sampling.steps or self.config.langevin.steps
        return dataclasses.replace(self.config.langevin, steps=chosen)

    def _checked(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"samples of this model are {self.shape}, got {tuple(x.shape[1:])}")
        return x.to(self.device, torch.float32)


def load(
    run: str | Path,
    *,
    checkpoint: str = "latest",
    ema: bool | None = None,
    device: torch.device | str | None = None,
) -> Trained:
    """The trained pair of a run folder.

        model = vmcmc_dist.load("runs/faces")

    Args:
        checkpoint: ``latest``, ``best``, or a number of images.
        ema: averaged weights; by default as ``sampling.ema`` of the run says.
        device: cuda if there is one.

    Raises:
        CheckpointError: no such run, checkpoint, or damaged files.
    """
    from vmcmc_dist.engine.checkpoint import CheckpointFolder, load_checkpoint

    folder = CheckpointFolder(Path(run) / "checkpoints")
    if not folder.all():
        raise CheckpointError(
            f"{run} has no checkpoints; give the folder of a run, e.g. runs/faces, after its "
            "first checkpoint was written"
        )
    path = {"latest": folder.latest, "best": folder.best}.get(checkpoint, lambda: None)()
    if path is None:
        path = next((p for p in folder.all() if checkpoint in (p.name, p.name.lstrip("0"))), None)
    if path is None:
        have = ", ".join(p.name for p in folder.all())
        raise CheckpointError(f"{run} has no checkpoint {checkpoint!r}; it has {have}")
    config = _saved_config(path)
    suffix = "_ema" if (config.sampling.ema if ema is None else ema) else ""
    saved = load_checkpoint(path, (f"energy{suffix}", f"vae{suffix}"))
    shape = tuple(saved.state["shape"])
    energy_net, vae = build_energy(config.energy, shape), build_vae(config.vae, shape)
    try:
        energy_net.load_state_dict(saved.tensors[f"energy{suffix}"])
        vae.load_state_dict(saved.tensors[f"vae{suffix}"])
    except RuntimeError as error:
        line = str(error).splitlines()[1].strip()
        raise CheckpointError(
            f"the weights of {path} are of other nets than this version makes from its config "
            f"({line}); use the version that trained it (environment.json names the commit)"
        ) from None
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Trained(config, shape, energy_net, vae, images=saved.images, device=chosen)


def _saved_config(path: Path) -> Config:
    from vmcmc_dist.engine.checkpoint import load_checkpoint

    return config_from_dict(load_checkpoint(path, ()).config)
