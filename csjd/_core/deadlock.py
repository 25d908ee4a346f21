"""
Whether a handler that waits for other jobs could wait for ever.

A lane *gets on* if its attempt can end: it is free, or busy with a handler that waits for
no other job, or everything its handler waits for will come about because other lanes get
on. The lanes that get on are the least fixed point of that rule; a wait must not be begun
if the lane that begins it would not be among them.

A stuck lane gets on: its handler may end yet, deaf as it is to its cancellation. But only
what has to wait for that very handler counts on it; other queued jobs need another lane.
"""

import enum
from collections.abc import Iterable
from typing import TypeAlias

from csjd._core.entry import Entry
from csjd._core.lanes import Lane


class Room(enum.Enum):
    """What has to end where there is no room."""

    JOB = "any job"
    SESSION = "all jobs of any session"


Wait: TypeAlias = Entry | Room
"""The end of that job, or of whatever makes room."""


def would_deadlock(lane: Lane, wait: Wait, lanes: Iterable[Lane], live: int, sessions: int) -> bool:
    """
    Whether *wait* could never end if *lane*'s attempt began it.

    Args:
        lane: The lane whose attempt is about to wait.
        wait: What it is about to wait for.
        lanes: All lanes, detached ones and *lane* included.
        live: How many jobs are accepted and have not ended.
        sessions: How many sessions they belong to.
    """
    everyone = tuple(lanes)
    queued = live - sum(each.entry is not None for each in everyone)
    waits: dict[Lane, tuple[Wait, ...]] = {each: tuple(each.waits) for each in everyone}
    waits[lane] += (wait,)
    getting_on = {each for each in everyone if not waits[each]}
    undecided = [each for each in everyone if waits[each]]
    while True:
        held_up = [
            each.entry.session
            for each in undecided
            if each.entry is not None and each.entry.session is not None
        ]
        free = {
            Room.JOB: queued - sum(session.pending - 1 for session in held_up),
            Room.SESSION: sessions - len(held_up),
        }
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


def _comes(wait: Wait, waiter: Lane, getting_on: set[Lane], free: dict[Room, int]) -> bool:
    """Whether *wait* ends; *free* says how much there is that no undecided lane holds up."""
    if isinstance(wait, Room):
        others = [lane for lane in getting_on if lane is not waiter]
        return any(
            _ends_one(lane, wait) or (free[wait] > 0 and not lane.detached) for lane in others
        )
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


def _ends_one(lane: Lane, room: Room) -> bool:
    """Whether the end of *lane*'s attempt is, or brings nearer, what makes *room*."""
    entry = lane.entry
    return entry is not None and (room is Room.JOB or entry.session is not None)
