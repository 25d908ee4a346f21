"""Durations, counted in buckets: constant memory, next to nothing to record one."""

from bisect import bisect_left, bisect_right

import attrs

from csjd._model.metrics import Histogram

# Four buckets per doubling, from a microsecond to about twelve days: a percentile read
# from the upper bound of its bucket is at most 19 % too high.
BOUNDS = tuple(1e-6 * 2 ** (step / 4) for step in range(161))

MANY = 256
"""Durations that are worth sorting into their buckets together; few enough to stay in cache."""


@attrs.define(eq=False)
class Recorder:
    """
    Counts durations, in seconds.

    To record one is to append it to `fresh`; whoever does so calls `settle` when there are `MANY`.
    Sorted together, a hundred cost what ten would one by one.
    """

    fresh: list[float] = attrs.field(factory=list)
    """Always the same list: lanes keep its `append`."""
    _total: float = 0.0
    _highest: float = 0.0
    _counts: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS) + 1))

    def count(self) -> int:
        """Return how many durations were recorded."""
        self.settle()
        return sum(self._counts)

    def freeze(self) -> Histogram:
        """Return what was counted so far."""
        self.settle()
        return Histogram(
            bounds=BOUNDS, counts=tuple(self._counts), total=self._total, highest=self._highest
        )

    def settle(self) -> None:
        """Sort what is fresh into its buckets."""
        fresh = self.fresh
        if not fresh:
            return
        fresh.sort()
        self._total += sum(fresh)
        self._highest = max(self._highest, fresh[-1])
        done = 0
        while done < len(fresh):
            bucket = bisect_left(BOUNDS, fresh[done])
            upto = bisect_right(fresh, BOUNDS[bucket]) if bucket < len(BOUNDS) else len(fresh)
            self._counts[bucket] += upto - done
            done = upto
        fresh.clear()
