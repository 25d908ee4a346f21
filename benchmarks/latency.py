"""How long an idle pool takes to call a handler after a submit."""

import math
from collections.abc import Awaitable, Callable
from time import perf_counter

import trio

import csjd
from benchmarks._kit.rows import Row, Spread, Target
from benchmarks._kit.work import make_jobs

TITLE = "Latency, from submit to the handler's start on an idle pool of 4, against one channel hop"

TARGET = Target(most=2.5)
"""The median latency, as a multiple of one bare channel hop's."""
WORKERS = 4
SUBMITS = 500
"""Per round and side."""
PAUSE = 0.0005
"""Seconds between two submits: enough for the event loop to go to sleep."""

Submit = Callable[[csjd.Job], Awaitable[object]]


class Starts:
    """A handler that notes when it was called."""

    def __init__(self) -> None:
        self.at = math.nan

    async def handle(self, job: csjd.Job) -> None:
        """Note the time."""
        self.at = perf_counter()

    async def time(self, submit: Submit, jobs: list[csjd.Job]) -> list[float]:
        """Submit one job at a time to an idle pool; return the seconds each took to start."""
        latencies = []
        for job in jobs:
            self.at = math.nan
            began = perf_counter()
            await submit(job)
            await trio.sleep(PAUSE)
            assert not math.isnan(self.at), "an idle pool must have started the job by now"
            latencies.append(self.at - began)
        return latencies


async def _csjd(jobs: list[csjd.Job]) -> list[float]:
    starts = Starts()
    registry = csjd.Registry()
    registry.register("work", starts.handle)
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, csjd.Config(workers=WORKERS), registry=registry) as pool,
    ):
        await trio.sleep(PAUSE)
        latencies = await starts.time(pool.submit, jobs)
    return latencies


async def _bare(jobs: list[csjd.Job]) -> list[float]:
    starts = Starts()
    send, receive = trio.open_memory_channel[csjd.Job](math.inf)

    async def work() -> None:
        async for job in receive:
            await starts.handle(job)

    async with trio.open_nursery() as nursery, send:
        for _ in range(WORKERS):
            nursery.start_soon(work)
        await trio.sleep(PAUSE)
        latencies = await starts.time(send.send, jobs)
    return latencies


def run(rounds: int, scale: float = 1.0) -> list[Row]:
    """Return a row for the median latency and one for the 99th percentile."""
    jobs = make_jobs(max(10, int(SUBMITS * scale)))
    measured = []
    for number in range(rounds + 1):
        if number % 2:
            mine = sorted(trio.run(_csjd, jobs))
            bare = sorted(trio.run(_bare, jobs))
        else:
            bare = sorted(trio.run(_bare, jobs))
            mine = sorted(trio.run(_csjd, jobs))
        if number:  # the one before the first warms up
            measured.append((mine, bare))
    return [_row(0.5, measured, TARGET), _row(0.99, measured, None)]


def _row(
    fraction: float, measured: list[tuple[list[float], list[float]]], target: Target | None
) -> Row:
    def at(latencies: list[float]) -> float:
        return latencies[int(fraction * len(latencies))]

    ratio = Spread.of([at(mine) / at(bare) for mine, bare in measured])
    return {
        "case": f"p{fraction * 100:g}",
        **ratio.columns(),
        "csjd_us": Spread.of([at(mine) for mine, _ in measured]).median * 1e6,
        "bare_us": Spread.of([at(bare) for _, bare in measured]).median * 1e6,
        "rounds": len(measured),
        **(target.columns(ratio.median) if target else {}),
    }
