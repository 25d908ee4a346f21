"""Many jobs at once: one bad job keeps no other out."""

from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import csjd
from csjd import Job
from csjd._runtime.admission import rest_of
from tests.runtime.scene import balanced, opened, submit, work


async def test_batch_report_says_what_became_of_each() -> None:
    async with opened(work().registry, max_pending=3) as dispatcher:
        jobs: list[Any] = [
            Job(type="nothing", id="a", payload=1),
            Job(type="nothing", id="a"),
            Job(type="unheard-of", id="b"),
            "no job",
            Job(type="nothing", id="c", payload=bytearray(2 << 20)),
            Job(type="nothing", id="d", payload=["mutable"], priority=3),
            Job(type="nothing", id="e", session="s"),
            Job(type="nothing", id="f"),
        ]
        report = await dispatcher.submit_batch(jobs)
        assert (report.accepted, report.duplicates, report.invalid, report.rejected) == (3, 1, 3, 1)
        assert {index: type(error) for index, error in report.errors.items()} == {
            1: csjd.DuplicateJobError,
            2: csjd.HandlerNotFoundError,
            3: csjd.InvalidJobError,
            4: csjd.InvalidJobError,
            7: csjd.QueueFullError,
        }
        kept = [receipt and receipt.job.id for receipt in report.receipts]
        assert kept == ["a", None, None, None, None, "d", "e", None]
        assert len(report.receipts) == len(jobs)
        assert [receipt and receipt.job.id for receipt in report.receipts[4:7]] == [None, "d", "e"]
        assert report.receipts[-3] is not None
        for receipt in report.receipts:
            if receipt is not None:
                await receipt.outcome()
        metrics = dispatcher.metrics()
        assert (metrics.accepted, metrics.duplicates, metrics.rejected) == (3, 1, 1)
        assert metrics.invalid == 3
        assert balanced(metrics)


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("payload", [b"plain", ["mutable"]], ids=["plain", "mutable"])
async def test_batch_is_accepted_in_order(observed: bool, payload: Any) -> None:
    log = work()
    observers = (lambda event: None,) * observed
    async with opened(log.registry, workers=1, observers=observers) as dispatcher:
        jobs = [
            Job(type="nothing", id=str(n), payload=payload, session=("s", "t", None)[n % 3])
            for n in range(300)
        ]
        report = await dispatcher.submit_batch(jobs)
        assert report.accepted == 300
        assert not report.errors
    assert log.started == [job.id for job in jobs]


async def test_batch_mixes_plain_and_other_jobs_without_losing_order() -> None:
    log = work()
    async with opened(log.registry, workers=1) as dispatcher:
        jobs = []
        for n in range(100):
            payload: Any = [n] if n % 7 == 0 else b""
            jobs.append(Job(type="nothing", id=str(n), payload=payload, session="s"))
        await dispatcher.submit_batch(iter(jobs))
    assert log.started == [job.id for job in jobs]


async def test_empty_batch_is_fine() -> None:
    async with opened(work().registry) as dispatcher:
        report = await dispatcher.submit_batch([])
        assert report.accepted == 0
        assert list(report.receipts) == []


async def test_batch_whose_source_raises_changes_nothing() -> None:
    def source() -> Iterator[Job]:
        yield Job(type="nothing")
        raise LookupError("no more")

    async with opened(work().registry) as dispatcher:
        before = dispatcher.metrics()
        with pytest.raises(LookupError):
            await dispatcher.submit_batch(source())
        assert dispatcher.metrics() == before


async def test_waiting_batch_is_accepted_as_room_comes(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, workers=1, max_pending=2) as dispatcher:
        jobs = [Job(type="sleep", payload=1, id=str(n)) for n in range(6)]
        report = await dispatcher.submit_batch(jobs, wait=True)
        assert report.accepted == 6
        assert trio.current_time() == 4
    assert log.started == [job.id for job in jobs]


async def test_cancelled_waiting_batch_has_taken_in_the_jobs_before(
    autojump_clock: MockClock,
) -> None:
    log = work()
    async with opened(log.registry, workers=1, max_pending=2) as dispatcher:
        jobs = [Job(type="sleep", payload=1, id=str(n)) for n in range(6)]
        with trio.move_on_after(1.5):
            await dispatcher.submit_batch(jobs, wait=True)
        metrics = dispatcher.metrics()
        assert (metrics.accepted, metrics.live) == (3, 2)
    assert log.started == ["0", "1", "2"]


async def test_batch_that_waits_when_the_door_closes_is_reported(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=1, max_pending=1) as dispatcher:
        reports: list[csjd.BatchReport] = []

        async def hand_in() -> None:
            jobs = [Job(type="sleep", payload=1) for _ in range(4)]
            reports.append(await dispatcher.submit_batch(jobs, wait=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand_in)
            await trio.sleep(1.5)
            await dispatcher.stop()
        [report] = reports
        assert (report.accepted, report.rejected) == (2, 2)
        assert all(isinstance(e, csjd.DispatcherClosedError) for e in report.errors.values())
    assert balanced(dispatcher.metrics())


async def test_id_twice_in_a_batch_is_accepted_once() -> None:
    async with opened(work().registry) as dispatcher:
        report = await dispatcher.submit_batch([Job(type="nothing", id="a")] * 5)
        assert (report.accepted, report.duplicates) == (1, 4)
        with pytest.raises(csjd.DuplicateJobError):
            await submit(dispatcher, "nothing", id="a")


def test_rest_of_a_batch_is_reached_without_passing_by_what_comes_before() -> None:
    looked_at: list[int] = []

    class Jobs(list[Any]):
        def __getitem__(self, position: Any) -> Any:
            looked_at.append(position)
            return super().__getitem__(position)

        def __iter__(self) -> Iterator[Any]:
            raise AssertionError("from the first one on")

    jobs = Jobs([Job(type="t", id=str(number)) for number in range(5)])
    rest = rest_of(jobs, 3)
    assert [job.id for job in rest] == ["3", "4"]
    assert looked_at == [3, 4]
    assert [job.id for job in rest_of(list(jobs[0:2]), 0)] == ["0", "1"]
