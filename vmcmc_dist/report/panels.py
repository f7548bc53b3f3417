"""The panels of curves: which figures of metrics.jsonl share an axis, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """Figures that share an axis.

    Attributes:
        title, unit, about: of the axis; one line of meaning.
        keys: figure of a record → its label.
        log: whether the axis begins logarithmic.
    """

    title: str
    unit: str
    about: str
    keys: dict[str, str]
    log: bool = False


TABS: dict[str, list[Panel]] = {
    "Main": [
        Panel("Energy gap", "energy", "U(refined) − U(data); near 0 = in balance", {"gap": "gap"}),
        Panel(
            "Fréchet distance of thumbnails",
            "of 4×4-pixel averages",
            "colour, layout, variety; compare within a run only",
            {"fd_thumbnail": "refined", "fd_thumbnail_proposals": "proposals"},
            log=True,
        ),
        Panel(
            "Divergences",
            "nats",
            "of the alternating projection, by quadrature",
            {
                "kl_data_model": "KL(p_data ‖ p_θ)",
                "kl_model_sampler": "KL(p_θ ‖ p_α)",
                "kl_revised_model": "KL(M_θ p_α ‖ p_θ)",
                "kl_data_sampler": "KL(p_data ‖ p_α)",
            },
            log=True,
        ),
        Panel("Energy’s loss", "energy", "U(data) − U(refined) + penalty", {"energy_loss": "loss"}),
        Panel("VAE’s loss", "nats", "weighted sum of its terms", {"vae_loss": "loss"}),
        Panel(
            "Spread",
            "× that of the data",
            "std among refined samples; near 0 all are alike",
            {"spread_ratio": "refined ÷ data"},
        ),
        Panel("Speed", "images / s", "grids left out", {"images_per_second": "speed"}),
    ],
    "Evaluation": [],
    "Energy": [
        Panel(
            "Energies",
            "energy",
            "low = likely",
            {"energy_data": "data", "energy_refined": "refined"},
        ),
        Panel("Std of the energy", "energy", "among data", {"energy_std": "std of U"}),
        Panel(
            "Gap ratio",
            "",
            "|gap| ÷ (|fall along a chain| + std); far above 1 the energy runs away",
            {"gap_ratio": "gap ratio"},
            log=True,
        ),
        Panel(
            "Gradient of the energy’s loss", "norm over weights", "", {"energy_grad_norm": "norm"}
        ),
        Panel("log Z", "nats", "by quadrature", {"log_z": "log Z"}),
        Panel("Energy’s learning rate", "", "", {"energy_lr": "rate"}, log=True),
    ],
    "VAE": [
        Panel(
            "Reconstruction",
            "nats",
            "|x − g(z)|² ÷ 2σ², z ~ q(z|x)",
            {"reconstruction_data": "data", "reconstruction": "refined"},
        ),
        Panel(
            "KL of the code", "nats", "KL(q(z|x) ‖ N(0, I))", {"kl_data": "data", "kl": "refined"}
        ),
        Panel("Same z", "nats", "|x̃ − g(z)|² ÷ 2σ² of the z that proposed x̃", {"same_z": "same z"}),
        Panel("z regression", "nats", "−log q(z|x̃)", {"z_regression": "z regression"}),
        Panel("Gradient of the VAE’s loss", "norm over weights", "", {"vae_grad_norm": "norm"}),
        Panel("VAE’s learning rate", "", "", {"vae_lr": "rate"}, log=True),
    ],
    "Chain": [
        Panel("Fall of the energy", "energy", "along a chain", {"drop": "fall"}),
        Panel("Displacement", "L2 distance", "along a chain", {"displacement": "|x̃ − x₀|"}),
        Panel(
            "Gradient along the chain",
            "RMS per dimension",
            "of ∂U/∂x",
            {"grad_rms": "RMS"},
            log=True,
        ),
        Panel(
            "Acceptance", "share", "of Metropolis–Hastings proposals", {"acceptance": "accepted"}
        ),
        Panel(
            "Mean", "pixel value", "over all dimensions", {"mean": "refined", "mean_data": "data"}
        ),
        Panel(
            "Spread of samples",
            "std",
            "mean over dimensions",
            {"spread": "refined", "spread_data": "data"},
        ),
    ],
    "Data": [
        Panel("Waiting for data", "share of time", "", {"data_wait": "waiting"}),
        Panel(
            "Reads tried again",
            "reads",
            "all workers, since the last start",
            {"data_retries": "tried again"},
        ),
        Panel(
            "Bad samples", "samples", "all workers, since the last start", {"data_bad": "skipped"}
        ),
        Panel(
            "Read from the store",
            "bytes",
            "all workers, since the last start",
            {"data_bytes": "bytes"},
        ),
        Panel(
            "Block cache",
            "blocks",
            "all workers, since the last start",
            {"cache_hits": "hits", "cache_misses": "misses"},
        ),
    ],
    "Other": [],
}
"""Tab → its panels. Figures without a panel get one of their own."""

UNDRAWN = {
    "kind", "images", "iteration", "regime", "seconds", "count", "steps", "ema", "smoothing",
    "spread_proposals", "from_images", "lr_scale", "reason", "time", "n", "n_real", "reference_n",
    "manifold_n", "features_accuracy", "data_requests", "cache_damaged",
}  # fmt: skip
"""What records hold beside figures."""
