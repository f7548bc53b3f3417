"""Run as each of two workers by the test: what goes over the network in a chain, and outside.

    RANK=0 WORLD_SIZE=2 … python chain_traffic.py FOLDER STAGES [--chatty]

The real worker's loop at these ZeRO stages (0123), under torch's profiler, which sees every
collective; FOLDER/traffic-RANK.json: for each stage, collectives during chains, others, chains.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

from vmcmc_dist.config import load_config
from vmcmc_dist.data.open import ensure_prepared
from vmcmc_dist.engine.context import Restart, WorkerContext
from vmcmc_dist.engine.resources import resolve
from vmcmc_dist.engine.run_folder import RunFolder
from vmcmc_dist.engine.trainer import Trainer
from vmcmc_dist.langevin import run_chain
from vmcmc_dist.teaching import step

ITERATIONS = 3


def marked_chain(*args, **kwargs):
    with record_function("the chain"):
        return run_chain(*args, **kwargs)


def traffic(folder: Path, stage: int) -> dict[str, int]:
    config = resolve(
        load_config(
            None,
            [
                f"name=stage{stage}", f"out={folder}", "data.source=toy2d",
                "energy.net=mlp", "energy.width=16", f"energy.zero_stage={stage}",
                "vae.net=mlp", "vae.width=16", "vae.latent_dim=2", f"vae.zero_stage={stage}",
                "langevin.steps=10", "train.batch_size=16", "train.precision=fp32",
                "watch.tensorboard=false", "resources.device=cpu", "launcher=torchrun",
            ],
        )
    )  # fmt: skip
    RunFolder(folder / f"stage{stage}").create()
    context = WorkerContext(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    trainer = Trainer(config, context, ensure_prepared(config.data), Restart())
    trainer.iterate()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(ITERATIONS):
            trainer.iterate()
    trainer.close()
    chains = [e.time_range for e in seen.events() if e.name == "the chain"]
    sent = [e.time_range for e in seen.events() if e.name.startswith(("gloo:", "c10d::"))]
    during = sum(any(s.start < c.end and c.start < s.end for c in chains) for s in sent)
    return {"during": during, "outside": len(sent) - during, "chains": len(chains)}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    if sys.argv[3:] == ["--chatty"]:  # to see that the count sees: a chain that does communicate

        def run_chain(*args, **kwargs):
            dist.all_reduce(torch.zeros(1))
            return step_run_chain(*args, **kwargs)

        step_run_chain = step.run_chain
    step.run_chain = marked_chain
    found = {stage: traffic(Path(sys.argv[1]), stage) for stage in map(int, sys.argv[2])}
    path = Path(sys.argv[1]) / f"traffic-{dist.get_rank()}.json"
    path.write_text(json.dumps(found))
