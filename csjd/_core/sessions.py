"""Sessions: jobs that share a key, in a line, bound to one worker."""

from collections import OrderedDict

import attrs

from csjd._core.entry import Entry
from csjd._core.lanes import Worker
from csjd._core.ring import HashRing, most_sessions


@attrs.define(eq=False, init=False, weakref_slot=False)
class Session:
    """
    One session: a line of jobs linked through their entries.

    Delayed jobs count as pending but stand in no line until they fall due.
    """

    name: str
    worker: Worker
    head: Entry | None
    """The job whose turn it is: ready, running, or due later; the rest is waiting."""
    tail: Entry | None
    pending: int
    paused: bool
    halted: bool
    """Its head failed for good and its type halts the session on that."""
    succeeded: int
    failed: int
    cancelled: int

    def __init__(self, name: str, worker: Worker) -> None:
        self.name = name
        self.worker = worker
        self.head = self.tail = None
        self.pending = self.succeeded = self.failed = self.cancelled = 0
        self.paused = self.halted = False

    @property
    def held(self) -> bool:
        """Whether its head must not start."""
        return self.paused or self.halted

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
        ahead, behind = entry.ahead, entry.behind
        was_head = self.head is entry
        if was_head:
            self.head = behind
        elif ahead is not None:
            ahead.behind = behind
        if behind is not None:
            behind.ahead = ahead
        elif self.tail is entry:
            self.tail = ahead
        entry.ahead = entry.behind = None
        return behind if was_head else None


@attrs.define(eq=False)
class SessionTable:
    """
    The sessions that have jobs, or had some a short while ago, and where they belong.

    Idle ones wait in the order they became idle; each binding of a new session forgets up
    to two whose time is over, so memory follows the active sessions and idleness is free.
    """

    ring: HashRing
    load_factor: float
    idle_seconds: float
    workers: dict[int, Worker]
    _sessions: dict[str, Session] = attrs.field(factory=dict)
    _idle: OrderedDict[str, float] = attrs.field(factory=OrderedDict)
    """Sessions without jobs, and since when."""

    @property
    def active(self) -> int:
        """How many sessions have jobs."""
        return len(self._sessions) - len(self._idle)

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, name: str) -> Session | None:
        """Return the session, None if it is not remembered."""
        return self._sessions.get(name)

    def open(self, name: str, now: float) -> Session:
        """Return the session, bound to a worker now if it was not remembered."""
        session = self._sessions.get(name)
        if session is None:
            self._forget_idle(now)
            worker = self._choose(name)
            worker.sessions += 1
            session = self._sessions[name] = Session(name, worker)
            self._idle[name] = now
        return session

    def enter(self, name: str, now: float) -> Session:
        """Return the session, one job richer."""
        session = self._sessions.get(name) or self.open(name, now)
        if not session.pending:
            del self._idle[name]
        session.pending += 1
        return session

    def leave(self, session: Session, now: float) -> None:
        """Note that a job of *session* has ended."""
        session.pending -= 1
        if not session.pending:
            self._idle[session.name] = now

    def move(self, session: Session) -> Worker:
        """Bind *session* anew, because its worker cannot run it; return its new worker."""
        session.worker.sessions -= 1
        session.worker = worker = self._choose(session.name)
        worker.sessions += 1
        return worker

    def _choose(self, name: str) -> Worker:
        workers = self.workers
        most = most_sessions(self.load_factor, len(self._sessions), len(workers))
        chosen = self.ring.find(
            name, lambda each: workers[each].sessions < most and not workers[each].blocked
        )
        if chosen is None:
            chosen = self.ring.find(name, lambda each: not workers[each].blocked)
        if chosen is None:  # all are blocked: any will do, it is bound anew when one is not
            chosen = self.ring.find(name, lambda each: True)
        assert chosen is not None, "a dispatcher has at least one worker"
        return workers[chosen]

    def _forget_idle(self, now: float) -> None:
        for _ in range(2):
            if not self._idle:
                return
            name, since = next(iter(self._idle.items()))
            if since + self.idle_seconds > now:
                return
            session = self._sessions[name]
            if session.held:  # somebody wants it held: that must not be forgotten
                self._idle[name] = now
                self._idle.move_to_end(name)
                continue
            del self._idle[name], self._sessions[name]
            session.worker.sessions -= 1
