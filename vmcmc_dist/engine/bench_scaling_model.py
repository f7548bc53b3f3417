"""What clusters of H100s would make of a config: a model, nothing of it measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vmcmc_dist.bench.scaling_model import (
    Link,
    cluster_link,
    gradient_calls,
    hidden_seconds,
    talk_seconds,
)
from vmcmc_dist.config import Config, load_config
from vmcmc_dist.engine.step_cost import StepCost, step_cost
from vmcmc_dist.errors import ConfigError

CONFIG = "configs/celeba_hq_256.yaml"


@dataclass(frozen=True)
class Cluster:
    """Nodes of eight H100 SXM, and what is assumed of them.

    Attributes:
        tflops: dense bf16 peak of a GPU (NVIDIA's data sheet).
        mfu: share of it that the nets' convolutions reach. An assumption.
        issue: seconds for the host to issue one tensor operation in eager torch. An assumption: no
            step is shorter than issuing all of them.
        inside: busbw of NCCL's ring within a node: 370 GB/s of the 450 that NVLink has; NVLink
            SHARP reaches 480 (NCCL's maintainer, github.com/NVIDIA/nccl-tests/issues/212).
        outside: busbw among nodes with a 400 Gb/s port for each GPU: 46 to 48 GB/s a port at best
            (ditto, issues/290), eight of them; half of that is taken.
        hop_inside, hop_outside: of a message. Small all-reduces take 62 to 71 µs on 32 nodes
            (github.com/NVIDIA/nccl/issues/652), 46 to 48 µs on two (issues/1244).
        reserve: of a GPU's memory, not modelled.
        image_bytes: of a JPEG at 256×256. An assumption.
        decode: images a second and core, measured on an AMD EPYC core: `vmcmc data bench decode`.
    """

    tflops: float = 989.0
    mfu: float = 0.35
    issue: float = 6e-6
    inside: float = 370e9
    outside: float = 184e9
    hop_inside: float = 3e-6
    hop_outside: float = 6e-6
    per_node: int = 8
    image_bytes: float = 40e3
    decode: float = 2660.0

    def link(self, gpus: int) -> Link:
        return cluster_link(
            gpus,
            per_node=self.per_node,
            inside=self.inside,
            outside=self.outside,
            hop_inside=self.hop_inside,
            hop_outside=self.hop_outside,
        )


@dataclass(frozen=True)
class ModelRow:
    """One number of GPUs. Seconds: of a step, of its computing (``floor``: bound by issuing it), of
    the talk that is hidden, and of all talk by ZeRO stage; the step is at stage 0.
    """

    kind: str
    gpus: int
    batch: int
    compute: float
    floor: bool
    seconds: float
    hidden: float
    by_stage: dict[int, float]

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.batch / self.seconds


def rows(
    cost: StepCost, cluster: Cluster, batch: int, gpus: tuple[int, ...], overlap: bool
) -> list[ModelRow]:
    """Strong scaling of ``batch``, and weak scaling with the same share of it as on the fewest."""
    found = []
    for kind in ("weak", "strong"):
        for n in gpus:
            whole = batch * n // gpus[0] if kind == "weak" else batch
            found.append(model_row(cost, cluster, kind, n, whole, overlap))
    return found


def model_row(
    cost: StepCost, cluster: Cluster, kind: str, gpus: int, batch: int, overlap: bool
) -> ModelRow:
    """max(FLOP / (peak · MFU), operations · issue) + collectives − what is hidden.

    With overlapped reductions the energy's hides behind the VAE's forward and backward.
    """
    link, local = cluster.link(gpus), batch / gpus
    speed = cluster.tflops * 1e12 * cluster.mfu
    busy, issuing = cost.flops(local) / speed, cost.operations * cluster.issue
    compute = max(busy, issuing)
    talk = {
        stage: {
            net: talk_seconds(gradient_calls(stage, size), gpus, link)
            for net, size in cost.parameters.items()
        }
        for stage in (0, 1, 3)
    }
    by_stage = {stage: sum(of_nets.values()) for stage, of_nets in talk.items()}
    vae = max(local * cost.vae.flops / speed, cost.vae.operations * cluster.issue)
    hidden = hidden_seconds(talk[0]["energy"], vae) if overlap else 0.0
    return ModelRow(
        kind,
        gpus,
        batch,
        compute,
        issuing > busy,
        compute + by_stage[0] - hidden,
        hidden,
        by_stage,
    )


def scaling_model(
    path: str | None = None,
    settings: Sequence[str] = (),
    *,
    cluster: Cluster = Cluster(),
    gpus: tuple[int, ...] = (8, 64, 512),
) -> str:
    """The table, with its assumptions above it: markdown. Counted in some ten seconds."""
    config = load_config(path or CONFIG, ["preset=modern", *settings])
    side = config.data.image_size
    if side is None:
        raise ConfigError("the model counts the work at data.image_size: set it")
    cost = step_cost(config, (config.data.channels or 3, side, side))
    table = rows(cost, cluster, config.train.batch_size, gpus, config.train.overlap)
    return "\n".join([*_assumptions(config, cost, cluster, side), "", *_table(table, cluster)])


def _assumptions(config: Config, cost: StepCost, cluster: Cluster, side: int) -> list[str]:
    sizes, image = cost.parameters, cost.flops(1) / 1e12
    chain = cost.steps * cost.langevin.flops / cost.flops(1)
    flags = "overlapped" if config.train.overlap else "not overlapped"
    return [
        "A model; nothing here was measured on such a cluster.",
        "",
        f"- {config.name}, preset {config.preset}, {side}×{side}, T = {cost.steps}: counted "
        f"{image:.2f} TFLOP an image and iteration, {chain:.0%} of it in chains; "
        f"{cost.operations:,} tensor operations an iteration; "
        f"{sizes['energy'] / 1e6:.1f} + {sizes['vae'] / 1e6:.1f} million weights, so "
        f"{4 * sum(sizes.values()) / 1e6:.0f} MB of fp32 "
        "gradients a step, one all-reduce a net (ZeRO 0), "
        f"{flags}; chains send nothing",
        f"- a GPU: {cluster.tflops:.0f} TFLOP/s dense bf16 × {cluster.mfu:.0%} (assumed); the host "
        f"issues an operation in {1e6 * cluster.issue:.0f} µs (assumed), and no step is shorter "
        "than that",
        f"- busbw {cluster.inside / 1e9:.0f} GB/s within a node, {cluster.outside / 1e9:.0f} among "
        f"nodes (half of 8 ports × 46 GB/s); {1e6 * cluster.hop_inside:.0f} and "
        f"{1e6 * cluster.hop_outside:.0f} µs a hop, a tree's depth of them up and down",
        f"- data: {cluster.image_bytes / 1e3:.0f} kB an image (assumed), decoded at "
        f"{cluster.decode:,.0f} images/s by a core",
        "- not in it: stragglers, grids and checkpoints, averages (first worker only), the larger "
        "share of peak that larger batches reach",
    ]


def _table(table: list[ModelRow], cluster: Cluster) -> list[str]:
    lines = [
        "| scaling | GPUs | batch: all, each | step ms (compute) | images/s "
        "| talk: ms, share of the step | hidden ms | efficiency | ZeRO 1–2 / 3: talk ms "
        "| from S3 MB/s: all, a node | cores decoding |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    first: dict[str, ModelRow] = {}
    for r in table:
        base = first.setdefault(r.kind, r)
        efficiency = r.rate / base.rate / (r.gpus / base.gpus)
        data = r.rate * cluster.image_bytes / 1e6
        nodes = max(1, r.gpus // cluster.per_node)
        bound = ", bound by issuing" if r.floor else ""
        lines.append(
            f"| {r.kind} | {r.gpus} | {r.batch:,}, {r.batch / r.gpus:g} "
            f"| {1e3 * r.seconds:.1f} ({1e3 * r.compute:.1f}{bound}) | {r.rate:,.0f} "
            f"| {1e3 * r.by_stage[0]:.2f}, {(r.by_stage[0] - r.hidden) / r.seconds:.2%} "
            f"| {1e3 * r.hidden:.2f} | {efficiency:.1%} "
            f"| {1e3 * r.by_stage[1]:.2f} / {1e3 * r.by_stage[3]:.2f} "
            f"| {data:,.0f}, {data / nodes:,.1f} | {r.rate / cluster.decode:.1f} |"
        )
    return lines
