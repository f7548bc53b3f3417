"""The cluster's dashboard, which takes jobs: is it there, does it let us in, which Ray is it."""

from __future__ import annotations

import http.client
import json
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from vmcmc_dist.errors import ConfigError, ResourceError

PATIENCE_S = 10.0
"""For each answer; an address behind a firewall would hang for minutes otherwise."""
TUNNEL = (
    "it is the address of the dashboard, http://HOST:8265, most often through a tunnel: "
    "`ray dashboard CLUSTER.yaml`, `kubectl port-forward service/NAME-head-svc 8265`, or "
    "`ssh -L 8265:localhost:8265 HEAD`"
)
TOKEN = (
    "put the cluster's token into a file and set RAY_AUTH_TOKEN_PATH to it, or set RAY_AUTH_TOKEN "
    "(`ray get-auth-token` on the head prints it; with KubeRay it is in the cluster's Secret)"
)


def connect(address: str | None) -> Any:
    """Ray's client for jobs at ``address`` (or ``RAY_API_SERVER_ADDRESS``).

    Raises:
        ConfigError: no address, or one that cannot be a dashboard's.
        ResourceError: nothing answers there, it is not a dashboard, the token is missing or
            wrong, or the cluster runs another version of Ray.
    """
    address = dashboard_address(address)
    use_token(address)
    from ray import __version__
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard_sdk", "job.sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.ERROR)
    # Ray would let these win over an address that was given
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        client = JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ResourceError(_not_let_in(address, str(error))) from None
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ResourceError(f"{address} took no job: {error}. Check --address: {TUNNEL}") from None
    theirs = client._server_ray_version
    if theirs != __version__:
        raise ResourceError(
            f"the cluster at {address} runs Ray {theirs}, here is Ray {__version__}: "
            f"pip install 'ray[default,train,tune]=={theirs}' here, or start the cluster from an "
            f"image with Ray {__version__}"
        )
    return client


def dashboard_address(address: str | None) -> str:
    """The address as http(s)://HOST:PORT; :class:`ConfigError` if it cannot be a dashboard's."""
    given = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not given:
        raise ConfigError(f"give the cluster's --address: {TUNNEL}")
    if "://" not in given:
        given = f"http://{given}"
    try:
        parts = urllib.parse.urlsplit(given)
        port = parts.port
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.hostname == "auto":
        raise ConfigError(f"--address {address!r} is not one that takes jobs: {TUNNEL}")
    if parts.username or parts.password:
        raise ConfigError("--address must hold no user or password; the token goes another way")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown_port = f":{port}" if port else "" if parts.scheme == "https" else ":8265"
    return f"{parts.scheme}://{host}{shown_port}{parts.path.rstrip('/')}"


def use_token(address: str) -> bool:
    """Whether the cluster asks for a token; if so, Ray here is told to send it.

    Before anything of Ray is called: it reads the environment once.
    """
    mode = _ask(address)
    if mode == "token":
        os.environ["RAY_AUTH_MODE"] = "token"
        path = os.environ.get("RAY_AUTH_TOKEN_PATH")
        if path and not os.environ.get("RAY_AUTH_TOKEN") and not os.path.isfile(path):
            raise ResourceError(f"RAY_AUTH_TOKEN_PATH={path}: no such file; {TOKEN}")
        if not has_token():
            raise ResourceError(f"the cluster at {address} asks for a token: {TOKEN}")
    return mode == "token"


def has_token() -> bool:
    """Whether Ray here will find a token to send."""
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(given) or os.path.isfile(os.path.expanduser("~/.ray/auth_token"))


def _ask(address: str) -> str:
    """The cluster's mode of authentication, which it tells anybody."""
    url = f"{address}/api/authentication_mode"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return str(json.load(answer)["authentication_mode"])
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise ResourceError(_not_let_in(address, f"{error.code}")) from None
        if error.code == 404:  # a Ray older than authentication; the client asks for its version
            return "disabled"
        raise ResourceError(
            f"{address} answers {error.code} {error.reason}; is it a Ray dashboard? {TUNNEL}"
        ) from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        said = f"no answer in {PATIENCE_S:g} s" if isinstance(reason, TimeoutError) else reason
        raise ResourceError(
            f"no Ray cluster at {address} ({said}). Check --address and that the cluster is up: "
            f"{TUNNEL}"
        ) from None
    except (http.client.HTTPException, ValueError, KeyError, TypeError):
        raise ResourceError(f"{address} is no Ray dashboard. Check --address: {TUNNEL}") from None


def _not_let_in(address: str, said: str) -> str:
    wrong = "403" in said or "invalid" in said.lower()
    what = "refuses this token" if wrong else "asks for a token"
    return f"the cluster at {address} {what}: {TOKEN}"
