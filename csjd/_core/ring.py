"""Which worker a session belongs to: consistent hashing with bounded load."""

import bisect
import math
import zlib
from collections.abc import Callable, Iterator

import attrs


@attrs.define(eq=False)
class HashRing:
    """
    Workers on a ring of CRC-32 values, `virtual_nodes` points each.

    A worker that comes or goes moves only the keys next to its own points.

    Source:
        Karger et al., "Consistent hashing and random trees", 1997; the bound on the load
        from Mirrokni et al., "Consistent hashing with bounded loads", 2016.
    """

    virtual_nodes: int
    _points: list[tuple[int, int]] = attrs.field(factory=list)
    """(hash, worker id), ascending."""
    _workers: int = 0

    def add(self, worker: int) -> None:
        """Put *worker* on the ring."""
        self._points += (
            (zlib.crc32(f"{worker}#{node}".encode()), worker) for node in range(self.virtual_nodes)
        )
        self._points.sort()
        self._workers += 1

    def remove(self, worker: int) -> None:
        """Take *worker* off the ring."""
        self._points = [point for point in self._points if point[1] != worker]
        self._workers -= 1

    def find(self, key: str, fits: Callable[[int], bool]) -> int | None:
        """Return the first worker clockwise from *key* that *fits*, None if none does."""
        return next((worker for worker in self._clockwise(key) if fits(worker)), None)

    def _clockwise(self, key: str) -> Iterator[int]:
        """Yield each worker once, the one *key* falls to first."""
        points = self._points
        start = bisect.bisect_left(points, (zlib.crc32(key.encode()), -1))
        seen: set[int] = set()
        for step in range(len(points)):
            worker = points[(start + step) % len(points)][1]
            if worker not in seen:
                seen.add(worker)
                yield worker
                if len(seen) == self._workers:
                    return


def most_sessions(load_factor: float, active: int, workers: int) -> int:
    """
    Return how many sessions one worker may hold once another session is bound.

    Args:
        load_factor: How far above the mean a worker may go, >= 1.
        active: Sessions bound now.
        workers: Workers that can be bound to, >= 1.
    """
    return math.ceil(load_factor * (active + 1) / workers)
