"""vmcmc data prepare|inspect|verify|mirror|index|bench|celeba-layout"""

from __future__ import annotations

import argparse
from pathlib import Path

from vmcmc_dist.cli import data_bench, data_prepare, data_sets
from vmcmc_dist.cli.keys import add_settings

RAW = argparse.RawDescriptionHelpFormatter


def add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    _add_prepare(what)
    _add_inspect(what)
    verify = what.add_parser(
        "verify",
        help="read every shard of a set and check every checksum; status 2 if any is wrong",
    )
    verify.add_argument("path", metavar="PATH", help="folder or s3:// prefix of shards")
    verify.add_argument("--decode", action="store_true", help="decode every image, too")
    verify.add_argument("--threads", type=int, default=8, help="shards read at once (8)")
    verify.set_defaults(run=data_sets.run_verify)
    mirror = what.add_parser(
        "mirror",
        help="copy a prepared set to another folder or bucket",
        description="Every shard is checked as it is copied and the manifest comes last. Run the "
        "same command again to go on after an interruption; nothing is ever deleted.",
    )
    mirror.add_argument("source", metavar="SRC", help="folder or s3:// prefix")
    mirror.add_argument("target", metavar="DST", help="folder or s3:// prefix")
    mirror.add_argument("--threads", type=int, default=4, help="shards copied at once (4)")
    mirror.set_defaults(run=data_sets.run_mirror)
    index = what.add_parser(
        "index",
        help="write the manifest and block table of tars from elsewhere, or of an older version",
    )
    index.add_argument("path", metavar="PATH", help="folder or s3:// prefix of .tar files")
    index.set_defaults(run=data_sets.run_index)
    layout = what.add_parser(
        "celeba-layout", help="a folder or tar of face images → the layout of CelebA"
    )
    layout.add_argument("source", help="folder, .tar or .tar.gz of images")
    layout.add_argument("out", help="new folder")
    layout.add_argument("--name", required=True, help="what the images are; never `celeba`")
    layout.add_argument("--licence", default="unknown: the user's images", help="a note")
    layout.set_defaults(run=run_layout)
    data_bench.add(
        what.add_parser("bench", help="measure speed: decode, stream, peers, start, shuffle, wait")
    )


def _add_prepare(what) -> None:
    prepare = what.add_parser(
        "prepare",
        help="raw data → WebDataset shards and a manifest",
        formatter_class=RAW,
        description=data_prepare.DESCRIPTION,
    )
    prepare.add_argument(
        "config", metavar="SOURCE|CONFIG", help="name of a source, or a YAML file of configs/"
    )
    prepare.add_argument("--root", help="raw data: folder, zip, s3://bucket/prefix (data.root)")
    prepare.add_argument("--out", help="folder or s3://bucket/prefix of the shards (data.shards)")
    prepare.add_argument(
        "--sizes",
        type=_sizes,
        metavar="64,128,…",
        help="several sizes in one pass: OUT/64, OUT/128",
    )
    prepare.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="over the CPUs of a Ray cluster (without ADDRESS: resources.address, or one started "
        "here). Raw data and --out must be seen under the same path on all its machines; with "
        "s3:// each machine fetches the raw data into its own cache",
    )
    prepare.add_argument(
        "--restart",
        action="store_true",
        help="delete what an interrupted preparation left at --out, and begin anew",
    )
    prepare.add_argument(
        "--allow-upscaling",
        action="store_true",
        help="also where most raw images are smaller than the size asked for",
    )
    add_settings(prepare, "data")
    prepare.set_defaults(run=data_prepare.run)


def _add_inspect(what) -> None:
    inspect = what.add_parser(
        "inspect", help="counts, shapes, labels, a picture of samples", formatter_class=RAW
    )
    inspect.add_argument(
        "config",
        metavar="PATH|SOURCE|CONFIG",
        help="folder or s3:// prefix of shards; or as for prepare: name of a source, YAML file",
    )
    inspect.add_argument("--grid", type=Path, default=Path("data.png"), help="PNG of samples")
    add_settings(inspect, "data")
    inspect.set_defaults(run=data_sets.run_inspect)


def _sizes(text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: sizes are given as 64,128,256") from None


def run_layout(options: argparse.Namespace) -> int:
    from vmcmc_dist.data import to_celeba_layout

    count = to_celeba_layout(
        Path(options.source), Path(options.out), name=options.name, licence=options.licence
    )
    print(f"{count:,} images: {options.out}")
    return 0
