"""A trained pair of energy and VAE: what ``vmcmc_dist.load(run)`` gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import torch
from torch import Tensor, nn

from vmcmc_dist.config import Config, config_from_dict
from vmcmc_dist.data.conditions import visible
from vmcmc_dist.errors import CheckpointError, ConfigError
from vmcmc_dist.langevin.chain import Callback, run_chain
from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.langevin.noise import Noise, stream_seed
from vmcmc_dist.langevin.record import ChainInfo
from vmcmc_dist.models import VAE, Condition, SamplerCopy, build_energy, build_vae


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
        condition: what the nets are told beside x; None for an unconditional model.
        label_names: of classes or attributes, in the order of c; empty where there are none.
    """

    def __init__(
        self,
        config: Config,
        shape: tuple[int, ...],
        energy_net: nn.Module,
        vae: VAE,
        *,
        condition: Condition | None = None,
        label_names: Sequence[str] = (),
        images: int = 0,
        device: torch.device | str = "cpu",
        precision: str | None = None,
    ):
        self.config, self.shape, self.images = config, tuple(shape), images
        self.condition, self.label_names = condition, tuple(label_names)
        self.device = torch.device(device)
        self.energy_net = energy_net.to(self.device).eval().requires_grad_(False)
        self.vae = vae.to(self.device).eval().requires_grad_(False)
        self.precision = precision or config.train.precision
        self._chain_energy: nn.Module = self.energy_net
        if self.precision in ("bf16", "fp16"):
            dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
            self._chain_energy = SamplerCopy(self.energy_net, dtype)

    @torch.no_grad()
    def energy(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """U(x) or U(x, c) [B] in fp32, the Gaussian reference included; low = likely.

        Args:
            x: [B, *shape]; images in [-1, 1].
            c: the condition, as :class:`~vmcmc_dist.models.condition.Condition` says; needed by
                a conditional model, refused by another. So in all methods.
        """
        x = self._checked(x)
        u = self.energy_net(x, *self._condition(c, len(x))).float()
        s = self.config.langevin.reference_std
        return u if s is None else u + x.square().flatten(1).sum(1) / (2 * s**2)

    @torch.no_grad()
    def encode(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(μ, log v) of q(z|x), each [B, latent_dim]."""
        return self.vae.encode(self._checked(x), *self._condition(c, len(x)))

    @torch.no_grad()
    def decode(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """g(z) [B, *shape] for codes z [B, latent_dim]."""
        return self.vae.decode(z.to(self.device), *self._condition(c, len(z))).float()

    def propose(self, n: int, *, c: Tensor | None = None, seed: int = 0) -> Tensor:
        """n proposals g(z), z ~ N(0, I): [n, *shape], where chains start."""
        z = Noise(stream_seed(seed, "z"), self.device).normal((n, self.vae.latent_dim))
        x = self.decode(z, c)
        if self.config.condition.kind == "inpaint" and c is not None:
            known, free = visible(c.to(self.device))
            return torch.where(free.bool(), x, known)
        return x

    @overload
    def sample(
        self,
        n: int,
        *,
        c: Tensor | None = ...,
        steps: int | None = ...,
        temperature: float | None = ...,
        seed: int = ...,
    ) -> Tensor: ...

    @overload
    def sample(
        self,
        n: int,
        *,
        c: Tensor | None = ...,
        steps: int | None = ...,
        temperature: float | None = ...,
        seed: int = ...,
        return_proposals: bool,
    ) -> tuple[Tensor, Tensor]: ...

    def sample(self, n, *, c=None, steps=None, temperature=None, seed=0, return_proposals=False):
        """n refined samples [n, *shape]; with ``return_proposals`` also where they started.

        Args:
            c: conditions of the n samples.
            steps: Langevin steps; ``sampling.steps`` of the config, else as in training.
            temperature: of the chain; as in training if not given.
        """
        proposals = self.propose(n, c=c, seed=seed)
        refined, _ = self.refine(proposals, c=c, steps=steps, temperature=temperature, seed=seed)
        return (refined, proposals) if return_proposals else refined

    def refine(
        self,
        x: Tensor,
        *,
        c: Tensor | None = None,
        free: Tensor | None = None,
        steps: int | None = None,
        temperature: float | None = None,
        seed: int = 0,
        callback: Callback | None = None,
    ) -> tuple[Tensor, ChainInfo]:
        """The chain from x [B, *shape]: refined samples and the chain's record.

        Args:
            free: [B or 1, …], 1 where x may move, 0 where it stays as given (inpainting); a
                model that was trained to inpaint takes it from c.
            callback: called as (step, x, energies [B], ∂U/∂x) before each step.
        """
        given = self._condition(c, len(x))
        if free is None and self.config.condition.kind == "inpaint":
            free = visible(given[0])[1]
        return run_chain(
            self._chain_energy,
            self._checked(x),
            self.chain_config(steps, temperature),
            Noise(stream_seed(seed, "chain"), self.device),
            condition=given[0] if given else None,
            free=None if free is None else free.to(self.device),
            callback=callback,
        )

    def chain_config(
        self, steps: int | None = None, temperature: float | None = None
    ) -> LangevinConfig:
        """The training chain's settings with the steps and the temperature used for sampling."""
        chain = self.config.langevin
        steps = steps or self.config.sampling.steps or chain.steps
        temperature = chain.temperature if temperature is None else temperature
        return dataclasses.replace(chain, steps=steps, temperature=temperature)

    def _condition(self, c: Tensor | None, rows: int) -> tuple[Tensor, ...]:
        """c as further argument of the nets: nothing for an unconditional model."""
        if self.condition is None:
            if c is not None:
                raise ConfigError("this model is unconditional: it takes no condition")
            return ()
        if c is None:
            raise ConfigError(
                f"this model is conditional ({self.condition.kind}, {self.condition.size}): give "
                "a condition for every sample"
            )
        return (self.condition.checked(c, rows, self.shape).to(self.device),)

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
        model = vmcmc_dist.load("s3://bucket/runs/faces")

    Args:
        checkpoint: ``latest``, ``best``, or a number of images.
        ema: averaged weights; by default as ``sampling.ema`` of the run says.
        device: cuda if there is one.

    Raises:
        CheckpointError: no such run, checkpoint, or damaged files.
    """
    from vmcmc_dist.engine.checkpoint import CheckpointFolder, load_checkpoint
    from vmcmc_dist.engine.remote_run import local_copy, parts_of

    folder = CheckpointFolder(local_copy(run) / "checkpoints")
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
    parts = (f"energy{suffix}", f"vae{suffix}")
    parts_of(run, path, parts)
    saved = load_checkpoint(path, parts)
    shape = tuple(saved.state["shape"])
    condition = saved.state.get("condition")
    condition = None if condition is None else Condition(**condition)
    energy_net = build_energy(config.energy, shape, condition)
    vae = build_vae(config.vae, shape, condition)
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
    return Trained(
        config,
        shape,
        energy_net,
        vae,
        condition=condition,
        label_names=saved.state.get("labels", ()),
        images=saved.images,
        device=chosen,
    )


def _saved_config(path: Path) -> Config:
    from vmcmc_dist.engine.checkpoint import load_checkpoint

    try:
        return config_from_dict(load_checkpoint(path, ()).config)
    except ConfigError as error:
        raise CheckpointError(
            f"the config in {path} is not one of this version ({error}); use the version that "
            "trained it (environment.json names the commit)"
        ) from None
