"""A nursery of our own inside the caller's: one child for the caller to see, one error."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import trio

from csjd._model.groups import leaves


class Annex:
    """
    One task in the caller's nursery, owning a nursery for any number of tasks of ours.

    They are cancelled with the caller's nursery, and what they raise reaches it.
    """

    nursery: trio.Nursery
    """Where to start tasks; whoever calls `start_soon` lends the task its context."""

    def __init__(self, on_end: Callable[[], object]) -> None:
        self._on_end = on_end
        self._ended = trio.Event()

    @classmethod
    async def open(cls, nursery: trio.Nursery, name: str, on_end: Callable[[], object]) -> Self:
        """
        Start the task in *nursery*, named *name*.

        Args:
            nursery: The caller's.
            name: What the task is called in Trio's tree.
            on_end: Called once, as soon as nothing runs here any more, for whatever reason.
        """
        annex = cls(on_end)
        await nursery.start(annex._run, name=name)
        return annex

    async def _run(  # noqa: ASYNC114  # started by `open` alone
        self, task_status: trio.TaskStatus[None]
    ) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._on_end()
            self._ended.set()

    def cancel(self, reason: str) -> None:
        """Cancel every task here; a second call does nothing."""
        self.nursery.cancel_scope.cancel(reason)

    @asynccontextmanager
    async def ended_on_exit(self, close: Callable[[], object], reason: str) -> AsyncIterator[None]:
        """Leaving the block calls *close*, cancels every task here and sees them all end."""
        try:
            yield
        finally:
            close()
            self.cancel(reason)
            # As a nursery would: a task that takes its time is waited for, come what may.
            with trio.CancelScope(shield=True):
                await self._ended.wait()

    async def wait_ended(self) -> None:
        """Wait until no task of ours is left."""
        await self._ended.wait()


def shareable(error: BaseException) -> BaseException | None:
    """
    Return what callers get to see of an error that user code raised in a task of ours.

    None means that they are no part of it: the interpreter or Trio ends the task, so the
    error has to go on to the nursery. A `Cancelled` out of nowhere is turned into a
    RuntimeError, as raising it in a task that nobody cancelled would end that one too.
    """
    kinds = set(map(type, leaves(error)))
    if kinds & {KeyboardInterrupt, GeneratorExit}:
        return None
    if trio.Cancelled in kinds:
        if trio.current_effective_deadline() == -math.inf:
            return None
        stray = RuntimeError("trio.Cancelled was raised although nothing was cancelled")
        stray.__cause__ = error
        return stray
    return error
