"""The formulas of the scaling model against cases that can be worked out by hand."""

from __future__ import annotations

import pytest

from vmcmc_dist.bench.scaling_model import (
    Collective,
    Link,
    cluster_link,
    collective_seconds,
    fit_link,
    gradient_calls,
    hidden_seconds,
    talk_seconds,
)

LINK = Link(latency=1e-3, bandwidth=1e9)


@pytest.mark.parametrize(
    ("kind", "workers", "crossings"),
    [
        ("allreduce", 2, 1.0),
        ("allreduce", 4, 1.5),
        ("reduce_scatter_base", 4, 0.75),
        ("allgather", 4, 0.75),
        ("broadcast", 4, 1.0),
    ],
)
def test_bytes_cross_the_link_as_often_as_they_must(kind, workers, crossings) -> None:
    seconds = collective_seconds(Collective(kind, 10**9), workers, LINK)
    assert seconds == pytest.approx(1e-3 + crossings)


def test_one_worker_talks_to_nobody() -> None:
    assert talk_seconds(gradient_calls(3, 10**6), 1, LINK) == 0


def test_bytes_of_each_stage() -> None:
    totals = [sum(c.bytes for c in gradient_calls(stage, 1000)) for stage in (0, 1, 2, 3)]
    assert totals == [4000, 8000, 8000, 16000]
    free = Link(0.0, 1e9)  # reduce-scatter and gather are the two halves of an all-reduce
    assert talk_seconds(gradient_calls(0, 1000), 8, free) == pytest.approx(
        talk_seconds(gradient_calls(1, 1000), 8, free)
    )


def test_a_link_is_found_again_from_its_times() -> None:
    true, sizes = Link(2e-4, 3e9), (0, 1 << 20, 1 << 23)
    seconds = [collective_seconds(Collective("allreduce", s), 4, true) for s in sizes]
    found = fit_link(sizes, seconds, 4)
    assert found.latency == pytest.approx(true.latency)
    assert found.bandwidth == pytest.approx(true.bandwidth)


def test_no_more_is_hidden_than_there_is_to_hide_or_to_hide_behind() -> None:
    assert hidden_seconds(2.0, 5.0) == 2.0 and hidden_seconds(5.0, 2.0) == 2.0


def test_a_cluster_s_link_is_its_slowest_and_deepest() -> None:
    def link(n: int) -> Link:
        return cluster_link(
            n, per_node=8, inside=400e9, outside=100e9, hop_inside=1e-6, hop_outside=5e-6
        )

    assert link(8) == Link(pytest.approx(6e-6), 400e9)
    assert link(64) == Link(pytest.approx(36e-6), 100e9)
