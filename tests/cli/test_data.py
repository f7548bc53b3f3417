"""vmcmc data prepare, inspect, verify, mirror, index: what the user types and reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.cli import bar, main
from vmcmc_dist.data import open_manifest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMCMC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """24 images of 20x16 in two classes."""
    for i in range(24):
        path = tmp_path / "photos" / ("ant" if i % 2 else "bee") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 20, 3), 10 * i, np.uint8)).save(path)
    return tmp_path / "photos"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of ``vmcmc data WORDS`` in this process."""
    try:
        status = main(["data", *map(str, words)])
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_source_by_its_name_and_a_config_are_one_path(capsys, photos, tmp_path):
    named, by_config = tmp_path / "named", tmp_path / "by_config"
    status, out, err = run(
        capsys, "prepare", "folder", "--root", photos, "--out", named, "image_size=8",
        "data.shard_samples=10",
    )  # fmt: skip
    assert (status, out, err) == (0, f"24 samples, 3 shards: {named}\n", "")
    path = tmp_path / "photos.yaml"
    path.write_text(f"data: {{source: folder, image_size: 8, shards: {by_config}}}\n")
    status, _, err = run(capsys, "prepare", path, f"data.root={photos}", "data.shard_samples=10")
    assert status == 0, err
    assert open_manifest(str(named)).checksum == open_manifest(str(by_config)).checksum
    assert run(capsys, "prepare", path, f"data.root={photos}", "shard_samples=10")[0] == 0


def test_sizes_and_small_images(capsys, photos, tmp_path):
    words = ("prepare", "folder", "--root", photos, "--out", tmp_path / "out", "--sizes", "8,24")
    status, out, err = run(capsys, *words)
    assert status == 2 and "smaller than 24x24" in err and "--allow-upscaling" in err
    status, out, err = run(capsys, *words, "--allow-upscaling")
    assert status == 0 and out.splitlines() == [
        f"24 samples, 1 shards: {tmp_path}/out/8", f"24 samples, 1 shards: {tmp_path}/out/24",
    ]  # fmt: skip
    assert "note: 24 of 24 images are smaller than 24x24 pixels and were enlarged" in err
    assert run(capsys, "prepare", "folder", "--sizes", "8,x")[0] == 2


def test_left_out_images_are_said(capsys, photos, tmp_path):
    (photos / "bee" / "torn.jpg").write_bytes(b"\xff\xd8")
    words = ("prepare", "folder", "--root", photos, "--out", tmp_path / "out", "image_size=8")
    assert "1 of 25 images do not decode" in run(capsys, *words)[2]
    status, _, err = run(capsys, *words, "max_bad=0.1")
    assert (
        status == 0 and "note: 1 images do not decode and were left out, e.g. bee/torn.jpg" in err
    )


@pytest.mark.parametrize(
    "words,said",
    [
        (("prepare", "flowers"), "neither a file nor a source; sources are arrays, celeba"),
        (("prepare", "flowers.yaml"), "flowers.yaml is not there"),
        (("prepare", "celeba"), "needs data.root"),
        (("prepare", "ffhq", "--root", "nowhere", "--out", "x"), "nowhere: no such file or folder"),
        (("prepare", "ffhq", "--root", "ftp://a/b"), "only local paths and s3://"),
        (("prepare", "folder", "--root", ".", "image_size=big"), "image_size"),
        (("inspect", "nowhere.yaml"), "nowhere.yaml is not there"),
        (("mirror", "nowhere", "there"), "has no manifest.json"),
        (("index", "nowhere"), "nowhere: no such file or folder"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(capsys, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *words)
    assert status == 2 and said in err and err.startswith("vmcmc: ") and err.count("\n") == 1
    assert not list(tmp_path.glob("x*"))


def test_shards_in_place_of_raw_data(capsys, photos, tmp_path):
    out = tmp_path / "out"
    run(capsys, "prepare", "folder", "--root", photos, "--out", out, "image_size=8")
    status, said, _ = run(capsys, "prepare", "folder", "--root", out, "image_size=8")
    assert status == 0 and said == f"24 samples, 1 shards: {out}\n"
    status, _, err = run(capsys, "prepare", "folder", "--root", out, "--out", tmp_path / "b")
    assert status == 2 and "holds shards already; `vmcmc data mirror`" in err
    status, _, err = run(
        capsys, "prepare", "webdataset", "--root", out, "--out", tmp_path / "b", "shard_samples=9"
    )
    assert status == 0 and len(open_manifest(str(tmp_path / "b")).shards) == 3


def test_inspect_verify_mirror_and_index(capsys, photos, tmp_path):
    out, grid = tmp_path / "out", tmp_path / "grid.png"
    run(capsys, "prepare", "folder", "--root", photos, "--out", out, "image_size=8")
    status, said, _ = run(capsys, "inspect", out, "--grid", grid)
    assert status == 0 and Image.open(grid).size == (8 * 10 + 2, 3 * 10 + 2)
    rows = {
        line.split("│")[1].strip(): line.split("│")[2].strip()
        for line in said.split("\n")
        if "│" in line
    }
    assert rows["num_samples"] == "24" and rows["blocks"] == "1" and rows["label ant"] == "12"
    assert rows["small"].startswith("0 ") and int(rows["bytes"].replace(",", "")) > 20_000
    status, said, _ = run(capsys, "verify", out, "--decode")
    assert status == 0 and said.startswith(f"{out}: whole: 24 samples, 1 shards, 1 blocks")
    assert run(capsys, "mirror", out, tmp_path / "copy")[:2] == (
        0, f"24 samples, 1 shards: {tmp_path}/copy\n",
    )  # fmt: skip
    tar = tmp_path / "copy" / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-600])
    status, said, _ = run(capsys, "verify", tmp_path / "copy")
    assert status == 2 and said.splitlines()[-1].startswith(f"{tmp_path}/copy: 1 problems")
    assert "torn or overwritten" in said
    for name in ("manifest.json", "index.npy"):
        (out / name).unlink()
    assert run(capsys, "index", out)[:2] == (0, f"24 samples, 1 shards: {out}\n")
    assert json.loads((out / "manifest.json").read_text())["num_samples"] == 24


def test_lines_of_progress_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(bar, "LINE_SECONDS", 0.0)
    with bar.stage_bar() as progress:
        progress("shards", 10, 40)
        progress("shards", 20, 40)
        progress("shards", 40, 40)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("shards: 20 of 40, ") and lines[1].endswith(" left")
    assert lines[2].startswith("shards: 40 of 40, ") and "/s" in lines[2]


def test_time_is_told_in_hours_minutes_seconds():
    assert [bar.duration(s) for s in (0, 59.7, 3723)] == ["0:00:00", "0:01:00", "1:02:03"]
