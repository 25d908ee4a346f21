"""A store reopened by another wall clock: nothing waits longer than it was to, or is lost."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
import trio
from trio.testing import MockClock

import csjd
from csjd import Job
from tests.runtime.durable import EPOCH, SlowStore, opened, virtual_wall
from tests.runtime.scene import Log, at, submit, work

DAY = 86400.0
STEPS = [-400 * DAY, -DAY, -1.0, 1.0]


class Wall:
    """A wall clock that is set forward or back between two runs."""

    def __init__(self, clock: MockClock) -> None:
        self.clock = clock
        self.step = 0.0

    def time(self) -> float:
        return EPOCH + self.clock.current_time() + self.step


@pytest.fixture
def wall(autojump_clock: MockClock) -> Iterator[Wall]:
    wall = Wall(autojump_clock)
    with virtual_wall(autojump_clock), patch("time.time", wall.time):
        yield wall


def postponing(log: Log) -> csjd.Registry:
    """Add handlers that fail or snooze the first time, for ten seconds."""

    @log.handler("fails", retry=csjd.Retry(min_delay=10, max_delay=10, jitter=0))
    async def fails(job: Job, attempt: csjd.Attempt) -> None:  # noqa: ASYNC124  a handler
        if attempt.number == 1:
            raise ValueError

    snoozed: set[str] = set()

    @log.handler("snoozes")
    async def snoozes(job: Job, attempt: csjd.Attempt) -> None:  # noqa: ASYNC124  a handler
        if job.id not in snoozed:
            snoozed.add(job.id)
            raise csjd.Snooze(10)

    return log.registry


@pytest.mark.parametrize("step", STEPS)
async def test_what_was_to_wait_waits_no_longer_than_that(
    autojump_clock: MockClock, wall: Wall, step: float
) -> None:
    log = work()
    registry = postponing(log)
    store = SlowStore()
    async with opened(store, registry, stop_grace=0) as dispatcher:
        await submit(dispatcher, "fails", id="a", session="a")
        await submit(dispatcher, "snoozes", id="b", session="b")
        await dispatcher.submit(Job(type="nothing", id="c"), delay=10)
        await at(4)
    wall.step = step
    began = trio.current_time()
    async with opened(store.crashed(), registry) as dispatcher:
        await at(began + 30)
        assert dispatcher.metrics().live == 0
    waited = 10 if step < -6 else 6 - step
    for job_id in "abc":
        assert log.times[job_id][-1] - began == pytest.approx(waited, abs=1e-3)


@pytest.mark.parametrize("step", [-DAY, 1.0])
async def test_run_at_is_meant_by_the_wall_clock(
    autojump_clock: MockClock, wall: Wall, step: float
) -> None:
    log, store = work(), SlowStore()
    soon = datetime.now(UTC) + timedelta(seconds=10)
    async with opened(store, log.registry, stop_grace=0) as dispatcher:
        await dispatcher.submit(Job(type="nothing", id="a", run_at=soon))
    wall.step = step
    async with opened(store.crashed(), log.registry):
        await trio.sleep(10 - step + 1)
    assert log.times["a"] == [pytest.approx(10 - step, abs=0.1)]


@pytest.mark.parametrize("step", [-400 * DAY, -DAY])
async def test_ids_are_remembered_no_longer_than_the_window(
    autojump_clock: MockClock, wall: Wall, step: float
) -> None:
    log, store = work(), SlowStore()
    async with opened(store, log.registry, duplicate_window=3) as dispatcher:
        await (await submit(dispatcher, "nothing", id="a")).outcome()
    wall.step = step
    async with opened(store.crashed(), log.registry, duplicate_window=3) as dispatcher:
        with pytest.raises(csjd.DuplicateJobError):
            await submit(dispatcher, "nothing", id="a")
        await trio.sleep(3)
        await submit(dispatcher, "nothing", id="a")


async def test_window_made_smaller_keeps_no_id_for_the_old_one(
    autojump_clock: MockClock, wall: Wall
) -> None:
    log, store = work(), SlowStore()
    async with opened(store, log.registry, duplicate_window=3600) as dispatcher:
        await (await submit(dispatcher, "nothing", id="a")).outcome()
    async with opened(store.crashed(), log.registry, duplicate_window=1) as dispatcher:
        for number in range(30):
            await (await submit(dispatcher, "nothing", id=f"{number}")).outcome()
            await trio.sleep(0.1)
        assert dispatcher._scheduler.backlog.ids.remembered() < 15
        await submit(dispatcher, "nothing", id="a")
