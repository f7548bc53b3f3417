"""vmcmc data prepare SOURCE|CONFIG"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmcmc_dist.config import Config
    from vmcmc_dist.data import Manifest, Mapper

DESCRIPTION = """\
Writes shards, shard by shard, straight to where they belong (to S3 by multipart upload), then
their block table and manifest. Run the same command again after an interruption of any kind: it
goes on with the shards that are left. The bytes do not depend on how many processes write them.

  vmcmc data prepare ffhq --root ~/ffhq --out s3://bucket/ffhq --sizes 64,128,256
  vmcmc data prepare imagenet --root /data/imagenet --out /data/in64 image_size=64 --ray
  vmcmc data prepare configs/cifar10.yaml data.root=~/cifar-10-batches-bin
  vmcmc data prepare webdataset --root s3://bucket/tars --out s3://bucket/new shard_samples=500
  vmcmc data prepare huggingface --root user/name --out here image_size=64 label_column=label

Keys of `data` may be given without `data.` in front of them.
"""


def run(options: argparse.Namespace) -> int:
    from vmcmc_dist.cli.bar import stage_bar
    from vmcmc_dist.data import ensure_prepared, prepare, prepare_sizes
    from vmcmc_dist.data.raw import configure_store
    from vmcmc_dist.errors import ConfigError

    if options.ray and "=" in options.ray:  # --ray key=value
        options.settings, options.ray = [options.ray, *options.settings], ""
    config = config_of(options)
    given = {
        "mapper": _over_ray(config, options.ray),
        "restart": options.restart,
        "allow_upscaling": options.allow_upscaling,
    }
    configure_store(config.data)
    with stage_bar() as progress:
        if options.sizes:
            made = prepare_sizes(config.data, options.sizes, progress, **given)
        elif _as_they_are(config):
            if options.out or options.ray is not None:
                raise ConfigError(
                    f"{config.data.root}: holds shards already; `vmcmc data mirror` copies them, "
                    "and the source webdataset makes others of them"
                )
            made = [ensure_prepared(config.data, progress)]
        else:
            made = [prepare(config.data, progress, **given)]
    for manifest in made:
        print(summary(manifest))
        if manifest.small:
            print(
                f"note: {manifest.small:,} of {manifest.num_samples:,} images are smaller than "
                f"{manifest.shape[2]}x{manifest.shape[1]} pixels and were enlarged",
                file=sys.stderr,
            )
        if manifest.bad:
            print(
                f"note: {len(manifest.bad):,} images do not decode and were left out, e.g. "
                f"{manifest.bad[0]}",
                file=sys.stderr,
            )
    return 0


def summary(manifest: Manifest) -> str:
    """One line about a set."""
    return f"{manifest.num_samples:,} samples, {len(manifest.shards)} shards: {manifest.base}"


def config_of(options: argparse.Namespace) -> Config:
    """The config that ``SOURCE|CONFIG``, --root, --out and key=value make together."""
    from vmcmc_dist.config import load_config
    from vmcmc_dist.data.sources import OPENERS
    from vmcmc_dist.errors import ConfigError

    settings = [_full(setting) for setting in options.settings]
    for key, value in (("root", options.root), ("shards", options.out)):
        if value is not None:
            settings.append(f"data.{key}={json.dumps(value)}")
    name = options.config
    if Path(name).is_file() or not name.replace("_", "").isalnum():
        return load_config(name, settings)
    if name not in OPENERS:
        raise ConfigError(
            f"{name}: neither a file nor a source; sources are {', '.join(sorted(OPENERS))}"
        )
    return load_config(None, [f"data.source={name}", *settings])


def _full(setting: str) -> str:
    """``image_size=64`` → ``data.image_size=64``"""
    import dataclasses

    from vmcmc_dist.data import DataConfig

    own = {field.name for field in dataclasses.fields(DataConfig)}
    return f"data.{setting}" if setting.split("=", 1)[0] in own else setting


def _as_they_are(config: Config) -> bool:
    """True if there is nothing to prepare: no raw data, or shards in its place."""
    from vmcmc_dist.data import holds_shards

    data = config.data
    if data.source in ("toy2d", "shards"):
        return True
    if data.root is None:
        return data.source != "faces"
    hub = data.source == "huggingface" and not Path(data.root).expanduser().exists()
    return data.source != "webdataset" and not hub and holds_shards(data.root)


def _over_ray(config: Config, address: str | None) -> Mapper | None:
    if address is None:
        return None
    from vmcmc_dist.engine.ray_map import ray_stream

    if address:
        config.resources.address = address
    return lambda function, jobs: ray_stream(function, jobs, config)
