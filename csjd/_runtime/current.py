"""
Which lane the running code belongs to.

A lane puts itself into a context variable before it runs its first handler, so the tasks
and threads a handler starts inherit it. So do tasks that a handler starts in a nursery
from outside; those outlive the attempt, which is why the family tree is asked as well.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from csjd._runtime.lane import LaneTask

current_lane: "ContextVar[LaneTask | None]" = ContextVar("csjd_current_lane", default=None)


def enclosing_lane() -> "LaneTask | None":
    """Return the lane whose attempt the running task is part of, None if it is part of none."""
    lane = current_lane.get()
    if lane is None or lane.lane.entry is None:
        return None
    task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    while task is not None:
        if task is lane.task:
            return lane
        nursery = task.parent_nursery
        task = None if nursery is None else nursery.parent_task
    return None
