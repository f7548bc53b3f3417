"""vmcmc evaluate RUN [--task NAME]… [key=value…]"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vmcmc_dist.cli.keys import key_lines

if TYPE_CHECKING:
    from vmcmc_dist.errors import ConfigError
    from vmcmc_dist.evaluation.job import TaskSettings
    from vmcmc_dist.trained import Trained


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, e.g. runs/fashion_mnist")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="see the tasks' keys")
    parser.add_argument(
        "--task", action="append", dest="tasks", metavar="NAME",
        help="a task of the list below, or all that fit the run; may be given several times "
        "(default: synthesis)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", default="latest", help="latest, best, or a number of images"
    )
    parser.add_argument("--no-ema", action="store_true", help="the weights as trained, unaveraged")
    parser.add_argument("--again", action="store_true", help="also what is finished already")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that share synthesis, by Ray (default 1)"
    )
    parser.set_defaults(run=run)
    plain = parser.format_help  # the list is made only when help is printed

    def format_help() -> str:
        return f"{plain()}\n" + "\n".join(_list_tasks()) + "\n"

    parser.format_help = format_help  # type: ignore[method-assign]


def run(options: argparse.Namespace) -> int:
    from vmcmc_dist.cli.bar import stage_bar
    from vmcmc_dist.cli.figures import show_record
    from vmcmc_dist.engine.remote_run import local_copy, push
    from vmcmc_dist.engine.run_folder import describe_commit
    from vmcmc_dist.engine.spread import follow, spread_over, torchrun_rank
    from vmcmc_dist.errors import ConfigError, UserError
    from vmcmc_dist.evaluation.evaluate import evaluate
    from vmcmc_dist.evaluation.tasks import task_module
    from vmcmc_dist.trained import load

    if options.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {options.workers}")
    names = list(dict.fromkeys(options.tasks or ["synthesis"]))
    wanted, refused = fill_settings(names, options.settings)
    url, options.run_folder = options.run_folder, str(local_copy(options.run_folder))
    model = load(url, checkpoint=options.checkpoint, ema=False if options.no_ema else None)
    ema = model.config.sampling.ema and not options.no_ema
    status = 0
    for task, problem in refused.items():
        if task_module(task).fits(model) is None:
            print(f"vmcmc: {task}: {problem}", file=sys.stderr)
            status = problem.exit_code
    for task, settings in fitting(model, wanted, choose="all" in names).items():
        if torchrun_rank()[0]:
            follow(options.run_folder, model, task, settings, ema, options.again)
            continue
        with stage_bar() as progress:
            try:
                record, new = evaluate(
                    options.run_folder,
                    model,
                    task,
                    settings,
                    ema=ema,
                    again=options.again,
                    commit=describe_commit(),
                    spread=spread_over(options.run_folder, task, ema, options.workers),
                    progress=progress,
                )
            except UserError as error:
                print(f"vmcmc: {task}: {error}", file=sys.stderr)
                status = max(status, error.exit_code)
                continue
        show_record(record, new, options.run_folder)
        push(url, Path(options.run_folder), "evaluation")
    return status


def fill_settings(
    names: list[str], overrides: list[str]
) -> tuple[dict[str, TaskSettings], dict[str, ConfigError]]:
    """The settings of each task, which takes the keys that it knows; for ``all``, of every task,
    and why some cannot be done with these values.

    ConfigError: an unknown task, a key that none of the tasks knows, a bad value.
    """
    from vmcmc_dist.config import fill
    from vmcmc_dist.errors import ConfigError
    from vmcmc_dist.evaluation.tasks import TASKS, task_module

    modules = {n: task_module(n) for n in (TASKS if "all" in names else names)}
    known = {n: [f.name for f in dataclasses.fields(m.Settings)] for n, m in modules.items()}
    for override in overrides:
        key = override.split("=", 1)[0]
        if not any(key.split("[")[0] in keys for keys in known.values()):
            lists = "; ".join(f"{name}: {', '.join(keys)}" for name, keys in known.items())
            raise ConfigError(f"no task knows {key!r}{_nearest(key, known)} (keys of {lists})")
    filled, refused = {}, {}
    for name, module in modules.items():
        own = [o for o in overrides if o.split("=", 1)[0].split("[")[0] in known[name]]
        try:
            filled[name] = fill(module.Settings, own)
        except ConfigError as error:
            refused[name] = error
    if refused and ("all" not in names or not filled):
        raise next(iter(refused.values()))
    return filled, refused


def fitting(
    model: Trained, wanted: dict[str, TaskSettings], choose: bool
) -> dict[str, TaskSettings]:
    """The tasks that fit the model; with ``choose`` others are named and left out.

    ConfigError: a task was asked for by name and does not fit.
    """
    from vmcmc_dist.errors import ConfigError
    from vmcmc_dist.evaluation.tasks import task_module

    fit = {}
    for task, settings in wanted.items():
        reason = task_module(task).fits(model)
        if reason is None:
            fit[task] = settings
        elif choose:
            print(f"{task}: left out, {reason}", file=sys.stderr)
        else:
            raise ConfigError(f"{task} cannot be done on this run: {reason}")
    return fit


def _nearest(key: str, known: dict[str, list[str]]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key, {k for keys in known.values() for k in keys}, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _list_tasks() -> list[str]:
    """Each task with what it shows and its own keys, under those that every task has."""
    from vmcmc_dist.evaluation.job import TaskSettings
    from vmcmc_dist.evaluation.tasks import TASKS, task_module

    common = TaskSettings()
    lines = ["keys of every task:", *key_lines(common)]
    for name, what in TASKS.items():
        settings = task_module(name).Settings()
        same = {
            f.name
            for f in dataclasses.fields(common)
            if getattr(settings, f.name) == getattr(common, f.name)
        }
        lines += ["", f"{name}: {what}", *key_lines(settings, without=same)]
    return lines
