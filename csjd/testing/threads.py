"""
Threads that live on virtual time.

A mock clock does not wait for real threads: it would jump over whatever they do. While
`virtual_threads()` is entered, a plain function that Trio is asked to run in a thread is
called at once, in the loop; if it returns `blocking(seconds, then)` it counts as busy for
so long, deaf to cancellation as a real thread is, before *then* is called for its result.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any
from unittest.mock import patch

import attrs
import trio

from csjd._runtime import threads


@attrs.frozen
class Blocking:
    """What a plain function returns to be busy for a while; see `blocking`."""

    seconds: float
    then: Callable[[bool], Any]


def blocking(seconds: float, then: Callable[[bool], Any] = lambda cancelled: None) -> Blocking:
    """
    Have the virtual thread that this is returned in block.

    Args:
        seconds: How long.
        then: Called after that, with whether the caller was cancelled meanwhile (what
            `trio.from_thread.check_cancelled` tells a real thread); its result, which may
            be `blocking(...)` again, is the thread's.
    """
    return Blocking(seconds, then)


@contextmanager
def virtual_threads() -> Iterator[None]:
    """While entered, `trio.to_thread.run_sync` and stores run functions in virtual threads."""
    with (
        patch.object(trio.to_thread, "run_sync", _run_sync),
        patch.object(threads, "run_in_thread", _run_in_thread),
    ):
        yield


async def _run_sync(
    function: Callable[..., Any],
    *args: Any,
    thread_name: str | None = None,
    abandon_on_cancel: bool = False,
    limiter: trio.CapacityLimiter | None = None,
) -> Any:
    await trio.lowlevel.checkpoint_if_cancelled()
    thread = object()  # who borrows the token, as Trio's own threads do
    limiter = limiter or trio.to_thread.current_default_thread_limiter()
    await limiter.acquire_on_behalf_of(thread)
    try:
        return await _run(function, *args, abandon_on_cancel=abandon_on_cancel)
    finally:
        limiter.release_on_behalf_of(thread)


async def _run_in_thread(function: Callable[..., Any], *args: Any) -> Any:
    await trio.lowlevel.cancel_shielded_checkpoint()  # a thread does not begin at once
    return await _run(function, *args, abandon_on_cancel=False)


async def _run(function: Callable[..., Any], *args: Any, abandon_on_cancel: bool) -> Any:
    result = copy_context().run(function, *args)
    while isinstance(result, Blocking):
        with trio.CancelScope(shield=not abandon_on_cancel):
            await trio.sleep(result.seconds)
        result = copy_context().run(result.then, _is_cancelled())
    return result


def _is_cancelled() -> bool:
    return trio.current_effective_deadline() == -math.inf
