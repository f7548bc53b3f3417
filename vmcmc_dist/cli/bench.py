"""vmcmc bench chain|step|tune"""

from __future__ import annotations

import argparse
import sys


def add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    chain = what.add_parser("chain", help="Langevin chains: fp32 against bf16, and their peak")
    chain.add_argument("--batch", type=int, default=32)
    chain.add_argument("--steps", type=int, default=5, help="Langevin steps per chain")
    chain.add_argument("--rounds", type=int, default=5, help="interleaved rounds; medians")
    chain.add_argument("--threads", type=int, default=1, help="torch threads")
    chain.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    chain.set_defaults(run=run_chain)
    step = what.add_parser("step", help="one training step: Ray Train + DeepSpeed against bare")
    step.add_argument("--batch", type=int, default=64)
    step.add_argument("--steps", type=int, default=20, help="Langevin steps per chain")
    step.add_argument("--rounds", type=int, default=10, help="interleaved rounds; medians")
    step.add_argument("--threads", type=int, default=1, help="torch threads")
    step.add_argument("--launcher", default="ray", choices=("ray", "local"))
    step.set_defaults(run=run_step)
    tune = what.add_parser("tune", help="what a trial of a sweep costs, against Ray alone")
    tune.add_argument("--trials", type=int, default=300)
    tune.add_argument("--kills", type=int, default=5, help="processes killed at random moments")
    tune.add_argument("--minutes", type=float, default=0, help="begin no more trials after; 0: all")
    tune.add_argument("--out", default="build/bench_tune.json", help="where the figures go")
    tune.set_defaults(run=run_tune)


def run_chain(options: argparse.Namespace) -> int:
    from vmcmc_dist.bench.chain import bench_chain

    result = bench_chain(
        batch=options.batch,
        steps=options.steps,
        rounds=options.rounds,
        threads=options.threads,
        device=options.device,
        progress=lambda text: print(text, file=sys.stderr),
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


def run_tune(options: argparse.Namespace) -> int:
    from pathlib import Path

    from vmcmc_dist.tuning.bench import bench_tune

    out = Path(options.out)
    record = bench_tune(options.trials, options.kills, options.minutes, out=out)
    print(record.table())
    print(f"written to {options.out}")
    return 0
