"""What every page shares: templates, scripts and styles inside the file, and its writing."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from vmcmc_dist.errors import ResourceError
from vmcmc_dist.report import numbers, wording

SCRIPTS = {
    "page.html": ("chart.js", "curves.js", "page.js"),
    "sweep.html": ("chart.js", "trials.js", "parallel.js", "scatter.js", "page.js"),
}
STYLES = {"page.html": ("page.css",), "sweep.html": ("page.css", "sweep.css")}
"""Page → the files that make its script and its style, in order."""


@dataclass(frozen=True)
class Page:
    """The HTML and what could not be shown in it."""

    html: str
    notes: list[str]


@dataclass(frozen=True)
class Report:
    """What was written."""

    path: Path
    bytes: int
    notes: list[str]


def write(page: Page, out: str | Path) -> Report:
    """Put the page in its place, whole or not at all.

    Raises:
        ResourceError: ``out`` cannot be written.
    """
    out = Path(out)
    content = page.html.encode()
    partial = out.with_name(out.name + ".partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, out)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise ResourceError(
            f"{out} cannot be written ({error.strerror or error}); give another place by --out"
        ) from None
    return Report(out, len(content), page.notes)


@cache
def template(name: str) -> Template:
    """The compiled template of a page; whatever is put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("vmcmc_dist.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here = Path(__file__).parent
    script = "\n".join((here / part).read_text() for part in SCRIPTS[name])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "script": script,
        "digest": digest,
        "css": "\n".join((here / part).read_text() for part in STYLES[name]),
        "conditions": numbers.conditions,
        "rounded": wording.rounded,
        "duration": wording.duration,
        "short_commit": wording.short_commit,
    }
    environment.filters["embedded"] = embedded
    return environment.get_template(name)


def embedded(value: Any) -> str:
    """JSON that may stand inside a <script> element: no ``<``, ``>`` or ``&`` in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
