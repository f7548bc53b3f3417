"""A job that was submitted: its log as it comes, how it ended, and what to do about it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vmcmc_dist.engine.ray_submit import Job, command, submit
from vmcmc_dist.errors import ResourceError

Say = Callable[[str], Any]

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
LOST_S = 120.0
"""A dashboard that does not answer for so long is given up; the job may well go on."""
STOPPED = 130
HEAD_LOST = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")


def follow(client: Any, job: str, say: Say) -> Any:
    """Hand on the log till the job has ended; returns Ray's details of it.

    The stream is taken up again where it broke.

    Raises:
        ResourceError: the dashboard is gone for good, or no longer knows the job.
    """
    shown = 0

    async def stream() -> None:
        nonlocal shown
        at = 0
        async for text in client.tail_job_logs(job):
            if at + len(text) > shown:
                say(text[max(0, shown - at) :])
            at += len(text)
            shown = max(shown, at)

    lost = None
    while True:
        try:
            asyncio.run(stream())
            details = client.get_job_info(job)
        except (RuntimeError, OSError) as error:
            if "404" in str(error) or "does not exist" in str(error):
                raise LostJob(
                    f"the cluster knows no job {job}: its head was started anew"
                ) from None
            lost = lost or time.monotonic()
            if time.monotonic() - lost > LOST_S:
                raise ResourceError(
                    f"{client.get_address()} has not answered for {LOST_S:g} s. The job may go on; "
                    f"look again with `{command('logs', client, job)} --follow`"
                ) from None
            time.sleep(2)
            continue
        lost = None
        if details.status in ENDED:
            return details
        time.sleep(1)


class LostJob(ResourceError):
    """The head went, and with it the job."""


def follow_and_retry(client: Any, job: Job, say: Say, tell: Say, retries: int = 0) -> int:
    """Follow a submitted job; where its driver or head died, submit it again.

    A run goes on from its last checkpoint, since its name and folder are the same. What the job
    itself ended with (bad input, divergence, dead workers) is not tried again.

    Args:
        say: takes pieces of the log.
        tell: takes our own lines.

    Returns:
        The exit status: the job's own, 130 if it was stopped.
    """
    attempt = 1
    while True:
        try:
            details = follow(client, job.submission_id, say)
            reason = _died(details)
        except LostJob as error:
            details, reason = None, str(error)
        if reason is None or attempt > retries:
            break
        attempt += 1
        base = re.sub(r"-try\d+$", "", job.submission_id)
        job = replace(job, submission_id=f"{base}-try{attempt}")
        tell(f"{reason}; submitted again as {job.submission_id} ({attempt - 1} of {retries})")
        submit(client, job)
    if details is None:
        raise ResourceError(f"{reason}. Run the same command again to go on with the run")
    return ending(client, details, tell)


def ending(client: Any, details: Any, tell: Say) -> int:
    """One line on how the job ended, and the exit status that stands for it."""
    job = details.submission_id
    if details.status == "SUCCEEDED":
        tell(f"job {job} succeeded")
        return 0
    if details.status == "STOPPED":
        tell(f"job {job} was stopped; run the same command again to go on with the run")
        return STOPPED
    tell(f"job {job} failed: {diagnosis(details)}")
    code = details.driver_exit_code
    return code if code and 0 < code < 128 else 1


def diagnosis(details: Any) -> str:
    """Why a job failed and what to do, from what Ray tells of it."""
    said, code, kind = details.message or "", details.driver_exit_code, details.error_type
    if kind == "RUNTIME_ENV_SETUP_FAILURE":
        return (
            f"Ray could not set up its environment ({_cause_line(said)}): mend pip, conda, "
            "image_uri or working_dir of cluster/runtime_env.yaml; packages are best in the image"
        )
    if kind in ("JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"):
        return f"the head has no room to start it ({_cause_line(said)}): look at `ray status` there"
    missing = re.search(r"No module named '?([\w.]+)'?", said)
    if missing:
        return (
            f"the cluster's Python has no module {missing[1]}: build the image from "
            "cluster/Dockerfile, submit from a checkout of vmcmc_dist, or name the right "
            "interpreter with --python"
        )
    if code in (126, 127):
        return (
            "the cluster has no such interpreter: name the one that has vmcmc_dist's requirements "
            "with --python"
        )
    if _died(details):
        return f"{_died(details)}; run the same command again to go on from the last checkpoint"
    return f"it ended with status {code}; the reason stands at the end of its log"


def _died(details: Any) -> str | None:
    """How the driver or its head died, if that is what ended the job."""
    if details.status != "FAILED":
        return None
    code = details.driver_exit_code
    if code is not None and (code < 0 or code > 128):
        return f"the job's driver was killed by signal {-code if code < 0 else code - 128}"
    if details.error_type in HEAD_LOST:
        return "the job's driver died with Ray's supervisor of it"
    return None


def watch_start(client: Any, job: str, seconds: float = 45.0) -> Any:
    """Ray's details once the job runs (for some seconds), has ended, or ``seconds`` are over."""
    until = time.monotonic() + seconds
    running = None
    while True:
        details = client.get_job_info(job)
        now = time.monotonic()
        if details.status == "RUNNING" and running is None:
            running = now
        settled = running is not None and now - running > 3
        if details.status in ENDED or settled or now > until:
            return details
        time.sleep(0.3)


def _cause_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|not|fail|no such|invalid", line, re.I)]
    return (telling or lines or ["no reason given"])[-1][:300]
