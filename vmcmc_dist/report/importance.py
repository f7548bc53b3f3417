"""How much each dial of a sweep decides: the share of the metric's ranks that it alone explains.

The trials are sorted into bins by one dial (equal counts; one bin a choice), and their metric is
replaced by its rank, so that no outlier rules. Then, with n trials in k bins,

    ε² = 1 − [SS within bins / (n − k)] / [SS in all / (n − 1)]

is 0 on average for a dial that does nothing and 1 for one that decides the order of the bins and
all within (Kelley 1935; a one-way ANOVA's adjusted R²). Diverged trials share the last rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmcmc_dist.report.dials import Axis
from vmcmc_dist.report.sweep import Metric, Sweep, Trial

LEAST = 12
"""Trials below which nothing is said."""

DRAWS = 400
"""Random halves for the standard error, and shuffles for the level of chance."""


@dataclass(frozen=True)
class Importance:
    """What is known of one dial.

    Attributes:
        share: ε².
        error: its standard error.
        chance: what 95 of 100 dials without effect stay below, of as many trials.
        trend: Spearman's ρ between the dial and the goodness of the trial; None for a choice.
        best: lowest and highest value (index of a choice) among the best tenth, at least three.
        medians: (from, to, median of the metric) of each bin; None where most of it diverged.
    """

    axis: Axis
    share: float
    error: float
    chance: float
    trend: float | None
    best: tuple[float, float]
    medians: list[tuple[float, float, float | None]]

    @property
    def figures(self) -> str:
        """``0.68 ± 0.10``."""
        return f"{round(self.share, 2) + 0.0:.2f} ± {self.error:.2f}".replace("-", "−")

    @property
    def clear(self) -> bool:
        """More than chance would give."""
        return self.share > self.chance


@dataclass(frozen=True)
class Compared:
    """Trials that can be ranked: their metric at the same number of images, or diverged."""

    images: int
    trials: list[Trial]
    values: list[float | None]


def compare(sweep: Sweep, metric: Metric) -> Compared:
    """The trials at the largest number of images that nearly all of them reached.

    Numbers of images are alike to two digits: iterations of other batches end elsewhere.
    Trials that a scheduler stopped early are compared with the others at that early point.
    """
    at: Counter[int] = Counter()
    known: list[tuple[Trial, dict[int, float]]] = []
    for trial in sweep.trials:
        own = {
            about(images): figures[metric.name]
            for images, figures in trial.history
            if metric.name in figures
        }
        known.append((trial, own))
        at.update(own if not trial.lost else ())
    most = max(at.values(), default=0)
    images = max((i for i, count in at.items() if count >= 0.9 * most), default=0)
    rows = [(trial, None if trial.lost else own.get(images)) for trial, own in known]
    rows = [(trial, value) for trial, value in rows if trial.lost or value is not None]
    return Compared(images, [trial for trial, _ in rows], [value for _, value in rows])


def about(images: int) -> int:
    """To two digits: 25,024 → 25,000."""
    return int(float(f"{images:.1e}"))


def importances(compared: Compared, metric: Metric, axes: Sequence[Axis]) -> list[Importance]:
    """Every dial, the most important first; nothing where there are fewer than LEAST trials."""
    if len(compared.trials) < LEAST:
        return []
    worst = np.inf if metric.mode == "min" else -np.inf
    values = np.array([worst if v is None else v for v in compared.values])
    found = [_importance(axis, compared.trials, values, metric) for axis in axes]
    return sorted((one for one in found if one), key=lambda one: -one.share)


def _importance(
    axis: Axis, trials: Sequence[Trial], values: NDArray[np.float64], metric: Metric
) -> Importance | None:
    numbers = [axis.number(trial.settings.get(axis.name)) for trial in trials]
    here = np.array([number is not None for number in numbers])
    if here.sum() < LEAST:
        return None
    x, y = np.array([number for number in numbers if number is not None]), values[here]
    if len(np.unique(x)) < 2:
        return None
    goodness = ranks(y if metric.mode == "max" else -y)
    cells = bins(axis, x)
    random = np.random.default_rng(0)
    n = len(x)
    halves = [random.permutation(n)[: n // 2] for _ in range(DRAWS)]
    share = explained(cells, goodness)
    shares = [explained(cells[half], goodness[half]) for half in halves]
    shuffled = [explained(cells, random.permutation(goodness)) for _ in range(DRAWS)]
    best = x[np.argsort(-goodness, kind="stable")[: max(3, n // 10)]]
    return Importance(
        axis=axis,
        share=share,
        # a half without replacement scatters about the whole as the whole does about the truth
        error=float(np.sqrt(np.mean((np.array(shares) - share) ** 2))),
        chance=float(np.quantile(shuffled, 0.95)),
        trend=None if axis.scale == "choice" else float(np.corrcoef(ranks(x), goodness)[0, 1]),
        best=(float(best.min()), float(best.max())),
        medians=[_median(x[cells == cell], y[cells == cell]) for cell in np.unique(cells)],
    )


def _median(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float | None]:
    middle = float(np.sort(y)[len(y) // 2]) if len(y) % 2 else float(np.sort(y)[len(y) // 2 - 1])
    return float(x.min()), float(x.max()), middle if np.isfinite(middle) else None


def explained(cells: NDArray[np.int64], y: NDArray[np.float64]) -> float:
    """ε² of ``y`` by the bins; 0 where ``y`` does not vary or every bin holds one trial."""
    counts = np.bincount(cells)
    k, n = int((counts > 0).sum()), len(y)
    total = float(((y - y.mean()) ** 2).sum())
    if total == 0 or k < 2 or n <= k:
        return 0.0
    sums = np.bincount(cells, weights=y)
    between = float((sums[counts > 0] ** 2 / counts[counts > 0]).sum() - n * y.mean() ** 2)
    return 1 - ((total - between) / (n - k)) / (total / (n - 1))


def bins(axis: Axis, x: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each value: one a choice, else three to eight of equal counts."""
    distinct, inverse = np.unique(x, return_inverse=True)
    k = int(np.clip(len(x) // 8, 3, 8))
    if axis.scale == "choice" or len(distinct) <= k:
        return inverse
    return np.minimum((ranks(x) - 0.5) * k / len(x), k - 1).astype(np.int64)


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for the lowest; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends + 1) / 2)[inverse]
