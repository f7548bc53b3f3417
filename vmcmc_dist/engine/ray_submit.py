"""A run as a job of a Ray cluster: what is sent, and the plain `ray job submit` of the same."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vmcmc_dist.config import Config, load_config
from vmcmc_dist.engine.job_environment import job_environment, refuse_secret_settings
from vmcmc_dist.engine.ray_dashboard import dashboard_address, has_token
from vmcmc_dist.engine.ray_package import check_package, runtime_env
from vmcmc_dist.engine.versions import VARIABLE, versions_here
from vmcmc_dist.errors import ConfigError, ResourceError

RUN = "vmcmc_run"
"""In a job's metadata: OUT/NAME of the run that it trains."""


@dataclass(frozen=True)
class Job:
    """What Ray is given.

    Attributes:
        words: of the entrypoint, not yet quoted.
        runtime_env: working directory, excludes, variables.
        run: OUT/NAME that it trains, or "": the next submission of it goes on with the run.
        config: its path in the working directory.
        left_out: names of variables of this shell that look like secrets.
        sent: bytes of the working directory.
    """

    words: tuple[str, ...]
    runtime_env: dict[str, Any]
    submission_id: str
    run: str
    config: str
    left_out: tuple[str, ...] = ()
    sent: int = 0

    @property
    def entrypoint(self) -> str:
        return shlex.join(self.words)

    @property
    def metadata(self) -> dict[str, str]:
        return {RUN: self.run} if self.run else {}


def plan(
    config: str,
    settings: Sequence[str] = (),
    *,
    working_dir: str = ".",
    verb: str = "train",
    python: str = "python",
    environment: Sequence[str] = (),
    submission_id: str | None = None,
) -> Job:
    """The job of ``vmcmc train CONFIG key=value…``, checked as far as it can be from here.

    Args:
        working_dir: what travels to the cluster; the config must lie in it.
        python: the interpreter on the cluster that has vmcmc_dist's requirements.
        environment: ``NAME`` or ``NAME=value``, beside those that are passed anyway.
        submission_id: default NAME-xxxxxx, anew each time: a run is resumed by its name and
            folder, not by its job.

    Raises:
        ConfigError, ResourceError: what would fail on the cluster.
    """
    folder = Path(working_dir).absolute()
    if not folder.is_dir():
        raise ConfigError(f"--working-dir {working_dir} is not a folder")
    loaded = load_config(config, settings)
    path = Path(config).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ConfigError(
            f"{config} lies outside the working directory {folder}, and only that travels to the "
            "cluster: copy it into it, or give a --working-dir that holds it"
        )
    inside = path.relative_to(folder.resolve()).as_posix()
    _check_for_a_cluster(loaded, settings)
    variables, left_out = job_environment(os.environ, environment)
    variables[VARIABLE] = versions_here().to_json()
    env = runtime_env(folder, variables)
    return Job(
        (python, "-m", "vmcmc_dist", verb, inside, *settings, "resources.address=auto"),
        env,
        submission_id or f"{_plain(loaded.name)}-{secrets.token_hex(3)}",
        f"{loaded.out.rstrip('/')}/{loaded.name}" if verb == "train" else "",
        inside,
        tuple(left_out),
    )


def packed(job: Job) -> Job:
    """The job with the size of its package, which is checked; the first that needs Ray itself.

    Raises:
        ConfigError, ResourceError: see :func:`vmcmc_dist.engine.ray_package.check_package`.
    """
    env = job.runtime_env
    return replace(job, sent=check_package(Path(env["working_dir"]), env, [job.config]))


def _plain(name: str) -> str:
    """The name in letters that need no quotes, in a shell or in a dashboard's address."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)


def _check_for_a_cluster(config: Config, settings: Sequence[str]) -> None:
    refuse_secret_settings(settings)
    if any(setting.startswith("resources.address=") for setting in settings):
        raise ConfigError(
            "resources.address is the job's own (auto): give the cluster's address as --address"
        )
    if config.launcher in ("local", "torchrun"):
        raise ConfigError(f"launcher={config.launcher} uses no cluster; set launcher=ray")
    for key, value in (("out", config.out), ("data.root", config.data.root)):
        if value and "://" not in value and not Path(value).is_absolute():
            raise ConfigError(
                f"{key}={value} would lie in the job's own temporary folder on the head: give "
                f"s3://BUCKET/PREFIX, or the absolute path of a folder that all nodes share"
            )


def plain_command(job: Job, address: str | None, follow: bool = False) -> str:
    """The shell command that submits the same job without vmcmc."""
    address = dashboard_address(address)
    variables = []
    if any(os.environ.get(name) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")):
        variables.append(f"RAY_API_SERVER_ADDRESS={shlex.quote(address)}")  # else Ray takes those
    if has_token():
        variables.append("RAY_AUTH_MODE=token")
    env = {k: v for k, v in job.runtime_env.items() if k != "working_dir"}
    options = [
        ["--address", address],
        ["--submission-id", job.submission_id],
        ["--working-dir", job.runtime_env["working_dir"]],
        ["--runtime-env-json", json.dumps(env, separators=(",", ":"))],
        ["--metadata-json", json.dumps(job.metadata, separators=(",", ":"))],
        *([] if follow else [["--no-wait"]]),
        ["--", *job.words],
    ]
    return " \\\n  ".join([" ".join([*variables, "ray job submit"]), *map(shlex.join, options)])


def submit(client: Any, job: Job) -> str:
    """Hand the job to the cluster; returns its submission id.

    Raises:
        ResourceError: a job already trains this run, the id is taken, or Ray refuses it.
    """
    for other in client.list_jobs():
        running = other.status in ("PENDING", "RUNNING")
        if running and (other.metadata or {}).get(RUN) == job.run and job.run:
            raise ResourceError(
                f"the job {other.submission_id} already trains {job.run}: follow it with "
                f"`{command('logs', client, other.submission_id)} --follow`, stop it with "
                f"`{command('stop', client, other.submission_id)}`, or give this run another name=…"
            )
    try:
        return client.submit_job(
            entrypoint=job.entrypoint,
            submission_id=job.submission_id,
            runtime_env=job.runtime_env,
            metadata=job.metadata,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ResourceError(_refusal(job, str(error))) from None


def _refusal(job: Job, said: str) -> str:
    if "already exists" in said:
        return f"--submission-id {job.submission_id} is taken on this cluster; give another one"
    if "413" in said or "too large" in said.lower():
        return (
            f"the cluster does not take a working directory of {job.sent / 2**20:,.0f} MiB; name "
            "what the job does not need in .rayignore"
        )
    lines = [line for line in said.splitlines() if line.strip()]
    return f"the cluster refused the job: {lines[-1] if lines else said}"


def command(what: str, client: Any, job: str) -> str:
    """``ray job logs --address … JOB``."""
    return f"ray job {what} --address {client.get_address()} {shlex.quote(job)}"
