"""vmcmc train CONFIG [key=value…]"""

from __future__ import annotations

import argparse
import os

from vmcmc_dist.cli.keys import add_config


def add(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from vmcmc_dist.config import load_config
    from vmcmc_dist.engine.launch import pictures, train
    from vmcmc_dist.engine.progress import duration

    outcome = train(load_config(options.config, options.settings))
    if int(os.environ.get("RANK", "0")):
        return 0
    figures, folder = outcome.figures, outcome.folder
    what = "stopped and saved" if outcome.interrupted else "done"
    if figures.get("paused"):
        what = "paused (train.pause_images) and saved"
    elif figures.get("already"):
        what = "already complete"
    print(
        f"{what} at {int(figures['images']):,} images, {duration(figures['seconds'])} of training"
    )
    if outcome.first_step_seconds is not None:
        print(f"first step    {outcome.first_step_seconds:.0f} s after the start")
    print(f"run folder    {folder.place}")
    if folder.url:  # the local folder is scratch, and may be on another machine
        print(f"report        vmcmc report {folder.url}")
    else:
        picture = pictures(folder)
        if picture:
            print(f"open          {picture}")
        print(f"tensorboard   tensorboard --logdir {folder.tensorboard}")
    print(f"more samples  vmcmc sample {folder.place}")
    return 0
