"""
A million pending jobs: what each occupies, whether they slow one another, and the loop's lag.

Memory is the growth of the process's resident set, in a process that does nothing else:
that is what a machine runs out of, with the allocator's own losses in it, and it does not
slow what is measured as tracing a hundred million allocations would. The jobs themselves,
their ids and session names are made before.
"""

import gc
import math
import os
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter

import attrs
import trio

import csjd
from benchmarks._kit.children import in_child
from benchmarks._kit.rows import Row, Spread, Target
from benchmarks._kit.work import batches, make_jobs

TITLE = "Many pending jobs"

MOST = 1_000_000
FEWEST = 1_000
WORKERS = 4
ROUNDS = 3
"""At most; one takes half a minute, and what is looked for here is no matter of percents."""
TICK = 0.001
"""Seconds between two looks at the loop's lag."""

MEMORY = Target(most=1024)
"""Bytes."""
GROWTH = Target(most=1.5)
"""
The cost per job with the most pending, as a multiple of that with the fewest. A bare channel's
growth is shown beside it: what no longer fits into the processor's caches costs everybody.
"""


@attrs.frozen
class Fill:
    """What one filling and draining of a dispatcher took."""

    seconds: float
    lags: tuple[list[float], list[float]]
    """Seconds by which the ticker came late, while submitting and while draining."""


class Countdown:
    """A handler that tells when the last job has run."""

    def __init__(self, jobs: int) -> None:
        self.left = jobs
        self.done = trio.Event()

    async def handle(self, job: csjd.Job) -> None:
        """Count a job."""
        self.left -= 1
        if not self.left:
            self.done.set()


async def _tick(lags: list[float]) -> None:
    """Note by how much the event loop is late, again and again."""
    while True:
        began = perf_counter()
        await trio.sleep(TICK)
        lags.append(perf_counter() - began - TICK)


@asynccontextmanager
async def lags_noted() -> AsyncIterator[list[float]]:
    """Give a list of the seconds by which the event loop is late, while entered."""
    lags: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tick, lags)
        yield lags
        await trio.sleep(TICK)  # a stall at the very end shows only afterwards
        nursery.cancel_scope.cancel()


async def _fill(jobs: list[csjd.Job]) -> Fill:
    """Hand all jobs to a paused dispatcher, then let it run them."""
    countdown = Countdown(len(jobs))
    registry = csjd.Registry()
    registry.register("work", countdown.handle)
    work = batches(jobs)
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, csjd.Config(workers=WORKERS), registry=registry) as pool,
    ):
        pool.pause()
        gc.collect()
        async with lags_noted() as submitting:
            began = perf_counter()
            for batch in work:
                await pool.submit_batch(batch)
            seconds = perf_counter() - began
        async with lags_noted() as draining:
            began = perf_counter()
            pool.resume()
            await countdown.done.wait()
            seconds += perf_counter() - began
    return Fill(seconds, (submitting, draining))


async def _fill_bare(jobs: list[csjd.Job]) -> Fill:
    """Put all jobs into a memory channel, then let as many bare tasks run them."""
    countdown = Countdown(len(jobs))
    work = batches(jobs)
    send, receive = trio.open_memory_channel[csjd.Job](math.inf)

    async def serve() -> None:
        async for job in receive:
            await countdown.handle(job)

    gc.collect()
    began = perf_counter()
    for batch in work:
        for job in batch:
            send.send_nowait(job)
        await trio.lowlevel.checkpoint()
    send.close()
    async with trio.open_nursery() as nursery:
        for _ in range(WORKERS):
            nursery.start_soon(serve)
    return Fill(perf_counter() - began, ([], []))


def _measure_cost(
    fill: Callable[[list[csjd.Job]], Awaitable[Fill]], most: int, own_sessions: bool
) -> tuple[dict[int, float], Fill]:
    """
    Return the seconds per job by number of pending jobs, and the largest filling.

    All sizes draw on the same great heap of jobs, so that a few pending jobs are no warmer
    in the processor's caches, before they come to the dispatcher, than many.
    """
    jobs = make_jobs(most, sessions=most if own_sessions else 0)
    costs: dict[int, float] = {}
    size = FEWEST
    while True:
        starts = range(0, min(most, max(size, 20 * FEWEST)), size)
        fills = [trio.run(fill, jobs[start : start + size]) for start in starts]
        costs[size] = statistics.median(each.seconds for each in fills) / size
        if size == most:
            return costs, fills[-1]
        size = min(size * 10, most)


def resident() -> int:
    """Return the bytes of memory this process occupies."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _measure_memory(most: int, own_sessions: bool) -> float:
    """Return the bytes that each of *most* pending jobs occupies."""
    work = batches(make_jobs(most, sessions=most if own_sessions else 0))
    registry = csjd.Registry()
    registry.register("work", Countdown(most).handle)

    async def fill() -> int:
        async with (
            trio.open_nursery() as nursery,
            csjd.open_dispatcher(nursery, csjd.Config(workers=WORKERS), registry=registry) as pool,
        ):
            pool.pause()
            gc.collect()
            before = resident()
            for batch in work:
                await pool.submit_batch(batch)
            grown = resident() - before
            pool.resume()
        return grown

    return trio.run(fill) / most


def run(rounds: int, scale: float = 1.0) -> list[Row]:
    """Return rows for memory, cost and lag, without sessions and with one for each job."""
    most = max(2 * FEWEST, int(MOST * scale))
    rounds = min(rounds, ROUNDS)
    rows: list[Row] = []
    for own_sessions, kind in ((False, "no session"), (True, "a session each")):
        size = in_child(_measure_memory, most, own_sessions)
        measured = [in_child(_measure_cost, _fill, most, own_sessions) for _ in range(rounds)]
        rows += [
            {"case": f"bytes per job, {kind}", "figure": size, **MEMORY.columns(size)},
            _growth([costs for costs, _ in measured], kind, GROWTH),
            *(
                _lag([fill.lags[phase] for _, fill in measured], f"{name}, {kind}")
                for phase, name in enumerate(("submitting", "draining"))
            ),
        ]
    bare = [in_child(_measure_cost, _fill_bare, most, False)[0] for _ in range(rounds)]
    rows.append(_growth(bare, "bare channel", None))
    return rows


def _growth(costs: list[dict[int, float]], kind: str, target: Target | None) -> Row:
    fewest, *_, most = sorted(costs[0])
    growth = Spread.of([each[most] / each[fewest] for each in costs])
    return {
        "case": f"cost per job, {most:,} / {fewest:,} pending, {kind}",
        "figure": growth.median,
        "min": growth.lowest,
        "max": growth.highest,
        **{f"us at {size:,}": statistics.median(e[size] for e in costs) * 1e6 for size in costs[0]},
        **(target.columns(growth.median) if target is not None else {}),
    }


def _lag(rounds: list[list[float]], case: str) -> Row:
    lags = sorted(lag for lags in rounds for lag in lags)
    return {
        "case": f"loop lag while {case}, p99 and max in ms",
        "figure": lags[int(0.99 * len(lags))] * 1e3,
        "max": lags[-1] * 1e3,
    }
