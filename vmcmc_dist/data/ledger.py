"""The account of an epoch: what one reader gave out, against what the manifest says it must."""

from __future__ import annotations

import logging

import numpy as np

from vmcmc_dist.errors import DataError

log = logging.getLogger(__name__)
NAMED = 10  # bad samples named one by one; then only when their number has doubled


class Ledger:
    """Counts samples by epoch, and bad ones by their row.

    ``give`` is told every batch; at the end of an epoch the number of samples given out must be
    that of the positions which are this reader's, and none may have been given twice. A sample
    that had to stand in for a bad one counts as the bad one.
    """

    def __init__(
        self, samples: int, *, rank: int, world_size: int, images: int, max_bad: float
    ) -> None:
        self.samples, self.rank, self.world_size = samples, rank, world_size
        self.first = images
        self.max_bad = max_bad
        self.bad: dict[int, str] = {}
        self._seen: dict[int, np.ndarray] = {}
        self._given: dict[int, int] = {}
        self._bad_in: dict[int, int] = {}

    def note_bad(self, index: int, row: int, where: str) -> None:
        """Sample ``index`` is row ``row``, which cannot be used: ``where`` says why.

        Raises DataError if there are more in this epoch than ``max_bad`` of this reader's share.
        """
        if row not in self.bad:
            self.bad[row] = where
            number = len(self.bad)
            if number <= NAMED or number & (number - 1) == 0:
                log.warning("sample skipped (%s so far): %s", f"{number:,}", where)
        epoch = index // self.samples
        self._bad_in[epoch] = self._bad_in.get(epoch, 0) + 1
        if self._bad_in[epoch] > self.max_bad * self.samples / self.world_size:
            shown = "\n  ".join(list(self.bad.values())[:3])
            raise DataError(
                f"{self._bad_in[epoch]} bad samples in epoch {epoch}, more than data.max_bad="
                f"{self.max_bad:g} allows; the first:\n  {shown}\nPrepare the data again, see what "
                "`vmcmc data verify` says, or raise data.max_bad"
            )

    def give(self, index: np.ndarray, rows: np.ndarray) -> None:
        """Note a batch: ascending indices int64 [B], and the rows int64 [B] that are due there.

        Raises DataError if a row comes twice in its epoch, or if an epoch that this batch closes
        was not given out in full.
        """
        first, last = int(index[0]) // self.samples, int(index[-1]) // self.samples
        for epoch in range(first, last + 1):
            mine = rows if first == last else rows[index // self.samples == epoch]
            seen = self._seen.get(epoch)
            if seen is None:
                seen = self._seen[epoch] = np.zeros(self.samples, dtype=bool)
                self._given[epoch] = 0
            if seen[mine].any():
                raise self._twice(epoch, int(mine[seen[mine]][0]))
            seen[mine] = True
            self._given[epoch] += len(mine)
        for epoch in [e for e in self._seen if e < last]:
            self._close(epoch)

    def _twice(self, epoch: int, row: int) -> DataError:
        return DataError(f"epoch {epoch}: row {row} came twice; please report this")

    def _close(self, epoch: int) -> None:
        given, bad = self._given.pop(epoch), self._bad_in.pop(epoch, 0)
        due, distinct = self.due(epoch), int(self._seen.pop(epoch).sum())
        if given != due:
            raise DataError(
                f"epoch {epoch}: {given} samples were given out, the manifest says {due}; please "
                "report this"
            )
        if distinct != given:
            raise DataError(
                f"epoch {epoch}: {given - distinct} rows came twice; please report this"
            )
        log.info("epoch %d: %d samples, all there; %d of them bad", epoch, due, bad)

    def due(self, epoch: int) -> int:
        """This reader's samples of an epoch, from where it began: p ≡ first + rank mod world."""

        def below(p: int) -> int:
            return max(0, -(-(p - self.first - self.rank) // self.world_size))

        return below((epoch + 1) * self.samples) - below(epoch * self.samples)
