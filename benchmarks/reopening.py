"""
A store with a million live jobs: how long until work begins again, and what tidying it costs.

A store is filled and closed. Then, in a process that has done nothing else, a dispatcher is
opened over it, which is timed and weighed; and while the store is compacted, which writes
all of its jobs anew, submitters go on and a ticker notes how late the event loop is.
"""

import gc
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time
from typing import Final

import attrs
import trio

import csjd
from benchmarks._kit.children import in_child
from benchmarks._kit.rows import Row, Spread, Target
from benchmarks.pending import lags_noted, resident
from csjd.stores import Accepted

TITLE = "Reopening a large store"

MOST: Final = 1_000_000
FEWEST: Final = 1_000
BATCH: Final = 1_000
SUBMITTERS: Final = 8
ROUNDS: Final = 3
"""At most; one takes a minute, and what is looked for here is no matter of percents."""
PAYLOAD: Final = b"\xc4\x3c" + bytes(60)
"""60 bytes, as the store keeps them."""
CREATED: Final = datetime(2024, 1, 1, tzinfo=UTC)

SECONDS: Final = Target(most=15, unit=" s")
MEMORY: Final = Target(most=1024)
"""Bytes."""
LAG: Final = Target(most=10, unit=" ms")
"""Of 99 in 100 looks at the loop."""


@attrs.frozen
class Reopening:
    """What one reopening took, and the compaction after it."""

    seconds: float
    """Until the dispatcher's block began."""
    cpu: float
    """Seconds of the processor that it took, which other programs do not lengthen."""
    grown: int
    """Bytes by which the process had grown then."""
    compaction: float
    """Seconds."""
    lags: list[float]
    """Seconds by which the ticker came late during the compaction."""
    submitted: int
    """Jobs acknowledged during the compaction."""


def _fill(path: Path, jobs: int) -> None:
    """Leave a closed store with so many live jobs, in a hundredth as many sessions."""
    store = csjd.FileJobStore(path)
    store.recover()
    sessions = max(1, jobs // 100)
    for first in range(1, jobs + 1, BATCH):
        orders = range(first, min(first + BATCH, jobs + 1))
        store.commit(
            [
                Accepted(n, f"job-{n:08}", "work", PAYLOAD, CREATED, f"session-{n % sessions}")
                for n in orders
            ],
            sync=False,
        )
    store.close()


def _reopen(path: Path) -> Reopening:
    return trio.run(_reopen_and_compact, path)


async def _reopen_and_compact(path: Path) -> Reopening:
    registry = csjd.Registry()

    @registry.handler("work")
    async def work(job: csjd.Job) -> None:
        await trio.sleep_forever()

    store = csjd.FileJobStore(path)
    config = csjd.Config(workers=1, stop_grace=0, job_timeout=1e6, history=0)
    gc.collect()
    before, worked, began = resident(), process_time(), perf_counter()
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, config, registry=registry, store=store) as dispatcher,
    ):
        seconds, cpu = perf_counter() - began, process_time() - worked
        grown = resident() - before
        submitted = [0]
        async with lags_noted() as lags, trio.open_nursery() as load:
            for number in range(SUBMITTERS):
                load.start_soon(_submit, dispatcher, number, submitted)
            began = perf_counter()
            await trio.to_thread.run_sync(store.compact)
            compaction = perf_counter() - began
            load.cancel_scope.cancel()
    return Reopening(seconds, cpu, grown, compaction, lags, submitted[0])


async def _submit(dispatcher: csjd.Dispatcher, number: int, submitted: list[int]) -> None:
    while True:
        await dispatcher.submit(
            csjd.Job(type="work", payload=bytes(60), session=f"session-{number}")
        )
        submitted[0] += 1


def run(rounds: int, scale: float = 1.0) -> list[Row]:
    """Return rows for time, memory, and the loop's lag during a compaction."""
    jobs = max(2 * FEWEST, int(MOST * scale))
    measured: list[Reopening] = []
    for _ in range(min(rounds, ROUNDS)):
        with tempfile.TemporaryDirectory() as path:
            in_child(_fill, Path(path) / "store", jobs)
            measured.append(in_child(_reopen, Path(path) / "store"))
    seconds = Spread.of([each.seconds for each in measured])
    size = statistics.median(each.grown for each in measured) / jobs
    lags = sorted(lag for each in measured for lag in each.lags)
    late = lags[int(0.99 * len(lags))] * 1e3
    return [
        {
            "case": f"reopen {jobs:,} live jobs, seconds",
            "figure": seconds.median,
            "min": seconds.lowest,
            "max": seconds.highest,
            "cpu": statistics.median(each.cpu for each in measured),
            **SECONDS.columns(seconds.median),
        },
        {"case": "bytes per reopened job", "figure": size, **MEMORY.columns(size)},
        {
            "case": f"loop lag while {jobs:,} jobs are compacted under submits, p99 and max in ms",
            "figure": late,
            "max": lags[-1] * 1e3,
            **LAG.columns(late),
        },
        {
            "case": "such a compaction, seconds",
            "figure": statistics.median(each.compaction for each in measured),
        },
        {
            "case": "submits acknowledged meanwhile, per second",
            "figure": statistics.median(each.submitted / each.compaction for each in measured),
        },
    ]
