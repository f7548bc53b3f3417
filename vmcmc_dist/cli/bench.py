"""vmcmc bench chain|step|checkpoint|scaling|tune"""

from __future__ import annotations

import argparse

from vmcmc_dist.cli.bar import say
from vmcmc_dist.cli.numbers import positive, several


def add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    chain = what.add_parser("chain", help="Langevin chains: fp32 against bf16, and their peak")
    chain.add_argument("--batch", type=positive, default=32)
    chain.add_argument("--steps", type=positive, default=5, help="Langevin steps per chain")
    chain.add_argument("--rounds", type=positive, default=5, help="interleaved rounds; medians")
    chain.add_argument("--threads", type=positive, default=1, help="torch threads")
    chain.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    chain.set_defaults(run=run_chain)
    step = what.add_parser("step", help="one training step: Ray Train + DeepSpeed against bare")
    step.add_argument("--batch", type=positive, default=64)
    step.add_argument("--steps", type=positive, default=20, help="Langevin steps per chain")
    step.add_argument("--rounds", type=positive, default=10, help="interleaved rounds; medians")
    step.add_argument("--threads", type=positive, default=1, help="torch threads")
    step.add_argument("--launcher", default="ray", choices=("ray", "local"))
    step.set_defaults(run=run_step)
    checkpoint = what.add_parser("checkpoint", help="time that training stands still for one")
    _add_config(checkpoint)
    checkpoint.add_argument("--rounds", type=positive, default=5, help="medians of as many")
    checkpoint.add_argument("--threads", type=positive, default=1, help="torch threads")
    checkpoint.add_argument(
        "--no-s3", dest="s3", action="store_false", help="only this machine's disk"
    )
    checkpoint.set_defaults(run=run_checkpoint)
    _add_scaling(what.add_parser("scaling", help="weak and strong scaling, and who waits for what"))
    tune = what.add_parser("tune", help="what a trial of a sweep costs, against Ray alone")
    tune.add_argument("--trials", type=positive, default=300)
    tune.add_argument("--kills", type=int, default=5, help="processes killed at random moments")
    tune.add_argument("--minutes", type=float, default=0, help="begin no more trials after; 0: all")
    tune.add_argument("--out", default="build/bench_tune.json", help="where the figures go")
    tune.set_defaults(run=run_tune)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="config file; else nets as of configs/faces.yaml")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings over it")


def _add_scaling(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--workers", type=several(1), default=(1, 2, 4), help="e.g. 1,2,4")
    parser.add_argument("--stages", type=several(0), default=(0, 1, 2, 3), help="of ZeRO, e.g. 0,2")
    parser.add_argument("--steps", type=positive, default=3, help="training steps in a round")
    parser.add_argument("--rounds", type=positive, default=5, help="interleaved rounds; medians")
    parser.add_argument(
        "--model", action="store_true",
        help="instead, what clusters of H100s would do: counted work, published bandwidths",
    )  # fmt: skip
    parser.add_argument(
        "--gpus", type=several(1), default=(8, 64, 512), help="model: how many, e.g. 8,64,512"
    )
    parser.add_argument("--mfu", type=float, help="model: share of the peak that nets reach")
    parser.add_argument("--inside", type=float, help="model: busbw in a node, GB/s")
    parser.add_argument("--outside", type=float, help="model: busbw among nodes, GB/s")
    parser.set_defaults(run=run_scaling)


def run_chain(options: argparse.Namespace) -> int:
    from vmcmc_dist.bench.chain import bench_chain

    result = bench_chain(
        batch=options.batch,
        steps=options.steps,
        rounds=options.rounds,
        threads=options.threads,
        device=options.device,
        progress=say,
    )
    print(result)
    return 0


def run_step(options: argparse.Namespace) -> int:
    from vmcmc_dist.engine.bench_step import bench_step

    print(
        bench_step(
            batch=options.batch,
            steps=options.steps,
            rounds=options.rounds,
            threads=options.threads,
            launcher=options.launcher,
        ).table()
    )
    return 0


def run_checkpoint(options: argparse.Namespace) -> int:
    from vmcmc_dist.engine.bench_checkpoint import bench_checkpoint

    result = bench_checkpoint(
        options.config,
        options.settings,
        rounds=options.rounds,
        threads=options.threads,
        s3=options.s3,
        progress=say,
    )
    print(result)
    return 0


def run_scaling(options: argparse.Namespace) -> int:
    if options.model:
        from vmcmc_dist.engine.bench_scaling_model import Cluster, scaling_model

        given = {"mfu": options.mfu, "inside": options.inside, "outside": options.outside}
        unit = {"mfu": 1.0, "inside": 1e9, "outside": 1e9}
        cluster = Cluster(**{k: v * unit[k] for k, v in given.items() if v is not None})
        print(scaling_model(options.config, options.settings, cluster=cluster, gpus=options.gpus))
        return 0
    from vmcmc_dist.engine.bench_scaling import bench_scaling

    result = bench_scaling(
        options.config,
        options.settings,
        workers=options.workers,
        stages=options.stages,
        steps=options.steps,
        rounds=options.rounds,
        progress=say,
    )
    print(result)
    return 0


def run_tune(options: argparse.Namespace) -> int:
    from pathlib import Path

    from vmcmc_dist.tuning.bench import bench_tune

    out = Path(options.out)
    record = bench_tune(options.trials, options.kills, options.minutes, out=out)
    print(record.table())
    print(f"written to {options.out}")
    return 0
