"""vmcmc data bench decode|stream|peers|start|shuffle|wait"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmcmc_dist.cli.bar import say
from vmcmc_dist.cli.numbers import positive

if TYPE_CHECKING:
    from vmcmc_dist.data.manifest import Manifest

KINDS = {
    "decode": "images/s from memory, beside the bare decoders",
    "stream": "what streaming costs over decoding: local disk, S3 with latency, warm cache; the "
    "S3 server has a core of its own",
    "peers": "beside webdataset, MosaicML Streaming and a PyTorch DataLoader",
    "start": "time and memory until a reader of 10,000 shards knows its first window",
    "shuffle": "quality of the epoch order, and the memory it costs",
    "wait": "share of a training step that waits for data",
}


def add(parser: argparse.ArgumentParser) -> None:
    measure = parser.add_subparsers(dest="measure", required=True, metavar="WHAT")
    parsers = {name: measure.add_parser(name, help=what) for name, what in KINDS.items()}
    _add_decode(parsers["decode"])
    for name in ("stream", "peers"):
        _add_readers(parsers[name])
    parsers["stream"].add_argument(
        "--latency", type=float, default=20, help="added to each request to S3, ms (default 20)"
    )
    parsers["stream"].set_defaults(run=run_stream)
    parsers["peers"].add_argument(
        "--peers-venv",
        type=Path,
        help="where MosaicML Streaming's own environment is, or is made (6 GB); without it "
        "that reader is left out",
    )
    parsers["peers"].set_defaults(run=run_peers)
    _add_start(parsers["start"])
    _add_shuffle(parsers["shuffle"])
    _add_wait(parsers["wait"])
    for name, one in parsers.items():
        if name != "decode":
            one.add_argument("--json", type=Path, help="write the figures there, too")


def _add_decode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, help="folder, zip or tar of images; else made here")
    parser.add_argument("--images", type=positive, default=200, help="files of each size, at most")
    parser.add_argument("--rounds", type=positive, default=9, help="interleaved rounds; medians")
    parser.set_defaults(run=run_decode)


def _add_readers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=Path, action="append", default=[], dest="roots",
        help="folder or tar(.gz) of JPEGs; may be given several times; else drawn ones",
    )  # fmt: skip
    parser.add_argument(
        "--size", action="append", dest="sizes", metavar="WxH",
        help="may be given several times (default 64x64, 256x256 and 481x321)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=positive, action="append",
        help="decode threads, or worker processes; may be given several times (default 1 and 2)",
    )  # fmt: skip
    parser.add_argument("--batch", type=positive, default=64)
    parser.add_argument("--mb", type=positive, default=256, help="JPEGs of each size, MiB")
    parser.add_argument("--rounds", type=positive, default=5, help="interleaved rounds; medians")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each reader in a round")
    parser.add_argument("--starts", type=positive, default=3, help="starts of each reader; medians")
    parser.add_argument(
        "settings", metavar="key=value", nargs="*", help="keys of data.*, for our stream"
    )


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shards", type=positive, default=10_000)
    parser.add_argument("--samples", type=positive, default=1000, help="samples in a shard")
    parser.add_argument(
        "--kib", type=positive, action="append",
        help="size of a sample in the tar; may be given several times (default 4, 32 and 72)",
    )  # fmt: skip
    parser.add_argument("--rank", type=int, default=17)
    parser.add_argument("--world-size", type=positive, default=256)
    parser.add_argument("--rounds", type=positive, default=3, help="starts of each; medians")
    parser.set_defaults(run=run_start)


def _add_shuffle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--manifest", help="a folder or s3:// prefix of shards; else made up")
    parser.add_argument("--shards", type=positive, default=200, help="of the made-up data set")
    parser.add_argument("--samples", type=positive, default=1000, help="in each of its shards")
    parser.add_argument("--kib", type=positive, default=32, help="size of a sample in its tars")
    parser.add_argument(
        "--classes", type=positive, default=10, help="the data set is sorted into them"
    )
    parser.add_argument("--batch", type=positive, default=256, help="global batch")
    parser.add_argument(
        "--world-size", type=positive, default=1, help="readers that share the streams"
    )
    parser.add_argument(
        "--window", action="append", metavar="STREAMSxBLOCKS",
        help="data.streams and data.shuffle_blocks; may be given several times",
    )  # fmt: skip
    parser.set_defaults(run=run_shuffle)


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", help="the data; else random images")
    parser.add_argument("--source", default="mnist", choices=("mnist", "fashion_mnist"))
    parser.add_argument("--batch", type=positive, default=400)
    parser.add_argument("--steps", type=positive, default=50, help="Langevin steps per chain")
    parser.add_argument("--iterations", type=positive, default=3)
    parser.add_argument("--threads", type=positive, default=1, help="torch threads")
    parser.set_defaults(run=run_wait)


def run_decode(options: argparse.Namespace) -> int:
    from vmcmc_dist.bench.decode import bench_decode

    print(
        bench_decode(
            options.root,
            images=options.images,
            rounds=options.rounds,
            progress=say,
        )
    )
    return 0


def run_stream(options: argparse.Namespace) -> int:
    from vmcmc_dist.bench.stream import bench_stream

    return _show(options, bench_stream(latency_s=options.latency / 1000, **_of_readers(options)))


def run_peers(options: argparse.Namespace) -> int:
    from vmcmc_dist.bench.peers import bench_peers, make_venv

    where = None if options.peers_venv is None else make_venv(options.peers_venv, say)
    return _show(options, bench_peers(mosaic_venv=where, **_of_readers(options)))


def run_start(options: argparse.Namespace) -> int:
    from vmcmc_dist.bench.start import bench_start

    return _show(
        options,
        bench_start(
            shards=options.shards,
            samples=options.samples,
            sample_kib=options.kib or (4, 32, 72),
            rank=options.rank,
            world_size=options.world_size,
            rounds=options.rounds,
        ),
    )


def run_shuffle(options: argparse.Namespace) -> int:
    from vmcmc_dist.bench.jpegs import parse_size
    from vmcmc_dist.bench.shuffle import WINDOWS, bench_shuffle

    form = "STREAMSxBLOCKS, e.g. 24x4"
    given = [parse_size(text, form) for text in options.window or ()]
    return _show(
        options,
        bench_shuffle(
            _shuffled(options),
            given or WINDOWS,
            batch=options.batch,
            world_size=options.world_size,
            classes=options.classes,
        ),
    )


def _shuffled(options: argparse.Namespace) -> Manifest:
    from vmcmc_dist.bench.shuffle import made_up_manifest
    from vmcmc_dist.data import open_manifest

    if options.manifest:
        return open_manifest(options.manifest)
    return made_up_manifest(options.shards, options.samples, options.kib << 10)


def run_wait(options: argparse.Namespace) -> int:
    from vmcmc_dist.engine.bench_wait import bench_wait

    return _show(
        options,
        bench_wait(
            batch=options.batch,
            steps=options.steps,
            iterations=options.iterations,
            threads=options.threads,
            root=options.root,
            source=options.source,
        ),
    )


def _of_readers(options: argparse.Namespace) -> dict[str, Any]:
    from vmcmc_dist.bench.jpegs import SIZES, parse_size

    return {
        "sizes": [parse_size(text) for text in options.sizes] if options.sizes else SIZES,
        "roots": options.roots,
        "workers": options.workers or (1, 2),
        "batch": options.batch,
        "mebibytes": options.mb,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "starts": options.starts,
        "settings": _data_settings(options.settings),
        "progress": say,
    }


def _data_settings(settings: list[str]) -> dict[str, Any]:
    """``data.KEY=value`` words, checked as a config, as values by KEY."""
    from vmcmc_dist.config import load_config
    from vmcmc_dist.errors import ConfigError

    keys = [word.split("=", 1)[0] for word in settings]
    wrong = [key for key in keys if not key.startswith("data.")]
    if wrong:
        raise ConfigError(f"{wrong[0]}: keys of data.* are for our stream, no others")
    data = load_config(None, settings).data
    return {key: getattr(data, key) for key in (key.removeprefix("data.") for key in keys)}


def _show(options: argparse.Namespace, result: Any) -> int:
    print(result)
    if options.json:
        options.json.write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n")
    return 0
