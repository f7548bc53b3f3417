"""Nets by name: which one `auto` takes, where weights come from, and what is refused."""

from __future__ import annotations

import hashlib
import http.server
import io
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vmcmc_dist.data import DataConfig
from vmcmc_dist.errors import CheckpointError, ConfigError, DataError, ResourceError
from vmcmc_dist.evaluation.classifier_training import ClassifierConfig, train_classifier
from vmcmc_dist.evaluation.features import features_for, features_of, inception, resnet, weights
from vmcmc_dist.evaluation.features.weights import Published, fetch
from vmcmc_dist.evaluation.judge import judge_folder

CLOSED = "http://127.0.0.1:9/"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VMCMC_CACHE", str(tmp_path / "cache"))


def cifar(root: Path, n: int = 60) -> DataConfig:
    """CIFAR-10's binary layout with noise in it."""
    rng = np.random.default_rng(0)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = rng.integers(0, 256, (n, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(root / name)
    return DataConfig(source="cifar10", root=str(root), prepare_workers=1, workers=0)


def shades(root: Path, labels: np.ndarray | None, n: int = 80) -> DataConfig:
    """Arrays 16×16, dark and bright in turn."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        bright = np.arange(n) % 2
        images = 60 + 120 * bright[:, None, None, None] + rng.integers(0, 50, (n, 16, 16, 1))
        np.save(root / f"{split}.npy", images.astype(np.uint8))
        if labels is not None:
            np.save(root / f"{split}_labels.npy", labels)
    return DataConfig(source="arrays", root=str(root), prepare_workers=1, workers=0)


@pytest.fixture(scope="module")
def judge():
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = labels.view(-1, 1, 1, 1) * 150 + torch.randint(0, 90, (64, 1, 16, 16), generator=rng)
    images = images.clamp(0, 255).byte()
    config = ClassifierConfig(width=4, feature_dim=6, epochs=1, batch_size=16)
    return features_of(train_classifier(images, labels, images, labels, config))


def test_floats_are_judged_as_they_would_be_saved(judge):
    rng = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (9, 1, 16, 16), generator=rng, dtype=torch.uint8)
    floats = pixels.float() / 127.5 - 1
    wanted = judge(pixels)
    for images in (floats, floats + 0.003, floats.masked_fill(pixels == 255, 7.0)):
        for found, expected in zip(judge(images), wanted, strict=True):
            torch.testing.assert_close(found, expected)
    assert wanted[0].shape == (9, 6) and wanted[1].shape == (9, 2)
    assert wanted[0].dtype == torch.float32


def test_batches_do_not_matter(judge):
    import dataclasses

    images = torch.rand(10, 1, 16, 16) * 2 - 1
    small = dataclasses.replace(judge, batch_size=3)
    torch.testing.assert_close(small(images)[0], judge(images)[0])


def test_images_that_cannot_be_judged(judge):
    with pytest.raises(DataError, match=r"shape \[1, 16, 16\], got \[3, 16, 16\]"):
        judge(torch.zeros(2, 3, 16, 16))
    with pytest.raises(DataError, match="not finite"):
        judge(torch.full((2, 1, 16, 16), torch.nan))
    with pytest.raises(DataError, match="reads images"):
        judge(torch.zeros(0, 1, 16, 16))


def test_auto_on_cifar10_says_how_to_get_the_weights(tmp_path, monkeypatch):
    data = cifar(tmp_path)
    gone = Published("resnet56-4bfd9763.th", CLOSED, resnet.WEIGHTS[56].sha256)
    monkeypatch.setitem(resnet.WEIGHTS, 56, gone)
    with pytest.raises(ResourceError, match="cannot be downloaded") as refused:
        features_for(data)
    for part in (CLOSED, str(gone.cached), "features=classifier or inception"):
        assert part in str(refused.value)


def test_auto_on_labelled_data_trains_a_classifier_once(tmp_path, monkeypatch):
    monkeypatch.setattr("vmcmc_dist.evaluation.judge.MIN_UPDATES", 4)
    data, updates = shades(tmp_path, np.arange(80) % 2), []
    first = features_for(data, progress=lambda *step: updates.append(step))
    assert (first.name, first.classes, first.labels) == ("classifier", 2, "class")
    assert updates and judge_folder(data).is_dir()
    count = len(updates)
    again = features_for(data, progress=lambda *step: updates.append(step))
    assert len(updates) == count and again.fingerprint == first.fingerprint
    by_path = features_for(data, "classifier", weights=judge_folder(data))
    assert by_path.fingerprint == first.fingerprint
    smaller = features_for(DataConfig(**{**vars(data), "limit": 40}), "classifier")
    assert smaller.fingerprint == first.fingerprint  # the judge has seen the whole split


def test_data_that_no_classifier_can_learn(tmp_path):
    data = shades(tmp_path, None)
    with pytest.raises(DataError, match="no labels.*features=inception"):
        features_for(data, "classifier")
    (tmp_path / "same").mkdir()
    with pytest.raises(DataError, match="the same label"):
        features_for(shades(tmp_path / "same", np.zeros(80, dtype=np.int64)), "classifier")


def test_names_and_points_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no features 'vgg'; there are auto, resnet56"):
        features_for(cifar(tmp_path), "vgg")
    with pytest.raises(ConfigError, match="no features"):
        features_for(DataConfig(source="toy2d"))


def test_a_missing_extra_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    data = shades(tmp_path, None)
    for name in ("inception", "auto"):
        with pytest.raises(ConfigError, match=r"pip install 'vmcmc_dist\[fid\]'$"):
            features_for(data, name)  # no labels, so no classifier is offered instead


class SmallInception(nn.Module):
    """What the library's class does at this door, with one layer."""

    def __init__(self, name, features_list, feature_extractor_weights_path):
        super().__init__()
        assert features_list == ["2048", "logits_unbiased"]
        self.mix = nn.Linear(3, 2048)
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        features = self.mix(x.float().mean((2, 3)))
        return features, features[:, :1008]


@pytest.fixture
def small_inception(tmp_path, monkeypatch) -> Path:
    """A weights file that stands in for the published one."""
    module = types.ModuleType("torch_fidelity")
    module.FeatureExtractorInceptionV3 = SmallInception  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)
    path = tmp_path / "stand-in.pth"
    torch.save(nn.Linear(3, 2048).state_dict(), path)
    state = {f"mix.{k}": v for k, v in torch.load(path, weights_only=True).items()}
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "WEIGHTS", Published("stand-in.pth", CLOSED, digest))
    return path


def test_inception_reads_grey_and_colour_of_any_size(tmp_path, small_inception):
    features = features_for(shades(tmp_path, None), weights=small_inception)
    assert (features.name, features.dim, features.classes) == ("inception", 2048, 1008)
    grey = torch.randint(0, 256, (3, 1, 20, 20), dtype=torch.uint8)
    phi, logits = features(grey)
    assert phi.shape == (3, 2048) and logits.shape == (3, 1008)
    torch.testing.assert_close(features(grey.expand(-1, 3, -1, -1).float() / 127.5 - 1)[0], phi)


class Harm:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_other_weights_are_never_opened(tmp_path, small_inception):
    data, marker = shades(tmp_path, None), tmp_path / "harmed"
    torch.save({"mix.weight": Harm(marker)}, small_inception)
    with pytest.raises(CheckpointError, match="is not stand-in.pth: sha256"):
        features_for(data, "inception", weights=small_inception)
    cached = inception.WEIGHTS.cached
    cached.parent.mkdir(parents=True)
    cached.write_bytes(small_inception.read_bytes())
    with pytest.raises(CheckpointError, match=f"{cached}.*expected"):
        features_for(data, "inception")
    with pytest.raises(ConfigError, match="no such file"):
        features_for(data, "inception", weights=tmp_path / "none.pth")
    assert not marker.exists()


def test_even_checked_weights_are_tensors_alone(tmp_path, small_inception, monkeypatch):
    marker = tmp_path / "harmed"
    torch.save({"mix.weight": Harm(marker)}, small_inception)
    digest = hashlib.sha256(small_inception.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "WEIGHTS", Published("stand-in.pth", CLOSED, digest))
    with pytest.raises(Exception, match="[Ww]eights.only"):
        features_for(shades(tmp_path, None), "inception", weights=small_inception)
    assert not marker.exists()


@pytest.fixture
def server():
    """Serves ``answers[path]`` and counts the requests."""
    answers: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path in answers else 404)
            self.end_headers()
            self.wfile.write(answers.get(self.path, b""))

        def log_message(self, *args):
            pass

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http_server.server_port}", answers, asked
    http_server.shutdown()
    http_server.server_close()


def test_weights_are_downloaded_once_and_checked(server):
    url, answers, asked = server
    answers["/good"] = answers["/bad"] = b"weights"
    digest = hashlib.sha256(b"weights").hexdigest()
    good = Published("good.th", f"{url}/good", digest)
    assert fetch(good).read_bytes() == b"weights" and fetch(good) == good.cached
    assert asked == ["/good"]
    for published, error in (
        (Published("bad.th", f"{url}/bad", "0" * 64), CheckpointError),
        (Published("none.th", f"{url}/none", digest), ResourceError),
    ):
        with pytest.raises(error, match=f"put it at {published.cached}"):
            fetch(published)
    assert [path.name for path in good.cached.parent.iterdir()] == ["good.th"]


def test_a_cache_that_cannot_be_written_is_said(server, tmp_path, monkeypatch):
    url, answers, _ = server
    answers["/good"] = b"weights"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VMCMC_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="cannot be downloaded"):
        fetch(Published("good.th", f"{url}/good", hashlib.sha256(b"weights").hexdigest()))


def test_a_torn_resnet_is_named(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    torch.save({"state_dict": {"module.conv1.weight": torch.zeros(1)}}, buffer)
    path = tmp_path / "w.th"
    path.write_bytes(buffer.getvalue())
    digest = weights._sha256(path)
    monkeypatch.setitem(resnet.WEIGHTS, 56, Published("w.th", CLOSED, digest))
    with pytest.raises(CheckpointError, match="does not fit a ResNet-56"):
        resnet.resnet_features(56, weights=path)
