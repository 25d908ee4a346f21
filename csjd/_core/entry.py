"""
What the dispatcher knows of one accepted job.

A million entries may be pending, and one is made for every job, so an entry is a msgspec
struct that the garbage collector does not track: made in a quarter of the time of a class
of our own, and never visited again by any collection. The price is a rule: *nothing an
entry refers to may refer back to it once its job has ended or its dispatcher is closed*.
The links are cut in `Backlog` when a job ends, and by `Backlog.dissolve` at the close.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from csjd._model.handler import HandlerSpec
from csjd._model.job import Job
from csjd._model.lifecycle import JobState

if TYPE_CHECKING:
    from csjd._core.lanes import Lane
    from csjd._core.ready import ReadyQueue
    from csjd._core.sessions import Session
    from csjd._core.timers import DueTimes


class Entry(msgspec.Struct, eq=False, gc=False):
    """One accepted job; as long as a receipt holds it, beyond its end."""

    job: Job
    spec: HandlerSpec
    """Gone when the job has ended: a handler may belong to what keeps the job's receipt."""
    order: int
    """Acceptance number: unique, ascending; kept through retries."""
    since: float
    """When it was accepted, or last fell due: where its waiting time begins."""
    copies: bool = False
    """Whether each attempt needs its own copy of payload or metadata."""
    state: JobState = JobState.READY
    holder: "ReadyQueue | DueTimes | Lane | None" = None
    """
    What has it: a ready queue, a heap of due times, or the lane that runs it.

    READY without a holder means kept back: its type is paused, or its session is held.
    """
    session: "Session | None" = None
    ahead: "Entry | None" = None
    """The job before it in its session; None at the head, and without a session."""
    behind: "Entry | None" = None
    due: float = 0.0
    """When it falls due; true only while SCHEDULED."""
    attempts: int = 0
    """Attempts used or running; an interrupted or snoozed one is taken off again."""
    unwanted: bool = False
    """Cancelled by request while an attempt was already being ended: gets no other."""
    result: Any = None
    """What the handler returned, or the exception that ended it; once terminal."""
    duration: float = 0.0
    """Seconds the last attempt ran."""
    late: bool = False
    """Succeeded after its deadline."""
    timed_out: bool = False
    """Failed by a timeout."""
    listener: Any = None
    """Whatever the runtime wants woken at the end; the core only carries it."""


def use_plain_stores(struct: type[msgspec.Struct]) -> None:
    """
    Let setting an attribute of *struct* cost what it costs elsewhere: a quarter.

    A struct informs the garbage collector of every store. One that is hidden from it has
    no need of that; but how it stores can only be changed when the class is there.
    """
    struct.__setattr__ = object.__setattr__  # type: ignore[method-assign]
    struct.__delattr__ = object.__delattr__  # type: ignore[method-assign]


use_plain_stores(Entry)
