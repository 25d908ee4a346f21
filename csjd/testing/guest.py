"""
A Trio program that plain code steps through, as hypothesis' rule-based machines need.

The run is a guest of a host loop, which is a queue that `call` works off until what it
waits for is there. All tasks run in the calling thread, and on a mock clock: time stands
still but for `pass_time`.
"""

import contextlib
from collections.abc import Awaitable, Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from csjd.testing.threads import virtual_threads

T = TypeVar("T")

PATIENCE: Final = 60.0
"""
Real seconds that a call may take: no step of a virtual program takes as long, and one that
waits for what never comes, or goes round in circles, would otherwise hang with its caller.
"""


class GuestStuckError(RuntimeError):
    """What the guest was called for does not come about."""


class _Ending(Protocol):
    """How a Trio run has ended."""

    def unwrap(self) -> None:
        """Raise what it raised, if it did."""


class TrioGuest:
    """
    One Trio run on a mock clock, moved on only by `call`.

    Close it, also after a failure; what then still runs is cancelled, and an error of the
    run surfaces.

    Args:
        patience: Real seconds that a call may take.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._host: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._ended: _Ending | None = None
        self._nursery: trio.Nursery | None = None
        self._threads = virtual_threads()
        self._threads.__enter__()
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._host.put,
            run_sync_soon_not_threadsafe=self._host.put,
            done_callback=self._done,
            clock=MockClock(),
        )
        self._pump(lambda: self._nursery is not None)

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """
        Run *function* as a task until it ends; return or raise what it does.

        Raises:
            RuntimeError: The Trio run has ended.
            GuestStuckError: It has not ended when patience has; it may still be running.
        """
        if self._nursery is None or self._ended is not None:
            raise RuntimeError("the Trio run has ended")
        results: list[T] = []
        errors: list[Exception] = []

        async def task() -> None:
            try:
                results.append(await function(*args))
            except Exception as error:
                errors.append(error)

        self._nursery.start_soon(task)
        self._pump(lambda: bool(results or errors))
        if errors:
            raise errors.pop()
        return results.pop()

    def spawn(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start *function* as a task and do not wait for it; what it raises ends the run."""
        if self._nursery is None or self._ended is not None:
            raise RuntimeError("the Trio run has ended")
        self._nursery.start_soon(function, *args)

    def settle(self) -> None:
        """Let every task run until all of them wait; no time passes."""
        self.call(wait_all_tasks_blocked)

    def pass_time(self, seconds: float) -> None:
        """Let virtual time pass, stopping at every deadline on the way."""
        self.call(_pass_time, seconds)

    def close(self) -> None:
        """End the run."""
        try:
            if self._ended is None and self._nursery is not None:
                self._nursery.cancel_scope.cancel("the guest is closed")
                self._pump(lambda: self._ended is not None)
        finally:
            self._threads.__exit__(None, None, None)
        if self._ended is not None:
            self._ended.unwrap()

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await trio.sleep_forever()

    def _done(self, ended: _Ending) -> None:
        self._ended = ended

    def _pump(self, until: Callable[[], bool]) -> None:
        gives_up_at = monotonic() + self._patience
        while not until():
            if self._ended is not None:
                self._ended.unwrap()
                raise RuntimeError("the Trio run has ended")
            self._next_step(gives_up_at)()

    def _next_step(self, gives_up_at: float) -> Callable[[], object]:
        left = gives_up_at - monotonic()
        if left > 0:
            with contextlib.suppress(Empty):
                return self._host.get(timeout=left)
        raise GuestStuckError(f"nothing has come of it in {self._patience} s")


async def _pass_time(seconds: float) -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.autojump_threshold = 0
    await trio.sleep(seconds)
    clock.autojump_threshold = float("inf")
    await wait_all_tasks_blocked()
