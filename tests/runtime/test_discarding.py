"""Discarding a dead letter with a store: it is gone when the store knows, or not at all."""

import itertools
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

import csjd
from csjd import Dispatcher, Job
from csjd.stores import Accepted, Discarded
from tests.runtime.durable import SlowStore, opened, virtual_wall
from tests.runtime.scene import at, submit, work

ONCE = csjd.Retry(max_attempts=1)


@pytest.fixture(autouse=True)
def _virtual(autojump_clock: MockClock) -> Iterator[None]:
    with virtual_wall(autojump_clock):
        yield


async def bad(job: Job) -> None:  # noqa: ASYNC124  a handler
    raise ValueError


async def bury(dispatcher: Dispatcher, *ids: str) -> None:
    """Make dead letters of jobs of these ids, and have the store know of them."""
    dispatcher.register("bad", bad, retry=ONCE)
    for job_id in ids:
        await (await submit(dispatcher, "bad", id=job_id)).outcome()
    await trio.sleep(1)


async def kept(dispatcher: Dispatcher) -> list[str]:
    return [letter.job.id for letter in await dispatcher.dead_letters()]


def told(store: SlowStore) -> int:
    return sum(isinstance(each, Discarded) for batch in store.batches for each in batch)


async def test_discard_given_up_before_its_commit_began_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    store, events = SlowStore(), list[csjd.Event]()
    async with opened(store, work().registry, observers=(events.append,)) as dispatcher:
        await bury(dispatcher, "a")
        store.seconds = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, dispatcher, "nothing")
            await at(1.5)
            with trio.move_on_after(0.1) as giving_up:
                await dispatcher.discard("a")
        assert giving_up.cancelled_caught
        assert await kept(dispatcher) == ["a"]
    assert told(store) == 0
    assert not any(isinstance(event, csjd.DeadLetterDiscarded) for event in events)


async def test_discard_being_written_comes_to_its_end_although_it_was_given_up(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore()
    async with opened(store, work().registry) as dispatcher:
        await bury(dispatcher, "a")
        store.seconds = 1
        with trio.move_on_after(0.1) as giving_up:
            await dispatcher.discard("a")
        assert giving_up.cancel_called
        assert not giving_up.cancelled_caught
        assert await kept(dispatcher) == []
        assert store.model.dead == {}


async def test_letter_stays_when_the_store_fails(autojump_clock: MockClock) -> None:
    store = SlowStore()
    with pytest.RaisesGroup(csjd.JobStoreClosedError, flatten_subgroups=True):
        async with opened(store, work().registry) as dispatcher:
            await bury(dispatcher, "a", "b")
            store._faults = itertools.repeat(csjd.JobStoreError("x", "the disk is broken"))
            for job_id in "ab":
                with pytest.raises(csjd.JobStoreError):
                    await dispatcher.discard(job_id)
            assert await kept(dispatcher) == ["b", "a"]


async def test_letter_cannot_be_discarded_or_requeued_twice(autojump_clock: MockClock) -> None:
    store = SlowStore()
    async with opened(store, work().registry) as dispatcher:
        await bury(dispatcher, "a")
        store.seconds = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatcher.discard, "a")
            await trio.testing.wait_all_tasks_blocked()
            for ask in (dispatcher.discard, dispatcher.requeue):
                with pytest.raises(csjd.DeadLetterNotFoundError):
                    await ask("a")
        assert told(store) == 1


async def test_full_disk_takes_a_discard(autojump_clock: MockClock) -> None:
    full = csjd.JobStoreFullError("x", "no room")
    store = SlowStore()
    async with opened(store, work().registry) as dispatcher:
        await bury(dispatcher, "a", "b")
        # The first batch is refused, and taken without the job that came with it.
        store._faults = iter([full, None])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dispatcher.discard, "a")
            with pytest.raises(csjd.JobStoreFullError):
                await submit(dispatcher, "nothing")
        # Even what does not grow is refused at first, and waits for room.
        store._faults = iter([full, full, None])
        await dispatcher.discard("b")
        assert store.model.dead == {}
        assert await kept(dispatcher) == []


async def test_letter_that_came_meanwhile_replaces_one_whose_discard_was_given_up(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore()
    async with opened(store, work().registry, duplicate_window=0) as dispatcher:
        await bury(dispatcher, "a")
        [old] = store.model.dead.values()
        async with trio.open_nursery() as nursery:
            await submit(dispatcher, "bad", id="a")
            store.seconds = 1
            nursery.start_soon(submit, dispatcher, "nothing")
            with trio.move_on_after(0.5):
                await dispatcher.discard("a")
            await trio.sleep(2)
            assert await kept(dispatcher) == ["a"]
            [new] = store.model.dead.values()
            assert new.order != old.order
    accepted = [each for batch in store.batches for each in batch if isinstance(each, Accepted)]
    assert len(accepted) == 3
