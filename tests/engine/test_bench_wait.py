"""The waiting share comes from a real run's metrics, for both ways of reading."""

from __future__ import annotations

from vmcmc_dist.engine.bench_wait import bench_wait


def test_waiting_is_read_off_the_run() -> None:
    result = bench_wait(batch=8, steps=1, iterations=2, width=4)
    assert [row.reading for row in result.rows] == ["streamed", "resident"]
    for row in result.rows:
        assert 0 <= row.data_wait < 1 and row.step_s > 0
    assert "10,000 random 28x28 images" in str(result) and "(target 1%)" in str(result)
