"""A net under DeepSpeed: the :class:`~vmcmc_dist.teaching.learner.Learner` of a real run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import (
    safe_get_full_optimizer_state,
    safe_set_full_optimizer_state,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn

from vmcmc_dist.engine.config import OptimizerConfig
from vmcmc_dist.engine.reduction import Reduction
from vmcmc_dist.errors import CheckpointError, ConfigError
from vmcmc_dist.models.sampler_copy import SamplerCopy

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOMENTS = ("exp_avg", "exp_avg_sq")


def deepspeed_config(
    optimizer: OptimizerConfig, precision: str, micro_batch: int, accumulation: int
) -> dict[str, Any]:
    """DeepSpeed's own settings for one net: precision, ZeRO stage, clipping, micro-batches.

    bf16 is autocast over fp32 weights; fp16 is DeepSpeed's, with fp32 masters and a dynamic
    loss scale. The global batch is left for DeepSpeed to derive, so any world size fits.
    """
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": optimizer.clip,
        "steps_per_print": 10**12,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": optimizer.zero_stage},
    }
    if precision == "bf16":
        settings["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    if precision == "fp16":
        settings["fp16"] = {"enabled": True, "loss_scale": 0, "initial_scale_power": 12}
    return settings


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.float().cpu()


class DeepSpeedLearner:
    """One DeepSpeed engine around one net, with the copy that its chains run on.

    The chain never calls the engine: DeepSpeed's hooks break ``autograd.grad``, and ZeRO-3 would
    gather every weight at every Langevin step. In fp32 at stages 0–2 it calls the module itself;
    in lower precision, and at stage 3, a frozen :class:`SamplerCopy` refreshed once a step.

    Args:
        sampled: the part of the module that proposals and chains call, by attribute name
            (``decoder`` of a VAE); the whole module if empty.
        overlap: the last micro-batch's ``backward`` only starts the reduction of the gradients,
            and ``step`` waits for its end: what is computed in between hides it. Stage 0 alone.
    """

    sampler: Callable[..., Any]

    def __init__(
        self,
        module: nn.Module,
        optimizer: OptimizerConfig,
        *,
        precision: str,
        micro_batch: int,
        accumulation: int = 1,
        device: torch.device,
        sampled: str = "",
        overlap: bool = False,
    ):
        if overlap and optimizer.zero_stage:
            raise ConfigError("train.overlap needs ZeRO stage 0: ZeRO reduces as it partitions")
        self.config, self.accumulation, self.overlap = optimizer, accumulation, overlap
        self.names = [name for name, _ in module.named_parameters()]
        self._saved_names = set(module.state_dict())
        module = module.to(device)
        # bf16 and fp16 convolutions are fastest so. Only the inputs are laid out like this and the
        # activations follow: DeepSpeed broadcasts weights as they lie, and refuses any other way.
        self._channels_last = precision != "fp32"
        part = module.get_submodule(sampled)
        self._prefix = f"{sampled}." if sampled else ""
        self.copy: SamplerCopy | None = None
        if precision != "fp32" or optimizer.zero_stage == 3:
            self.copy = SamplerCopy(part, DTYPES[precision])
        adam = torch.optim.AdamW if optimizer.weight_decay else torch.optim.Adam
        base = adam(
            module.parameters(),
            lr=optimizer.lr,
            betas=(optimizer.beta1, optimizer.beta2),
            weight_decay=optimizer.weight_decay,
        )
        # The shared-memory all-reduce would be compiled with g++ at the first start.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=module,
            optimizer=base,
            config=deepspeed_config(optimizer, precision, micro_batch, accumulation),
            dist_init_required=False,
        )
        self._micro = 0
        self._reduction: Reduction | None = None
        self.sampler = self.copy or self.engine.module.get_submodule(sampled)
        self.refresh()

    def __call__(self, *inputs: Tensor | None) -> Any:
        if self._channels_last:
            inputs = tuple(
                x.contiguous(memory_format=torch.channels_last)
                if x is not None and x.ndim == 4
                else x
                for x in inputs
            )
        return self.engine(*inputs)

    def backward(self, loss: Tensor) -> None:
        if self._micro:
            self.engine.step()  # DeepSpeed counts micro-batches by calls of step
        self._micro += 1
        if not self.overlap:
            self.engine.backward(loss)
            return
        with self.engine.no_sync():
            self.engine.backward(loss)
        if self._micro == self.accumulation:
            self._reduction = Reduction(self.engine.module.parameters())

    def step(self) -> Tensor | None:
        if self._reduction is not None:
            self._reduction.finish()
            self._reduction = None
        self.engine.step()
        self._micro = 0
        self.refresh()
        norm = self.engine.get_global_grad_norm()
        return None if norm is None else torch.as_tensor(float(norm))

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def weights(self) -> dict[str, Tensor]:
        """All parameters and persistent buffers, full and fp32, by name.

        Collective at ZeRO-3 and in fp16.
        At stages 0–2 in fp32 and bf16 these are the live tensors, not copies.
        """
        module = self.engine.module
        buffers = module.named_buffers()
        full = {name: buffer.detach() for name, buffer in buffers if name in self._saved_names}
        if self.engine.fp16_enabled():
            from deepspeed.utils import safe_get_full_fp32_param

            full |= {
                name: safe_get_full_fp32_param(parameter)
                for name, parameter in module.named_parameters()
            }
        elif self.config.zero_stage == 3:
            parameters = list(module.parameters())
            with deepspeed.zero.GatheredParameters(parameters):
                full |= {n: p.detach().clone() for n, p in module.named_parameters()}
        else:
            full |= {name: p.detach() for name, p in module.named_parameters()}
        return full

    def refresh(self) -> None:
        """Bring the sampler's copy up to date; keeps the gathered weights for the EMA."""
        self.current = self.weights()
        if self.copy is not None:
            n = len(self._prefix)
            self.copy.refresh(
                {k[n:]: v for k, v in self.current.items() if k.startswith(self._prefix)}
            )

    def optimizer_state(self, keep: Callable[[Tensor], Tensor] = _on_cpu) -> dict[str, Tensor]:
        """Adam's full moments ``exp_avg.NAME``, ``exp_avg_sq.NAME``, and ``step``. Collective.

        Args:
            keep: copies a moment; without it, at stage 0 on a CPU these are the live tensors.
        """
        state: dict[str, Tensor] = {}
        if not any(self._inner_states()):
            return {"step": torch.tensor(0.0)}
        for name, parameter in self.engine.module.named_parameters():
            for moment in MOMENTS:
                if self.config.zero_stage:
                    value = safe_get_full_optimizer_state(parameter, moment)
                else:
                    value = self.optimizer.state.get(parameter, {}).get(moment)
                if value is not None:
                    whole = value.detach().reshape(self._shape(parameter))
                    state[f"{moment}.{name}"] = keep(whole)
        steps = [float(s["step"]) for s in self._inner_states() if "step" in s]
        state["step"] = torch.tensor(steps[0] if steps else 0.0)
        return state

    def load_optimizer_state(self, state: dict[str, Tensor]) -> None:
        """Set what :meth:`optimizer_state` returned, at any stage and world size."""
        if float(state["step"]) == 0:
            return
        module = self.engine.module
        missing = [f"{m}.{n}" for n in self.names for m in MOMENTS if f"{m}.{n}" not in state]
        if missing:
            raise CheckpointError(f"the checkpoint lacks Adam's {missing[0]}: it is of another net")
        if self.config.zero_stage:
            self._make_moments()
        for name, parameter in module.named_parameters():
            values = {m: state[f"{m}.{name}"].to(self.engine.device) for m in MOMENTS}
            if self.config.zero_stage:
                for moment, value in values.items():
                    self._set_moment(parameter, moment, value)
            else:
                self.optimizer.state[parameter] = {
                    "step": state["step"].clone(),
                    **{moment: value.clone() for moment, value in values.items()},
                }
        for inner in self._inner_states():
            inner["step"] = state["step"].clone()

    def _make_moments(self) -> None:
        """Adam's state of each partition, which ZeRO would make at its first step only."""
        last = self.config.zero_stage == 3
        partitions = (
            self.optimizer.fp32_partitioned_groups_flat
            if last
            else self.optimizer.single_partition_of_fp32_groups
        )
        for partition in partitions:
            moments = {moment: torch.zeros_like(partition) for moment in MOMENTS}
            self.optimizer.optimizer.state[partition] = {"step": torch.tensor(0.0), **moments}
        if not last:
            self.optimizer._lazy_init_hp_params_optimizer_state()  # a parameter's view of them

    def _set_moment(self, parameter: Any, moment: str, value: Tensor) -> None:
        if self.config.zero_stage < 3:
            safe_set_full_optimizer_state(parameter, value, moment)
            return
        size = parameter.ds_tensor.numel()  # DeepSpeed's own setter runs over a padded last share
        start = size * dist.get_rank()
        share = torch.zeros(size, dtype=value.dtype, device=value.device)
        mine = value.flatten()[start : start + size]
        share[: len(mine)] = mine
        safe_set_local_optimizer_state(parameter, share, moment)

    def close(self) -> None:
        """Take DeepSpeed's hooks off, so that another engine can follow in this process."""
        self.engine.destroy()

    def _inner_states(self) -> Iterator[dict[str, Any]]:
        inner = self.optimizer if not self.config.zero_stage else self.optimizer.optimizer
        yield from inner.state.values()

    @staticmethod
    def _shape(parameter: nn.Parameter) -> torch.Size:
        return getattr(parameter, "ds_shape", parameter.shape)
