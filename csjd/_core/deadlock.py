"""
Whether a handler that waits for other jobs could wait for ever.

A lane *gets on* if its attempt can end: it is free, or busy with a handler that waits for
no other job, or everything its handler waits for will come about because other lanes get
on. The lanes that get on are the least fixed point of that rule; a wait must not be begun
if the lane that begins it would not be among them.
"""

from collections.abc import Iterable
from typing import TypeAlias

from csjd._core.entry import Entry
from csjd._core.lanes import Lane

Wait: TypeAlias = Entry | None
"""The end of that job; None: the end of any job, because there is no room."""


def would_deadlock(lane: Lane, wait: Wait, lanes: Iterable[Lane], live: int) -> bool:
    """
    Whether *wait* could never end if *lane*'s attempt began it.

    Args:
        lane: The lane whose attempt is about to wait.
        wait: What it is about to wait for.
        lanes: All lanes, detached ones and *lane* included.
        live: How many jobs are accepted and have not ended.
    """
    everyone = tuple(lanes)
    queued = live - sum(each.entry is not None for each in everyone)
    waits: dict[Lane, tuple[Wait, ...]] = {each: tuple(each.waits) for each in everyone}
    waits[lane] += (wait,)
    getting_on = {each for each in everyone if not waits[each]}
    undecided = [each for each in everyone if waits[each]]
    while True:
        free = queued - sum(map(_jobs_behind, undecided))
        more = {
            each
            for each in undecided
            if all(_comes(w, each, getting_on, free) for w in waits[each])
        }
        if lane in more:
            return False
        if not more:
            return True
        getting_on |= more
        undecided = [each for each in undecided if each not in more]


def _jobs_behind(lane: Lane) -> int:
    """Return how many jobs cannot start before *lane*'s attempt ends: those of its session."""
    session = lane.entry.session if lane.entry is not None else None
    return session.pending - 1 if session is not None else 0


def _comes(wait: Wait, waiter: Lane, getting_on: set[Lane], free: int) -> bool:
    """Whether *wait* ends, with *free* jobs queued that stand behind nobody undecided."""
    if wait is None:
        # Some job must end: one that runs, or a free one for which there is a lane.
        others = [lane for lane in getting_on if lane is not waiter]
        return any(lane.entry is not None or (free and not lane.detached) for lane in others)
    first = wait.session.head if wait.session is not None else wait
    runs_first = first.holder if first is not None and isinstance(first.holder, Lane) else None
    if runs_first is not None:
        if runs_first not in getting_on:
            return False
        if first is wait:
            return True
    takers = [
        lane
        for lane in getting_on
        if not (lane.detached or lane.worker.leaving or (lane.stuck and lane is not runs_first))
    ]
    session = wait.session
    if session is None or session.worker.blocked:
        # Any will do; such a session is bound anew when its next job's turn comes.
        return bool(takers)
    return any(lane.worker is session.worker for lane in takers)
