"""vmcmc submit CONFIG [key=value…] --address http://HEAD:8265"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from vmcmc_dist.cli.keys import add_config

if TYPE_CHECKING:
    from vmcmc_dist.engine.ray_submit import Job


def add(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_job_options(parser)
    parser.add_argument(
        "--follow", action="store_true", help="show the log; exit with the job's status"
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=0,
        metavar="N",
        help="with --follow: submit again, up to N times, where the driver or the head died",
    )
    parser.add_argument("--submission-id", metavar="ID", help="default: NAME-xxxxxx, new each time")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the plain `ray job submit` command only"
    )
    parser.set_defaults(run=run)


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Options of everything that goes to a cluster as a job."""
    parser.add_argument(
        "--address", metavar="URL", help="of the dashboard; default: RAY_API_SERVER_ADDRESS"
    )
    parser.add_argument(
        "--working-dir", default=".", metavar="DIR", help="what travels to the cluster"
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=value]",
        help="a variable for the job, beside AWS_ENDPOINT_URL, AWS_REGION, NCCL_*, GLOO_*, FI_*, "
        "WANDB_PROJECT and the like; no secrets, since Ray shows it",
    )
    parser.add_argument(
        "--python", default="python", metavar="PATH", help="the interpreter on the cluster"
    )


def run(options: argparse.Namespace) -> int:
    from vmcmc_dist.engine.ray_dashboard import connect
    from vmcmc_dist.engine.ray_submit import packed, plain_command
    from vmcmc_dist.errors import ConfigError

    if options.retries < 0 or (options.retries and not options.follow):
        raise ConfigError("--retries needs --follow, and a number ≥ 0: who submits again stays")
    job = planned(options, "train", options.submission_id)
    if options.dry_run:
        print(plain_command(packed(job), options.address, options.follow))
        return 0
    client = connect(options.address)
    return send(client, packed(job), options.follow, options.retries)


def planned(options: argparse.Namespace, verb: str, submission_id: str | None = None) -> Job:
    """The job of ``vmcmc VERB`` with these options."""
    from vmcmc_dist.engine.ray_submit import plan

    return plan(
        options.config,
        options.settings,
        working_dir=options.working_dir,
        verb=verb,
        python=options.python,
        environment=options.env,
        submission_id=submission_id,
    )


def send(client: Any, job: Job, follow: bool, retries: int = 0) -> int:
    """Submit, say where to look, and follow the job or see it start."""
    from vmcmc_dist.engine.ray_follow import ending, follow_and_retry, watch_start
    from vmcmc_dist.engine.ray_submit import command, submit

    submit(client, job)
    name = job.submission_id
    print(f"job        {name} ({job.sent / 2**20:.1f} MiB sent)")
    print(f"dashboard  {client.get_address()}/#/jobs/{name}")
    print(f"follow     {command('logs', client, name)} --follow")
    print(f"stop       {command('stop', client, name)}")
    if job.run:
        print(f"run        {job.run} (the same command again goes on with it)")
    if job.left_out:
        print(f"not passed {', '.join(job.left_out)}: secrets stand in no job; give them to nodes")
    sys.stdout.flush()
    if follow:
        try:
            return follow_and_retry(client, job, _show, _tell, retries)
        except KeyboardInterrupt:
            _tell(f"no longer followed; the job {name} goes on")
            raise
    details = watch_start(client, name)
    if details.status in ("PENDING", "RUNNING"):
        print(f"status     {details.status.lower()}")
        return 0
    return ending(client, details, _tell)


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _tell(line: str) -> None:
    print(f"vmcmc: {line}", file=sys.stderr, flush=True)
