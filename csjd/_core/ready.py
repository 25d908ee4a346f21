"""
Jobs that may start now, in order of (priority, acceptance), and the oldest of them all.

One *level* per priority. Within a level jobs nearly always arrive in order of acceptance
and go to a deque; the few that come back (retries, interrupted ones, a session's next
head) go to a small heap beside it. Both ends cost O(1), strays O(log n).

The oldest job over all levels is found through `_ages`, a heap of lower bounds: for each
level an (order, priority) that is not above its true oldest. When a bound surfaces that
is too low it is raised to the truth and sinks. So picking the oldest costs O(log levels)
amortised, and nothing at all is kept up to date on the way when only one priority is used.

A cancelled job is left where it is and skipped when its turn comes; when the skipped
would outnumber the living, the queue is rebuilt.
"""

import heapq
import sys
from collections import deque

import attrs

from csjd._core.entry import Entry

_SPARE = 64  # dead entries or empty levels that are never worth a clean-up
_NEVER = sys.maxsize  # the bound of a level that `_ages` does not have


@attrs.define(eq=False)
class _Level:
    """The ready jobs of one priority."""

    priority: int
    run: deque[Entry] = attrs.field(factory=deque)
    """Ascending in order."""
    strays: list[tuple[int, Entry]] = attrs.field(factory=list)
    """A heap by order."""
    bound: int = _NEVER
    """The order under which `_ages` has this level; not above any order in it."""
    listed: bool = False
    """Whether `_tops` has this level; true while it is not empty."""

    def head(self) -> Entry | None:
        """Return the entry accepted first, None if there is none."""
        run = self.run
        if self.strays and not (run and run[0].order < self.strays[0][0]):
            return self.strays[0][1]
        return run[0] if run else None

    def pop(self) -> None:
        """Remove the head."""
        run = self.run
        if self.strays and not (run and run[0].order < self.strays[0][0]):
            heapq.heappop(self.strays)
        else:
            run.popleft()


@attrs.define(eq=False)
class ReadyQueue:
    """Ready jobs of one worker's sessions, or those without a session."""

    size: int = 0
    """Jobs in it that can be taken; discarded ones are not counted."""
    _dead: int = 0
    """Discarded entries still in a level. An entry lives while its `queue` is this one."""
    _levels: dict[int, _Level] = attrs.field(factory=dict)
    """Every level that `_tops` or `_ages` may mention; some may be empty."""
    _filled: int = 0
    """Levels that are not empty."""
    _tops: list[int] = attrs.field(factory=list)
    """A heap of the negated priorities of the listed levels."""
    _ages: list[tuple[int, int]] = attrs.field(factory=list)

    def push(self, entry: Entry) -> None:
        """Put a READY job in its place."""
        priority = entry.job.priority
        order = entry.order
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level(priority, bound=order)
            heapq.heappush(self._ages, (order, priority))
        elif order < level.bound:
            level.bound = order
            heapq.heappush(self._ages, (order, priority))
        run = level.run
        if run:
            if order > run[-1].order:
                run.append(entry)
            else:
                heapq.heappush(level.strays, (order, entry))
        else:
            if not level.strays:
                self._fill(level)
            run.append(entry)
        entry.queue = self
        self.size += 1

    def first(self) -> Entry | None:
        """Return, without taking it, the job of the highest priority accepted first."""
        while self._tops:
            level = self._levels[-self._tops[0]]
            entry = level.head()
            if entry is None:
                heapq.heappop(self._tops)
                level.listed = False
            elif entry.queue is self:
                return entry
            else:
                self._drop(level)
        return None

    def oldest(self) -> Entry | None:
        """Return, without taking it, the job accepted first, whatever its priority."""
        if len(self._tops) < 2:
            return self.first()
        while self._ages:
            bound, priority = self._ages[0]
            level = self._levels.get(priority)
            if level is None or level.bound != bound:  # a lower bound replaced this one
                heapq.heappop(self._ages)
                continue
            entry = level.head()
            if entry is None:
                heapq.heappop(self._ages)
                level.bound = _NEVER
            elif entry.queue is not self:
                self._drop(level)
            elif entry.order == bound:
                return entry
            else:
                level.bound = entry.order
                heapq.heapreplace(self._ages, (entry.order, priority))
        return None

    def take(self, entry: Entry) -> None:
        """Remove *entry*, which `first()` or `oldest()` has just returned."""
        level = self._levels[entry.job.priority]
        level.pop()
        entry.queue = None
        self.size -= 1
        if not (level.run or level.strays):
            self._emptied()

    def discard(self, entry: Entry) -> None:
        """Forget *entry* wherever in the queue it stands."""
        entry.queue = None
        self.size -= 1
        self._dead += 1
        if self._dead > self.size + _SPARE:
            for survivor in self.drain():
                self.push(survivor)

    def drain(self) -> list[Entry]:
        """Take everything out; return it in order of acceptance."""
        entries = []
        for level in self._levels.values():
            for entry in (*level.run, *(stray for _, stray in level.strays)):
                # One that was discarded and pushed again stands here twice.
                if entry.queue is self:
                    entry.queue = None
                    entries.append(entry)
        entries.sort(key=lambda entry: entry.order)
        self.size = self._dead = self._filled = 0
        self._levels.clear()
        self._tops.clear()
        self._ages.clear()
        return entries

    def _drop(self, level: _Level) -> None:
        """Remove the dead head of *level*."""
        level.pop()
        self._dead -= 1
        if not (level.run or level.strays):
            self._emptied()

    def _fill(self, level: _Level) -> None:
        """Note that *level*, empty until now, is about to get a job."""
        self._filled += 1
        if not level.listed:
            level.listed = True
            heapq.heappush(self._tops, -level.priority)

    def _emptied(self) -> None:
        """Note that a level has become empty; it stays listed, but not any number of them."""
        self._filled -= 1
        if len(self._levels) > 2 * self._filled + _SPARE:
            self._levels = {
                p: level for p, level in self._levels.items() if level.run or level.strays
            }
            self._tops = [-p for p in self._levels]
            self._ages = [(level.bound, p) for p, level in self._levels.items()]
            heapq.heapify(self._tops)
            heapq.heapify(self._ages)
