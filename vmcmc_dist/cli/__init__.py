"""The command line: one verb a file; each parses, loads the config, and calls one function."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from vmcmc_dist import __version__
from vmcmc_dist.errors import UserError

VERBS = (
    "train", "submit", "preflight", "tune", "sample", "evaluate", "report", "classifier", "data",
    "config", "bench",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 done, 2 something the user can mend (message on stderr), 3 the training diverged,
    130 ended by Ctrl-C.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("WDS_SECURE", "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser(words)
    options, rest = parser.parse_known_args(words)
    wrong = [word for word in rest if word.startswith("-") or "=" not in word]
    if wrong or (rest and "settings" not in options):
        parser.error(f"unrecognized arguments: {' '.join(wrong or rest)}")
    if rest:  # key=value behind an option, which argparse does not put together
        options.settings = [*options.settings, *rest]
    try:
        return options.run(options) or 0
    except UserError as error:
        print(f"vmcmc: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("vmcmc: interrupted", file=sys.stderr)
        return 130


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the asked verb's module is imported, so ``--help`` is quick."""
    from importlib import import_module

    parser = argparse.ArgumentParser(
        prog="vmcmc",
        description="Variational MCMC teaching: energy-based models with a VAE as sampler.",
        epilog="vmcmc VERB --help shows a verb's options and every key of its config.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    asked = next((word for word in words if word in VERBS), None)
    for verb in VERBS:
        sub = verbs.add_parser(
            verb,
            help=HELP[verb],
            description=HELP[verb],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if verb == asked:
            import_module(f"vmcmc_dist.cli.{verb}").add(sub)
    return parser


HELP = {
    "train": "train a run, or go on with it",
    "submit": "train a run as a job of a Ray cluster",
    "preflight": "check a cluster for a run, and print what was found",
    "tune": "search for better settings, or go on with a search",
    "sample": "draw samples from a run",
    "evaluate": "evaluate a run: samples and scores, and every task of the paper",
    "report": "write one HTML page of a run or several, or of a sweep",
    "classifier": "train the classifier that judges samples",
    "data": "prepare, inspect, check, copy or measure data",
    "config": "print the resolved config",
    "bench": "measure speed: chain, step, scaling, trials of a sweep",
}
