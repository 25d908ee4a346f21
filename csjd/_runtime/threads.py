"""A thread for what must not hold up the loop, and needs nothing of Trio."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import trio

T = TypeVar("T")


async def run_in_thread(function: Callable[..., T], *args: object) -> T:
    """
    Return what *function* returns, called in one of Trio's threads; cannot be cancelled.

    `trio.to_thread.run_sync` gives the thread more: its caller's context, a way back into
    the loop, a limiter, a name. Without these, a store's commit takes a tenth less.
    """
    task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()

    def deliver(result: Any) -> None:
        with suppress(trio.RunFinishedError):  # the whole run has crashed
            token.run_sync_soon(trio.lowlevel.reschedule, task, result)

    trio.lowlevel.start_thread_soon(partial(function, *args), deliver)
    result: T = await trio.lowlevel.wait_task_rescheduled(_go_on_waiting)
    return result


def _go_on_waiting(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
