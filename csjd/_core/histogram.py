"""Durations, counted in buckets: constant memory, one look-up to record."""

from bisect import bisect_left

import attrs

from csjd._model.metrics import Histogram

# Four buckets per doubling, from a microsecond to about twelve days: a percentile read
# from the upper bound of its bucket is at most 19 % too high.
BOUNDS = tuple(1e-6 * 2 ** (step / 4) for step in range(161))


@attrs.define(eq=False)
class Recorder:
    """Counts durations, in seconds."""

    total: float = 0.0
    highest: float = 0.0
    counts: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS) + 1))

    def record(self, seconds: float) -> None:
        """Count one duration."""
        self.total += seconds
        if seconds > self.highest:
            self.highest = seconds
        self.counts[bisect_left(BOUNDS, seconds)] += 1

    def freeze(self) -> Histogram:
        """Return what was counted so far."""
        return Histogram(
            bounds=BOUNDS, counts=tuple(self.counts), total=self.total, highest=self.highest
        )
