"""Which worker a session belongs to: consistent hashing with bounded load."""

import bisect
import zlib
from collections.abc import Iterator

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
    owners: list[int] = attrs.field(factory=list)
    """Whose the points are, by place; the first one's again at the end, where the ring closes."""
    _hashes: list[int] = attrs.field(factory=list)
    """Where the points are, ascending."""

    def add(self, worker: int) -> None:
        """Put *worker* on the ring."""
        points = [*zip(self._hashes, self.owners, strict=False)]
        points += (
            (zlib.crc32(f"{worker}#{node}".encode()), worker) for node in range(self.virtual_nodes)
        )
        self._set(sorted(points))

    def remove(self, worker: int) -> None:
        """Take *worker* off the ring."""
        points = zip(self._hashes, self.owners, strict=False)
        self._set([point for point in points if point[1] != worker])

    def place(self, key: str) -> int:
        """Return where in `owners` that of *key* is: of the first point clockwise from it."""
        return bisect.bisect_left(self._hashes, zlib.crc32(key.encode()))

    def clockwise(self, place: int) -> Iterator[int]:
        """Yield the owners from *place* on, all the way round; each as often as it has points."""
        owners = self.owners
        for position in range(place, len(self._hashes)):
            yield owners[position]
        for position in range(place):
            yield owners[position]

    def _set(self, points: list[tuple[int, int]]) -> None:
        self._hashes = [place for place, _ in points]
        self.owners = [worker for _, worker in (*points, *points[:1])]


def load_limit(load_factor: float, active: int, workers: int) -> float:
    """
    Return how many sessions a worker must have fewer than to be given another.

    So it holds at most that, rounded up, once another session is bound.

    Args:
        load_factor: How far above the mean a worker may go, >= 1.
        active: Sessions bound now.
        workers: Workers that can be bound to, >= 1.
    """
    return load_factor * (active + 1) / workers
