"""A full disk, and the starts that must be known before their handlers run."""

from collections.abc import Iterator

import pytest
import trio
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


@pytest.mark.xfail(
    strict=True, reason="a start that a full disk does not take counts as told all the same"
)
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
