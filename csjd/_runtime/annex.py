"""A nursery of our own inside the caller's: one child for the caller to see, one error."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import trio


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
