"""How much a chain's states tell about each other: autocorrelation and effective sample size.

    rho = autocorrelation(series)          # series [chains, T] of one scalar
    tau = integrated_time(rho)             # 1 + 2 Σ ρ_t, in steps
    effective_sample_size(series)          # chains · T / τ

Chains that sit in different places are not independent draws of one law: the variance between
them counts as correlation that never dies. Source: Geyer 1992 (initial monotone sequence);
Gelman et al., Bayesian Data Analysis 3, §11.5; Vehtari et al. 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vmcmc_dist.errors import DataError

MIN_LENGTH = 8


def autocovariance(series: Tensor) -> Tensor:
    """γ_t = (1/T) Σ_s (x_s − x̄)(x_{s+t} − x̄) of each chain, by FFT: [C, T] → [C, T] float64."""
    x = series.double()
    x = x - x.mean(1, keepdim=True)
    length = x.shape[1]
    spectrum = torch.fft.rfft(x, n=2 * length)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * length)[:, :length] / length


def autocorrelation(series: Tensor, *, between: bool = True) -> Tensor:
    """ρ_t over chains [C, T] → [T], with ρ_0 = 1.

    ρ_t = 1 − (W − mean_c γ_{c,t}·T/(T−1)) / V,  V = W (T−1)/T + B,
    W the mean variance within chains, B the variance of their means (0 for a single chain, and
    without ``between``: then ρ is of a chain about its own mean).
    DataError: fewer than 8 steps, or values that are not finite. A constant series has ρ = 1.
    """
    chains, length = series.shape
    if length < MIN_LENGTH:
        raise DataError(f"an autocorrelation needs {MIN_LENGTH} steps or more, got {length}")
    if not torch.isfinite(series).all():
        raise DataError("a chain to be judged holds values that are not finite")
    gamma = autocovariance(series).mean(0) * length / (length - 1)
    within = gamma[0]
    total = within * (length - 1) / length
    if between and chains > 1:
        total = total + series.double().mean(1).var()
    if total <= 0:
        return torch.ones(length, dtype=torch.float64)
    rho = 1 - (within - gamma) / total
    rho[0] = 1.0
    return rho


def integrated_time(rho: Tensor) -> float:
    """τ = 1 + 2 Σ_{t≥1} ρ_t in steps, cut by Geyer's initial monotone sequence.

    Sums of neighbouring pairs P_k = ρ_{2k} + ρ_{2k+1} are kept while they are positive, and
    never rise; τ = −1 + 2 Σ P_k. At most T: one sample from the whole chain is the least.
    """
    pairs = rho[: len(rho) // 2 * 2].view(-1, 2).sum(1)
    ended = (pairs <= 0).nonzero()
    kept = pairs[: int(ended[0])] if len(ended) else pairs
    if not len(kept):
        return 1.0 / len(rho)
    falling = torch.cummin(kept, 0).values
    return min(float(len(rho)), max(1.0 / len(rho), (2 * falling.sum() - 1).item()))


def effective_sample_size(series: Tensor) -> float:
    """How many independent draws estimate the mean as well as these [C, T] states: C·T/τ."""
    return series.numel() / integrated_time(autocorrelation(series))
