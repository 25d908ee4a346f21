"""
No wake-up is ever lost: the invariant behind lanes that sleep until they are called.

*When no lane runs and no wake-up is under way, no parked, unpaused lane can take any
ready job.* `check_wakeups` looks for a job that breaks it; this is the one place in the
kit that looks inside a dispatcher.
"""

from csjd import Dispatcher, DispatcherState, JobState


def check_wakeups(dispatcher: Dispatcher) -> str | None:
    """
    Return what has been slept through, None if nothing was.

    Ask when every task waits (`trio.testing.wait_all_tasks_blocked`): then no wake-up can
    be under way.
    """
    scheduler = dispatcher._scheduler
    backlog = scheduler.backlog
    if dispatcher.state not in (DispatcherState.RUNNING, DispatcherState.STOPPING):
        return None
    if backlog.idle:
        return None
    free = {
        worker.id
        for worker in backlog.workers.values()
        if any(lane.entry is None for lane in worker.lanes)
    }
    for entry in backlog.ids.live():
        if entry.state is not JobState.READY or entry.job.type in backlog.set_aside:
            continue
        session = entry.session
        if session is None:
            if free:
                return f"{entry.job.id} is ready and workers {sorted(free)} have free lanes"
        elif not session.held:
            if session.worker.id in free:
                return f"{entry.job.id} is ready and its worker {session.worker.id} is free"
            if session.worker.blocked and free:
                return f"{entry.job.id} waits for a worker that cannot run it, {sorted(free)} could"
    return None
