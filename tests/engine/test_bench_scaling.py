"""Scaling measured on real workers; clusters modelled."""

from __future__ import annotations

import dataclasses

import pytest

from vmcmc_dist.cli import main
from vmcmc_dist.engine.bench_scaling import bench_scaling
from vmcmc_dist.engine.bench_scaling_model import Cluster, model_row, rows
from vmcmc_dist.engine.scaling_table import APART, KINDS, OVERLAPPED, ScalingBench
from vmcmc_dist.engine.scaling_worker import CHAINS, FLAGS
from vmcmc_dist.engine.step_cost import Part, StepCost
from vmcmc_dist.errors import ConfigError

TOY = [
    "energy.width=8", "vae.width=8", "vae.latent_dim=4", "train.batch_size=8",
    "data.image_size=32", "langevin.steps=3",
]  # fmt: skip
FLAG_BYTES = 20  # five flags in fp32

TOLERANCE = 0.5
"""Of the model, on steps of some 50 ms of a machine that others use."""
TOLERANCE_ALONE = 0.2
"""Of the model, on larger steps of a machine that nobody else uses."""


@pytest.fixture(scope="module")
def two() -> ScalingBench:
    return bench_scaling(None, TOY, workers=(1, 2), stages=(0, 2), steps=2, rounds=2)


def talking(bench: ScalingBench, *labels: str) -> list:
    return [c for c in bench.cells if c.label in labels]


def test_every_stage_is_measured_weak_and_strong(two: ScalingBench) -> None:
    found = {(c.label, c.kind, c.workers) for c in two.cells}
    labels = {"0", "2", OVERLAPPED, APART}
    assert found == {(a, k, 2) for a in labels for k in KINDS} | {(APART, "weak", 1)}
    for item in two.cells:
        assert len(item.seconds) == 2 and item.median > 0
        text = str(two)
        assert item.label == APART or f"| {item.kind} | 2 | {item.label} |" in text


def test_chains_send_nothing(two: ScalingBench) -> None:
    """From a step's start to the end of its chains, not one collective, at any stage."""
    for item in two.cells:
        assert item.calls[CHAINS] == [], item.label


def test_a_step_sends_each_net_s_gradients_once_and_five_flags(two: ScalingBench) -> None:
    for item in talking(two, "0", OVERLAPPED):
        for net, size in two.parameters.items():
            assert [(c.kind, c.bytes) for c in item.calls[net]] == [("allreduce", 4 * size)]
        assert item.bytes[FLAGS] == FLAG_BYTES
        assert set(item.calls) == {"energy", "vae", FLAGS, CHAINS}
    for item in talking(two, "2"):
        assert item.bytes["energy"] > 4 * two.parameters["energy"]
    for item in talking(two, APART):
        assert not any(item.bytes.values()) and item.share == 0


def test_waiting_and_transfer_are_parts_of_the_step(two: ScalingBench) -> None:
    for item in talking(two, "0", "2", OVERLAPPED):
        assert item.waiting >= 0 and item.transfer > 0
        assert item.waiting + item.transfer < item.median
        inside = sum(item.phases.values())
        assert inside == pytest.approx(item.median, rel=0.3)


def test_the_model_foretells_what_was_measured(two: ScalingBench) -> None:
    for item in talking(two, "0"):
        assert two.predicted(item) == pytest.approx(item.median, rel=TOLERANCE), item.kind


def test_a_batch_that_does_not_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 4"):
        bench_scaling(None, [*TOY, "train.batch_size=6"], workers=(1, 2, 4))


@pytest.mark.slow
def test_the_model_foretells_four_workers_at_every_stage() -> None:
    bench = bench_scaling(None, [], workers=(1, 2, 4), stages=(0, 1, 2), steps=3, rounds=5)
    for item in talking(bench, "0", "1", "2"):
        if item.kind == "weak":
            foretold = bench.predicted(item)
            assert foretold == pytest.approx(item.median, rel=TOLERANCE_ALONE), item.label


# -- the model of clusters -------------------------------------------------------------------------

PART = Part(flops=1e11, operations=100)
COST = StepCost(PART, PART, PART, PART, steps=20, parameters={"energy": 10**8, "vae": 10**8})


def test_weak_scaling_loses_talk_alone() -> None:
    table = {(r.kind, r.gpus): r for r in rows(COST, Cluster(), 512, (8, 64, 512), overlap=False)}
    for (kind, gpus), row in table.items():
        assert row.seconds == pytest.approx(row.compute + row.by_stage[0])
        assert row.batch == (512 * gpus // 8 if kind == "weak" else 512)
    weak = [table["weak", n] for n in (8, 64, 512)]
    assert weak[0].compute == pytest.approx(64 * 23e11 / (989e12 * 0.35))
    assert len({round(row.compute, 9) for row in weak}) == 1


def test_strong_scaling_ends_where_the_host_cannot_issue_faster() -> None:
    row = model_row(COST, Cluster(), "strong", 512, 512, overlap=False)
    assert row.floor and row.compute == pytest.approx(2300 * 6e-6)
    quick = dataclasses.replace(Cluster(), issue=0.0)
    assert not model_row(COST, quick, "strong", 512, 512, overlap=False).floor


def test_overlap_hides_the_energy_s_half() -> None:
    bare = model_row(COST, Cluster(), "weak", 64, 4096, overlap=False)
    beside = model_row(COST, Cluster(), "weak", 64, 4096, overlap=True)
    assert bare.seconds - beside.seconds == pytest.approx(beside.hidden)
    assert beside.hidden == pytest.approx(bare.by_stage[0] / 2)


def test_the_command_prints_the_table_with_its_assumptions(capsys) -> None:
    small = ["energy.width=8", "energy.depth=1", "vae.width=8", "vae.depth=1"]
    assert main(["bench", "scaling", "--model", "--mfu", "0.2", "--gpus", "8,16", *small]) == 0
    text = capsys.readouterr().out
    assert "× 20% (assumed)" in text and "was measured on such a cluster" in text
    assert text.count("| strong |") == 2 and "| weak | 16 | 1,024, 64 |" in text
