"""How a run is trained, on what, and what it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional

from vmcmc_dist.settings import setting


@dataclass
class OptimizerConfig:
    """Adam under DeepSpeed, for one of the two nets; rates and decays count in images."""

    lr: float = setting(1e-4, "learning rate", gt=0)
    beta1: float = setting(0.5, "Adam's β₁", ge=0, lt=1)
    beta2: float = setting(0.999, "Adam's β₂", ge=0, lt=1)
    weight_decay: float = setting(0.0, "decoupled weight decay (AdamW)", ge=0)
    warmup_images: float = setting(0.0, "learning rate rises linearly", unit="images", ge=0)
    schedule: Literal["constant", "exponential", "cosine"] = setting(
        "constant",
        "constant; exponential: × decay every decay_images; cosine: to decay × lr at train.images",
    )
    decay: float = setting(1.0, "factor of the schedule", ge=0, le=1)
    decay_images: float = setting(1e6, "exponential schedule's period", unit="images", gt=0)
    clip: float = setting(0.0, "L2 norm that gradients are clipped to; 0 = off", ge=0)
    zero_stage: int = setting(0, "DeepSpeed ZeRO stage", ge=0, le=3)


@dataclass
class TrainConfig:
    """Length, batch, precision, and how often things are written. Progress counts in images."""

    images: int = setting(1_000_000, "stop after this many", unit="images", ge=1)
    max_minutes: float = setting(
        0.0, "or after this much training time, cleanly; 0 = no limit", unit="minutes", ge=0
    )
    pause_images: int = setting(
        0,
        "save and end here for now, with schedules meant for train.images; 0 = no pause",
        unit="images",
        ge=0,
    )
    batch_size: int = setting(64, "data samples per iteration, over all workers", ge=1)
    chains: int = setting(
        0, "Langevin chains per iteration, over all workers; 0 = batch_size", ge=0
    )
    accumulation: int = setting(1, "micro-batches per iteration and worker", ge=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "of both nets; auto: bf16 where the machine has it in hardware, else fp32"
    )
    ema_images: float = setting(
        0.0, "half-life of the moving average of both nets' weights; 0 = off", unit="images", ge=0
    )
    noise_per_sample: bool = setting(
        False, "draw noise per global sample, so that results do not depend on the workers"
    )
    overlap: bool = setting(
        False,
        "average each net's gradients over the workers behind the other net's work; the same "
        "results. Needs zero_stage=0 of both",
    )
    log_images: int = setting(2_000, "a line of metrics every", unit="images", ge=1)
    sample_images: int = setting(20_000, "a sample grid every", unit="images", ge=1)
    sample_count: int = setting(64, "samples in a grid and in the metrics beside it", ge=4)
    pictures: bool = setting(True, "draw those grids; false: only the metrics beside them")
    checkpoint_images: int = setting(50_000, "a checkpoint every", unit="images", ge=1)
    keep: int = setting(2, "latest checkpoints kept, beside the best", ge=1)
    best: str = setting(
        "fd_thumbnail",
        "metric of the sample records, or figure of the evaluations (fd_classifier_refined), whose "
        "minimum marks the best checkpoint",
    )

    @property
    def goal(self) -> int:
        """Images at which training ends, for good or for now."""
        return min(self.images, self.pause_images or self.images)


@dataclass
class SamplingConfig:
    """How samples are drawn after training and for the grids."""

    steps: int = setting(0, "Langevin steps; 0 = as in training", ge=0)
    ema: bool = setting(True, "use the averaged weights where the run has them")


@dataclass
class EvaluationConfig:
    """Synthesis judged beside training, as by ``vmcmc evaluate``, in a process of its own."""

    every_images: int = setting(
        0, "at the first checkpoint after every; 0 = off", unit="images", ge=0
    )
    n: int = setting(1000, "samples of each evaluation", unit="samples", ge=2)
    steps: int = setting(0, "Langevin steps; 0 = as vmcmc sample", ge=0)
    features: Literal["auto", "none", "resnet56", "resnet20", "classifier", "inception"] = setting(
        "auto", "the net that judges; auto: by the data"
    )
    threads: int = setting(1, "torch threads of that process, at low priority", ge=1)
    where: Literal["beside", "here"] = setting(
        "beside", "beside: in another process, while training goes on; here: training waits for it"
    )


@dataclass
class ResourcesConfig:
    """Workers and what each may use."""

    workers: int = setting(1, "data-parallel workers", ge=1)
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", "auto: one GPU a worker if there (or $VMCMC_DEVICE)"
    )
    cpus_per_worker: float = setting(
        0, "CPUs that Ray reserves for a worker; 0 = an equal share of one machine's", ge=0
    )
    threads: int = setting(0, "torch threads of a worker; 0 = its share of the CPUs", ge=0)
    address: Optional[str] = setting(  # noqa: UP045  (OmegaConf reads this spelling)
        None, "Ray cluster to join (auto inside `ray job submit`); empty = a local one"
    )
    preflight: Literal["auto", "full", "none"] = setting(
        "auto",
        "on a cluster, before the first step: auto looks at every machine; full waits for machines "
        "that have to start, and measures sums over the network as well",
    )
    min_workers: int = setting(
        0,
        "elastic (Ray): go on with fewer workers, down to these, while the cluster has no room for "
        "`workers`, and grow back; every number between must divide the batch; 0 = never fewer",
        ge=0,
    )
    grow_after: float = setting(
        60,
        "elastic: room for more workers must be there this long before the run is saved and "
        "started anew with them",
        unit="seconds",
        ge=0,
    )
    max_failures: int = setting(
        -1,
        "restarts of the workers in a row, each from the last checkpoint and none with a new one "
        "since, before giving up; machines that were announced to go are not counted; -1 = 3 on a "
        "cluster, 0 on this machine's own Ray",
        ge=-1,
    )
    start_timeout: float = setting(
        0,
        "wait this long for room for the workers; 0 = 45 s on this machine, 15 minutes on a "
        "cluster, which may have to start machines",
        unit="seconds",
        ge=0,
    )
    hang_timeout: float = setting(
        600,
        "a worker that shows no progress for so long (an iteration, a grid, a checkpoint) counts "
        "as hung: it is ended, and the workers are started anew; also for collectives",
        unit="seconds",
        gt=0,
    )


@dataclass
class StoreConfig:
    """A run folder on S3 (out=s3://bucket/prefix)."""

    scratch: Optional[str] = setting(  # noqa: UP045
        None, "local folder that such a run works in; empty = in the cache"
    )
    sync_s: float = setting(30.0, "metrics and grids are put there every", unit="seconds", gt=0)
    lease_s: float = setting(
        60.0, "a process not heard of for this long has lost the run", unit="seconds", gt=0
    )
    failures: int = setting(3, "checkpoints in a row whose upload fails before the run ends", ge=1)
    lease: int = setting(0, "number of the lease that holds the run; set by the launcher", ge=0)


@dataclass
class WatchConfig:
    """Where metrics go, beside metrics.jsonl."""

    tensorboard: bool = setting(True, "write TensorBoard events into the run folder")
    wandb: Optional[str] = setting(  # noqa: UP045
        None, "Weights & Biases project (pip install 'vmcmc_dist[wandb]'); key from WANDB_API_KEY"
    )
    mlflow: Optional[str] = setting(  # noqa: UP045
        None, "MLflow tracking URI (pip install 'vmcmc_dist[mlflow]')"
    )
