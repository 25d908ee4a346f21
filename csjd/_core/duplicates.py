"""Ids that must be refused: of live jobs, and of those that ended a moment ago."""

import math
from collections import deque
from typing import Final

import attrs

from csjd._core.entry import Entry

RESERVED: Final = math.inf
"""Known in place of an entry while a store is told of the job: its window never closes."""


@attrs.define(eq=False)
class KnownIds:
    """
    Live ids with their entries, and ended ones until their window closes.

    Ended ids wait in a queue in the order they ended, so closing windows costs O(1) per
    job; idle time costs nothing. `Backlog` puts ids in and opens windows by itself, on
    its fast path: `known[id] = entry`, and `known[id] = when it ended; ended.append(id)`.
    """

    window: float
    """Seconds an ended id is remembered."""
    known: dict[str, Entry | float] = attrs.field(factory=dict)
    """The entry of a live id; of an ended one, when it ended."""
    ended: deque[str] = attrs.field(factory=deque)

    def find(self, job_id: str) -> Entry | None:
        """Return the live job with this id, None if there is none."""
        known = self.known.get(job_id)
        return None if known is None or isinstance(known, float) else known

    def lives(self, job_id: str) -> bool:
        """Whether the id belongs to a live job, or to one about to be."""
        known = self.known.get(job_id)
        return known is not None and (not isinstance(known, float) or known == RESERVED)

    def refuses(self, job_id: str, now: float) -> bool:
        """Whether a new job must not have this id at *now*."""
        known = self.known.get(job_id)
        return known is not None and not (isinstance(known, float) and known + self.window <= now)

    def end(self, job_id: str, now: float) -> None:
        """Open the window of a job that ends; `Backlog.succeed` does so by itself."""
        if self.window:
            self.known[job_id] = now
            self.ended.append(job_id)
        else:
            self.known.pop(job_id, None)

    def forget(self, now: float, most: int) -> None:
        """Close windows that are over at *now*, at most so many at a time."""
        known, ended = self.known, self.ended
        for _ in range(min(most, len(ended))):
            since = known.get(ended[0])
            if isinstance(since, float):
                if since + self.window > now:
                    return
                del known[ended[0]]
            ended.popleft()

    def live(self) -> list[Entry]:
        """Return the entries of all live jobs, in no particular order."""
        return [known for known in self.known.values() if not isinstance(known, float)]

    def remembered(self) -> int:
        """Return how many ids are known, live ones included."""
        return len(self.known)
