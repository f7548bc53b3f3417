"""vmcmc report RUN [RUN…], vmcmc report SWEEP"""

from __future__ import annotations

import argparse
import math
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_folders",
        metavar="RUN",
        nargs="+",
        help="run folders, e.g. runs/faces, or the folder of one sweep",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="the page (default: RUN/report.html; of several runs, or one on S3: report.html here)",
    )
    parser.add_argument(
        "--price",
        type=float,
        metavar="USD_PER_HOUR",
        help="of all the hardware of a run; adds the cost",
    )
    parser.add_argument(
        "--grids", type=int, default=40, help="most sample grids of each run (default 40)"
    )
    parser.add_argument(
        "--best", type=int, default=8, help="trials of a sweep whose pictures it shows (default 8)"
    )
    parser.add_argument(
        "--width",
        type=int,
        default=1440,
        help="pixels to which wider pictures are scaled down (default 1440)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from vmcmc_dist.cli.bar import bar_of_user
    from vmcmc_dist.data.storage.paths import is_remote
    from vmcmc_dist.engine.remote_run import local_copy
    from vmcmc_dist.errors import ConfigError
    from vmcmc_dist.report.page import write_report
    from vmcmc_dist.report.wording import size

    if options.grids < 1 or options.best < 0 or options.width < 16:
        raise ConfigError("--grids must be at least 1, --best at least 0, --width at least 16")
    if options.price is not None and not 0 <= options.price < math.inf:
        raise ConfigError(f"--price must be 0 or more USD an hour, got {options.price}")
    several = len(options.run_folders) > 1
    folders = [local_copy(run, everything=True) for run in options.run_folders]
    here = several or is_remote(options.run_folders[0])
    out = options.out or (Path() if here else folders[0]) / "report.html"
    with bar_of_user() as bar:
        task = bar.add_task("pictures", total=None)
        report = write_report(
            folders,
            out,
            price=options.price,
            grids=options.grids,
            width=options.width,
            best=options.best,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for note in report.notes:
        print(f"note: {note}")
    print(f"{report.path}  ({size(report.bytes)})")
    return 0
