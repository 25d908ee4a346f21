"""
The sides: csjd, and what one would write by hand on bare Trio.

All take their jobs in the same batches with one checkpoint after each, and are measured
from the first submit to the last job's end.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable

import trio
import trio.testing

import csjd
from benchmarks._kit.pairs import Stopwatch

Handler = Callable[[csjd.Job], Awaitable[None]]
Batches = list[list[csjd.Job]]
BarePool = Callable[[int, Handler, Batches], Awaitable[Stopwatch]]


async def run_csjd(workers: int, handler: Handler, batches: Batches) -> Stopwatch:
    """Run all jobs in a dispatcher with nothing but its number of workers set."""
    stopwatch = Stopwatch()
    registry = csjd.Registry()
    registry.register("work", handler)
    config = csjd.Config(workers=workers)
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, config, registry=registry) as dispatcher,
    ):
        await trio.testing.wait_all_tasks_blocked()
        stopwatch.start()
        for batch in batches:
            await dispatcher.submit_batch(batch)
        await dispatcher.stop()
        stopwatch.stop()
        ended = dispatcher.metrics().succeeded
        wanted = sum(map(len, batches))
        assert ended == wanted, f"{ended} of {wanted} jobs succeeded"
    return stopwatch


async def run_bare(workers: int, handler: Handler, batches: Batches) -> Stopwatch:
    """Run all jobs in tasks that read them from one memory channel; keeps no order."""
    stopwatch = Stopwatch()
    send, receive = trio.open_memory_channel[csjd.Job](math.inf)

    async def work() -> None:
        async for job in receive:
            await handler(job)

    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        stopwatch.start()
        for batch in batches:
            for job in batch:
                send.send_nowait(job)
            await trio.lowlevel.checkpoint()
        send.close()
    stopwatch.stop()
    return stopwatch


async def run_bare_keyed(workers: int, handler: Handler, batches: Batches) -> Stopwatch:
    """Run all jobs in tasks that take sessions from a channel; keeps each session's order."""
    stopwatch = Stopwatch()
    send, receive = trio.open_memory_channel[str](math.inf)
    waiting: dict[str, deque[csjd.Job]] = {}
    left = sum(map(len, batches))

    async def work() -> None:
        nonlocal left
        async for session in receive:
            jobs = waiting[session]
            await handler(jobs.popleft())
            if jobs:
                send.send_nowait(session)
            else:
                del waiting[session]
            left -= 1
            if not left:
                send.close()

    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        stopwatch.start()
        for batch in batches:
            for job in batch:
                session = job.session or ""
                if session in waiting:
                    waiting[session].append(job)
                else:
                    waiting[session] = deque([job])
                    send.send_nowait(session)
            await trio.lowlevel.checkpoint()
    stopwatch.stop()
    return stopwatch
