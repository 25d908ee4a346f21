"""The line of submits that wait for room: first come, first served, at each limit."""

import heapq
import itertools
from collections.abc import Callable, Iterator, Set as AbstractSet
from typing import TypeAlias

import attrs
import trio

from csjd._core.entry import Entry
from csjd._model.errors import QueueFullError
from csjd._model.job import Job

_SPARE = 64  # of those that have left, how many are never worth a clean-up
_Limit: TypeAlias = tuple[str, str | None]
"""The name of a limit, and the session it belongs to, if it does to one."""


@attrs.define(eq=False)
class Waiter:
    """One submit that waits; whoever makes room lets it in, on its behalf."""

    job: Job
    admit: Callable[[float], Entry]
    """Takes the job in at a given time; what submit does for a job that finds room."""
    ticket: int
    event: trio.Event = attrs.field(factory=trio.Event)
    entry: Entry | None = None
    """Set when it was let in."""
    refusal: Exception | None = None
    """Set when it cannot be let in any more."""
    gone: bool = False
    """It was cancelled; it stands in its line until its turn comes."""


@attrs.define(eq=False)
class WaitingLine:
    """
    The waiting submits, each standing at the limit that keeps it out.

    There is a line per limit, so that a session at its own limit holds nobody else up.
    """

    lacks_room: Callable[[Job, float], QueueFullError | None]
    _lines: dict[_Limit, list[tuple[int, Waiter]]] = attrs.field(factory=dict)
    """Heaps by ticket; none is empty."""
    _tickets: Iterator[int] = attrs.field(factory=itertools.count)
    _gone: int = 0
    """Those that have left since the lines were cleared of such."""
    _clear_at: int = _SPARE

    def __bool__(self) -> bool:
        return bool(self._lines)

    def join(self, job: Job, full: QueueFullError, admit: Callable[[float], Entry]) -> Waiter:
        """Stand in line for the room that *full* says is missing."""
        waiter = Waiter(job, admit, next(self._tickets))
        self._stand(waiter, full)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Give up waiting."""
        waiter.gone = True
        self._gone += 1
        if self._gone >= self._clear_at:
            self._clear()

    def _clear(self) -> None:
        """Forget those that have left, with their jobs; O(1) for each."""
        for limit, line in [*self._lines.items()]:
            self._lines[limit] = kept = [each for each in line if not each[1].gone]
            heapq.heapify(kept)
            if not kept:
                del self._lines[limit]
        self._gone = 0
        self._clear_at = max(_SPARE, sum(map(len, self._lines.values())))

    def let_in(self, session: str | None, now: float) -> None:
        """Let in whoever fits, now that a job of *session* has ended."""
        stuck: set[_Limit] = set()
        while (line := self._first_line(session, stuck)) is not None:
            waiter = heapq.heappop(self._lines[line])[1]
            if not self._lines[line]:
                del self._lines[line]
            full = self.lacks_room(waiter.job, now)
            if full is None:
                self._let_in(waiter, now)
                continue
            self._stand(waiter, full)
            if _limit(full) == line:  # as before: nobody behind it in this line fits either
                stuck.add(line)

    def refuse_all(self, refusal: Callable[[], Exception]) -> None:
        """Send everybody away, each with an error of their own from *refusal*."""
        for line in self._lines.values():
            for _, waiter in line:
                waiter.refusal = refusal()
                waiter.event.set()
        self._lines.clear()

    def _first_line(self, session: str | None, stuck: AbstractSet[_Limit]) -> _Limit | None:
        """Return the line, of those that may move and are not *stuck*, whose first came first."""
        limits: tuple[_Limit, ...] = (
            ("max_pending", None),
            ("max_sessions", None),
            ("max_pending_per_session", session),
        )
        best: _Limit | None = None
        for limit in limits:
            line = self._lines.get(limit)
            while line and line[0][1].gone:
                heapq.heappop(line)
            if line is not None and not line:
                del self._lines[limit]
            elif (
                line
                and limit not in stuck
                and (best is None or line[0][0] < self._lines[best][0][0])
            ):
                best = limit
        return best

    def _stand(self, waiter: Waiter, full: QueueFullError) -> None:
        line = self._lines.setdefault(_limit(full), [])
        heapq.heappush(line, (waiter.ticket, waiter))

    @staticmethod
    def _let_in(waiter: Waiter, now: float) -> None:
        try:
            waiter.entry = waiter.admit(now)
        except Exception as error:  # its id may have been taken meanwhile
            waiter.refusal = error
        waiter.event.set()


def _limit(full: QueueFullError) -> _Limit:
    # The session named with `max_sessions` is the one refused, not one that has a limit.
    return full.limit_name, full.session if full.limit_name == "max_pending_per_session" else None
