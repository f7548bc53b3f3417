"""The bench of decoding in miniature: its sets, its records, its tables."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.bench.clock import interleaved_seconds, median_ratio
from vmcmc_dist.bench.decode import bench_decode
from vmcmc_dist.bench.image_sets import files_of, jpeg, made, noise_photo
from vmcmc_dist.cli import main
from vmcmc_dist.data.image_header import header
from vmcmc_dist.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three JPEGs of 300x260, one grey PNG, a file that is no image and one that is torn."""
    for i in range(3):
        photo = jpeg(Image.fromarray(noise_photo(i, 300, 260)), quality=90)
        (tmp_path / f"{i}.jpg").write_bytes(photo)
    Image.fromarray(noise_photo(3, 30, 20)[..., 0]).save(tmp_path / "grey.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "torn.jpg").write_bytes(photo[:20])
    return tmp_path


def test_sets_are_what_they_say(folder: Path) -> None:
    sets = [*made(5), *files_of(folder, 2, 10**6)]
    assert sorted(str(s) for s in sets[-4:]) == [
        "as it is, 300x260 jpg",
        "as it is, 30x20 grey png",
        "remade, 256x256 jpg",
        "remade, 64x64 jpg",
    ]
    assert {(s.width, s.height) for s in sets} >= {(64, 64), (256, 256), (481, 321), (1024, 1024)}
    for one in sets:
        assert 1 <= len(one.files) <= 5
        assert {header(f) for f in one.files} == {(one.width, one.height, one.channels)}
    as_stored = Image.open(io.BytesIO(sets[-1].files[0]))
    assert as_stored.format == "JPEG" and np.asarray(as_stored).std() > 10


def test_records_and_tables(folder: Path) -> None:
    said: list[str] = []
    bench = bench_decode(folder, images=2, rounds=1, progress=said.append)
    assert len(said) == len(bench.rows) == 4
    for row in bench.rows:
        ratios = row.of_bare, row.of_aligned, row.of_pillow, row.two_threads
        assert min(row.per_second, *ratios) > 0
    (scaled,) = bench.scaled
    assert (scaled.side, scaled.scale) == (64, 2) and scaled.psnr > 35
    table = str(bench)
    assert "simplejpeg 1." in table and f"files of {folder}" in table
    assert "| as it is, 300x260 jpg | 2 |" in table and "| 64 | 1/2 |" in table


def test_the_command(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    words = ["data", "bench", "decode", "--root", str(folder), "--images", "1", "--rounds", "1"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "| as it is, 300x260 jpg | 1 |" in out and "300x260" in err
    (folder / "empty").mkdir()
    assert main([*words[:4], str(folder / "empty")]) == 2
    assert "give another --root" in capsys.readouterr().err
    with pytest.raises(DataError, match="not a readable tar"):
        bench_decode(folder / "none.tar")


def test_ratios_are_of_one_round() -> None:
    clock = iter(range(1000))
    order: list[str] = []
    seconds = interleaved_seconds(
        {"a": lambda: order.append("a"), "b": lambda: [next(clock), next(clock)]},
        rounds=3,
        now=lambda: next(clock),
    )
    assert seconds == {"a": [1, 1, 1], "b": [3, 3, 3]} and order == ["a"] * 4
    assert median_ratio([1, 20, 3], [1, 10, 1]) == 2
