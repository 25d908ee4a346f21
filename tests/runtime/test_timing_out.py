"""Attempts end at their deadline, or are known not to."""

import contextlib
import math
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import csjd
from csjd import Job
from tests.runtime.scene import ONCE, at, balanced, opened, state, submit, work


@pytest.mark.parametrize(
    ("of_job", "of_type", "of_dispatcher", "expected"),
    [(1, 2, 3, 1), (None, 2, 3, 2), (None, None, 3, 3), (math.inf, 2, 3, 50), (5, None, 3, 5)],
)
async def test_timeout_is_that_of_the_job_then_its_type_then_the_dispatcher(
    of_job: Any, of_type: Any, of_dispatcher: Any, expected: float, autojump_clock: MockClock
) -> None:
    async with opened(job_timeout=of_dispatcher, retry=ONCE) as dispatcher:

        @dispatcher.handler("t", timeout=of_type)
        async def handler(job: Job) -> None:
            await trio.sleep(50)

        outcome = await (await submit(dispatcher, "t", timeout=of_job)).outcome()
        assert isinstance(outcome, csjd.Succeeded if expected == 50 else csjd.TimedOut)
        assert trio.current_time() == outcome.duration == expected


async def test_deadlines_of_many_are_exact(autojump_clock: MockClock) -> None:
    async with opened(work().registry, lanes=20, retry=ONCE) as dispatcher:
        receipts = [
            await submit(dispatcher, "sleep", 100, timeout=t) for t in (7, 3, 5, 0.5, 3, 9, 0.25)
        ]
        for receipt in receipts:
            outcome = await receipt.outcome()
            assert isinstance(outcome, csjd.TimedOut)
            assert outcome.duration == receipt.job.timeout


async def test_ending_at_the_deadline_is_in_time(autojump_clock: MockClock) -> None:
    async with opened(work().registry) as dispatcher:
        outcome = await (await submit(dispatcher, "stubborn", 3, timeout=3)).outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert not outcome.late


async def test_success_past_the_deadline_is_late_success(autojump_clock: MockClock) -> None:
    async with opened(work().registry, detach_grace=9) as dispatcher:
        outcome = await (await submit(dispatcher, "stubborn", 4, timeout=3, id="a")).outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert (outcome.late, outcome.result, outcome.duration) == (True, "a", 4.0)
        assert dispatcher.metrics().late == 1


async def test_handler_that_swallows_its_cancellation_has_succeeded(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=1) as dispatcher:

        @dispatcher.handler("swallow", timeout=3)
        async def handler(job: Job) -> str:
            with contextlib.suppress(trio.Cancelled):  # the very thing nobody should do
                await trio.sleep(50)
            return "all the same"

        outcome = await (await submit(dispatcher, "swallow")).outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert outcome.late is False  # at its deadline, not past it
        # and its cancel reaches nobody else
        assert await (await submit(dispatcher, "sleep", 2)).result()


@pytest.mark.parametrize(
    "error", [ValueError("x"), csjd.Snooze(5), Exception()], ids=lambda value: type(value).__name__
)
async def test_whatever_a_timed_out_handler_raises_it_has_timed_out(
    error: Exception, autojump_clock: MockClock
) -> None:
    async with opened(work().registry) as dispatcher:

        @dispatcher.handler("t", timeout=3, retry=ONCE)
        async def handler(job: Job) -> None:
            try:
                await trio.sleep(50)
            finally:
                raise error

        outcome = await (await submit(dispatcher, "t")).outcome()
        assert isinstance(outcome, csjd.TimedOut)
        assert outcome.error.__cause__ is error
        assert dispatcher.metrics().timed_out == 1
        [letter] = await dispatcher.dead_letters()
        assert letter.timed_out


async def test_timeout_is_retried_unless_its_type_says_no(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, retry=csjd.Retry(min_delay=1, jitter=0)) as dispatcher:

        @dispatcher.handler("final", timeout=1, retry_on_timeout=False)
        async def final(job: Job) -> None:
            await trio.sleep(50)

        outcome = await (await submit(dispatcher, "final")).outcome()
        assert isinstance(outcome, csjd.TimedOut)
        assert outcome.attempts == 1
        again = await submit(dispatcher, "script", (50, 50, 0), timeout=2, id="a")
        outcome = await again.outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert outcome.attempts == 3
        assert log.times["a"] == [1, 4, 8]


async def test_attempt_tells_its_time_and_moves_its_deadline(autojump_clock: MockClock) -> None:
    async with opened(workers=1, retry=ONCE) as dispatcher:
        told: list[Any] = []

        @dispatcher.handler("t", timeout=3)
        async def handler(job: Job, attempt: csjd.Attempt) -> None:
            told.append((attempt.number, attempt.max_attempts, attempt.deadline, attempt.worker))
            await trio.sleep(2)
            told.append(attempt.time_left())
            assert attempt.extend(4)
            told.append((attempt.deadline, attempt.time_left()))
            try:
                await trio.sleep(50)
            finally:
                told.append((attempt.extend(5), attempt.time_left(), trio.current_time()))

        outcome = await (await submit(dispatcher, "t")).outcome()
        assert isinstance(outcome, csjd.TimedOut)
        assert told == [(1, 1, 3.0, 0), 1.0, (7.0, 5.0), (False, 0.0, 7.0)]


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "1", None])
async def test_unusable_extension_is_refused(seconds: Any) -> None:
    async with opened(retry=ONCE) as dispatcher:

        @dispatcher.handler("t")
        async def handler(job: Job, attempt: csjd.Attempt) -> None:  # noqa: ASYNC124
            with pytest.raises(ValueError, match="seconds must be"):
                attempt.extend(seconds)

        await (await submit(dispatcher, "t")).result()


async def test_attempt_that_is_over_changes_nothing(autojump_clock: MockClock) -> None:
    kept: list[csjd.Attempt] = []
    async with opened(workers=1, retry=ONCE) as dispatcher:

        @dispatcher.handler("t", timeout=3)
        async def handler(job: Job, attempt: csjd.Attempt) -> None:
            kept.append(attempt)
            if len(kept) == 1:
                await trio.sleep(1)
                raise csjd.Snooze(1)
            assert kept[0].extend(100) is False
            assert kept[0].time_left() == 0
            await trio.sleep(50)

        outcome = await (await submit(dispatcher, "t")).outcome()
        assert isinstance(outcome, csjd.TimedOut)
        assert trio.current_time() == 5
        assert kept[1].extend(1) is False


async def test_deaf_handler_is_detached_while_there_is_budget(autojump_clock: MockClock) -> None:
    events: list[csjd.Event] = []
    log = work()
    async with opened(
        log.registry,
        workers=1,
        detach_budget=1,
        job_timeout=3,
        retry=ONCE,
        observers=(events.append,),
    ) as dispatcher:
        deaf = await submit(dispatcher, "stubborn", 20, id="deaf", session="s")
        behind = await submit(dispatcher, "sleep", 1, id="behind", session="s")
        other = await submit(dispatcher, "sleep", 1, id="other")
        await at(3.9)
        assert state(deaf) is csjd.JobState.RUNNING
        await at(4.1)  # detach_grace is 1
        assert state(deaf) is csjd.JobState.DETACHED
        [told] = [event for event in events if isinstance(event, csjd.HandlerDetached)]
        assert (told.at, told.job.id, told.handler.running_for) == (4.0, "deaf", 4.0)
        assert any("stubborn" in line for line in told.handler.stack)
        metrics = dispatcher.metrics()
        assert (metrics.detached, metrics.running, metrics.detachments) == (1, 1, 1)
        assert dispatcher.worker_stats()[0].detached == 1
        info = dispatcher.session_info("s")
        assert info is not None
        assert info.running == "deaf"
        await other.outcome()
        assert trio.current_time() == 5
        assert log.started == ["deaf", "other"]  # its session is not let go on
        outcome = await deaf.outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert (outcome.late, trio.current_time()) == (True, 20)
        await behind.outcome()
        assert trio.current_time() == 21
        assert dispatcher.metrics().detached == 0
        assert dispatcher.worker_stats()[0].lanes == 1


@pytest.mark.parametrize("_turn", range(8))  # Trio runs tasks in random order
async def test_handler_that_ends_when_cancelled_is_not_deaf_even_without_grace(
    _turn: int, autojump_clock: MockClock
) -> None:
    async with opened(
        work().registry, workers=4, detach_budget=4, detach_grace=0, job_timeout=3, retry=ONCE
    ) as dispatcher:
        receipts = [await submit(dispatcher, "sleep", 20) for _ in range(4)]
        for receipt in receipts:
            assert isinstance(await receipt.outcome(), csjd.TimedOut)
        assert trio.current_time() == 3
        assert dispatcher.metrics().detachments == 0


async def test_deaf_handler_is_detached_at_its_deadline_without_grace(
    autojump_clock: MockClock,
) -> None:
    async with opened(
        work().registry, workers=1, detach_budget=1, detach_grace=0, job_timeout=3, retry=ONCE
    ) as dispatcher:
        deaf = await submit(dispatcher, "stubborn", 20)
        other = await submit(dispatcher, "sleep", 1)
        await other.outcome()
        assert trio.current_time() == 4
        assert state(deaf) is csjd.JobState.DETACHED


async def test_detached_handlers_failure_is_booked_once_when_it_ends(
    autojump_clock: MockClock,
) -> None:
    log = work()

    @log.handler("deaf")
    async def deaf(job: Job, attempt: csjd.Attempt) -> str:
        if attempt.number == 1:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)
            raise ValueError
        return "second"

    async with opened(
        log.registry,
        workers=1,
        detach_budget=1,
        job_timeout=3,
        retry=csjd.Retry(min_delay=1, jitter=0),
    ) as dispatcher:
        receipt = await submit(dispatcher, "deaf", id="a", session="s")
        await submit(dispatcher, "nothing", id="b", session="s")
        outcome = await receipt.outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert (outcome.attempts, outcome.result) == (2, "second")
        assert log.times["a"] == [0, 21]
    assert log.started == ["a", "a", "b"]
    assert balanced(dispatcher.metrics())


async def test_without_budget_the_lane_waits_and_is_shown_as_stuck(
    autojump_clock: MockClock,
) -> None:
    events: list[csjd.Event] = []
    async with opened(
        work().registry, workers=1, job_timeout=3, retry=ONCE, observers=(events.append,)
    ) as dispatcher:
        await submit(dispatcher, "stubborn", 20)
        other = await submit(dispatcher, "nothing")
        await at(5)
        [told] = [event for event in events if isinstance(event, csjd.HandlerStuck)]
        assert told.at == 4.0
        metrics = dispatcher.metrics()
        assert (metrics.lanes_stuck, metrics.running, metrics.detached) == (1, 1, 0)
        await other.outcome()
        assert trio.current_time() == 20
        assert dispatcher.metrics().lanes_stuck == 0


async def test_budget_that_comes_free_goes_to_a_stuck_lane(autojump_clock: MockClock) -> None:
    async with opened(
        work().registry, workers=2, detach_budget=1, job_timeout=3, retry=ONCE
    ) as dispatcher:
        await submit(dispatcher, "stubborn", 20)
        second = await submit(dispatcher, "stubborn", 100)
        await at(5)
        metrics = dispatcher.metrics()
        assert (metrics.detached, metrics.lanes_stuck) == (1, 1)
        await at(21)
        assert second.state is csjd.JobState.DETACHED
        metrics = dispatcher.metrics()
        assert (metrics.detached, metrics.lanes_stuck, metrics.lanes) == (1, 0, 2)


async def test_running_handlers_never_exceed_lanes_and_budget(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(
        log.registry, workers=2, lanes=2, detach_budget=3, job_timeout=1, retry=ONCE
    ) as dispatcher:
        for _ in range(20):
            await submit(dispatcher, "stubborn", 10)
    assert log.most_running == 2 * 2 + 3
    assert dispatcher.metrics().succeeded == 20


async def test_sessions_of_a_stuck_worker_move_on(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, workers=2, job_timeout=3, retry=ONCE) as dispatcher:
        await submit(dispatcher, "stubborn", 50, session="deaf")
        await at(5)
        receipts = [await submit(dispatcher, "nothing", session=f"s{n}") for n in range(20)]
        await at(6)
        assert all(receipt.state is csjd.JobState.SUCCEEDED for receipt in receipts)


@pytest.mark.parametrize("rescue", ["a handler ends", "a worker comes"])
async def test_sessions_move_as_soon_as_one_of_all_stuck_workers_is_free(
    rescue: str, autojump_clock: MockClock
) -> None:
    async with opened(work().registry, workers=2, job_timeout=3, retry=ONCE) as dispatcher:
        await submit(dispatcher, "stubborn", 100 if rescue == "a handler ends" else 1000)
        await submit(dispatcher, "stubborn", 1000)
        await at(10)
        receipts = [await submit(dispatcher, "nothing", session=f"s{n}") for n in range(20)]
        await at(100)
        if rescue == "a worker comes":
            dispatcher.add_worker()
        await at(101)
        assert {receipt.state for receipt in receipts} == {csjd.JobState.SUCCEEDED}


async def test_detached_handler_that_returns_lets_its_session_go_on(
    autojump_clock: MockClock,
) -> None:
    async with opened(
        work().registry, workers=1, job_timeout=1, detach_budget=1, retry=ONCE
    ) as dispatcher:
        await submit(dispatcher, "stubborn", 100, session="s")
        behind = await submit(dispatcher, "nothing", session="s")
        await at(101)
        assert behind.state is csjd.JobState.SUCCEEDED
