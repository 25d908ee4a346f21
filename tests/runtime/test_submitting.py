"""Handing jobs in: the rows of bad input, each of which changes nothing."""

import copy
import math
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import msgspec
import pytest
import trio
from trio.testing import MockClock

import csjd
from csjd import Job
from tests.runtime.scene import balanced, opened, state, submit, work


def _unchanged(before: csjd.MetricsSnapshot, after: csjd.MetricsSnapshot, **differing: Any) -> bool:
    return after == attrs.evolve(before, **differing)


async def test_job_runs_and_its_receipt_tells_the_outcome(autojump_clock: MockClock) -> None:
    async with opened(work().registry) as dispatcher:
        receipt = await submit(dispatcher, "sleep", 3, id="a")
        assert receipt.job.id == "a"
        assert state(receipt) in (csjd.JobState.READY, csjd.JobState.RUNNING)
        outcome = await receipt.outcome()
        assert outcome == csjd.Succeeded(job=receipt.job, attempts=1, duration=3.0, result="a")
        assert await receipt.result() == "a"
        assert state(receipt) is csjd.JobState.SUCCEEDED


async def test_open_dispatcher_needs_nothing_but_a_nursery() -> None:
    async with trio.open_nursery() as nursery, csjd.open_dispatcher(nursery) as dispatcher:
        dispatcher.register("t", lambda job: job.payload)

        @dispatcher.handler("u", timeout=3)
        async def handler(job: Job) -> Any:  # noqa: ASYNC124
            return job.payload

        assert await (await submit(dispatcher, "t", 5)).result() == 5
        assert await (await submit(dispatcher, "u", 6)).result() == 6
        with pytest.raises(ValueError, match="'u' already has a handler"):
            dispatcher.register("u", handler)


async def test_type_without_a_handler_is_refused() -> None:
    async with opened(work().registry) as dispatcher:
        before = dispatcher.metrics()
        with pytest.raises(csjd.HandlerNotFoundError, match="'unheard-of'") as caught:
            await submit(dispatcher, "unheard-of")
        assert caught.value.type == "unheard-of"
        assert _unchanged(before, dispatcher.metrics(), invalid=1)


async def test_same_id_is_refused_while_it_lives_and_for_the_window(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, duplicate_window=2) as dispatcher:
        first = await submit(dispatcher, "sleep", 5, id="a")
        before = dispatcher.metrics()
        with pytest.raises(csjd.DuplicateJobError) as caught:
            await submit(dispatcher, "nothing", id="a")
        assert (caught.value.job_id, caught.value.live) == ("a", True)
        assert _unchanged(before, dispatcher.metrics(), duplicates=1)
        await first.outcome()
        await trio.sleep(1.999)
        with pytest.raises(csjd.DuplicateJobError) as caught:
            await submit(dispatcher, "nothing", id="a")
        assert not caught.value.live
        await trio.sleep_until(7)
        again = await submit(dispatcher, "nothing", id="a")
        assert (await again.outcome()).attempts == 1


@pytest.mark.parametrize("thing", [None, "job", {"type": "nothing"}, 5, Job])
async def test_what_is_no_job_is_refused(thing: Any) -> None:
    async with opened(work().registry) as dispatcher:
        before = dispatcher.metrics()
        with pytest.raises(csjd.InvalidJobError, match=r"^job must be"):
            await dispatcher.submit(thing)
        assert _unchanged(before, dispatcher.metrics(), invalid=1)


@pytest.mark.parametrize(
    "delay", [-1, math.nan, math.inf, "1", None, 10**400], ids=lambda value: type(value).__name__
)
async def test_unusable_delay_is_refused(delay: Any) -> None:
    async with opened(work().registry) as dispatcher:
        before = dispatcher.metrics()
        with pytest.raises(csjd.InvalidJobError, match=r"^delay "):
            await submit(dispatcher, "nothing", delay=delay)
        assert _unchanged(before, dispatcher.metrics(), invalid=1)


async def test_delay_and_run_at_exclude_each_other() -> None:
    async with opened(work().registry) as dispatcher:
        soon = datetime.now(UTC) + timedelta(seconds=5)
        with pytest.raises(csjd.InvalidJobError, match=r"^delay "):
            await submit(dispatcher, "nothing", run_at=soon, delay=1)


@pytest.mark.parametrize(
    "payload", [b"x" * 11, "x" * 11, "é" * 6, bytearray(11)], ids=lambda value: type(value).__name__
)
async def test_payload_that_is_too_large_is_refused(payload: Any) -> None:
    async with opened(work().registry, max_payload=10) as dispatcher:
        before = dispatcher.metrics()
        with pytest.raises(csjd.InvalidJobError, match=r"^payload is 1[12] bytes"):
            await submit(dispatcher, "nothing", payload)
        assert _unchanged(before, dispatcher.metrics(), invalid=1)
        await submit(dispatcher, "nothing", payload[:-2])


async def test_payload_that_is_no_valid_unicode_is_still_text() -> None:
    async with opened(work().registry) as dispatcher:
        assert await (await submit(dispatcher, "nothing", "\ud800")).result() == "\ud800"


async def test_what_cannot_be_copied_is_refused() -> None:
    async with opened(work().registry) as dispatcher:
        before = dispatcher.metrics()
        with pytest.raises(csjd.InvalidJobError, match=r"^payload cannot be copied"):
            await submit(dispatcher, "nothing", [memoryview(b"")])
        with pytest.raises(csjd.InvalidJobError, match=r"^metadata cannot be copied") as caught:
            await submit(dispatcher, "nothing", [1], metadata={"view": memoryview(b"")})
        assert caught.value.field == "metadata"
        assert _unchanged(before, dispatcher.metrics(), invalid=2)


async def test_accepted_job_can_be_pickled_and_copied_with_its_metadata() -> None:
    metadata = {"from": ["web"]}
    async with opened(work().registry) as dispatcher:
        receipt = await submit(dispatcher, "nothing", [1], delay=60, metadata=metadata)
        metadata["from"].append("changed")
        [left] = (await dispatcher.stop(grace=0)).unfinished
    assert left is receipt.job
    for twin in (pickle.loads(pickle.dumps(left)), copy.deepcopy(left)):
        assert twin == left
        assert twin.metadata == {"from": ["web"]}


class Order(msgspec.Struct):
    item: str
    count: int = 1


@attrs.define
class Picky:
    number: int

    def __attrs_post_init__(self) -> None:
        if self.number < 0:
            raise LookupError("picky")


async def test_typed_payload_is_checked_and_rebuilt() -> None:
    async with opened() as dispatcher:
        seen: list[Any] = []

        @dispatcher.handler("order", payload=Order)
        async def order(job: Job) -> None:  # noqa: ASYNC124
            seen.append(job.payload)

        mine = Order("tea", 3)
        await (await submit(dispatcher, "order", mine)).result()
        assert seen == [mine]
        assert seen[0] is not mine
        before = dispatcher.metrics()
        for bad in (None, {"item": "tea"}, Order("tea", "many")):  # type: ignore[arg-type]
            with pytest.raises(csjd.InvalidJobError, match=r"^payload "):
                await submit(dispatcher, "order", bad)
        assert _unchanged(before, dispatcher.metrics(), invalid=3)


async def test_payload_whose_class_raises_anything_is_refused() -> None:
    async with opened() as dispatcher:
        dispatcher.register("picky", lambda job: job.payload.number, payload=Picky)
        odd = Picky(1)
        odd.number = -1
        report = await dispatcher.submit_batch(
            [Job(type="picky", payload=odd), Job(type="picky", payload=Picky(2))]
        )
        assert (report.accepted, report.invalid) == (1, 1)


async def test_submit_after_stop_is_refused() -> None:
    async with opened(work().registry) as dispatcher:
        await dispatcher.stop()
        before = dispatcher.metrics()
        for attempt in (submit(dispatcher, "nothing"), dispatcher.submit_batch([])):
            with pytest.raises(csjd.DispatcherClosedError, match="stopped") as caught:
                await attempt
            assert caught.value.state == "stopped"
        assert dispatcher.metrics() == before


async def test_submit_after_the_block_is_refused() -> None:
    async with opened(work().registry) as dispatcher:
        pass
    with pytest.raises(csjd.DispatcherClosedError, match="closed"):
        await submit(dispatcher, "nothing")
    with pytest.raises(csjd.DispatcherClosedError, match="closed"):
        await dispatcher.start()
    with pytest.raises(csjd.DispatcherClosedError, match="closed"):
        await dispatcher.resize(3)


async def test_dispatcher_that_was_never_opened_refuses_everything() -> None:
    dispatcher = csjd.Dispatcher()
    assert dispatcher.state is csjd.DispatcherState.NEW
    assert dispatcher.last_stop is None
    for attempt in (
        submit(dispatcher, "nothing"),
        dispatcher.submit_batch([]),
        dispatcher.stop(),
        dispatcher.start(),
        dispatcher.resize(3),
        dispatcher.requeue("a"),
    ):
        with pytest.raises(csjd.DispatcherNotStartedError):
            await attempt
    assert dispatcher.state is csjd.DispatcherState.NEW
    assert balanced(dispatcher.metrics())


@pytest.mark.parametrize("grace", [-1, math.nan, "1"], ids=lambda value: type(value).__name__)
async def test_unusable_grace_is_refused(grace: Any) -> None:
    async with opened() as dispatcher:
        with pytest.raises(ValueError, match=r"^grace must be"):
            await dispatcher.stop(grace=grace)
        assert dispatcher.state is csjd.DispatcherState.RUNNING


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, None])
async def test_unusable_size_is_refused(workers: Any) -> None:
    async with opened() as dispatcher:
        before = dispatcher.metrics()
        with pytest.raises(ValueError, match=r"^workers must be an int >= 1"):
            await dispatcher.resize(workers)
        assert dispatcher.metrics() == before


async def test_observer_must_be_callable() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(ValueError, match="observer must be callable"):
            async with csjd.open_dispatcher(nursery, observers=[5]):  # type: ignore[list-item]
                pass
        assert not nursery.child_tasks


async def test_refusals_cost_nothing(autojump_clock: MockClock) -> None:
    """What is refused runs no handler, wakes nobody, and is remembered nowhere."""
    log = work()
    async with opened(log.registry, max_pending=1) as dispatcher:
        await submit(dispatcher, "sleep", 5, id="a")
        with pytest.raises(csjd.QueueFullError):
            await submit(dispatcher, "nothing", id="b", session="s")
        metrics = dispatcher.metrics()
        assert (metrics.ids_remembered, metrics.sessions_remembered) == (1, 0)
        await trio.sleep(20)
        await submit(dispatcher, "nothing", id="b", session="s")
    assert log.started == ["a", "b"]
