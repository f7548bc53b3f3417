"""Versions of Python and packages, here and elsewhere, and whether a run may span them."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

EXACT = ("ray",)
"""Of these, here and there must be the very same version."""

VARIABLE = "VMCMC_SUBMITTED_WITH"
"""In a job's environment: the versions of the machine that submitted it."""


@dataclass(frozen=True)
class Versions:
    """Python's and the packages' versions of one machine.

    Attributes:
        python: three numbers, e.g. ``3.11.9``.
        packages: name → version, of what vmcmc_dist requires and is installed.
        requires: vmcmc_dist's own requirements, e.g. ``torch>=2.11``.
    """

    python: str
    packages: dict[str, str]
    requires: tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Versions:
        values = json.loads(text)
        return cls(values["python"], values["packages"], tuple(values["requires"]))

    def of(self, names: tuple[str, ...] = ("torch", "ray", "deepspeed")) -> str:
        """``python 3.11.9, torch 2.13.0, …`` on one line."""
        found = [f"{name} {self.packages.get(name, 'missing')}" for name in names]
        return ", ".join([f"python {self.python}", *found])


@cache
def versions_here(requires: tuple[str, ...] = ()) -> Versions:
    """Of this process.

    Args:
        requires: looked up where vmcmc_dist is not installed but lies in the working directory.
    """
    wanted = _own_requirements() or requires
    packages = {}
    for name in (Requirement(text).name for text in wanted):
        found = _installed(name)
        if found is not None:
            packages[name] = found
    return Versions(platform.python_version(), packages, wanted)


def disagreements(mine: Versions, theirs: Versions, where: str) -> list[str]:
    """What must be mended before a run described by ``mine`` may use ``where``; empty if nothing.

    Python must agree in its first two numbers, Ray to the last one; of every other package
    ``where`` must have a version that vmcmc_dist's requirements admit.
    """
    found = []
    if minor(mine.python) != minor(theirs.python):
        found.append(
            f"{where} runs Python {theirs.python}, not {minor(mine.python)}: use an image with "
            f"Python {minor(mine.python)}, or submit from Python {minor(theirs.python)}"
        )
    for text in mine.requires:
        need = Requirement(text)
        has = theirs.packages.get(need.name)
        mended = f"install {need.name}=={public(mine.packages.get(need.name, ''))} in its image"
        if need.name in EXACT and has != mine.packages.get(need.name):
            found.append(
                f"{where} has {need.name} {has or 'not'} installed, not "
                f"{mine.packages.get(need.name)}: {mended}, or {has or 'the same'} here"
            )
        elif has is None:
            found.append(f"{where} lacks the package {need.name} ({text}): {mended}")
        elif not need.specifier.contains(public(has), prereleases=True):
            found.append(f"{where} has {need.name} {has}, vmcmc_dist needs {text}: {mended}")
    return found


def differences(mine: Versions, theirs: Versions) -> list[str]:
    """``torch 2.13.0 (here 2.12.0)``: what differs though it may."""
    return [
        f"{name} {theirs.packages[name]} (submitted with {version})"
        for name, version in mine.packages.items()
        if name in theirs.packages and public(theirs.packages[name]) != public(version)
    ]


def minor(python: str) -> str:
    return ".".join(python.split(".")[:2])


def public(version: str) -> str:
    """Without the local part: 2.13.0+cpu and 2.13.0+cu130 are one version."""
    return Version(version).public if version else version


def _own_requirements() -> tuple[str, ...]:
    try:
        found = metadata.requires("vmcmc_dist") or []
    except metadata.PackageNotFoundError:
        return ()
    return tuple(sorted(text for text in found if Requirement(text).marker is None))


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
