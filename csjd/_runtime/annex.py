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
    """Where to start tasks, until closed; whoever calls `start_soon` lends the task its context."""

    def __init__(self, on_close: Callable[[], object]) -> None:
        self._on_close = on_close
        self._ended = trio.Event()

    @classmethod
    async def open(cls, nursery: trio.Nursery, name: str, on_close: Callable[[], object]) -> Self:
        """
        Start the task in *nursery*, named *name*.

        Args:
            nursery: The caller's.
            name: What the task is called in Trio's tree.
            on_close: Called when nothing can be started here any more, for whatever reason,
                while what was started may still be on its way out; perhaps more than once.
        """
        annex = cls(on_close)
        await nursery.start(annex._run, name=name)
        return annex

    @trio.lowlevel.enable_ki_protection
    async def _run(  # noqa: ASYNC114  # started by `open` alone
        self, task_status: trio.TaskStatus[None]
    ) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                try:
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    # Not when the nursery has ended: it refuses new tasks a moment before
                    # we would get to run again.
                    self._on_close()
        finally:
            self._ended.set()

    def close(self, reason: str) -> None:
        """Cancel every task here, and have no more started."""
        self.nursery.cancel_scope.cancel(reason)
        self._on_close()

    @asynccontextmanager
    async def closed_on_exit(self, reason: str) -> AsyncIterator[None]:
        """Leaving the block closes the annex and sees every task here end."""
        try:
            yield
        finally:
            try:
                self.close(reason)
            finally:
                # As a nursery would: a task that takes its time is waited for, come what may.
                with trio.CancelScope(shield=True):
                    await self._ended.wait()

    async def wait_ended(self) -> None:
        """Wait until no task of ours is left."""
        await self._ended.wait()
