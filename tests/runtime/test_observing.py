"""Observers hear everything, disturb nothing, and may call plain methods back."""

import logging
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import csjd
from csjd import Dispatcher, Event
from tests.runtime.scene import at, balanced, opened, submit, work


def _names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


async def test_life_of_a_job_is_told_in_order(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    async with opened(work().registry, observers=(events.append,), workers=1) as dispatcher:
        events.clear()
        retry = csjd.RetryAfter(1)
        await (await submit(dispatcher, "script", (retry, csjd.Snooze(2), "end"))).result()
        assert _names(events) == [
            "JobAccepted",
            "AttemptStarted",
            "JobRetried",
            "AttemptStarted",
            "JobSnoozed",
            "AttemptStarted",
            "JobEnded",
        ]
        assert [event.at for event in events] == [0, 0, 0, 1, 1, 3, 3]
        assert [e.attempt for e in events if isinstance(e, csjd.AttemptStarted)] == [1, 2, 2]


async def test_opening_and_leaving_are_told() -> None:
    events: list[Event] = []
    async with opened(observers=(events.append,), workers=2) as dispatcher:
        await dispatcher.resize(1)
        dispatcher.pause(type="t")
        dispatcher.resume(type="t")
    assert _names(events) == [
        "WorkerAdded",
        "WorkerAdded",
        "DispatcherStarted",
        "WorkerRemoved",
        "Paused",
        "Resumed",
        "DispatcherStopping",
        "DispatcherStopped",
    ]
    stopped = events[-1]
    assert isinstance(stopped, csjd.DispatcherStopped)
    assert stopped.report == dispatcher.last_stop


async def test_refusals_timeouts_and_dead_letters_are_told(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    async with opened(work().registry, observers=(events.append,), history=1) as dispatcher:
        with pytest.raises(csjd.HandlerNotFoundError):
            await submit(dispatcher, "unheard-of")
        events.clear()
        late = await submit(dispatcher, "sleep", 9, timeout=1, max_attempts=1)
        await late.outcome()
        await submit(dispatcher, "fail", csjd.PermanentError(), id="a")
        await trio.sleep(5)
        await dispatcher.requeue("a")
        await trio.sleep(5)
        await dispatcher.discard("a")
    told = [name for name in _names(events) if not name.startswith(("Dispatcher", "Attempt"))]
    assert told[:4] == ["JobAccepted", "JobEnded", "JobAccepted", "JobEnded"]
    assert told[4:] == [
        "DeadLetterDropped",
        "DeadLetterRequeued",
        "JobEnded",
        "DeadLetterDiscarded",
    ]


async def test_observer_that_raises_is_dropped_with_one_logged_error(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    calls: list[Event] = []
    events: list[Event] = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise ValueError("broken observer")

    async with opened(work().registry, observers=(broken, events.append)) as dispatcher:
        assert await (await submit(dispatcher, "sleep", 1)).result()
    assert len(calls) == 1
    assert len(events) > 5
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "was dropped" in errors[0].getMessage()


async def test_observer_that_raises_inside_its_own_call_is_dropped_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    box: list[Dispatcher] = []

    def broken(event: Event) -> None:
        if isinstance(event, csjd.JobAccepted):
            box[0].pause(type="other")  # which tells it of the pause
            raise ValueError("outer")
        if isinstance(event, csjd.Paused):
            raise ValueError("inner")

    async with opened(work().registry, observers=(broken,)) as dispatcher:
        box.append(dispatcher)
        assert await (await submit(dispatcher, "nothing", 5)).result() == 5
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1


async def test_state_is_whole_whenever_an_observer_looks(autojump_clock: MockClock) -> None:
    box: list[Dispatcher] = []
    looks: list[str] = []

    def look(event: Event) -> None:
        if box:
            metrics = box[0].metrics()
            assert balanced(metrics), event
            box[0].worker_stats()
            box[0].session_distribution()
            box[0].history()
            looks.append(type(event).__name__)
            if isinstance(event, csjd.JobEnded):
                assert box[0].cancel(event.job.id) is False

    async with opened(
        work().registry, observers=(look,), workers=2, job_timeout=2, detach_budget=1
    ) as dispatcher:
        box.append(dispatcher)
        for number in range(5):
            await submit(dispatcher, "sleep", 1, session="s")
            await submit(dispatcher, "fail", ValueError(), session=f"s{number}")
            await submit(dispatcher, "stubborn", 9)
        await trio.sleep(5)
        await dispatcher.resize(4)
        await trio.sleep(5)
        await dispatcher.resize(1)
    assert set(looks) >= {"JobAccepted", "AttemptStarted", "HandlerDetached", "JobEnded"}
    assert dispatcher.metrics().live == 0


@pytest.mark.parametrize("when", [csjd.JobAccepted, csjd.AttemptStarted])
async def test_observer_may_cancel_the_very_job(
    when: type[csjd.JobEvent], autojump_clock: MockClock
) -> None:
    box: list[Dispatcher] = []

    def cancel(event: Event) -> None:
        if isinstance(event, when):
            assert box[0].cancel(event.job.id)

    async with opened(work().registry, observers=(cancel,)) as dispatcher:
        box.append(dispatcher)
        outcome = await (await submit(dispatcher, "sleep", 5, session="s")).outcome()
        assert isinstance(outcome, csjd.Cancelled)
        assert outcome.duration == 0


@pytest.mark.parametrize("session", [None, "s"])
async def test_observer_may_remove_the_worker_about_to_be_called(
    session: str | None, autojump_clock: MockClock
) -> None:
    box: list[Dispatcher] = []

    def remove(event: Event) -> None:
        if isinstance(event, csjd.JobAccepted) and len(box[0].worker_stats()) > 1:
            box[0].remove_worker(box[0].worker_stats()[0].worker)

    async with opened(work().registry, observers=(remove,), workers=4) as dispatcher:
        box.append(dispatcher)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(6):
            receipt = await submit(dispatcher, "sleep", 1, session=session)
            await at(number * 10 + 5)
            assert receipt.state is csjd.JobState.SUCCEEDED
            await at(number * 10 + 10)
        assert dispatcher.metrics().workers == 1


async def test_observer_may_pause_and_resume(autojump_clock: MockClock) -> None:
    box: list[Dispatcher] = []
    starts: list[Any] = []

    def gate(event: Event) -> None:
        if isinstance(event, csjd.AttemptStarted):
            starts.append(event.job.id)
            box[0].pause()
        if isinstance(event, csjd.JobEnded):
            box[0].resume()

    log = work()
    async with opened(log.registry, observers=(gate,), workers=4) as dispatcher:
        box.append(dispatcher)
        receipts = [await submit(dispatcher, "sleep", 1) for _ in range(4)]
        for receipt in receipts:
            await receipt.outcome()
    assert log.most_running == 1
    assert trio.current_time() == 4


async def test_progress_is_told(autojump_clock: MockClock) -> None:
    events: list[Event] = []
    async with opened(observers=(events.append,)) as dispatcher:

        @dispatcher.handler("t")
        async def handler(job: csjd.Job, attempt: csjd.Attempt) -> csjd.Attempt:  # noqa: ASYNC124
            attempt.progress({"done": 1})
            return attempt

        attempt = await (await submit(dispatcher, "t")).result()
        attempt.progress("too late")
    told = [event for event in events if isinstance(event, csjd.JobProgressed)]
    assert [(event.value, event.attempt) for event in told] == [({"done": 1}, 1)]
