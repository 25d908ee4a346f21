"""
Tasks asleep until what they all wait for has happened, woken by one call.

It does what `trio.Event` does for a third of the price, where the price matters: waiting
and waking are most of what a cache's miss and a batch loader's key cost.
"""

import types
from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeAlias

import outcome
import trio

Sleepers: TypeAlias = dict[trio.lowlevel.Task, None]
"""Tasks in `sleep_among`, the one that has slept longest first."""


class _Woken(outcome.Outcome[None]):
    """What a sleeper is sent. Unlike `outcome.Value` it can be used again, so one will do."""

    __slots__ = ()

    def unwrap(self) -> None:
        return None

    def send(self, gen: Generator[Any, None, object]) -> Any:
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[Any, None]) -> Any:
        return await agen.asend(None)


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


@types.coroutine
def sleep_among(
    sleepers: Sleepers,
) -> Generator[object, outcome.Outcome[None], None]:
    """
    Sleep until `wake_all(sleepers)`; who is cancelled is no longer among them.

    No full checkpoint: wake-up and cancellation may come in any order.
    """
    task = trio.lowlevel.current_task()
    sleepers[task] = None
    # Trio clears this when it wakes a task: from then on nobody else may.
    task.custom_sleep_data = sleepers
    try:
        (yield _SLEEP).unwrap()
    except BaseException:
        sleepers.pop(task, None)
        raise


def is_asleep(task: trio.lowlevel.Task, sleepers: Sleepers) -> bool:
    """Whether `wake_all(sleepers)` would wake *task*: it may be on its way out already."""
    return task.custom_sleep_data is sleepers


def wake_all(sleepers: Sleepers) -> None:
    """Wake every task that sleeps here."""
    for task in sleepers:
        if task.custom_sleep_data is sleepers:  # else it is cancelled
            trio.lowlevel.reschedule(task, _WOKEN)
    sleepers.clear()
