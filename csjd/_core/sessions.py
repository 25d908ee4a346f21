"""Sessions: jobs that share a key, in a line, bound to one worker."""

import math
from collections import deque
from collections.abc import Iterable

import attrs
import msgspec

from csjd._core.entry import Entry, use_plain_stores
from csjd._core.lanes import Worker
from csjd._core.ring import HashRing, load_limit

# Idle sessions that a new one has looked at. More than one, so that they cannot pile up.
_SWEEP = 2
_A_MOMENT = 1e-3  # seconds; more than what sums of floating-point times may be off by


class Session(msgspec.Struct, eq=False, gc=False):
    """
    One session: a line of jobs linked through their entries.

    Delayed jobs count as pending but stand in no line until they fall due. As its entries
    a session is unknown to the garbage collector, which would else visit a hundred
    thousand of them for nothing: what holds for those holds for it.
    """

    name: str
    worker: Worker
    idle_since: float
    """When its last job ended; true only while nothing is pending."""
    head: Entry | None = None
    """The job whose turn it is: ready, running, or due later; the rest is waiting."""
    tail: Entry | None = None
    pending: int = 0
    paused: bool = False
    halted: bool = False
    """Its head failed for good and its type halts the session on that."""
    held: bool = False
    """Its head must not start: the session is paused or halted, or both."""
    queued_at: float | None = None
    """When it joined the table's queue of sessions that may be forgotten, if it stands there."""
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    def pause(self) -> None:
        """Hold it until somebody lets it go on."""
        self.paused = self.held = True

    def halt(self) -> None:
        """Hold it likewise, because a job of it has failed."""
        self.halted = self.held = True

    def go_on(self) -> None:
        """Hold it no longer."""
        self.paused = self.halted = self.held = False

    def append(self, entry: Entry) -> bool:
        """Let *entry* join the end of the line; return whether it is the head now."""
        tail = self.tail
        self.tail = entry
        if tail is None:
            self.head = entry
            return True
        tail.behind = entry
        entry.ahead = tail
        return False

    def remove(self, entry: Entry) -> Entry | None:
        """Take *entry* out of the line, if it stands there; return the head if it is a new one."""
        behind = entry.behind
        if self.head is entry:
            self.head = behind
            if behind is None:
                self.tail = None
            else:
                behind.ahead = entry.behind = None
            return behind
        ahead = entry.ahead
        if ahead is not None:
            ahead.behind = behind
            if behind is None:
                self.tail = ahead
            else:
                behind.ahead = ahead
            entry.ahead = entry.behind = None
        return None


use_plain_stores(Session)


@attrs.define(eq=False)
class SessionTable:
    """
    The sessions that have jobs, or had some a short while ago, and where they belong.

    A session that becomes idle joins a queue, unless it stands there. Each binding of a new
    one looks at the two in front, if they stand there for `idle_seconds`: those that were
    idle for as long are forgotten, those that have jobs leave, others go to the back. So
    memory follows the active sessions, and neither idleness nor coming and going costs a
    thing.
    """

    ring: HashRing
    load_factor: float
    idle_seconds: float
    workers: dict[int, Worker]
    active: int = 0
    """Sessions that have jobs."""
    _sessions: dict[str, Session] = attrs.field(factory=dict)
    _idle: deque[Session] = attrs.field(factory=deque)
    _look_at: float = math.inf
    """When the one in front of that queue has stood there for `idle_seconds`."""

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, name: str, now: float) -> Session | None:
        """Return the session, None if it is not remembered at *now*."""
        session = self._sessions.get(name)
        if session is not None and self._is_over(session, now):
            self._forget(session)
            return None
        return session

    def open(self, name: str, now: float) -> Session:
        """Return the session, bound to a worker now if it was not remembered."""
        session = self.find(name, now)
        if session is None:
            session = self._bind(name, now)
            self.wait_idle(session, now)
        return session

    def _bind(self, name: str, now: float) -> Session:
        if now >= self._look_at:
            self._forget_idle(now)
        worker = self._choose(name)
        worker.sessions += 1
        session = self._sessions[name] = Session(name, worker, now)
        return session

    def enter(self, name: str, now: float) -> Session:
        """Return the session, one job richer."""
        session = self.find(name, now) or self._bind(name, now)
        if not session.pending:
            self.active += 1
        session.pending += 1
        return session

    def join(
        self, entries: Iterable[Entry], now: float
    ) -> tuple[dict[Worker, list[Entry]], list[Entry]]:
        """
        Let new jobs, each of a session, join the ends of their lines.

        Does what `enter` and `Session.append` do, in one loop, for the fast path.

        Returns:
            Those that are heads now and may start, by the worker of their session; and
            those that have to wait behind others.
        """
        sessions, long_ago = self._sessions, now - self.idle_seconds + _A_MOMENT
        heads: dict[Worker, list[Entry]] = {}
        waiting: list[Entry] = []
        woken = 0
        for entry in entries:
            name: str = entry.job.session  # type: ignore[assignment]  # it is of one
            session = sessions.get(name)
            if session is None:
                session = self._bind(name, now)
            pending = session.pending
            if not pending:
                if session.idle_since <= long_ago:  # nearly, or over it: `find` knows
                    session = self.find(name, now) or self._bind(name, now)
                woken += 1
            session.pending = pending + 1
            entry.session = session
            tail = session.tail
            session.tail = entry
            if tail is not None:
                tail.behind = entry
                entry.ahead = tail
                waiting.append(entry)
                continue
            session.head = entry
            if not session.held:
                worker = session.worker
                if worker in heads:
                    heads[worker].append(entry)
                else:
                    heads[worker] = [entry]
        self.active += woken
        return heads, waiting

    def leave(self, session: Session, entry: Entry, now: float) -> Entry | None:
        """Take a job that is over out of its session; return the head if it is a new one."""
        entry.session = None
        session.pending = pending = session.pending - 1
        if pending:
            return session.remove(entry)
        session.head = session.tail = None
        session.idle_since = now
        self.active -= 1
        if session.queued_at is None:
            self.wait_idle(session, now)
        return None

    def move(self, session: Session) -> Worker:
        """Bind *session* anew, because its worker cannot run it; return its new worker."""
        session.worker.sessions -= 1
        session.worker = worker = self._choose(session.name)
        worker.sessions += 1
        return worker

    def _choose(self, name: str) -> Worker:
        workers = self.workers
        limit = load_limit(self.load_factor, len(self._sessions), len(workers))
        place = self.ring.place(name)
        home = workers[self.ring.owners[place]]
        if home.sessions < limit and not home.blocked:  # mostly
            return home
        for owner in self.ring.clockwise(place):
            worker = workers[owner]
            if worker.sessions < limit and not worker.blocked:
                return worker
        for owner in self.ring.clockwise(place):
            if not workers[owner].blocked:
                return workers[owner]
        return home  # all are blocked: bound anew later

    def wait_idle(self, session: Session, now: float) -> None:
        """Let *session* join the queue of those that may be forgotten."""
        session.queued_at = now
        if not self._idle:
            self._look_at = now + self.idle_seconds
        self._idle.append(session)

    def _is_over(self, session: Session, now: float) -> bool:
        """Whether *session* has been idle for too long; one that is held must not be forgotten."""
        return (
            not session.pending
            and session.idle_since + self.idle_seconds <= now
            and not session.held
        )

    def _forget_idle(self, now: float) -> None:
        idle = self._idle
        for _ in range(_SWEEP):
            # Nobody behind stands there for longer, and nobody is idle for longer than that.
            if now < self._look_at:
                return
            session = idle.popleft()
            if session.pending:
                session.queued_at = None
            elif not self._is_over(session, now):
                self.wait_idle(session, now)
            elif self._sessions.get(session.name) is session:  # else somebody asked for it
                self._forget(session)
            self._look_at = self._front_since() + self.idle_seconds

    def _front_since(self) -> float:
        since = self._idle[0].queued_at if self._idle else None
        return math.inf if since is None else since

    def _forget(self, session: Session) -> None:
        del self._sessions[session.name]
        session.worker.sessions -= 1
