"""The step benchmark runs both loops and reports their ratio."""

from __future__ import annotations

from vmcmc_dist.engine.bench_step import bench_step


def test_both_steps_are_timed() -> None:
    result = bench_step(batch=4, steps=1, rounds=1, threads=1, launcher="local")
    assert result.ours_ms > 0 and result.bare_ms > 0
    assert f"{result.ours_ms / result.bare_ms:.3f}" in result.table()
