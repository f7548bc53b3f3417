"""``vmcmc bench checkpoint``: the real trainer, a real disk, a real S3 server."""

from __future__ import annotations

import pytest

from vmcmc_dist.engine.bench_checkpoint import bench_checkpoint

TINY = [
    "energy.width=4", "vae.width=4", "vae.latent_dim=4", "langevin.steps=1",
    "train.batch_size=2", "data.image_size=28",
]  # fmt: skip


@pytest.mark.slow
def test_both_places_are_measured() -> None:
    said: list[str] = []
    bench = bench_checkpoint(settings=TINY, rounds=2, progress=said.append)
    assert [row.place for row in bench.rows] == ["disk", "S3, 20 ms away"]
    for row in bench.rows:
        assert len(row.rounds) == 2
        for round_ in row.rounds:
            assert 0 < round_.still < round_.written
            assert round_.step > 0
    disk, s3 = (row.median("written") for row in bench.rows)
    assert s3 > 0.1 > disk, "six parts and a state, each 20 ms late"
    assert 10_000 < bench.bytes < 10_000_000
    text = str(bench)
    assert text.count("(target 1%)") == 2 and "| S3, 20 ms away |" in text
    assert said == ["round 0 of 2", "round 1 of 2", "round 2 of 2"]
