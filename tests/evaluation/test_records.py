"""The file of records: whole lines beside other writers, one process a task."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from vmcmc_dist.errors import DataError, ResourceError
from vmcmc_dist.evaluation.records import Records, digest, weights_sha256


def record(i: int, **figures) -> dict:
    return {"task": "t", "identity": digest({"i": i}), "figures": figures or {"x": i}}


def test_finished_finds_the_newest_of_exactly_this(tmp_path):
    records = Records(tmp_path)
    assert records.finished({"i": 1}) is None
    for i, x in ((1, 1.0), (2, 2.0), (1, 3.0)):
        records.append(record(i, x=x))
    assert records.finished({"i": 1})["figures"] == {"x": 3.0}
    assert records.finished({"i": 3}) is None and len(records.all()) == 3


def test_a_torn_line_is_left_out_and_does_not_swallow_the_next(tmp_path):
    records = Records(tmp_path)
    records.append(record(1))
    with records.path.open("a") as file:
        file.write('{"task": "t", "fig')
    assert len(records.all()) == 1
    records.append(record(2))
    assert [r["figures"]["x"] for r in records.all()] == [1, 2]
    records.path.write_text("}\n")
    with pytest.raises(DataError, match=r"records\.jsonl is damaged"):
        records.all()


def test_what_is_not_finite_is_no_record(tmp_path):
    for bad in (float("nan"), [1.0, float("inf")], {"deep": float("nan")}):
        with pytest.raises(DataError, match="no finite number"):
            Records(tmp_path).append(record(1, x=bad))
    assert Records(tmp_path).all() == []


def test_many_writers_tear_no_line(tmp_path):
    def write(k: int) -> None:
        for i in range(40):
            figures = {"x": [i] * 5000}
            Records(tmp_path).append({"task": "t", "identity": k, "figures": figures})

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    found = [json.loads(line) for line in Records(tmp_path).path.read_text().splitlines()]
    wanted = [(k, i) for k in range(4) for i in range(40)]
    assert sorted((r["identity"], r["figures"]["x"][0]) for r in found) == wanted


def test_one_process_a_task(tmp_path):
    records = Records(tmp_path)
    with records.locked("synthesis") as folder:
        assert folder == tmp_path / "evaluation" / "synthesis" and folder.is_dir()
        with pytest.raises(ResourceError, match="another process evaluates synthesis"):
            with records.locked("synthesis"):
                pass
        with records.locked("mixing"):
            pass
    with records.locked("synthesis"):
        pass


def test_weights_are_known_by_their_values(small_model):
    model, same = small_model(), small_model()
    assert weights_sha256(model) == weights_sha256(same)
    next(iter(same.vae.parameters())).view(-1)[0] += 1e-6
    assert weights_sha256(model) != weights_sha256(same)
