"""
The life of a job and of a dispatcher, as literal tables; the docs draw them from here.

`LIFECYCLE[step][state]` is the state that *step* leads to. A missing entry is a bug in
csjd and surfaces as a `KeyError`: it is never papered over. The rows are dictionaries of
small ints, so taking a step costs one look-up; each step's row has a name of its own for
the code that takes it.
"""

import enum
from collections.abc import Mapping
from typing import Final


class JobState(enum.IntEnum):
    """Where an accepted job is in its life. Pending: everything before the last three."""

    READY = 0
    """May start as soon as a lane is free (and nothing that concerns it is paused)."""
    SCHEDULED = 1
    """Due later: delayed, backing off or snoozed."""
    WAITING = 2
    """Behind the head of its session."""
    PARKED = 3
    """
    Its turn has come, but there is no handler for its type yet, or none that can take its
    payload; only after a recovery.
    """
    RUNNING = 4
    """A lane runs its handler."""
    DETACHED = 5
    """Its handler ignored its cancellation; it still runs, its lane was given away."""
    SUCCEEDED = 6
    """The handler returned."""
    FAILED = 7
    """Out of attempts, permanently failed, or timed out for good: a dead letter."""
    CANCELLED = 8
    """Cancelled by request."""


class JobStep(enum.Enum):
    """What can happen to a job."""

    PLACE = "its turn in its session has come"
    POSTPONE = "due later"
    FALL_DUE = "its due time has come"
    QUEUE = "takes its place behind its session's head"
    PARK = "has no handler that can take it"
    START = "a lane took it"
    DETACH = "its handler ignores its cancellation"
    INTERRUPT = "stopped to shut down"
    SUCCEED = "its handler returned"
    FAIL = "failed for good"
    CANCEL = "cancelled by request"


_S = JobState

LIFECYCLE: Final[Mapping[JobStep, Mapping[JobState, JobState]]] = {
    JobStep.PLACE: {_S.WAITING: _S.READY, _S.PARKED: _S.READY},
    JobStep.POSTPONE: {
        _S.READY: _S.SCHEDULED,  # accepted with a delay
        _S.RUNNING: _S.SCHEDULED,  # retry, snooze
        _S.DETACHED: _S.SCHEDULED,
    },
    JobStep.FALL_DUE: {_S.SCHEDULED: _S.READY},
    JobStep.QUEUE: {_S.READY: _S.WAITING},
    JobStep.PARK: {_S.READY: _S.PARKED},
    JobStep.START: {_S.READY: _S.RUNNING},
    JobStep.DETACH: {_S.RUNNING: _S.DETACHED},
    JobStep.INTERRUPT: {_S.RUNNING: _S.READY, _S.DETACHED: _S.READY},
    JobStep.SUCCEED: {_S.RUNNING: _S.SUCCEEDED, _S.DETACHED: _S.SUCCEEDED},
    JobStep.FAIL: {_S.RUNNING: _S.FAILED, _S.DETACHED: _S.FAILED},
    JobStep.CANCEL: {
        _S.READY: _S.CANCELLED,
        _S.SCHEDULED: _S.CANCELLED,
        _S.WAITING: _S.CANCELLED,
        _S.PARKED: _S.CANCELLED,
        _S.RUNNING: _S.CANCELLED,  # booked when the handler has ended
        _S.DETACHED: _S.CANCELLED,
    },
}

TERMINAL: Final = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED})


class DispatcherState(enum.Enum):
    """Where a dispatcher is in its life."""

    NEW = "new"
    """Not started yet."""
    RUNNING = "running"
    """Accepts and runs jobs."""
    STOPPING = "stopping"
    """Drains: accepts nothing, works off what is ready."""
    STOPPED = "stopped"
    """Runs nothing; `start()` goes on with the same jobs."""
    CLOSED = "closed"
    """Its block was left, or its task died."""


class DispatcherStep(enum.Enum):
    """What can happen to a dispatcher."""

    START = "start"
    DRAIN = "drain"
    STOP = "stop"
    CLOSE = "close"


_D = DispatcherState

DISPATCHER_LIFECYCLE: Final[Mapping[DispatcherStep, Mapping[DispatcherState, DispatcherState]]] = {
    DispatcherStep.START: {_D.NEW: _D.RUNNING, _D.STOPPED: _D.RUNNING},
    DispatcherStep.DRAIN: {_D.RUNNING: _D.STOPPING},
    DispatcherStep.STOP: {_D.STOPPING: _D.STOPPED},
    DispatcherStep.CLOSE: {
        _D.NEW: _D.CLOSED,
        _D.RUNNING: _D.CLOSED,  # its task died
        _D.STOPPING: _D.CLOSED,
        _D.STOPPED: _D.CLOSED,
        _D.CLOSED: _D.CLOSED,
    },
}
