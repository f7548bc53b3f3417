"""vmcmc classifier CONFIG [key=value…]"""

from __future__ import annotations

import argparse

from vmcmc_dist.cli.keys import add_config


def add(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "data")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from vmcmc_dist.cli.bar import training_bar
    from vmcmc_dist.config import load_config
    from vmcmc_dist.evaluation.judge import judge_folder, train_judge

    config = load_config(options.config, options.settings)
    with training_bar("classifier") as progress:
        judge = train_judge(config.data, progress)
    card = judge.card
    assert card is not None
    what = f"{card.classes} classes" if card.labels == "class" else f"{card.classes} attributes"
    print(
        f"test accuracy {card.test_accuracy:.4f} over {what} "
        f"({card.chance:.4f} by the most frequent label)  {judge_folder(config.data)}"
    )
    return 0
