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
    from csjd._core.lanes import Lane
    from csjd._runtime.lane import LaneTask
    from csjd._runtime.scheduler import Scheduler

current_lane: "ContextVar[LaneTask | None]" = ContextVar("csjd_current_lane", default=None)


def enclosing_lane(scheduler: "Scheduler") -> "Lane | None":
    """
    Return the lane of *scheduler* whose attempt the running task is part of, if there is one.

    Handlers of a dispatcher that was opened by a handler are part of that one's attempt.
    """
    lane = current_lane.get()
    while lane is not None and lane.scheduler is not scheduler:
        lane = lane.opener
    if lane is None or lane.lane.entry is None or not _is_part_of(lane):
        return None
    return lane.lane


def _is_part_of(lane: "LaneTask") -> bool:
    """Whether *lane* runs the task that asks, or one that this descends from."""
    task = trio.lowlevel.current_task()
    root = trio.lowlevel.current_root_task()
    while task is not lane.task:
        nursery = task.parent_nursery
        if nursery is None or nursery.parent_task is root:
            # The eldest. Trio's main task knows no lane; a system task that does was
            # started by a thread of the handler, which waits for it.
            return _was_started_in(task.context.get(current_lane), lane)
        task = nursery.parent_task
    return True


def _was_started_in(inner: "LaneTask | None", lane: "LaneTask") -> bool:
    while inner is not None and inner is not lane:
        inner = inner.opener
    return inner is lane
