"""vmcmc config CONFIG [key=value…]"""

from __future__ import annotations

import argparse
import dataclasses

from vmcmc_dist.cli.keys import add_config


def add(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--here", action="store_true", help="decide every auto as this machine would"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from vmcmc_dist.config import load_config, to_yaml

    config = load_config(options.config, options.settings)
    if options.here:
        from vmcmc_dist.engine.resources import resolve

        config = dataclasses.replace(resolve(config), out=config.out)
    print(to_yaml(config), end="")
    return 0
