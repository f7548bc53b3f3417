"""Reconstruction: the figures are those of the images, and of held-out ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.evaluation.quality import mse, psnr, ssim
from vmcmc_dist.evaluation.tasks import reconstruction as task
from vmcmc_dist.models import Condition


def test_figures_are_of_the_held_out_images(small_model, job_of, blob_data) -> None:
    model = small_model()
    result = task.run(job_of(model, "reconstruction", n=500, batch_size=50))
    images = np.load(blob_data / "test.npy")
    x = to_model_range(torch.from_numpy(images).permute(0, 3, 1, 2))
    decoded = model.decode(model.encode(x)[0])
    assert result.figures["n"] == 120
    for name, measure in (("mse", mse), ("psnr", psnr), ("ssim", ssim)):
        expected = measure(decoded, x).mean().item()
        assert result.figures[f"{name}_decoded"] == pytest.approx(expected, rel=1e-4)
    assert result.figures["energy_original"] == pytest.approx(
        model.energy(x).mean().item(), rel=1e-4
    )
    assert result.figures["energy_refined"] != result.figures["energy_decoded"]
    gain = result.figures["psnr_refined"] - result.figures["psnr_decoded"]
    assert result.figures["psnr_gain"] == pytest.approx(gain)
    assert json.loads(json.dumps(result.figures)) == result.figures
    with Image.open(result.pictures[0]) as picture:
        assert picture.height > 10 * 84


def test_a_perfect_autoencoder_has_a_perfect_score(small_model, job_of, monkeypatch) -> None:
    """Decoding gives the image back; the chain takes it away from there."""
    model = small_model("langevin.step_size=1")
    kept = {}
    monkeypatch.setattr(model, "encode", lambda x, c=None: (kept.update(x=x) or x, x))
    monkeypatch.setattr(model, "decode", lambda z, c=None: kept["x"])
    figures = task.run(job_of(model, "reconstruction", n=8, steps=2, temperature=1)).figures
    assert figures["mse_decoded"] == 0 and figures["ssim_decoded"] == pytest.approx(1)
    assert figures["psnr_decoded"] == pytest.approx(58.92, abs=0.01)
    assert figures["psnr_refined"] < 20


def test_an_interrupted_task_goes_on(small_model, job_of, monkeypatch) -> None:
    job = job_of(small_model(), "reconstruction", n=9, batch_size=3)
    whole = task.run(job).figures
    job.drop_parts()
    real, calls = task.pass_through, []

    def killed_later(*arguments):
        calls.append(arguments[-1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(task, "pass_through", killed_later)
    with pytest.raises(KeyboardInterrupt):
        task.run(job)
    assert task.run(job).figures == whole and calls == [0, 3, 6, 6]


def test_conditional_models_are_told_the_label(small_model, job_of) -> None:
    model = small_model("condition.kind=class", condition=Condition("class", 4))
    told = []
    real = model.encode
    model.encode = lambda x, c=None: (told.append(c), real(x, c))[1]
    task.run(job_of(model, "reconstruction", n=6))
    assert told[0].dtype == torch.int64 and told[0].shape == (6,)
