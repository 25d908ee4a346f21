"""
Tasks asleep until what they all wait for has happened, woken by one call.

It does what `trio.Event` does for a third of the price, where the price matters: waiting
and waking are most of what a cache's miss and a batch loader's key cost.
"""

import types
from collections.abc import Callable, Generator
from operator import attrgetter
from typing import TypeAlias

import trio

Sleepers: TypeAlias = dict[trio.lowlevel.Task, None]
"""Tasks in `sleep_among`, the one that has slept longest first."""


class _Woken:
    """
    What a sleeper is sent: that nothing keeps it from going on.

    Trio hands it through from `wake_all` to `sleep_among`, or in its place an outcome of
    its own that raises `trio.Cancelled`. Unlike that it can be used again, so one will do.
    """

    __slots__ = ()

    def unwrap(self) -> None:
        return None


def _wake_on_cancel(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED


def _sleep_request() -> object:
    """
    Return what a task yields to Trio to fall asleep, to be woken by a cancellation too.

    `wait_task_rescheduled` makes a new one each time, through two coroutines. It says
    nothing but how to abort the sleep, which here is the same for all.
    """
    falling_asleep = trio.lowlevel.wait_task_rescheduled(_wake_on_cancel)  # noqa: ASYNC105
    try:
        return falling_asleep.send(None)
    finally:
        falling_asleep.close()


_WOKEN = _Woken()
_SLEEP = _sleep_request()


run_of: Callable[[trio.lowlevel.Task], object] = attrgetter("_runner")
"""Returns a token for the Trio run that a task is part of; Trio tells it of no task publicly."""


def may_sleep(task: trio.lowlevel.Task, run: object) -> bool:
    """
    Whether *task* is part of *run*, and a checkpoint would not raise `trio.Cancelled` in it.

    Trio has no public way to ask either that costs less than a coroutine.
    """
    return task._runner is run and not task._cancel_status.effectively_cancelled


@types.coroutine
def sleep_among(sleepers: Sleepers, task: trio.lowlevel.Task) -> Generator[object, _Woken, None]:
    """
    Let *task*, the running one, sleep until `wake_all(sleepers)`.

    Who is cancelled meanwhile is no longer among them.
    """
    sleepers[task] = None
    # Trio clears this when it wakes a task: from then on nobody else may.
    task.custom_sleep_data = sleepers
    try:
        (yield _SLEEP).unwrap()
    except BaseException:
        sleepers.pop(task, None)
        raise


def wake_all(sleepers: Sleepers) -> None:
    """Wake every task that sleeps here."""
    reschedule = trio.lowlevel.reschedule
    for task in sleepers:
        if task.custom_sleep_data is sleepers:  # else it is cancelled
            reschedule(task, _WOKEN)  # type: ignore[arg-type]  # only we look at it
    sleepers.clear()
