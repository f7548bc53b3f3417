"""Pictures for the page: which ones, how large, and what is left out."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmcmc_dist.report.pictures import (
    UNNAMED,
    PictureBook,
    drawn_pictures,
    frames,
    spread_out,
    task_pictures,
)
from vmcmc_dist.report.run import read_run


def open_book(width: int = 1440) -> PictureBook:
    return PictureBook(width, [], lambda done: None)


def decoded(uri: str) -> Image.Image:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [
        (0, 5, []),
        (3, 5, [0, 1, 2]),
        (5, 5, [0, 1, 2, 3, 4]),
        (9, 3, [0, 4, 8]),
        (100, 2, [0, 99]),
        (7, 1, [6]),
    ],
)
def test_spread_out(count: int, most: int, kept: list[int]) -> None:
    assert spread_out(count, most) == kept


def test_spread_out_never_repeats() -> None:
    for count in range(1, 60):
        for most in range(1, count + 1):
            kept = spread_out(count, most)
            assert len(set(kept)) == most and kept[-1] == count - 1


def test_a_picture_of_few_colours_is_kept_exactly(tmp_path: Path) -> None:
    pixels = np.kron(np.arange(64).reshape(8, 8) * 4, np.ones((6, 6))).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = open_book().read(tmp_path / "a.png")
    assert picture and (picture.width, picture.height) == (48, 48)
    assert np.array_equal(np.asarray(decoded(picture.uri).convert("L")), pixels)


def test_a_wide_picture_is_scaled_down(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 500)).save(tmp_path / "a.png")
    picture = open_book(width=200).read(tmp_path / "a.png")
    assert picture and (picture.width, picture.height) == (200, 100)
    assert decoded(picture.uri).size == (200, 100)


def test_noise_is_stored_lossy_and_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    picture = open_book().read(tmp_path / "a.png")
    assert picture and len(picture.uri) < (tmp_path / "a.png").stat().st_size


@pytest.mark.parametrize("how", ["torn", "text", "gone"])
def test_what_is_no_picture_is_noted(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.png"
    if how == "torn":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif how == "text":
        path.write_text("hello")
    book = open_book()
    assert book.read(path) is None
    assert len(book.problems) == 1 and str(path) in book.problems[0]


def test_grids_are_thinned_and_the_unreadable_left_out(make_run) -> None:
    run = read_run(make_run(grids=tuple(range(100, 1100, 100))))
    assert [f.images for f in frames(run, open_book(), 4, lambda images: 0.0)] == [
        100, 400, 700, 1000,
    ]  # fmt: skip
    (run.path / "samples" / "000000400.png").write_text("")
    book = open_book()
    assert [f.images for f in frames(run, book, 4, lambda images: 0.0)] == [100, 700, 1000]
    assert len(book.problems) == 1


def test_drawn_pictures_are_told_from_grids_of_training(make_run) -> None:
    folder = make_run()
    Image.new("RGB", (8, 8)).save(folder / "samples" / "drawn-0.png")
    assert [path.name for path in drawn_pictures(read_run(folder))] == ["drawn-0.png"]
    assert len(read_run(folder).grids) == 3


def test_a_picture_belongs_to_the_newest_record_that_names_it(make_run) -> None:
    run = read_run(make_run())
    ((path, record),) = task_pictures(run)["synthesis"]
    assert path.name == "grid.png" and record["images"] == 3000


def test_pictures_without_a_record_are_found_and_limited(make_run) -> None:
    folder = make_run()
    (folder / "evaluation" / "inpainting").mkdir()
    for number in range(UNNAMED + 3):
        Image.new("RGB", (8, 8)).save(folder / "evaluation" / "inpainting" / f"{number:02d}.png")
    found = task_pictures(read_run(folder))["inpainting"]
    assert len(found) == UNNAMED and all(record == {} for _, record in found)


def test_pictures_may_be_named_relative_to_their_task(make_run) -> None:
    folder = make_run()
    Image.new("RGB", (8, 8)).save(folder / "evaluation" / "synthesis" / "other.png")
    record = {"task": "synthesis", "figures": {}, "pictures": ["other.png"]}
    (folder / "evaluation" / "records.jsonl").write_text(json.dumps(record) + "\n")
    named = {path.name: record for path, record in task_pictures(read_run(folder))["synthesis"]}
    assert named["other.png"]["pictures"] == ["other.png"] and named["grid.png"] == {}


@pytest.mark.parametrize("task", ["synthesis", "../.."])
def test_a_record_cannot_lead_out_of_the_run(make_run, tmp_path: Path, task: str) -> None:
    folder = make_run(evaluations=[])
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (folder / "evaluation").mkdir()
    names = [
        "../secret.png",
        "../../secret.png",
        "../../../secret.png",
        str(tmp_path / "secret.png"),
    ]
    record = {"task": task, "figures": {}, "pictures": names}
    (folder / "evaluation" / "records.jsonl").write_text(json.dumps(record) + "\n")
    found = task_pictures(read_run(folder))
    assert not any("secret" in path.name for pictures in found.values() for path, _ in pictures)
