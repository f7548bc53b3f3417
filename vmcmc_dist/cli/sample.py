"""vmcmc sample RUN"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from vmcmc_dist.trained import Trained


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, e.g. runs/faces")
    parser.add_argument(
        "-n", type=int, help="samples (default 64); with --condition of each (default 8)"
    )
    parser.add_argument(
        "--condition",
        metavar="WHAT",
        help="of a conditional run: classes (names or numbers with commas, or all); attributes "
        "(Smiling,Eyeglasses=0; those not named are 0); an image or a folder of images, which are "
        "cropped and resized as in preparation",
    )
    parser.add_argument(
        "--mask",
        metavar="IMAGE",
        help="inpainting: white where hidden (default: the image's transparent pixels)",
    )
    parser.add_argument(
        "--steps", type=int, help="Langevin steps (default: sampling.steps, else as in training)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of codes and chains (default 0)")
    parser.add_argument(
        "--checkpoint", default="latest", help="latest, best, or a number of images"
    )
    parser.add_argument("--no-ema", action="store_true", help="the weights as trained, unaveraged")
    parser.add_argument(
        "--out",
        type=Path,
        help="a .png: proposals beside refined samples; a .npy: refined samples, float32 in [-1, 1]"
        " (default: RUN/samples/drawn-SEED.png; of a run on S3, NAME-drawn-SEED.png here)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import numpy as np

    from vmcmc_dist.cli.condition import conditions_of
    from vmcmc_dist.data.storage.paths import is_remote
    from vmcmc_dist.errors import ConfigError, ResourceError
    from vmcmc_dist.trained import load

    if (options.n is not None and options.n < 1) or (
        options.steps is not None and options.steps < 1
    ):
        raise ConfigError("-n and --steps must be at least 1")
    model = load(
        options.run_folder,
        checkpoint=options.checkpoint,
        ema=False if options.no_ema else None,
    )
    suffix = ".png" if len(model.shape) == 3 else ".npy"
    drawn = f"drawn-{options.seed}{suffix}"
    if is_remote(options.run_folder):
        out = options.out or Path(f"{model.config.name}-{drawn}")
    else:
        out = options.out or Path(options.run_folder) / "samples" / drawn
    if out.suffix not in (".png", ".npy") or (out.suffix == ".png" and len(model.shape) != 3):
        raise ConfigError(f"--out {out}: write a .npy" + (" or a .png" if suffix == ".png" else ""))
    names, c = None, None
    if model.condition is not None or options.condition or options.mask:
        names, c = conditions_of(model, options.condition, options.mask)
        c = c.repeat_interleave(options.n or 8, 0)
    count = len(c) if c is not None else options.n or 64
    refined, proposals = model.sample(
        count, c=c, steps=options.steps, seed=options.seed, return_proposals=True
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".npy":
            np.save(out, refined.cpu().numpy(), allow_pickle=False)
        else:
            steps = model.chain_config(options.steps).steps
            _draw(out, model, steps, proposals, refined, names, c)
    except OSError as error:
        raise ResourceError(f"{out} cannot be written ({error.strerror or error})") from None
    print(out)
    return 0


def _draw(
    out: Path,
    model: Trained,
    steps: int,
    proposals: Tensor,
    refined: Tensor,
    names: list[str] | None,
    c: Tensor | None,
) -> None:
    """Proposals beside refined samples; of a conditional model one row for each condition."""
    from vmcmc_dist.evaluation.conditional_scores import shown_condition
    from vmcmc_dist.evaluation.pictures import caption_line, save_pair_grid, save_panels

    name = model.config.name
    caption = caption_line(name, model.images, steps)
    if names is None or c is None:
        save_pair_grid(out, proposals, refined, title=name, caption=caption)
        return
    each = len(c) // len(names)
    columns = None if len(names) == 1 else each
    panels = [("proposals", proposals, columns), ("refined", refined, columns)]
    if c.ndim == 4:
        given = shown_condition(model.config.condition, c[::each])
        panels = [("given", given, 1), *panels]
    caption += "\n" + ("from above: " if names[1:] else "") + ", ".join(names)
    save_panels(out, panels, title=name, caption=caption)
