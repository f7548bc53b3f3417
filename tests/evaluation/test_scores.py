"""Scores: right on Gaussians, the same over workers, monotone in harm, and clear refusals."""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import lzma
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor

from vmcmc_dist.data.scaling import to_model_range
from vmcmc_dist.errors import CheckpointError, DataError
from vmcmc_dist.evaluation import scores as module
from vmcmc_dist.evaluation.classifier_training import ClassifierConfig, train_classifier
from vmcmc_dist.evaluation.features import Features, features_of
from vmcmc_dist.evaluation.features.resnet import resnet_features
from vmcmc_dist.evaluation.kid import kernel_distance
from vmcmc_dist.evaluation.metrics import frechet_distance
from vmcmc_dist.evaluation.reference import Reference
from vmcmc_dist.evaluation.scores import Scores

DIM = 4


def pixels_net(name: str = "plain", fingerprint: str = "ab" * 32, dim: int = DIM) -> Features:
    """Features that are the image itself, logits its first three pixels."""

    def net(images: Tensor) -> tuple[Tensor, Tensor]:
        flat = images.flatten(1).float() / 16
        return flat, flat[:, :3]

    return Features(name, dim, 3, fingerprint, net, shape=(1, 1, dim))


def images(n: int, seed: int, shift: float = 0.0, dim: int = DIM) -> Tensor:
    """Correlated bytes around 100 + shift: [n, 1, 1, dim]."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(dim) + 0.5 * np.tri(dim)
    x = 100 + shift + 12 * rng.standard_normal((n, dim)) @ mixing.T
    return torch.from_numpy(x.round().clip(0, 255).astype(np.uint8)).view(n, 1, 1, dim)


def scores_of(x: Tensor, net: Features | None = None, first: int = 0) -> Scores:
    scores = Scores.empty(net or pixels_net())
    for start in range(0, len(x), 70):
        scores.add(x[start : start + 70], first=first + start)
    return scores


def real(n: int = 300, net: Features | None = None, dim: int = DIM) -> Reference:
    return Reference(scores_of(images(n, 9, dim=dim), net), "0" * 64, "train")


def test_frechet_distance_agrees_with_the_matrix_root_of_scipy():
    rng = np.random.default_rng(0)
    for dim in (2, 7, 30):
        a, b = (rng.standard_normal((dim, dim + 3)) for _ in range(2))
        cov_a, cov_b, shift = a @ a.T, b @ b.T, rng.standard_normal(dim)
        root = scipy.linalg.sqrtm(cov_a @ cov_b).real
        expected = shift @ shift + np.trace(cov_a + cov_b - 2 * root)
        zero = torch.zeros(dim).double()
        found = frechet_distance(
            zero, torch.from_numpy(cov_a), torch.from_numpy(shift), torch.from_numpy(cov_b)
        )
        assert found == pytest.approx(expected, rel=1e-8)


def test_record_holds_what_each_metric_says_of_all_features():
    x, reference = images(200, 1, shift=5), real()
    record = scores_of(x).record(reference)
    phi, phi_real = (t.flatten(1).double() / 16 for t in (x, images(300, 9)))
    root = scipy.linalg.sqrtm(phi.T.cov().numpy() @ phi_real.T.cov().numpy()).real
    shift = phi.mean(0) - phi_real.mean(0)
    expected = shift @ shift + phi.T.cov().trace() + phi_real.T.cov().trace() - 2 * np.trace(root)
    assert record["fd_plain"] == pytest.approx(expected.item(), rel=1e-8)
    p = phi[:, :3].softmax(1)
    kl = (p * (p.log() - p.mean(0).log())).sum(1).mean()
    assert record["is_plain"] == pytest.approx(math.exp(kl), rel=1e-6)
    kid, spread = kernel_distance(phi, phi_real, size=200)
    assert record["kid_plain"] == pytest.approx(kid, abs=4 * spread + 1e-12)
    assert {k: record[k] for k in ("n", "reference_n", "manifold_n", "biased")} == {
        "n": 200, "reference_n": 300, "manifold_n": 200, "biased": True,
    }  # fmt: skip
    assert all(math.isfinite(value) for value in record.values())


def test_workers_give_what_one_gives(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 90)
    x, reference = images(211, 1, shift=5), real()
    whole = scores_of(x)
    parts = [scores_of(x[a:b], first=a) for a, b in ((0, 20), (20, 150), (150, 211))]
    for dealt in (parts[0] + parts[1] + parts[2], parts[2] + (parts[1] + parts[0])):
        assert torch.equal(dealt.keys, whole.keys) and torch.equal(dealt.sample, whole.sample)
        assert len(dealt.sample) == 90
        assert dealt.record(reference) == pytest.approx(whole.record(reference), rel=1e-9)


def test_the_sample_is_a_random_subset():
    kept = module._hash(0, 100_000).argsort()[:5000].double() / 100_000
    assert abs(kept.mean() - 0.5) < 4 / math.sqrt(12 * 5000)
    assert abs(kept.var() - 1 / 12) < 0.01
    assert len(module._hash(0, 100_000).unique()) == 100_000
    assert torch.equal(module._hash(7, 5), module._hash(0, 12)[7:])


def test_stored_scores_come_back():
    scores = scores_of(images(80, 3))
    state = scores.state_dict()
    again = Scores.from_state(pixels_net(), state)
    assert again.record(real()) == scores.record(real()) and again.n == 80
    with pytest.raises(CheckpointError, match="two different nets"):
        Scores.from_state(pixels_net(fingerprint="cd" * 32), state)
    del state["outer"]
    with pytest.raises(CheckpointError, match="lack 'outer'"):
        Scores.from_state(pixels_net(), state)


def test_too_few_samples_say_what_is_needed():
    with pytest.raises(DataError, match="at least 8 samples, got 7"):
        scores_of(images(7, 1)).record(real())
    with pytest.raises(DataError, match="at least 8 reference images, got 6"):
        scores_of(images(9, 1)).record(real(6))


def test_scores_of_another_net_are_refused():
    other = pixels_net(fingerprint="cd" * 32)
    with pytest.raises(CheckpointError, match="two different nets"):
        scores_of(images(20, 1), other).record(real())
    with pytest.raises(CheckpointError, match="two different nets"):
        scores_of(images(20, 1), other) + scores_of(images(20, 1))


def test_fid_is_the_published_number_alone(monkeypatch):
    monkeypatch.setattr(module, "PUBLISHED", 200)
    net = pixels_net("inception")
    train, valid = real(300, net), dataclasses.replace(real(300, net), split="valid")

    def name(n: int, reference: Reference) -> str:
        record = scores_of(images(n, 1), net).record(reference)
        assert record["biased"] == (n < 200)
        return next(key for key in record if key.startswith(("fid", "fd_")))

    assert name(200, train) == "fid"
    assert name(200, valid) == "fd_inception_200"
    assert name(100, train) == "fd_inception_100"
    assert module._thousands(10_000) == "10k"
    assert "fd_plain" in scores_of(images(200, 1)).record(real())


def damaged(x: Tensor, how: str, amount: float) -> Tensor:
    """uint8 images under Gaussian noise or blur."""
    x = to_model_range(x)
    if amount == 0:
        return x
    if how == "noise":
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        return x + amount * noise
    t = torch.arange(-6, 7).float()
    kernel = torch.exp(-(t**2) / (2 * (5 * amount) ** 2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 13)
    rows = F.conv2d(F.pad(x, (6, 6, 0, 0), "replicate"), kernel[:, :, None], groups=x.shape[1])
    return F.conv2d(F.pad(rows, (0, 0, 6, 6), "replicate"), kernel[..., None], groups=x.shape[1])


def grows(net: Features, train: Tensor, held_out: Tensor) -> None:
    reference = Reference(scores_of(train, net), "0" * 64, "train")
    for how in ("noise", "blur"):
        records = [
            scores_of(damaged(held_out, how, amount), net).record(reference)
            for amount in (0, 0.15, 0.3, 0.6)
        ]
        for metric, sign in (("fd", 1), ("kid", 1), ("coverage", -1)):
            values = [sign * record[f"{metric}_{net.name}"] for record in records]
            assert values == sorted(values), (how, metric, values)
            assert values[-1] > values[0]


def fashion(folder: Path, part: str, n: int) -> tuple[Tensor, Tensor]:
    def read(kind: str, skip: int) -> np.ndarray:
        with gzip.open(folder / f"{part}-{kind}-ubyte.gz") as file:
            return np.frombuffer(file.read(skip + n * (784 if skip == 16 else 1))[skip:], np.uint8)

    x = read("images-idx3", 16).reshape(n, 1, 28, 28)
    return torch.from_numpy(x.copy()), torch.from_numpy(read("labels-idx1", 8).astype(np.int64))


def test_distances_grow_with_harm_to_fashion_mnist(shared_data):
    x, y = fashion(shared_data / "fashion_mnist", "train", 1200)
    test = fashion(shared_data / "fashion_mnist", "t10k", 200)
    config = ClassifierConfig(width=8, feature_dim=16, epochs=4, batch_size=32)
    grows(features_of(train_classifier(x, y, *test, config)), x, test[0])


def cifar_test(folder: Path, n: int = 10_000) -> tuple[Tensor, Tensor]:
    """CIFAR-10's first n test images and labels, by the decoder that lies beside them."""
    spec = importlib.util.spec_from_file_location("decode", folder / "decode_cifar10.py")
    decode = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(decode)
    planes, size = [], 1024 * decode.N
    with lzma.open(folder / "cifar10-lossless.xz") as file:
        for plane in range(3):
            file.seek(plane * size + 1024 * decode.N_TRAIN)
            raw = np.frombuffer(file.read(1024 * n), np.uint8).reshape(-1, 32, 32)
            raw = raw.astype(np.int16)
            planes.append(decode._unpredict((raw >> 1) ^ -(raw & 1)))
    green = planes[0] + 128
    x = np.stack([planes[1] + green, green, planes[2] + green], 1).astype(np.uint8)
    labels = np.fromfile(folder / "labels.bin", np.uint8)[decode.N_TRAIN :][:n]
    return torch.from_numpy(x), torch.from_numpy(labels.astype(np.int64))


def cifar_net(shared_data: Path, depth: int) -> Features:
    file = {20: "cifar10_resnet20-12fca82f.th", 56: "cifar10_resnet56-4bfd9763.th"}[depth]
    return resnet_features(depth, weights=shared_data / "weights" / file)


def test_resnet56_classifies_cifar10_and_its_distance_grows_with_noise(shared_data):
    net = cifar_net(shared_data, 56)
    x, y = cifar_test(shared_data / "cifar10", 500)
    phi, logits = net(x)
    assert (logits.argmax(1) == y).double().mean() >= 0.91
    reference = Scores.empty(net)
    reference.add_features(phi[:360], logits[:360])
    clean = Scores.empty(net)
    clean.add_features(phi[360:], logits[360:])
    harmed = [scores_of(damaged(x[360:], "noise", amount), net) for amount in (0.2, 0.6)]
    real = Reference(reference, "0" * 64, "test")
    distances = [found.record(real)["fd_resnet56"] for found in (clean, *harmed)]
    assert distances == sorted(distances)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("depth", "least"), [(20, 0.915), (56, 0.93)])
def test_resnets_on_all_test_images(shared_data, depth, least):
    x, y = cifar_test(shared_data / "cifar10")
    assert (cifar_net(shared_data, depth)(x)[1].argmax(1) == y).double().mean() >= least


@pytest.mark.slow
def test_resnet56_distances_grow_with_harm(shared_data):
    x, _ = cifar_test(shared_data / "cifar10", 3000)
    grows(cifar_net(shared_data, 56), x[:2000], x[2000:])
