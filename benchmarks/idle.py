"""What a dispatcher does when there is nothing to do: nothing."""

import attrs
import trio
import trio.testing

import csjd
from benchmarks._kit.rows import Row, Target
from benchmarks._kit.work import BATCH, batches, do_nothing, make_jobs

TITLE = "Idleness, in 10 s of virtual time after work was done"

SECONDS = 10.0
TARGET = Target(most=0)


@attrs.define(eq=False)
class StepCounter(trio.abc.Instrument):
    """Counts the steps of all tasks but the one that looks on."""

    onlooker: trio.lowlevel.Task
    steps: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count a step."""
        self.steps += task is not self.onlooker


async def _count_steps(workers: int, sessions: int, jobs: int) -> int:
    registry = csjd.Registry()
    registry.register("work", do_nothing)
    counter = StepCounter(trio.lowlevel.current_task())
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, csjd.Config(workers=workers), registry=registry) as pool,
    ):
        for batch in batches(make_jobs(jobs, sessions=sessions)):
            await pool.submit_batch(batch)
        await trio.testing.wait_all_tasks_blocked()
        assert pool.metrics().succeeded == jobs, "the work must be done before idleness begins"
        trio.lowlevel.add_instrument(counter)
        await trio.sleep(SECONDS)
        trio.lowlevel.remove_instrument(counter)
    return counter.steps


def run(rounds: int, scale: float = 1.0) -> list[Row]:
    """Return a row for each number of workers; one look is enough, there is no chance in it."""
    jobs = max(BATCH, int(10_000 * scale))
    rows: list[Row] = []
    for workers, sessions in ((1, 0), (8, 0), (8, 100)):
        clock = trio.testing.MockClock(autojump_threshold=0)
        steps = trio.run(_count_steps, workers, sessions, jobs, clock=clock)
        rows.append(
            {
                "case": f"workers: {workers}, sessions: {sessions}, jobs done before: {jobs:,}",
                "wake-ups": steps,
                **TARGET.columns(steps),
            }
        )
    return rows
