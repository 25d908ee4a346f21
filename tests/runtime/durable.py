"""A dispatcher with a store, on virtual time: commits take as long as a test says."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

import trio
from trio.testing import MockClock

import csjd
from csjd import Dispatcher
from csjd.stores import JobStore, Operation
from csjd.testing.stores import MemoryJobStore
from csjd.testing.threads import blocking, virtual_threads
from tests.runtime.scene import PATIENCE

EPOCH = 1e9
"""What the wall clock shows when the virtual clock shows 0."""


class SlowStore(MemoryJobStore):
    """A store whose commits take *seconds* each, in a virtual thread."""

    def __init__(
        self, seconds: float = 0.0, *, faults: Iterator[Exception | None] | None = None
    ) -> None:
        super().__init__(faults=faults)
        self.seconds = seconds
        self.syncs: list[bool] = []

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> Any:
        kept = list(operations)

        def finish(cancelled: bool) -> None:
            super(SlowStore, self).commit(kept, sync=sync)
            self.syncs.append(sync)

        return blocking(self.seconds, finish) if self.seconds else finish(False)

    def crashed(self) -> "SlowStore":
        """Return a store that knows what this one had made durable, as after a crash."""
        other = SlowStore(self.seconds)
        other.model = self.model.copy()
        other._clean = False
        return other

    def kinds(self) -> list[list[str]]:
        """Return the kinds of operations of each batch."""
        return [[type(each).__name__ for each in batch] for batch in self.batches]


@contextmanager
def virtual_wall(clock: MockClock) -> Iterator[None]:
    """While entered, the wall clock goes with *clock*, and threads are virtual."""
    with patch("time.time", lambda: EPOCH + clock.current_time()), virtual_threads():
        yield


@asynccontextmanager
async def opened(
    store: JobStore,
    registry: csjd.Registry | None = None,
    *,
    observers: tuple[csjd.Observer, ...] = (),
    **settings: Any,
) -> AsyncIterator[Dispatcher]:
    """Open a dispatcher with *store* in a nursery of its own."""
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery,
            csjd.Config(**settings),
            registry=registry,
            store=store,
            observers=observers,
        ) as dispatcher,
    ):
        with trio.fail_after(PATIENCE):  # noqa: ASYNC100
            yield dispatcher
