"""The config's keys on the command line: reading them, and the help made from the dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Container
from typing import Any

from vmcmc_dist.settings import bounds_text


def add_config(parser: argparse.ArgumentParser, *sections: str) -> None:
    """Arguments CONFIG and key=value…; the help lists the keys of ``sections`` (or all)."""
    parser.add_argument("config", metavar="CONFIG", help="YAML file, e.g. configs/faces.yaml")
    add_settings(parser, *sections)


def add_settings(parser: argparse.ArgumentParser, *sections: str) -> None:
    """Arguments key=value…; the help lists the keys of ``sections`` (or all)."""
    parser.add_argument("settings", metavar="key=value", nargs="*", help="see the list of keys")
    plain = parser.format_help  # the list is made only when help is printed

    def format_help() -> str:
        return f"{plain()}\nkeys:\n" + "\n".join(list_keys(sections)) + "\n"

    parser.format_help = format_help  # type: ignore[method-assign]


def list_keys(sections: tuple[str, ...] = ()) -> list[str]:
    """A line per key: ``energy.lr=0.0001  float, > 0    learning rate``, under its section."""
    from vmcmc_dist.config import Config

    lines: list[str] = []
    for section, item in _sections(Config()):
        if sections and section not in sections:
            continue
        lines += ["", f"{section or 'run'}: {(item.__doc__ or '').splitlines()[0]}"]
        lines += key_lines(item, f"{section}." if section else "")
    return lines


def key_lines(item: Any, prefix: str = "", without: Container[str] = ()) -> list[str]:
    """Two lines for each setting of a dataclass: key, default, type, range, unit; its meaning."""
    types = typing.get_type_hints(type(item))
    lines = []
    for field in dataclasses.fields(item):
        value, meta = getattr(item, field.name), field.metadata
        if dataclasses.is_dataclass(value) or field.name in without:
            continue
        facts = [_type_name(types[field.name]), bounds_text(field), meta.get("unit", "")]
        shown = "" if value is None else value
        lines.append(f"  {prefix}{field.name}={shown}  ({', '.join(f for f in facts if f)})")
        lines.append(f"      {meta.get('help', '')}")
    return lines


def _sections(config: Any) -> list[tuple[str, Any]]:
    parts = [("", config)]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            parts.append((field.name, value))
    return parts


def _type_name(kind: Any) -> str:
    options = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(map(str, options))
    if options and type(None) in options:
        rest = [_type_name(o) for o in options if o is not type(None)]
        return f"{rest[0]} or null"
    return getattr(kind, "__name__", str(kind))
