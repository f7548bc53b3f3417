"""The out-of-distribution task with an energy whose ranking is known."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from vmcmc_dist.config import to_dict
from vmcmc_dist.engine.checkpoint import Checkpoint, CheckpointFolder
from vmcmc_dist.errors import CheckpointError, ConfigError
from vmcmc_dist.evaluation.job import Job
from vmcmc_dist.evaluation.tasks import ood
from vmcmc_dist.models import Condition

SETS = [
    "training", "uniform", "gaussian", "shuffled", "constant", "upside_down", "rotated", "inverted",
]  # fmt: skip


class Brightness(nn.Module):
    """U = mean pixel: dark images are the likely ones."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).mean(1)


def test_an_energy_of_brightness_ranks_as_it_must(small_model, job_of) -> None:
    model = small_model()
    model.energy_net = Brightness()
    result = ood.run(job_of(model, "ood", n=40, batch_size=16))
    figures = result.figures
    assert figures["n"] == 40 and figures["sets"] == SETS[1:]
    for name in ("uniform", "inverted"):  # brighter than any disc on black
        for kind in ("auroc", "aupr_in", "aupr_out"):
            assert figures[f"{kind}_energy_{name}"] == 1.0
        assert figures[f"auroc_typicality_{name}"] == 1.0
    for name in ("shuffled", "upside_down", "rotated"):  # the same pixels elsewhere
        assert figures[f"auroc_energy_{name}"] == pytest.approx(0.5, abs=0.01)
    json.dumps(figures, allow_nan=False)
    assert [path.name for path in result.pictures] == ["sets.png", "ood.png", "table.png"]
    assert all(path.stat().st_size > 5000 for path in result.pictures)


def test_high_scores_are_of_the_data_for_every_kind() -> None:
    """In: U about 0, bound about 0. Out: U far above and below, bound lower."""
    inside = {"energy": torch.linspace(-1, 1, 50), "elbo": torch.zeros(50)}
    outside = {"energy": torch.tensor([-9.0, 9.0]), "elbo": torch.full((2,), -3.0)}
    figures = ood.judge({"held_out": inside, "training": inside, "far": outside})
    assert figures["auroc_energy_far"] == 0.5
    assert figures["auroc_typicality_far"] == 1.0
    assert figures["auroc_elbo_far"] == figures["aupr_out_elbo_far"] == 1.0
    assert figures["auroc_elbo_training"] == 0.5


def test_parts_are_kept_until_the_end(small_model, job_of) -> None:
    job = job_of(small_model(), "ood", n=10, batch_size=10)
    whole = ood.run(job).figures
    assert len(list(job.parts.iterdir())) == len(SETS) + 1

    def refuse(*_: object) -> None:
        raise AssertionError("scored again")

    job.progress = refuse
    assert ood.run(job).figures == whole


def test_all_checkpoints_of_a_run(small_model, tmp_path) -> None:
    model = small_model("sampling.ema=false")
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints", keep=9)
    for images, shift in ((320, 0.1), (640, 0.0)):
        nets = {
            "energy": {k: v + shift for k, v in model.energy_net.state_dict().items()},
            "vae": model.vae.state_dict(),
        }
        state = {"shape": [1, 28, 28]}
        folder.save(Checkpoint(images, to_dict(model.config), state, nets))
    task = tmp_path / "run" / "evaluation" / "ood"
    task.mkdir(parents=True)
    settings = ood.Settings(n=8, batch_size=8, checkpoints="all")
    result = ood.run(Job(model, task, settings, {"ema": False}))
    figures = result.figures
    assert figures["checkpoints"] == [320, 640]
    for name in SETS:
        early, late = figures[f"auroc_energy_{name}_by_checkpoint"]
        assert late == figures[f"auroc_energy_{name}"]
    assert any(len(set(v)) == 2 for k, v in figures.items() if k.endswith("_by_checkpoint"))
    assert result.pictures[-1].name == "checkpoints.png"


def test_what_cannot_be_done_is_refused(small_model, job_of, blob_data) -> None:
    with pytest.raises(CheckpointError, match="run's folder"):
        ood.run(job_of(small_model(), "ood", n=4, checkpoints="all"))
    twice = [f"arrays:{blob_data}"] * 2
    with pytest.raises(ConfigError, match="two sets are called 'arrays'"):
        ood.run(job_of(small_model(), "ood", n=4, data=twice))
    model = small_model("condition.kind=class", condition=Condition("class", 4))
    assert "condition" in (ood.fits(model) or "")
    model = small_model()
    assert ood.fits(model) is None
    model.shape = (2,)
    assert "vectors" in (ood.fits(model) or "")
