"""vmcmc tune SWEEP [key=value…] [--address …] [--prove N]"""

from __future__ import annotations

import argparse
import json
from typing import Any

from vmcmc_dist.cli.keys import key_lines


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", metavar="SWEEP", help="YAML file, e.g. configs/sweeps/toy2d.yaml")
    parser.add_argument(
        "settings",
        metavar="key=value",
        nargs="*",
        help="a key of the sweep, or one of the config for every trial",
    )
    parser.add_argument(
        "--prove",
        type=int,
        default=0,
        metavar="N",
        help="then train the best and the default N times each, with other seeds",
    )
    parser.add_argument("--address", help="Ray cluster to join; without it, this machine")
    plain = parser.format_help

    def format_help() -> str:
        return f"{plain()}\nkeys of a sweep:\n" + "\n".join(sweep_lines()) + "\n"

    parser.format_help = format_help  # type: ignore[method-assign]
    parser.set_defaults(run=run)


def sweep_lines() -> list[str]:
    from vmcmc_dist.tuning.config import Sweep

    sweep = Sweep()
    lines = key_lines(sweep)
    for group in ("asha", "pbt"):
        part = getattr(sweep, group)
        lines += ["", f"{group}: {(part.__doc__ or '').splitlines()[0]}"]
        lines += key_lines(part, f"{group}.")
    return lines


def run(options: argparse.Namespace) -> int:
    from vmcmc_dist.engine.progress import duration
    from vmcmc_dist.tuning.config import load_sweep
    from vmcmc_dist.tuning.folder import RUNNING
    from vmcmc_dist.tuning.sweep import tune

    sweep = load_sweep(options.sweep, options.settings)
    outcome = tune(sweep, options.address)
    events = outcome.trials.values()
    count = {s: sum(e.status == s for e in events) for s in sorted({e.status for e in events})}
    what = "stopped and saved" if outcome.interrupted else "done"
    print(f"{what}: " + ", ".join(f"{n} {status}" for status, n in count.items()))
    print(f"took          {duration(outcome.seconds)}")
    print(f"sweep folder  {outcome.folder.path}")
    if outcome.best is not None:
        for name in sweep.metrics:
            print(f"best          {name} {outcome.best.figures[name]:.4g} by {outcome.best.trial}")
        for key, value in outcome.best.settings.items():
            print(f"              {key}={value}")
        print(f"train it      vmcmc train {outcome.folder.best}")
    if outcome.interrupted or count.get(RUNNING):
        print("go on         the same command again")
    print(f"report        vmcmc report {outcome.folder.path}")
    if options.prove and outcome.best is not None and not outcome.interrupted:
        return run_proof(sweep, outcome.best, options)
    return 0


def run_proof(sweep: Any, best: Any, options: argparse.Namespace) -> int:
    from vmcmc_dist.tuning.folder import SweepFolder
    from vmcmc_dist.tuning.proof import proof_lines, prove

    outcome = prove(sweep, best, options.prove, options.address)
    if outcome.interrupted:
        print("stopped and saved; the same command goes on")
        return 0
    proof = SweepFolder(sweep.folder).proof
    for line in proof_lines(json.loads(proof.read_text())):
        print(f"proof         {line}")
    print(f"written       {proof}")
    return 0
