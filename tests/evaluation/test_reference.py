"""Reference statistics: made once, found again, and nothing stale, foreign or torn is used."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vmcmc_dist.data import DataConfig
from vmcmc_dist.errors import CheckpointError, ResourceError
from vmcmc_dist.evaluation.features import Features
from vmcmc_dist.evaluation.reference import Reference, reference_for, reference_path


@pytest.fixture
def data(tmp_path, monkeypatch) -> DataConfig:
    monkeypatch.setenv("VMCMC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "raw").mkdir()
    return changed_data(tmp_path / "raw", 0)


def changed_data(root: Path, seed: int) -> DataConfig:
    images = np.random.default_rng(seed).integers(0, 256, (60, 16, 16, 1), dtype=np.uint8)
    np.save(root / "train.npy", images)
    return DataConfig(source="arrays", root=str(root), prepare_workers=1, workers=0)


class Net:
    """Mean brightness of the quarters; counts the images that it saw."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, pixels: torch.Tensor):
        self.seen += len(pixels)
        return pixels.float().unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5)).flatten(1), None


def quarters(fingerprint: str = "ab" * 32) -> tuple[Features, Net]:
    net = Net()
    return Features("quarters", 4, None, fingerprint, net, shape=(1, 16, 16), labels=None), net


def same(one: Reference, other: Reference) -> bool:
    pairs = zip(one.scores.state_dict().items(), other.scores.state_dict().items(), strict=True)
    return one.data_checksum == other.data_checksum and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs
    )


def test_made_once_and_found_again(data):
    features, net = quarters()
    steps = []
    first = reference_for(data, features, lambda *step: steps.append(step), batch_size=25)
    assert (first.n, net.seen, first.split, first.whole_training_split) == (60, 60, "train", True)
    assert [done for _, done, _ in steps] == [25, 50, 60] and steps[0][2] == 60
    pixels = np.load(Path(data.root) / "train.npy").reshape(60, 2, 8, 2, 8)
    expected = pixels.mean((0, 2, 4)).reshape(4)
    torch.testing.assert_close(first.scores.moments.moments()[0], torch.from_numpy(expected))
    again = reference_for(data, features)
    assert net.seen == 60 and same(first, again)
    assert [p.name for p in reference_path(data, features).parent.iterdir()] == [
        reference_path(data, features).name
    ]


def test_part_of_the_data_is_measured_to_all_of_it(data):
    features, net = quarters()
    reference_for(data, features)
    assert reference_for(dataclasses.replace(data, limit=20), features).n == 60 and net.seen == 60


def test_other_data_and_other_nets_have_their_own(data):
    features, net = quarters()
    first = reference_for(data, features)
    other, other_net = quarters("cd" * 32)
    assert reference_for(data, other).scores.features is other and other_net.seen == 60
    changed = changed_data(Path(data.root), 1)
    second = reference_for(changed, features)
    assert net.seen == 120 and second.data_checksum != first.data_checksum
    assert len(list(reference_path(data, features).parent.iterdir())) == 3


def test_torn_and_damaged_files_are_made_again(data):
    features, net = quarters()
    first = reference_for(data, features)
    path = reference_path(data, features)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    for number, content in enumerate((whole[: len(whole) // 2], b"", bytes(flipped)), start=2):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=str(path)):
            Reference.load(path, features, first.data_checksum)
        assert same(reference_for(data, features), first) and net.seen == 60 * number
        assert same(Reference.load(path, features, first.data_checksum), first)


@pytest.mark.parametrize("key", ["fingerprint", "data_checksum", "format"])
def test_foreign_and_stale_files_are_refused(data, key):
    features, net = quarters()
    reference = reference_for(data, features)
    path = reference_path(data, features)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {key: "9" * 64}
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match=f"{key} is 999999999999…"):
        Reference.load(path, features, reference.data_checksum)
    reference_for(data, features)
    assert net.seen == 120


def test_a_missing_file_and_a_cache_that_cannot_be_written(data, tmp_path, monkeypatch):
    features, _ = quarters()
    with pytest.raises(CheckpointError, match="holds no reference statistics"):
        Reference.load(tmp_path / "none.safetensors", features, "0")
    reference = reference_for(data, features)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        reference.save(tmp_path / "file" / "a.safetensors")
