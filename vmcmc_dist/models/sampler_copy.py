"""A frozen copy of a net for chains and proposals, in the precision that is fastest there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from vmcmc_dist.models.layers import Foldable


class SamplerCopy(nn.Module):
    """A net without gradients, hooks or weight casts: x float32 in, float32 out.

        fast = SamplerCopy(energy, torch.bfloat16)
        fast.refresh(energy.state_dict())          # after each change of the weights
        x, info = run_chain(fast, x0, config, noise)

    Weights are held in ``dtype`` (the last reduction of an energy stays float32), and for images
    in half precision as channels-last, together 1.9–2.5× the float32 net on a CPU with
    AVX512-bf16. Layers that can be folded are: a spectral norm into its weight, the terms of an
    energy head into one. ``channels_last=True`` makes a float32 copy faster as well, and equal to
    the module only to rounding; without it, it is equal to the last bit.

    Make it from the plain module, before an engine puts hooks on it or takes it apart.
    """

    def __init__(
        self,
        module: nn.Module,
        dtype: torch.dtype = torch.float32,
        channels_last: bool | None = None,
    ) -> None:
        super().__init__()
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"a SamplerCopy is float32, bfloat16 or float16, not {dtype}")
        self.dtype = dtype
        self._foldables: dict[str, Foldable] = {}
        self.module = self._plain(copy.deepcopy(module))
        for layer in self.module.modules():
            _strip_hooks(layer)
            if not getattr(layer, "keep_fp32", False):
                layer._apply(lambda t: t.to(dtype) if t.is_floating_point() else t, recurse=False)
        if channels_last if channels_last is not None else dtype != torch.float32:
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)
        self._parameters_by_name = dict(self.module.named_parameters())
        self._buffers_by_name = dict(self.module.named_buffers())
        with torch.no_grad():
            self.refresh(module.state_dict())

    def _plain(self, root: nn.Module) -> nn.Module:
        """``root`` with every foldable layer replaced by what it folds to."""
        for name, layer in list(root.named_modules()):
            if isinstance(layer, Foldable):
                self._foldables[name] = layer
                if not name:
                    return layer.folded()
                parent, _, child = name.rpartition(".")
                setattr(root.get_submodule(parent), child, layer.folded())
        return root

    @torch.no_grad()
    def refresh(self, named: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> None:
        """Take over weights by the module's names, e.g. ``module.state_dict()``.

        Every parameter is needed, and the buffers u and v of a spectral norm; other buffers may be
        left out. Errors: ``ValueError`` naming what is missing, unknown or of another shape.
        """
        given = dict(named)
        for prefix, layer in self._foldables.items():
            dot = f"{prefix}." if prefix else ""
            own = {key: given.pop(dot + key, None) for key in layer.fold_names}
            absent = [dot + key for key, tensor in own.items() if tensor is None]
            if absent:
                raise ValueError(f"refresh needs {', '.join(absent)}")
            given |= {dot + key: tensor for key, tensor in layer.fold(own).items()}  # type: ignore[arg-type]
        self._copy(given)

    def _copy(self, given: dict[str, Tensor]) -> None:
        missing = self._parameters_by_name.keys() - given.keys()
        targets = self._parameters_by_name | self._buffers_by_name
        unknown = given.keys() - targets.keys()
        if missing or unknown:
            raise ValueError(
                f"refresh: missing {sorted(missing) or 'nothing'}, unknown "
                f"{sorted(unknown) or 'nothing'}; names are those of the copied module"
            )
        for name, tensor in given.items():
            if tensor.shape != targets[name].shape:
                raise ValueError(
                    f"refresh: {name} has shape {list(tensor.shape)}, expected "
                    f"{list(targets[name].shape)} (gather a partitioned parameter first)"
                )
        torch._foreach_copy_([targets[name] for name in given], list(given.values()))

    def forward(self, *args: Any) -> Any:
        """The module's ``forward`` on float32 tensors."""
        return self._run(self.module, *args)

    def encode(self, x: Tensor) -> Any:
        """A copied VAE's ``encode``: (μ, logvar), float32."""
        return self._run(self.module.encode, x)  # type: ignore[arg-type]

    def decode(self, z: Tensor) -> Tensor:
        """A copied VAE's ``decode``: x̂, float32."""
        return self._run(self.module.decode, z)  # type: ignore[arg-type]

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        device = args[0].device.type
        own = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if own else nullcontext():
            return _floats_to(torch.float32, function(*_floats_to(self.dtype, args)))


def _floats_to(dtype: torch.dtype, value: Any) -> Any:
    """Float tensors in (nested) tuples to ``dtype``; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        items = [_floats_to(dtype, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def _strip_hooks(layer: nn.Module) -> None:
    for name, hooks in vars(layer).items():
        if "hooks" in name and isinstance(hooks, dict):
            hooks.clear()
