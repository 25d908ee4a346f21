"""What the dispatcher knows of one accepted job."""

from typing import TYPE_CHECKING, Any

import attrs

from csjd._model.handler import HandlerSpec
from csjd._model.job import Job
from csjd._model.lifecycle import JobState

if TYPE_CHECKING:
    from csjd._core.ready import ReadyQueue
    from csjd._core.sessions import Session
    from csjd._core.timers import DueTimes


@attrs.define(eq=False, init=False, weakref_slot=False)
class Entry:
    """
    One accepted job, from acceptance to its end; as long as a receipt holds it, beyond.

    A million of these may be pending, so it owns no container, and a session's jobs are a
    list linked through `ahead` and `behind`.
    """

    job: Job
    spec: HandlerSpec
    order: int
    """Acceptance number: unique, ascending; kept through retries."""
    state: JobState
    since: float
    """When it was accepted, or last fell due: where its waiting time begins."""
    copies: bool
    """Whether each attempt needs its own copy of payload or metadata."""
    session: "Session | None"
    ahead: "Entry | None"
    """The job before it in its session; None at the head, and without a session."""
    behind: "Entry | None"
    queue: "ReadyQueue | DueTimes | None"
    """What holds it until it may start. READY without one: paused, or its session is held."""
    due: float
    """When it falls due; true only while SCHEDULED."""
    attempts: int
    """Attempts used or running; an interrupted or snoozed one is taken off again."""
    lane: Any
    """The `Lane` that runs it, also a detached one; else None."""
    result: Any
    """What the handler returned, or the exception that ended it; once terminal."""
    duration: float
    """Seconds the last attempt ran; once terminal."""
    unwanted: bool
    """Cancelled by request while an attempt was already being ended: gets no other."""
    late: bool
    """Succeeded after its deadline."""
    timed_out: bool
    """Failed by a timeout."""
    listener: Any
    """Whatever the runtime wants woken at the end; the core only carries it."""

    # By hand, because it runs for every job: the one that attrs writes looks each
    # default up and takes half as long again.
    def __init__(
        self, job: Job, spec: HandlerSpec, order: int, now: float, copies: bool = False
    ) -> None:
        self.job = job
        self.spec = spec
        self.order = order
        self.state = JobState.READY
        self.since = now
        self.copies = copies
        self.session = self.ahead = self.behind = self.queue = None
        self.due = self.duration = 0.0
        self.attempts = 0
        self.lane = self.result = self.listener = None
        self.unwanted = self.late = self.timed_out = False
