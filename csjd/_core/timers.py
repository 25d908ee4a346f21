"""Jobs that are due later, the earliest first."""

import heapq

import attrs

from csjd._core.entry import Entry

_SPARE = 64  # dead items that are never worth a clean-up


@attrs.define(eq=False)
class DueTimes:
    """
    Entries by due time; of those due at the same moment, the one accepted first comes first.

    A cancelled one is left in the heap until its time comes; when the dead would outnumber
    the living, the heap is rebuilt.
    """

    size: int = 0
    """Jobs that will fall due; cancelled ones are not counted."""
    _heap: list[tuple[float, int, Entry]] = attrs.field(factory=list)

    def add(self, entry: Entry, due: float) -> None:
        """Let *entry* fall due at *due*."""
        entry.due = due
        entry.holder = self
        heapq.heappush(self._heap, (due, entry.order, entry))
        self.size += 1

    def discard(self, entry: Entry) -> None:
        """Forget *entry* wherever in the heap it stands."""
        entry.holder = None
        self.size -= 1
        if len(self._heap) > 2 * self.size + _SPARE:
            self._heap = [item for item in self._heap if self._lives(item)]
            heapq.heapify(self._heap)

    def next_due(self) -> float | None:
        """Return when the next job falls due, None if none will."""
        while self._heap:
            if self._lives(self._heap[0]):
                return self._heap[0][0]
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> Entry | None:
        """Take out and return the next job that is due at *now*, None if none is."""
        due = self.next_due()
        if due is None or due > now:
            return None
        entry = heapq.heappop(self._heap)[2]
        entry.holder = None
        self.size -= 1
        return entry

    def entries(self) -> list[Entry]:
        """Return all jobs that will fall due, in no order."""
        return [item[2] for item in self._heap if self._lives(item)]

    def _lives(self, item: tuple[float, int, Entry]) -> bool:
        due, _, entry = item
        return entry.holder is self and entry.due == due
