"""The chain benchmark in miniature: its records, its table, its counts."""

from __future__ import annotations

import time

import torch
from torch import nn

from vmcmc_dist.bench.chain import BASE, bench_chain, plain_loop
from vmcmc_dist.bench.clock import interleaved_medians, torch_threads
from vmcmc_dist.bench.peak import ConvPeak, step_flops
from vmcmc_dist.langevin import LangevinConfig


def test_records_and_table() -> None:
    said: list[str] = []
    bench = bench_chain(
        (4,), ("mnist", "cifar10"), batch=2, steps=1, rounds=1, progress=said.append
    )
    assert said == ["mnist width 4", "cifar10 width 4"]
    assert len(bench.rows) == 2 * 4
    for row in bench.rows:
        assert row.ms_per_step > 0 and row.gflop_per_step > 0 and 0 < row.peak_share
        if row.variant == BASE:
            assert row.speedup == 1
    table = str(bench)
    assert f"torch {torch.__version__}" in table and "1 thread" in table
    assert table.count("\n") == 3 + len(bench.rows)


def test_flops_of_a_known_net() -> None:
    """A 3×3 convolution 2 → 4 on 8×8: 2·9·2·4·64 forward, as much again for the gradient to x."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3, padding=1).requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).square().flatten(1).sum(1)

    assert step_flops(Net(), torch.randn(5, 2, 8, 8)) == 2 * 5 * (2 * 9 * 2 * 4 * 64)
    peak = ConvPeak(torch.float32, torch.device("cpu"), batch=1)
    assert peak.run().shape == (1, 128, 32, 32)
    assert peak.flops == 2 * 128 * 128 * 9 * 32 * 32


def test_plain_loop_is_langevin() -> None:
    x = torch.zeros(20_000, 1)

    class Energy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square().sum(1) / 2

    out = plain_loop(Energy(), x, LangevinConfig(steps=40, step_size=0.5))
    assert abs(float(out.var()) - 1 / (1 - 0.25 / 4)) < 0.05


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_rounds_are_interleaved_and_the_first_is_not_counted() -> None:
    order: list[str] = []

    def slow_at_first() -> None:
        order.append("a")
        end = time.process_time() + (0.1 if len(order) == 1 else 0)
        while time.process_time() < end:
            pass

    medians = interleaved_medians(
        {"a": slow_at_first, "b": lambda: order.append("b")}, rounds=1, device=torch.device("cpu")
    )
    assert order == ["a", "b"] * 2
    assert set(medians) == {"a", "b"} and medians["a"] < 0.05
