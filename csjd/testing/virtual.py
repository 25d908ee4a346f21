"""Trio programs, and dispatchers in them, on virtual time: no test waits for a clock."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from random import Random
from typing import Any, TypeVar

import trio
from trio.testing import MockClock

from csjd import Config, Dispatcher, Observer, Registry, open_dispatcher
from csjd.testing.determinism import deterministic_schedule
from csjd.testing.threads import virtual_threads

T = TypeVar("T")


def run_virtual(
    function: Callable[..., Awaitable[T]],
    *args: Any,
    seed: int | str | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> T:
    """
    Run a Trio program to its end on virtual time, and return what it returns.

    The clock starts at 0 and jumps to the next deadline whenever every task waits.
    Handlers that are plain functions run in virtual threads: see `blocking`.

    Args:
        function: An async function.
        args: Its arguments.
        seed: Repeats the interleaving of tasks; None: any.
        instruments: As for `trio.run`.
    """
    schedule = nullcontext() if seed is None else deterministic_schedule(seed)
    with schedule, virtual_threads():
        return trio.run(
            function, *args, clock=MockClock(autojump_threshold=0), instruments=instruments
        )


@asynccontextmanager
async def open_test_dispatcher(
    config: Config | None = None,
    *,
    registry: Registry | None = None,
    observers: Iterable[Observer] = (),
    seed: int | str | None = None,
) -> AsyncIterator[Dispatcher]:
    """
    Open a dispatcher together with a nursery of its own.

    Works under any clock; under `run_virtual`, or pytest-trio's `autojump_clock`, on
    virtual time.

    Args:
        config: Default: `Config()`.
        registry: The handlers; more can be registered later.
        observers: Called with every event.
        seed: Where the dispatcher's jitter is drawn from, so that a run can be repeated.
    """
    async with (
        trio.open_nursery() as nursery,
        open_dispatcher(nursery, config, registry=registry, observers=observers) as dispatcher,
    ):
        if seed is not None:
            dispatcher._scheduler.random = Random(seed)
        yield dispatcher
