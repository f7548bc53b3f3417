"""vmcmc preflight CONFIG [key=value…] --address http://HEAD:8265"""

from __future__ import annotations

import argparse

from vmcmc_dist.cli.keys import add_config
from vmcmc_dist.cli.submit import add_job_options, planned, send


def add(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "resources", "data")
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """On the cluster itself with ``resources.address=…``; else as a job of ``--address``."""
    from vmcmc_dist.config import load_config
    from vmcmc_dist.engine.ray_dashboard import connect
    from vmcmc_dist.engine.ray_submit import packed

    if any(setting.startswith("resources.address=") for setting in options.settings):
        from vmcmc_dist.engine.ray_launch import look_over
        from vmcmc_dist.engine.resources import resolve

        look_over(resolve(load_config(options.config, options.settings)), print)
        return 0
    job = planned(options, "preflight")
    return send(connect(options.address), packed(job), follow=True)
