"""Picking: which of the ready jobs a lane takes next."""

from typing import TypeAlias

from csjd._core.entry import Entry
from csjd._core.ready import ReadyQueue

OLDEST_EVERY = 16
"""
Of so many picks of a worker's with a choice one takes the oldest, whatever its priority, so
that none starves.
"""

SetAside: TypeAlias = dict[str, dict[Entry, None]]
"""By paused type: ready jobs whose turn had come, in that order."""


def pick_from(
    own: ReadyQueue, shared: ReadyQueue, set_aside: SetAside, *, oldest: bool
) -> Entry | None:
    """Take out and return the first of both queues, or the oldest; None if all are paused."""
    mine = first_free(own, set_aside, oldest=oldest) if own.size else None
    theirs = first_free(shared, set_aside, oldest=oldest) if shared.size else None
    if mine is None or (theirs is not None and _precedes(theirs, mine, oldest=oldest)):
        queue, entry = shared, theirs
    else:
        queue, entry = own, mine
    if entry is not None:
        queue.take(entry)
    return entry


def first_free(queue: ReadyQueue, set_aside: SetAside, *, oldest: bool) -> Entry | None:
    """Return the first, or the oldest, of *queue* whose type is not paused; set others aside."""
    while True:
        entry = queue.oldest() if oldest else queue.first()
        if entry is None or entry.job.type not in set_aside:
            return entry
        queue.take(entry)
        set_aside[entry.job.type][entry] = None


def _precedes(one: Entry, other: Entry, *, oldest: bool) -> bool:
    """Whether *one* is to be taken before *other*."""
    if not oldest and one.job.priority != other.job.priority:
        return one.job.priority > other.job.priority
    return one.order < other.order
