"""vmcmc sample RUN"""

from __future__ import annotations

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, e.g. runs/faces")
    parser.add_argument("-n", type=int, default=64, help="samples (default 64)")
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
        " (default: RUN/samples/drawn-SEED.png)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import numpy as np

    from vmcmc_dist.errors import ConfigError, ResourceError
    from vmcmc_dist.evaluation.pictures import caption_line, save_pair_grid
    from vmcmc_dist.trained import load

    if options.n < 1 or (options.steps is not None and options.steps < 1):
        raise ConfigError("-n and --steps must be at least 1")
    model = load(
        options.run_folder,
        checkpoint=options.checkpoint,
        ema=False if options.no_ema else None,
    )
    suffix = ".png" if len(model.shape) == 3 else ".npy"
    out = options.out or Path(options.run_folder) / "samples" / f"drawn-{options.seed}{suffix}"
    if out.suffix not in (".png", ".npy") or (out.suffix == ".png" and len(model.shape) != 3):
        raise ConfigError(f"--out {out}: write a .npy" + (" or a .png" if suffix == ".png" else ""))
    refined, proposals = model.sample(
        options.n, steps=options.steps, seed=options.seed, return_proposals=True
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".npy":
            np.save(out, refined.cpu().numpy(), allow_pickle=False)
        else:
            steps = model.chain_config(options.steps).steps
            name = model.config.name
            save_pair_grid(
                out, proposals, refined, title=name, caption=caption_line(name, model.images, steps)
            )
    except OSError as error:
        raise ResourceError(f"{out} cannot be written ({error.strerror or error})") from None
    print(out)
    return 0
