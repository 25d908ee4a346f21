"""Calling handlers: async ones as they are, plain ones in a thread, all open to Ctrl-C."""

import functools
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import trio
from trio.lowlevel import disable_ki_protection

from csjd._model.config import Config
from csjd._model.handler import HandlerSpec
from csjd._runtime.current import current_lane

if TYPE_CHECKING:
    from csjd._model.job import Job
    from csjd._runtime.attempt import Attempt

AsyncHandler: TypeAlias = Callable[..., Awaitable[Any]]


def prepare_handler(
    spec: HandlerSpec, config: Config, limiter: trio.CapacityLimiter
) -> HandlerSpec:
    """Return *spec* with its defaults filled in and a function that a lane can await."""
    return attrs.evolve(
        spec,
        function=_in_thread(spec.function, limiter)
        if spec.threaded
        else _unprotected(spec.function),
        timeout=config.job_timeout if spec.timeout is None else spec.timeout,
        retry=spec.retry or config.retry,
    )


def _unprotected(function: AsyncHandler) -> AsyncHandler:
    """
    Let Ctrl-C interrupt *function*, although the lane that calls it is protected.

    Trio keeps this by code object, so a function costs nothing extra; other callables
    need a function around them.
    """
    if hasattr(function, "__code__"):
        return disable_ki_protection(function)

    @disable_ki_protection
    async def call(*args: Any) -> Any:
        return await function(*args)

    return call


def _in_thread(function: Callable[..., Any], limiter: trio.CapacityLimiter) -> AsyncHandler:
    """Return *function* as an async one that runs it in a thread, and never abandons it."""

    def note_thread(*args: Any) -> Any:
        task = current_lane.get()
        if task is None:
            return function(*args)
        task.thread = threading.get_ident()  # so that a stuck one can be shown
        try:
            return function(*args)
        finally:
            task.thread = None  # from now on the thread does other people's work

    @functools.wraps(function)
    async def call(job: "Job", *attempt: "Attempt") -> Any:
        return await trio.to_thread.run_sync(note_thread, job, *attempt, limiter=limiter)

    return call
