"""
What observers hear: immutable records of what has happened.

An event is made only when somebody observes, after the state it tells of is whole.
`at` is Trio's clock.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from csjd._model.job import Job
from csjd._model.metrics import DeadLetter, StopReport, StuckHandler
from csjd._model.outcome import Outcome


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened in a dispatcher."""

    at: float


@attrs.frozen(kw_only=True)
class JobEvent(Event):
    """Something that happened to a job."""

    job: Job


@attrs.frozen(kw_only=True)
class JobAccepted(JobEvent):
    """A job was taken in."""


@attrs.frozen(kw_only=True)
class JobRefused(JobEvent):
    """A job was refused; nothing changed."""

    error: Exception


@attrs.frozen(kw_only=True)
class AttemptStarted(JobEvent):
    """A lane called the handler."""

    attempt: int
    worker: int


@attrs.frozen(kw_only=True)
class AttemptCancelled(JobEvent):
    """A running attempt was told to end."""

    attempt: int
    worker: int
    reason: str


@attrs.frozen(kw_only=True)
class JobRetried(JobEvent):
    """An attempt failed; the job gets another."""

    attempt: int
    error: BaseException
    delay: float
    """Seconds."""
    timed_out: bool


@attrs.frozen(kw_only=True)
class JobSnoozed(JobEvent):
    """The handler asked to be called again later."""

    attempt: int
    delay: float
    """Seconds."""


@attrs.frozen(kw_only=True)
class JobInterrupted(JobEvent):
    """An attempt was ended by a stop; its job keeps its place."""

    attempt: int


@attrs.frozen(kw_only=True)
class JobProgressed(JobEvent):
    """The handler reported progress."""

    attempt: int
    value: Any


@attrs.frozen(kw_only=True)
class JobEnded(JobEvent):
    """The job has reached its one terminal state."""

    outcome: Outcome


@attrs.frozen(kw_only=True)
class HandlerDetached(JobEvent):
    """A handler ignored its cancellation; its lane was given to a fresh task."""

    handler: StuckHandler


@attrs.frozen(kw_only=True)
class HandlerStuck(JobEvent):
    """A handler ignored its cancellation, and no detach budget is left: its lane waits."""

    handler: StuckHandler


@attrs.frozen(kw_only=True)
class DeadLetterDropped(Event):
    """A dead letter made room for a newer one."""

    letter: DeadLetter


@attrs.frozen(kw_only=True)
class DeadLetterRequeued(JobEvent):
    """A dead letter was accepted anew."""


@attrs.frozen(kw_only=True)
class DeadLetterDiscarded(JobEvent):
    """A dead letter was thrown away by request."""


@attrs.frozen(kw_only=True)
class SessionHalted(Event):
    """A session stops at a failed job until somebody resumes it."""

    session: str
    job: Job


@attrs.frozen(kw_only=True)
class Paused(Event):
    """Jobs were paused: all, or those of one type or session."""

    type: str | None = None
    session: str | None = None


@attrs.frozen(kw_only=True)
class Resumed(Event):
    """Jobs were resumed: all, or those of one type or session."""

    type: str | None = None
    session: str | None = None


@attrs.frozen(kw_only=True)
class JobParked(JobEvent):
    """A job came out of the store that nobody can run yet."""

    reason: str


@attrs.frozen(kw_only=True)
class JobStoreOpened(Event):
    """The store was opened, and what was in it was taken in."""

    recovered: int
    """Jobs that had not ended."""
    unready: int
    """Those of them that have no handler, or a payload that theirs cannot take."""
    dead_letters: int
    quarantined: int
    """Records that mean nothing to this version."""
    clean: bool
    """Whether the last run had closed it."""
    notices: tuple[str, ...]
    """What opening it did that people should know of, such as a torn tail it cut."""


@attrs.frozen(kw_only=True)
class JobStoreFailed(Event):
    """The store cannot be used any more: nothing is acknowledged, no job begins."""

    error: BaseException


@attrs.frozen(kw_only=True)
class WorkerAdded(Event):
    """A worker takes jobs now."""

    worker: int


@attrs.frozen(kw_only=True)
class WorkerRemoved(Event):
    """A worker takes no more jobs; what it runs, it finishes."""

    worker: int


@attrs.frozen(kw_only=True)
class DispatcherStarted(Event):
    """The dispatcher accepts and runs jobs."""


@attrs.frozen(kw_only=True)
class DispatcherStopping(Event):
    """The dispatcher accepts nothing more and drains."""

    grace: float
    """Seconds until what is left is interrupted."""


@attrs.frozen(kw_only=True)
class DispatcherStopped(Event):
    """The dispatcher runs nothing."""

    report: StopReport


Observer: TypeAlias = Callable[[Event], object]
"""Hears every event, must not block, and may call plain (not async) methods only."""
