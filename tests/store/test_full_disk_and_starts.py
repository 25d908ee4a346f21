"""A full disk, and the starts that must be known before their handlers run."""

from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

import csjd
from csjd import Job
from csjd.stores import Started
from tests.runtime.durable import SlowStore, opened, virtual_wall
from tests.runtime.scene import submit, work


@pytest.fixture(autouse=True)
def _virtual(autojump_clock: MockClock) -> Iterator[None]:
    with virtual_wall(autojump_clock):
        yield


async def test_handler_of_a_suspect_waits_for_room_to_tell_its_start(
    autojump_clock: MockClock,
) -> None:
    before = SlowStore()
    async with opened(before, work().registry) as dispatcher:
        dispatcher.pause()
        await submit(dispatcher, "nothing", id="suspect")
        left = before.crashed()
    full = csjd.JobStoreFullError("disk", "no room")
    store = SlowStore(faults=iter([full] * 4))
    store.model, store._clean = left.model, False
    registry = csjd.Registry()
    told: list[bool] = []

    @registry.handler("nothing")
    async def nothing(job: Job) -> None:  # noqa: ASYNC124  a handler
        told.append(any(isinstance(each, Started) for batch in store.batches for each in batch))

    async with opened(store, registry):
        await trio.sleep(10)
    assert told == [True]


async def left_by_a_crash(**job: Any) -> SlowStore:
    """Return a store with one job in it, `suspect`, whose process died."""
    before = SlowStore()
    async with opened(before, work().registry) as dispatcher:
        dispatcher.pause()
        await submit(dispatcher, "nothing", id="suspect", **job)
        return before.crashed()


@pytest.mark.parametrize("why", ["the disk is full", "the disk is slow"])
async def test_timeout_does_not_count_while_the_disk_is_told_of_the_start(
    autojump_clock: MockClock, why: str
) -> None:
    store = await left_by_a_crash(max_attempts=1, timeout=3)
    if why == "the disk is full":
        store._faults = iter([csjd.JobStoreFullError("disk", "no room")] * 20)
    else:
        store.seconds = 10.0
    registry = csjd.Registry()
    seen: list[tuple[int, float]] = []

    @registry.handler("nothing")
    async def nothing(job: Job, attempt: csjd.Attempt) -> None:
        seen.append((attempt.number, attempt.time_left()))
        await trio.sleep_forever()

    ended: list[csjd.JobEnded] = []

    def hear(event: csjd.Event) -> None:
        if isinstance(event, csjd.JobEnded):
            ended.append(event)

    async with opened(store, registry, observers=(hear,)):
        await trio.sleep(20)
    assert seen == [(1, 3)]
    assert [type(each.outcome) for each in ended] == [csjd.TimedOut]
    assert ended[0].at == pytest.approx(13, abs=0.1)


async def test_start_that_a_full_disk_holds_up_can_be_cancelled(autojump_clock: MockClock) -> None:
    store = await left_by_a_crash()
    store._faults = iter([csjd.JobStoreFullError("disk", "no room")] * 20)
    log = work()
    async with opened(store, log.registry) as dispatcher:
        await trio.sleep(5)
        assert dispatcher.metrics().running == 1
        assert dispatcher.cancel("suspect")
        await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert dispatcher.metrics().cancelled == 1
    assert log.started == []


async def test_full_disk_is_tried_again_now_and_then_however_many_wait(
    autojump_clock: MockClock,
) -> None:
    full = csjd.JobStoreFullError("disk", "no room")
    store = SlowStore(faults=iter([None, *[full] * 20]))
    async with opened(store, work().registry) as dispatcher:
        receipt = await submit(dispatcher, "nothing", delay=1000)
        began = trio.current_time()
        assert receipt.cancel()
        with pytest.raises(csjd.JobCancelledError):
            await receipt.result()
        # A try a second, and each is two commits: the second without what could be refused.
        assert trio.current_time() - began == 10


async def test_discarded_letter_on_a_full_disk_is_gone_when_there_is_room(
    autojump_clock: MockClock,
) -> None:
    full = csjd.JobStoreFullError("disk", "no room")
    store = SlowStore()
    async with opened(store, work().registry, retry=csjd.Retry(max_attempts=1)) as dispatcher:
        await (await submit(dispatcher, "fail", id="dead")).outcome()
        await trio.sleep(1)
        store._faults = iter([full] * 3)
        await dispatcher.discard("dead")
        assert store.crashed().recover().dead_letters == []


async def test_delayed_job_is_scheduled_until_its_place_is_written(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore()
    async with opened(store, work().registry) as dispatcher:
        await submit(dispatcher, "nothing", delay=5)
        store.seconds = 2.0
        await trio.sleep(6)
        metrics = dispatcher.metrics()
        assert (metrics.scheduled, metrics.waiting, metrics.ready) == (1, 0, 0)
        await trio.sleep(2)
        assert dispatcher.metrics().scheduled == 0
