"""Ray Train's process group of torch, over the interface that Ray itself uses on each machine."""

from __future__ import annotations

from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from vmcmc_dist.engine.interface import talk_over


class NodeTorchConfig(TorchConfig):
    """:class:`ray.train.torch.TorchConfig` whose workers first choose their interface."""

    @property
    def backend_cls(self) -> type[NodeTorchBackend]:
        return NodeTorchBackend


class NodeTorchBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_choose)
        super().on_start(worker_group, backend_config)


def _choose() -> None:
    talk_over(ray.util.get_node_ip_address())
