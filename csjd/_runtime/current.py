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
    task = trio.lowlevel.current_task()
    root = trio.lowlevel.current_root_task()
    while task is not lane.task:
        nursery = task.parent_nursery
        if nursery is None or nursery.parent_task is root:
            # The eldest. Trio's main task knows no lane; a system task that does was
            # started by a thread of the handler, which waits for it.
            return lane if task.context.get(current_lane) is lane else None
        task = nursery.parent_task
    return lane
