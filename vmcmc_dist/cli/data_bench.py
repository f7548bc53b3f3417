"""vmcmc data bench decode"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    measure = parser.add_subparsers(dest="measure", required=True, metavar="WHAT")
    decode = measure.add_parser("decode", help="images/s from memory, beside the bare decoders")
    decode.add_argument("--root", type=Path, help="folder, zip or tar of images; else made here")
    decode.add_argument("--images", type=int, default=200, help="files of each size, at most")
    decode.add_argument("--rounds", type=int, default=9, help="interleaved rounds; medians")
    decode.set_defaults(run=run_decode)


def run_decode(options: argparse.Namespace) -> int:
    from vmcmc_dist.bench.decode import bench_decode

    print(
        bench_decode(
            options.root,
            images=options.images,
            rounds=options.rounds,
            progress=lambda text: print(text, file=sys.stderr),
        )
    )
    return 0
