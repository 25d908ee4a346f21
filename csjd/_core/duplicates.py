"""Ids that must be refused: of live jobs, and of those that ended a moment ago."""

from collections import deque

import attrs

from csjd._core.entry import Entry


@attrs.define(eq=False)
class KnownIds:
    """
    Live ids with their entries, and ended ones until their window closes.

    Ended ids wait in a queue in the order they ended, so closing windows costs O(1) per
    job, paid two at a time by those that are accepted; idle time costs nothing.
    """

    window: float
    """Seconds an ended id is remembered."""
    _known: dict[str, Entry | float] = attrs.field(factory=dict)
    """The entry of a live id; of an ended one, when its window closes."""
    _ended: deque[str] = attrs.field(factory=deque)

    def find(self, job_id: str) -> Entry | None:
        """Return the live job with this id, None if there is none."""
        known = self._known.get(job_id)
        return None if known is None or isinstance(known, float) else known

    def refuses(self, job_id: str, now: float) -> bool:
        """Whether a new job must not have this id at *now*."""
        known = self._known.get(job_id)
        return known is not None and not (isinstance(known, float) and known <= now)

    def add(self, entry: Entry, now: float) -> None:
        """Note a live job, and close windows that are over."""
        self._known[entry.job.id] = entry
        ended = self._ended
        for _ in range(min(2, len(ended))):
            until = self._known.get(ended[0])
            if isinstance(until, float):
                if until > now:
                    return
                del self._known[ended[0]]
            ended.popleft()

    def end(self, entry: Entry, now: float) -> None:
        """Open the window of a job that has just ended."""
        job_id = entry.job.id
        if self.window > 0:
            self._known[job_id] = now + self.window
            self._ended.append(job_id)
        else:
            del self._known[job_id]

    def live(self) -> list[Entry]:
        """Return the entries of all live jobs, in no particular order."""
        return [known for known in self._known.values() if not isinstance(known, float)]

    def remembered(self) -> int:
        """Return how many ids are known, live ones included."""
        return len(self._known)
