"""How fast a Langevin chain is, beside a plain loop and beside the machine's convolution peak."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vmcmc_dist.bench.clock import Machine, interleaved_medians, this_machine, torch_threads
from vmcmc_dist.bench.peak import ConvPeak, step_flops
from vmcmc_dist.langevin.chain import run_chain
from vmcmc_dist.langevin.config import LangevinConfig
from vmcmc_dist.langevin.frozen import frozen
from vmcmc_dist.langevin.noise import Noise
from vmcmc_dist.models.reference import ReferenceEnergy
from vmcmc_dist.models.sampler_copy import SamplerCopy

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
WIDTHS = (8, 32, 64, 128)
BASE = "fp32 plain loop"


@dataclass(frozen=True)
class ChainTiming:
    """One variant of one net: time of a step, against the plain loop and the peak of its dtype."""

    net: str
    width: int
    variant: str
    ms_per_step: float
    speedup: float
    gflop_per_step: float
    gflop_per_s: float
    peak_gflop_per_s: float

    @property
    def peak_share(self) -> float:
        return self.gflop_per_s / self.peak_gflop_per_s


@dataclass(frozen=True)
class ChainBench:
    """All timings of one run, and where they were made. ``str()`` is a markdown table."""

    machine: Machine
    batch: int
    rows: list[ChainTiming]

    def __str__(self) -> str:
        lines = [
            f"{self.machine}; batch {self.batch}",
            "",
            f"| net | width | chain | ms/step | × {BASE} | GFLOP/s | of conv peak |",
            "|---|---:|---|---:|---:|---:|---:|",
        ]
        for r in self.rows:
            lines.append(
                f"| {r.net} | {r.width} | {r.variant} | {r.ms_per_step:.2f} | {r.speedup:.2f} "
                f"| {r.gflop_per_s:.0f} | {r.peak_share:.0%} of {r.peak_gflop_per_s:.0f} |"
            )
        return "\n".join(lines)


def plain_loop(energy: nn.Module, x: Tensor, config: LangevinConfig) -> Tensor:
    """Langevin as it is usually written: the net as it stands, gradient to x only."""
    for _ in range(config.steps):
        x = x.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(energy(x).sum(), x)
        x = x - config.step_size**2 / 2 * grad + config.step_size * torch.randn_like(x)
    return x.detach()


def bench_chain(
    widths: Sequence[int] = WIDTHS,
    nets: Sequence[str] = tuple(SHAPES),
    *,
    batch: int = 32,
    steps: int = 5,
    rounds: int = 5,
    threads: int = 1,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> ChainBench:
    """Time chains on the reference's energy nets at several widths; medians, interleaved.

    Variants: the plain loop in fp32, ``run_chain`` on the same net in fp32 (bit-equal energies),
    on a channels-last fp32 copy, and on a bf16 :class:`SamplerCopy`. Minutes at the defaults.
    """
    place = torch.device(device)
    rows: list[ChainTiming] = []
    with torch_threads(threads):
        machine = this_machine(place)
        for net in nets:
            for width in widths:
                if progress is not None:
                    progress(f"{net} width {width}")
                rows += _bench_net(net, width, batch, steps, rounds, place)
    return ChainBench(machine, batch, rows)


def _bench_net(
    net: str, width: int, batch: int, steps: int, rounds: int, device: torch.device
) -> list[ChainTiming]:
    torch.manual_seed(0)
    energy = ReferenceEnergy(SHAPES[net], width).to(device)
    x0 = torch.randn(batch, *SHAPES[net], device=device)
    config = LangevinConfig(steps=steps, step_size=0.01)
    noise = Noise(0, device)
    chains: dict[str, tuple[nn.Module, torch.dtype]] = {
        "fp32": (energy, torch.float32),
        "fp32 channels last": (SamplerCopy(energy, channels_last=True), torch.float32),
        "bf16": (SamplerCopy(energy, torch.bfloat16), torch.bfloat16),
    }
    peaks = {dtype: ConvPeak(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    variants: dict[str, Callable[[], object]] = {BASE: lambda: plain_loop(energy, x0, config)}
    for name, (chain_energy, _) in chains.items():
        variants[name] = lambda e=chain_energy: run_chain(e, x0, config, noise)  # type: ignore[misc]
    for dtype, peak in peaks.items():
        variants[str(dtype)] = peak.run
    seconds = interleaved_medians(variants, rounds=rounds, device=device)

    with frozen(energy):
        work = step_flops(energy, x0)
    rows = []
    for name in (BASE, *chains):
        dtype = chains[name][1] if name in chains else torch.float32
        per_step = seconds[name] / steps
        rows.append(
            ChainTiming(
                net,
                width,
                name,
                ms_per_step=1e3 * per_step,
                speedup=seconds[BASE] / seconds[name],
                gflop_per_step=work / 1e9,
                gflop_per_s=work / per_step / 1e9,
                peak_gflop_per_s=peaks[dtype].flops / seconds[str(dtype)] / 1e9,
            )
        )
    return rows
