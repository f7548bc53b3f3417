"""vmcmc evaluate RUN"""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, e.g. runs/fashion_mnist")
    parser.add_argument("-n", type=int, default=1000, help="samples to judge (default 1000)")
    parser.add_argument("--steps", type=int, help="Langevin steps (default: as vmcmc sample)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--checkpoint", default="latest", help="latest, best, or a number of images"
    )
    parser.add_argument("--no-ema", action="store_true", help="the weights as trained, unaveraged")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from rich import print as show
    from rich.table import Table

    from vmcmc_dist.cli.bar import training_bar
    from vmcmc_dist.evaluation.judge import judge_run, write_record
    from vmcmc_dist.trained import load

    model = load(
        options.run_folder,
        checkpoint=options.checkpoint,
        ema=False if options.no_ema else None,
    )
    ema = model.config.sampling.ema and not options.no_ema
    with training_bar("classifier") as progress:
        record = judge_run(
            model, n=options.n, steps=options.steps, seed=options.seed, ema=ema, progress=progress
        )
    path = Path(options.run_folder) / "evaluation.jsonl"
    write_record(record, path)
    table = Table("", "inception score", "Fréchet distance", "classes ≥ 2 %")
    for name, shares in (("refined", "class_shares"), ("proposals", "class_shares_proposals")):
        held = sum(share >= 0.02 for share in record[shares])
        table.add_row(
            name,
            f"{record[f'is_{name}']:.2f}",
            f"{record[f'fd_{name}']:.2f}",
            f"{held} of {len(record[shares])}",
        )
    table.add_row("real test images", f"{record['is_real']:.2f}", f"{record['fd_real']:.2f}", "")
    show(table)
    print(
        f"{record['n']} samples, {record['steps']} Langevin steps, {model.images:,} images of "
        f"training, in a classifier of {record['classifier_accuracy']:.1%} accuracy (not FID)"
    )
    print(path)
    return 0
