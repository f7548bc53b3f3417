"""vmcmc data inspect|verify|mirror|index: sets of shards that are there."""

from __future__ import annotations

import argparse
from pathlib import Path


def run_inspect(options: argparse.Namespace) -> int:
    from rich import print as show
    from rich.table import Table

    from vmcmc_dist.data import inspect

    found = inspect(_manifest(options), grid=options.grid)
    table = Table(show_header=False)
    for name in ("source", "licence", "split", "num_samples", "shape", "dtype", "shards", "blocks"):
        table.add_row(name, str(getattr(found, name)))
    if found.source_shape is not None:
        table.add_row("input shape", str(found.source_shape))
    table.add_row("bytes", f"{found.bytes:,}")
    table.add_row("bad", f"{found.bad:,} that did not decode and were left out")
    table.add_row("small", f"{found.small:,} that were enlarged")
    table.add_row("mean, std", f"{found.mean:.4g}, {found.std:.4g}")
    for label, count in found.histogram.items():
        table.add_row(f"label {label}", f"{count:,}")
    show(table)
    if len(found.shape) == 3:
        print(options.grid)
    return 0


def _manifest(options: argparse.Namespace):
    from vmcmc_dist.cli.bar import stage_bar
    from vmcmc_dist.cli.data_prepare import config_of
    from vmcmc_dist.data import ensure_prepared, open_manifest

    path = options.config
    if path.startswith("s3://") or Path(path).expanduser().is_dir():
        return open_manifest(path)
    options.root = options.out = None
    with stage_bar() as progress:
        return ensure_prepared(config_of(options).data, progress)


def run_verify(options: argparse.Namespace) -> int:
    from vmcmc_dist.cli.bar import stage_bar
    from vmcmc_dist.data import verify

    with stage_bar() as progress:
        found = verify(
            options.path, progress, decode=options.decode, threads=max(1, options.threads)
        )
    for problem in found.problems:
        print(problem)
    read = ""
    if found.manifest is not None:
        manifest = found.manifest
        read = (
            f": {manifest.num_samples:,} samples, {len(manifest.shards)} shards, "
            f"{len(manifest.blocks):,} blocks, {found.bytes:,} bytes"
            + (", every image decoded" if options.decode else "")
        )
    number = len(found.problems)
    print(f"{options.path}: {f'{number:,} problems' if number else 'whole'}{read}")
    return 2 if number else 0


def run_mirror(options: argparse.Namespace) -> int:
    from vmcmc_dist.cli.bar import stage_bar
    from vmcmc_dist.cli.data_prepare import summary
    from vmcmc_dist.data import mirror

    with stage_bar() as progress:
        made = mirror(options.source, options.target, progress, threads=max(1, options.threads))
    print(summary(made))
    return 0


def run_index(options: argparse.Namespace) -> int:
    from vmcmc_dist.cli.bar import stage_bar
    from vmcmc_dist.cli.data_prepare import summary
    from vmcmc_dist.data import write_index

    with stage_bar() as progress:
        made = write_index(options.path, progress)
    print(summary(made))
    return 0
