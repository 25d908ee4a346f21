"""What a job costs in memory, exactly: by tracemalloc, which sees every allocation."""

import gc
import sys
import tracemalloc

import attrs
import trio
import trio.testing

import csjd
from benchmarks._kit.rows import Row
from benchmarks._kit.work import BATCH, batches, do_nothing, make_jobs

TITLE = "Allocations per job, above the caller's own objects (tracemalloc)"

WORKERS = 4


@attrs.frozen
class Held:
    """What is allocated at one moment."""

    size: int
    blocks: int

    @classmethod
    def now(cls) -> "Held":
        """Look."""
        gc.collect()
        return cls(tracemalloc.get_traced_memory()[0], sys.getallocatedblocks())

    def columns(self, name: str, before: "Held", jobs: int) -> Row:
        """Return what came since *before*, per job, as columns."""
        return {
            f"{name}_bytes": (self.size - before.size) / jobs,
            f"{name}_blocks": (self.blocks - before.blocks) / jobs,
        }


async def _measure(sessions: int, jobs: int) -> Row:
    registry = csjd.Registry()
    registry.register("work", do_nothing)
    config = csjd.Config(workers=WORKERS)
    work = batches(make_jobs(jobs, sessions=sessions))
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, config, registry=registry) as dispatcher,
    ):
        dispatcher.pause()
        await trio.testing.wait_all_tasks_blocked()
        tracemalloc.start()
        try:
            before = Held.now()
            for batch in work:
                await dispatcher.submit_batch(batch)
            pending = Held.now()
            dispatcher.resume()
            await trio.testing.wait_all_tasks_blocked()
            assert dispatcher.metrics().succeeded == jobs
            peak = tracemalloc.get_traced_memory()[1]
            after = Held.now()
        finally:
            tracemalloc.stop()
    return {
        "case": f"{jobs:,} jobs, {f'{sessions:,} sessions' if sessions else 'no session'}",
        **pending.columns("pending", before, jobs),
        "peak_bytes": (peak - before.size) / jobs,
        **after.columns("ended", before, jobs),
    }


def run(rounds: int, scale: float = 1.0) -> list[Row]:
    """
    Return a row for each shape: while all jobs are pending, at the peak, after all ended.

    One look is enough: allocations do not depend on the weather. What is left of an ended
    job is its id for the duplicate window and its line in the history.
    """
    jobs = max(BATCH, int(20_000 * scale))
    return [trio.run(_measure, sessions, jobs) for sessions in (0, max(1, jobs // 100), jobs)]
