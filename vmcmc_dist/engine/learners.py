"""Both nets of a run with their optimizers and averages: built, copied for a checkpoint, sampled.

A start and a resume are one path: what a checkpoint holds is put in as each part is built.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vmcmc_dist.config import Config
from vmcmc_dist.engine.checkpoint import Checkpoint
from vmcmc_dist.engine.context import WorkerContext
from vmcmc_dist.engine.ema import EMA
from vmcmc_dist.engine.learner import DeepSpeedLearner
from vmcmc_dist.models import VAE, Condition, build_energy, build_vae


class Learners:
    """The energy and the VAE of one worker.

    New weights come from torch's global generator, which must be seeded alike on all workers.

    Attributes:
        by_name: ``energy`` and ``vae``, with their optimizers.
        averages: of the weights of both, on the first worker alone.

    Args:
        shape: of one image, [C, H, W], or of one vector, [D].
        saved: where they go on from.
    """

    def __init__(
        self,
        config: Config,
        context: WorkerContext,
        shape: tuple[int, ...],
        condition: Condition | None,
        saved: Checkpoint | None,
    ):
        self.config, self.context, self.shape, self.condition = config, context, shape, condition
        train = config.train
        share = context.world_size * train.accumulation
        chains = train.chains or train.batch_size
        micro = {"energy": train.batch_size // share, "vae": chains // share}
        self.by_name: dict[str, DeepSpeedLearner] = {}
        self.averages: dict[str, EMA] = {}
        nets = {"energy": self._new_energy(), "vae": self._new_vae()}
        for name, net in nets.items():
            if saved is not None:
                net.load_state_dict(saved.tensors[name])
            if context.rank == 0:
                self.averages[name] = EMA(net.to(context.device), train.ema_images)
                if saved is not None:
                    self.averages[name].module.load_state_dict(saved.tensors[f"{name}_ema"])
            self.by_name[name] = DeepSpeedLearner(
                net,
                getattr(config, name),
                precision=train.precision,
                micro_batch=micro[name],
                accumulation=train.accumulation,
                device=context.device,
                sampled="decoder" if name == "vae" else "",
                overlap=train.overlap,
            )
            if saved is not None:
                self.by_name[name].load_optimizer_state(saved.tensors[f"{name}_adam"])

    def average(self, images: int) -> None:
        """The averages follow what has been learnt; ``images`` are those trained on so far."""
        for name, average in self.averages.items():
            average.update(self.by_name[name].current, self.config.train.batch_size, images)

    def copy(self, keep: Callable[[Tensor], Tensor] | None) -> dict[str, dict[str, Tensor]]:
        """The tensors of a checkpoint by part and name (collective: ZeRO's shards are gathered).

        Args:
            keep: copies one; ``None`` on workers that only take part.
        """
        kept = keep or _drop
        tensors: dict[str, dict[str, Tensor]] = {}
        for name, learner in self.by_name.items():
            tensors[name] = {n: kept(tensor) for n, tensor in learner.current.items()}
            tensors[f"{name}_adam"] = learner.optimizer_state(kept)
            if name in self.averages:
                average = self.averages[name].module.state_dict()
                tensors[f"{name}_ema"] = {n: kept(tensor) for n, tensor in average.items()}
        return tensors

    def to_sample(self) -> tuple[nn.Module, VAE]:
        """What the first worker draws grids with: the averages, or (``sampling.ema=false``) copies
        of the nets as they are.
        """
        if self.config.sampling.ema:
            return self.averages["energy"].module, self.averages["vae"].module  # type: ignore[return-value]
        energy, vae = self._new_energy(), self._new_vae()
        for name, net in (("energy", energy), ("vae", vae)):
            net.load_state_dict(self.by_name[name].current)
            net.to(self.context.device)
        return energy, vae

    def close(self) -> None:
        for learner in self.by_name.values():
            learner.close()

    def _new_energy(self) -> nn.Module:
        return build_energy(self.config.energy, self.shape, self.condition)

    def _new_vae(self) -> VAE:
        return build_vae(self.config.vae, self.shape, self.condition)


def _drop(tensor: Tensor) -> Tensor:
    """What workers other than the first keep of a checkpoint: nothing."""
    return torch.empty(0)
