"""vmcmc data bench: its kinds, its figures as JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmcmc_dist.bench.shard_set import write_shards
from vmcmc_dist.cli import main
from vmcmc_dist.cli.data_bench import KINDS, _data_settings
from vmcmc_dist.errors import ConfigError


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_help(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["data", "bench", kind, "--help"])
    assert not end.value.code and f"data bench {kind}" in capsys.readouterr().out


def test_shuffle_of_a_made_up_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "data bench shuffle --shards 4 --samples 200 --kib 32 --batch 16 --window 3x2".split()
    assert main([*words, "--json", str(tmp_path / "out.json")]) == 0
    table = capsys.readouterr().out
    assert "800 samples in 52 blocks of 4 shards" in table and "| 3 | 2 | 6 MiB |" in table
    figures = json.loads((tmp_path / "out.json").read_text())
    (row,) = figures["rows"]
    assert (figures["samples"], row["streams"], row["shuffle_blocks"]) == (800, 3, 2)
    assert 0 < row["quality"]["same_block"] < 1


def test_shuffle_of_shards_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vmcmc_dist.bench.jpegs import jpegs_of

    write_shards(tmp_path, jpegs_of(16, 16).files, count=90, shards=3)
    words = f"data bench shuffle --manifest {tmp_path} --batch 8 --window 2x1 --classes 3".split()
    assert main(words) == 0
    assert "90 samples in 3 blocks of 3 shards, sorted into 3 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("shuffle --window 3", "write STREAMSxBLOCKS"),
        ("stream --size 64", "write WIDTHxHEIGHT"),
        ("stream train.images=3", "keys of data.* are for our stream"),
        ("stream data.streems=3", "data.streems"),
        ("peers --root nowhere", "nowhere"),
    ],
)
def test_what_is_refused(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "bench", *words.split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "bench checkpoint --rounds 0",
        "bench checkpoint --threads -1",
        "bench chain --batch many",
        "bench scaling --workers 0,1",
        "bench scaling --stages 1;2",
        "data bench stream --workers 0",
        "data bench wait --iterations 0",
    ],
)
def test_numbers_out_of_their_range(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words.split())
    option, value = words.split()[-2:]
    said = capsys.readouterr().err
    assert end.value.code == 2 and option in said and repr(value) in said


def test_a_setting_that_is_the_checkpoint_bench_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("bench checkpoint train.images=3 --no-s3".split()) == 2
    assert "train.images: the bench's own" in capsys.readouterr().err


def test_settings_are_values_of_the_config() -> None:
    assert _data_settings(["data.prefetch=8", "data.block_cache=/tmp/c"]) == {
        "prefetch": 8,
        "block_cache": "/tmp/c",
    }
    with pytest.raises(ConfigError, match="prefetch"):
        _data_settings(["data.prefetch=0"])
