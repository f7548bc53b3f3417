"""Synthesis: chunks that add up, files that can be read again, numbers under their right names."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from vmcmc_dist.config import load_config
from vmcmc_dist.data import DataConfig
from vmcmc_dist.data.scaling import to_pixels
from vmcmc_dist.errors import ConfigError, DataError
from vmcmc_dist.evaluation.classifier import ClassifierCard, ImageClassifier
from vmcmc_dist.evaluation.features import features_for
from vmcmc_dist.evaluation.judge import judge_folder, whole
from vmcmc_dist.evaluation.real import held_out, real_images
from vmcmc_dist.evaluation.reference import reference_for
from vmcmc_dist.evaluation.scores import Scores
from vmcmc_dist.evaluation.tasks import synthesis
from vmcmc_dist.langevin import stream_seed
from vmcmc_dist.models import Condition, build_energy, build_vae
from vmcmc_dist.trained import Trained


@pytest.fixture
def model(small_model) -> Trained:
    """With a judge of random weights in the cache: 4 features, so that 8 samples are enough."""
    model = small_model()
    put_judge(model.config.data)
    return model


def put_judge(data: DataConfig) -> None:
    if judge_folder(data).exists():
        return
    torch.manual_seed(0)
    judge = ImageClassifier([1, 28, 28], 4, 4, 4).eval()
    checksum = whole(data).checksum
    sha256 = hashlib.sha256(judge.weights()).hexdigest()
    judge.card = ClassifierCard(4, [1, 28, 28], 4, 4, 0.5, 120, 200, checksum, 0, sha256)
    judge.save(judge_folder(data))


def drawn(model: Trained, count: int, k: int, seed: int = 0, c=None):
    seed = stream_seed(seed, "synthesis", k)
    return model.sample(count, c=c, seed=seed, return_proposals=True)


def test_figures_are_those_of_all_samples_together(model, job_of):
    job = job_of(model, "synthesis", n=40, batch_size=16)
    result = synthesis.run(job)
    net = features_for(model.config.data)
    reference = reference_for(model.config.data, net)
    refined, proposals = zip(*(drawn(model, b, k) for k, b in enumerate((16, 16, 8))), strict=True)
    real = real_images(model.config.data, "held out", limit=40).images
    everything = {"refined": torch.cat(refined), "proposals": torch.cat(proposals), "real": real}
    for what, images in everything.items():
        scores = Scores.empty(net)
        scores.add(images)
        for name, value in scores.record(reference).items():
            if name not in ("n", "reference_n", "manifold_n", "biased"):
                assert result.figures[f"{name}_{what}"] == pytest.approx(value, rel=1e-5), name
        assert result.figures[f"class_shares_{what}"] == scores.predictions.class_shares()
    assert result.figures["n"] == result.figures["n_real"] == 40
    assert result.figures["reference_n"] == 200 and result.figures["features"] == "classifier"
    assert "biased" in result.note and "not FID" in result.note and result.figures["biased"]
    assert not any("fid" in name for name in result.figures)
    with Image.open(result.pictures[0]) as picture:
        assert picture.width > 2 * 6 * 28


def test_chain_length_temperature_and_seed_reach_the_samples(model, job_of):
    def figure(**settings):
        job = job_of(model, "synthesis", n=16, features="classifier", **settings)
        return synthesis.run(job).figures

    plain = figure()
    assert figure() == plain
    for change in ({"steps": 9}, {"temperature": 50.0}):
        other = figure(**change)
        assert other["fd_classifier_refined"] != plain["fd_classifier_refined"]
        assert other["fd_classifier_proposals"] == plain["fd_classifier_proposals"]
    assert figure(seed=1)["fd_classifier_proposals"] != plain["fd_classifier_proposals"]


def test_shares_of_workers_are_found_and_put_together(model, job_of, monkeypatch):
    alone = synthesis.run(job_of(model, "synthesis", n=20, batch_size=6))
    job = job_of(model, "synthesis", n=20, batch_size=6)
    made: list[int] = []
    make = synthesis.Chunks.make
    monkeypatch.setattr(synthesis.Chunks, "make", lambda s, k: made.append(k) or make(s, k))
    synthesis.share(job, 1, 2)
    synthesis.share(job, 0, 2)
    assert made == [1, 3, 0, 2]
    assert synthesis.run(job).figures == alone.figures and len(made) == 4


def test_too_few_samples_are_refused_before_any_is_drawn(model, job_of, monkeypatch):
    monkeypatch.setattr(model, "sample", lambda *_, **__: pytest.fail("drawn"))
    with pytest.raises(DataError, match="at least 8 samples, got 7"):
        synthesis.share(job_of(model, "synthesis", n=7))


def test_a_large_n_is_not_marked(model, job_of, monkeypatch):
    monkeypatch.setattr(synthesis, "PUBLISHED", 16)
    assert "biased" not in synthesis.run(job_of(model, "synthesis", n=16)).note


def test_a_folder_of_pngs(model, job_of):
    job = job_of(model, "synthesis", n=10, batch_size=4, features="none", out="folder")
    job.folder = job.folder / "evaluation" / "synthesis"
    job.folder.mkdir(parents=True)
    result = synthesis.run(job)
    folder = job.folder.parent.parent / result.figures["files"]
    files = sorted(folder.iterdir())
    assert [f.name for f in files] == [f"{i:09d}.png" for i in range(10)]
    expected = to_pixels(torch.cat([drawn(model, b, k)[0] for k, b in enumerate((4, 4, 2))]))
    for file, pixels in zip(files, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), pixels[0])
    assert set(result.figures) == {"n", "files"}


def test_shards_are_a_data_set_with_the_asked_classes(small_model, job_of):
    model = small_model("condition.kind=class", condition=Condition("class", 4))
    model.label_names = ("a", "b", "c", "d")
    job = job_of(model, "synthesis", n=130, batch_size=50, features="none", out="shards")
    job.folder = job.folder / "evaluation" / "synthesis"
    job.folder.mkdir(parents=True)
    result = synthesis.run(job)
    folder = job.folder.parent.parent / result.figures["files"]
    again = real_images(DataConfig(source="shards", root=str(folder), workers=0), "train")
    asked = held_out(model, 130)[1]
    asked = torch.cat([asked, asked])[:130]  # 120 held-out images have one each
    c = asked.split(50)
    expected = torch.cat([drawn(model, len(c[k]), k, c=c[k])[0] for k in range(3)])
    assert torch.equal(again.images, to_pixels(expected))
    assert torch.equal(again.labels, asked) and again.label_info.names == model.label_names


def test_points_of_the_plane_get_a_picture_and_a_file(job_of):
    config = load_config(
        None,
        ["data.source=toy2d", "energy.net=mlp", "vae.net=mlp", "vae.latent_dim=2",
         "langevin.steps=2", "train.precision=fp32"],
    )  # fmt: skip
    torch.manual_seed(0)
    nets = build_energy(config.energy, (2,)), build_vae(config.vae, (2,))
    plane = Trained(config, (2,), *nets, images=640)
    job = job_of(plane, "synthesis", n=30, batch_size=20)
    result = synthesis.run(job)
    saved = np.load(job.folder / "samples-000000640-refined.npy", allow_pickle=False)
    assert np.array_equal(saved, torch.cat([drawn(plane, b, k)[0] for k, b in ((0, 20), (1, 10))]))
    assert result.figures == {"n": 30} and result.pictures[0].is_file()
    with pytest.raises(ConfigError, match="vectors are always kept"):
        synthesis.run(job_of(plane, "synthesis", n=30, out="folder"))
    with pytest.raises(ConfigError, match="distances are for images"):
        synthesis.run(job_of(plane, "synthesis", n=30, features="classifier"))
