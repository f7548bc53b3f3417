"""vmcmc data prepare|inspect|celeba-layout|bench"""

from __future__ import annotations

import argparse
from pathlib import Path

from vmcmc_dist.cli import data_bench
from vmcmc_dist.cli.keys import add_config


def add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    raw = argparse.RawDescriptionHelpFormatter
    prepare = what.add_parser(
        "prepare", help="raw data → WebDataset shards and a manifest", formatter_class=raw
    )
    add_config(prepare, "data")
    prepare.set_defaults(run=run_prepare)
    inspect = what.add_parser(
        "inspect", help="counts, shapes, labels, a picture of samples", formatter_class=raw
    )
    add_config(inspect, "data")
    inspect.add_argument("--grid", type=Path, default=Path("data.png"), help="PNG of samples")
    inspect.set_defaults(run=run_inspect)
    layout = what.add_parser(
        "celeba-layout", help="a folder or tar of face images → the layout of CelebA"
    )
    layout.add_argument("source", help="folder, .tar or .tar.gz of images")
    layout.add_argument("out", help="new folder")
    layout.add_argument("--name", required=True, help="what the images are; never `celeba`")
    layout.add_argument("--licence", default="unknown: the user's images", help="a note")
    layout.set_defaults(run=run_layout)
    data_bench.add(what.add_parser("bench", help="measure speed: decode"))


def run_prepare(options: argparse.Namespace) -> int:
    manifest = _manifest(options)
    print(f"{manifest.num_samples:,} samples, {len(manifest.shards)} shards: {manifest.base}")
    return 0


def run_inspect(options: argparse.Namespace) -> int:
    from rich import print as show
    from rich.table import Table

    from vmcmc_dist.data import inspect

    found = inspect(_manifest(options), grid=options.grid)
    table = Table(show_header=False)
    for name in ("source", "licence", "split", "num_samples", "shape", "dtype", "shards", "bad"):
        table.add_row(name, str(getattr(found, name)))
    if found.source_shape is not None:
        table.add_row("input shape", str(found.source_shape))
    table.add_row("bytes", f"{found.bytes:,}")
    table.add_row("mean, std", f"{found.mean:.4g}, {found.std:.4g}")
    for label, count in found.histogram.items():
        table.add_row(f"label {label}", f"{count:,}")
    show(table)
    if len(found.shape) == 3:
        print(options.grid)
    return 0


def run_layout(options: argparse.Namespace) -> int:
    from vmcmc_dist.data import to_celeba_layout

    count = to_celeba_layout(
        Path(options.source), Path(options.out), name=options.name, licence=options.licence
    )
    print(f"{count:,} images: {options.out}")
    return 0


def _manifest(options: argparse.Namespace):
    from vmcmc_dist.cli.bar import stage_bar
    from vmcmc_dist.config import load_config
    from vmcmc_dist.data import ensure_prepared

    config = load_config(options.config, options.settings)
    with stage_bar() as progress:
        return ensure_prepared(config.data, progress)
