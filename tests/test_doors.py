"""Which room may import which: every import of the package, read off the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmcmc_dist

PACKAGE = Path(vmcmc_dist.__file__).parent
ROOMS = {
    "langevin", "models", "teaching", "data", "evaluation", "engine", "tuning", "bench", "report",
    "cli",
}  # fmt: skip
LEAVES = {"errors", "settings"}

OPEN = {
    "langevin": set(),
    "models": set(),
    "teaching": {"langevin", "models"},
    "data": set(),
    "evaluation": {"langevin", "models", "teaching", "data", "config", "trained"},
    "bench": {"langevin", "models", "data"},
    "engine": {
        "langevin", "models", "teaching", "data", "evaluation", "config", "trained", "bench",
    },
    "tuning": {"engine", "evaluation", "data", "config", "trained"},
    "report": {"engine", "evaluation", "config"},
    "cli": ROOMS | {"config", "trained"},
    # the roots of the tree
    "errors": set(),
    "settings": set(),
    "config": {"data", "engine", "langevin", "models", "teaching"},
    "trained": {"config", "data", "langevin", "models", "engine"},
    "__init__": {"config", "trained"},
    "__main__": {"cli"},
}  # fmt: skip
"""Room → rooms and roots that it may import, besides itself and the leaves."""

CONFIGS = {"data.config", "engine.config", "teaching.config", "langevin.config", "models.build"}
"""All that the config tree takes from the rooms: the dataclasses, nothing that runs."""

ONLY_IN = {
    "ray": ("engine/ray_", "tuning/"),
    "deepspeed": ("engine/learner.py",),
    "webdataset": ("data/", "bench/reader_process.py"),
    "simplejpeg": ("data/", "bench/"),
    "imagecodecs": ("data/", "bench/"),
    "fsspec": ("data/",),
    "s3fs": ("data/", "bench/reader_process.py"),
    "omegaconf": ("config.py",),
    "optuna": ("tuning/search.py",),
    "tensorboard": ("engine/trackers.py",),
    "wandb": ("engine/trackers.py",),
    "mlflow": ("engine/trackers.py",),
    "argparse": ("cli/",),
    "rich": ("cli/", "engine/"),
    "matplotlib": ("evaluation/",),
    "jinja2": ("report/",),
}
"""Third-party package → the only files that may import it."""

TORCH_ONLY = {"langevin", "models", "teaching"}
"""Rooms of pure mathematics: the standard library and torch."""


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, at any depth of the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def own(module: str) -> str | None:
    """``vmcmc_dist.data.open.x`` → ``data``; ``None`` for a foreign module."""
    parts = module.split(".")
    if parts[0] != "vmcmc_dist" or len(parts) == 1:
        return None
    known = ROOMS | LEAVES | {"config", "trained"}
    return parts[1] if parts[1] in known else "__init__"


def edges(path: Path) -> Iterator[tuple[int, str]]:
    for line, module in imports(path):
        target = own(module)
        if target is not None:
            yield line, target


@pytest.mark.parametrize("path", files(), ids=relative)
def test_no_import_outside_the_doors(path: Path) -> None:
    here = room(path)
    assert here in OPEN, f"{relative(path)}: a new room; say in this test what it may import"
    allowed = OPEN[here] | LEAVES | {here}
    if here in ROOMS:
        allowed |= {"__init__"} if here == "cli" else set()
    wrong = [f"line {line} imports {to}" for line, to in edges(path) if to not in allowed]
    assert not wrong, f"{relative(path)} ({here}): " + "; ".join(wrong)


@pytest.mark.parametrize("path", files(), ids=relative)
def test_third_parties_stay_in_their_rooms(path: Path) -> None:
    name = relative(path)
    for line, module in imports(path):
        top = module.split(".")[0]
        if module.startswith("torch.utils.tensorboard"):
            top = "tensorboard"
        places = ONLY_IN.get(top)
        assert places is None or name.startswith(places), f"{name}:{line} imports {module}"
        if room(path) in TORCH_ONLY:
            fine = top in sys.stdlib_module_names or top in ("torch", "vmcmc_dist")
            assert fine, f"{name}:{line}: {room(path)} may import torch alone, not {module}"


def test_the_config_tree_takes_only_dataclasses() -> None:
    taken = {
        ".".join(module.split(".")[1:3])
        for _, module in imports(PACKAGE / "config.py")
        if own(module) in ROOMS
    }
    assert taken == CONFIGS


def test_config_files_import_nothing_that_runs() -> None:
    """A config dataclass can be read (for ``--help``) without Ray, DeepSpeed or data code."""
    for name in ("data/config.py", "engine/config.py", "teaching/config.py", "langevin/config.py"):
        path = PACKAGE / name
        assert {to for _, to in edges(path)} <= LEAVES, name


def test_the_walk_sees_imports_inside_functions(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("def f():\n    from vmcmc_dist.engine import launch\n    import ray.train\n")
    assert list(imports(source)) == [(2, "vmcmc_dist.engine.launch"), (3, "ray.train")]
    assert list(edges(source)) == [(2, "engine")]


def test_no_circle_between_rooms() -> None:
    """Rooms import each other in one direction only (roots, which are entrances, aside)."""
    graph: dict[str, set[str]] = {name: set() for name in ROOMS}
    for path in files():
        here = room(path)
        if here in ROOMS:
            graph[here] |= {to for _, to in edges(path) if to in ROOMS and to != here}
    order: list[str] = []
    while graph:
        free = sorted(name for name, to in graph.items() if not to & graph.keys())
        assert free, f"a circle among {sorted(graph)}"
        order += free
        graph = {name: to for name, to in graph.items() if name not in free}
    assert order.index("langevin") < order.index("teaching") < order.index("engine")
