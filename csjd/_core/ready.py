"""
Jobs that may start now, in order of (priority, acceptance), and the oldest of them all.

One *level* per priority. Within a level jobs nearly always arrive in order of acceptance
and go to a deque; the few that come back (retries, interrupted ones, a session's next
head) go to a small heap beside it. Both ends cost O(1), strays O(log n).

The oldest job over all levels is found through `_ages`, a heap of lower bounds: for each
level an (order, priority) that is not above its true oldest. When a bound surfaces that
is too low it is raised to the truth and sinks. So picking the oldest costs O(log levels)
amortised, and nothing at all is kept up to date on the way when only one priority is used.

A discarded job is left where it is and skipped when its turn comes; when the skipped
would outnumber the living, the queue is rebuilt. Empty levels stay for the same reason.
"""

import heapq
import sys
from collections import deque
from collections.abc import Sequence

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

    def drop_head(self) -> None:
        """Remove what `head` returns."""
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
    run: deque[Entry] | None = None
    """
    Where the next one is the first; None while it may be elsewhere.

    Who takes it from there by himself, as `pop` does, has to see whether it lives.
    """
    mixed: bool = False
    """Whether there may be jobs of more than one priority, so that the first is not the oldest."""
    _dead: int = 0
    """Discarded entries still in a level. An entry lives while its `holder` is this queue."""
    _levels: dict[int, _Level] = attrs.field(factory=dict)
    """Every level that `_tops` or `_ages` may mention; some may be empty."""
    _tops: list[int] = attrs.field(factory=list)
    """A heap of the negated priorities of the listed levels."""
    _top: _Level | None = None
    """The level at the root of `_tops`."""
    _ages: list[tuple[int, int]] = attrs.field(factory=list)

    def push(self, entry: Entry) -> None:
        """Put a READY job in its place."""
        priority = entry.job.priority
        level = self._levels.get(priority)
        if level is None or not level.listed:
            level = self._list(priority)
        order = entry.order
        run = level.run
        if not run or order > run[-1].order:
            run.append(entry)
        else:
            heapq.heappush(level.strays, (order, entry))
            self._see_run()
        if order < level.bound:
            level.bound = order
            heapq.heappush(self._ages, (order, priority))
        entry.holder = self
        self.size += 1

    def extend(self, entries: Sequence[Entry]) -> None:
        """Push jobs of priority 0, none or all of which were accepted after any in here."""
        level = self._levels.get(0)
        if level is None or not level.listed or level.bound == _NEVER:
            self.push(entries[0])
            level = self._levels[0]
            entries = entries[1:]
        for entry in entries:
            entry.holder = self
        level.run.extend(entries)
        self.size += len(entries)

    def pop(self) -> Entry | None:
        """
        Take the job of the highest priority accepted first; None if there is none.

        Its `holder` is the caller's to change.
        """
        if self.run:  # nearly always
            entry = self.run.popleft()
            if entry.holder is self:
                self.size -= 1
                return entry
            return self.pop_past_dead()
        return self._take_first()

    def pop_past_dead(self) -> Entry | None:
        """As `pop`, after a dead entry has been taken from `run`."""
        self._dead -= 1
        return self._take_first()

    def first(self) -> Entry | None:
        """Return, without taking it, the job of the highest priority accepted first."""
        while (level := self._top) is not None:
            entry = level.head()
            if entry is None:
                self._unlist_top()
            elif entry.holder is self:
                return entry
            else:
                self._drop_dead(level)
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
            elif entry.holder is not self:
                self._drop_dead(level)
            elif entry.order == bound:
                return entry
            else:
                level.bound = entry.order
                heapq.heapreplace(self._ages, (entry.order, priority))
        return None

    def take(self, entry: Entry) -> None:
        """Remove *entry*, which `first()` or `oldest()` has just returned."""
        self._levels[entry.job.priority].drop_head()
        self._see_run()
        entry.holder = None
        self.size -= 1

    def discard(self, entry: Entry) -> None:
        """Forget *entry* wherever in the queue it stands."""
        entry.holder = None
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
                if entry.holder is self:
                    entry.holder = None
                    entries.append(entry)
        entries.sort(key=lambda entry: entry.order)
        self.size = self._dead = 0
        self._levels.clear()
        self._tops.clear()
        self._top = None
        self._ages.clear()
        self._see_run()
        return entries

    def _take_first(self) -> Entry | None:
        first = self.first()
        if first is not None:
            self.take(first)
        return first

    def _drop_dead(self, level: _Level) -> None:
        level.drop_head()
        self._see_run()
        self._dead -= 1

    def _see_run(self) -> None:
        """Set `run` and `mixed`, after the levels or the top one's strays may have changed."""
        top = self._top
        self.run = None if top is None or top.strays else top.run
        self.mixed = len(self._tops) > 1

    def _list(self, priority: int) -> _Level:
        """Return the level of *priority*, listed, because it is about to get a job."""
        if len(self._levels) > 2 * self.size + _SPARE:
            self._forget_empty_levels()
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level(priority)
        level.listed = True
        heapq.heappush(self._tops, -priority)
        self._top = self._levels[-self._tops[0]]
        self._see_run()
        return level

    def _unlist_top(self) -> None:
        self._levels[-heapq.heappop(self._tops)].listed = False
        self._top = self._levels[-self._tops[0]] if self._tops else None
        self._see_run()

    def _forget_empty_levels(self) -> None:
        kept = {p: level for p, level in self._levels.items() if level.head() is not None}
        self._levels = kept
        self._tops = [-priority for priority in kept]
        self._ages = [(level.bound, priority) for priority, level in kept.items()]
        heapq.heapify(self._tops)
        heapq.heapify(self._ages)
        self._top = kept[-self._tops[0]] if self._tops else None
        self._see_run()
