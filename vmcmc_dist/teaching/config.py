"""What the two nets are asked to learn, and when a run counts as lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vmcmc_dist.settings import setting


@dataclass
class EnergyObjective:
    """Levers of the EBM's loss; all zero is plain maximum likelihood (the paper)."""

    penalty: float = setting(
        0.0, "α: weight of E[U(x)²] on data and on samples (IGEBM); 0 = the paper", ge=0
    )
    data_noise: float = setting(
        0.0, "std of Gaussian noise on the data that the energy sees", unit="pixels in [-1,1]", ge=0
    )
    data_noise_images: float = setting(
        0.0,
        "data noise falls linearly to zero over this many images; 0 = stays",
        unit="images",
        ge=0,
    )
    label_weight: float = setting(
        0.0,
        "weight of −log p(c|x) = U(x,c) + log Σ_c' exp(−U(x,c')) on data, for classes (JEM); "
        "0 = the paper",
        ge=0,
    )


@dataclass
class VAEObjective:
    """Levers of the VAE's loss; the defaults are the paper's: refined samples alone."""

    sigma: float = setting(1.0, "σ of p(x|z) = N(g(z), σ²I)", unit="data units", gt=0)
    kl_weight: float = setting(1.0, "weight of KL(q(z|x) ‖ N(0,I)); 1 = the ELBO", ge=0)
    refined_weight: float = setting(1.0, "weight of the ELBO of refined samples", ge=0)
    data_weight: float = setting(
        0.0, "weight of the ELBO of real data (dual-MCMC teaching); 0 = the paper", ge=0
    )
    head_start_images: float = setting(
        0.0, "until then only the VAE learns, from data, without chains", unit="images", ge=0
    )
    same_z_weight: float = setting(
        0.0, "weight of |x̃ − g(z)|²/2σ² at the z that proposed x̃ (CoopNets)", ge=0
    )
    z_regression_weight: float = setting(
        0.0, "weight of −log q(z|x̃) at the z that proposed x̃ (dual-MCMC teaching)", ge=0
    )


@dataclass
class GuardConfig:
    """When a run counts as diverged or collapsed, and what is done then."""

    action: Literal["rollback", "stop", "none"] = setting(
        "rollback",
        "rollback: last good checkpoint, new noise, lower learning rates; stop: save nothing, "
        "end with a message; none: only values that are not finite stop the run",
    )
    gap_ratio: float = setting(
        10.0, "limit of |U(x̃)−U(x_data)| over (what a chain moves U + std of U on data)", gt=0
    )
    spread: float = setting(
        0.15, "least spread of the samples over the spread of the data", ge=0, lt=1
    )
    patience: int = setting(20, "log intervals in a row beyond a limit before acting", ge=1)
    warmup_images: float = setting(
        20_000, "limits count only after this many images", unit="images", ge=0
    )
    max_rollbacks: int = setting(3, "rollbacks before the run stops", ge=0)
    lr_factor: float = setting(0.5, "both learning rates × this at each rollback", gt=0, le=1)
