"""Waiting for how a job ends."""

from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import csjd
from csjd import Job
from tests.runtime.scene import ONCE, at, opened, submit, work


async def test_every_ending_has_its_outcome_and_its_error(autojump_clock: MockClock) -> None:
    error = csjd.PermanentError("no")
    async with opened(work().registry) as dispatcher:
        good = await submit(dispatcher, "sleep", 2, id="good")
        bad = await submit(dispatcher, "fail", error, id="bad")
        slow = await submit(dispatcher, "sleep", 9, id="slow", timeout=1, max_attempts=1)
        gone = await submit(dispatcher, "sleep", 9, id="gone")
        await at(0.5)
        assert gone.cancel()
        assert isinstance(await good.outcome(), csjd.Succeeded)
        failed = await bad.outcome()
        assert isinstance(failed, csjd.Failed)
        assert (type(failed.error), str(failed.error)) == (csjd.PermanentError, "no")
        timed_out = await slow.outcome()
        assert isinstance(timed_out, csjd.TimedOut)
        assert isinstance(timed_out.error, TimeoutError)
        assert (timed_out.attempts, timed_out.duration) == (1, 1.0)
        cancelled = await gone.outcome()
        assert isinstance(cancelled, csjd.Cancelled)
        assert isinstance(cancelled.error, csjd.JobCancelledError)
        assert (cancelled.attempts, cancelled.duration) == (1, 0.5)

        with pytest.raises(csjd.JobFailedError, match="'bad' failed after 1 attempts") as caught:
            await bad.result()
        assert caught.value.__cause__ is failed.error
        with pytest.raises(csjd.JobFailedError, match="'slow' timed out") as caught:
            await slow.result()
        assert caught.value.timed_out
        assert caught.value.__cause__ is timed_out.error
        with pytest.raises(csjd.JobCancelledError, match="'gone'"):
            await gone.result()
        assert not any(each.cancel() for each in (good, bad, slow, gone))


async def test_many_may_wait_for_one_outcome(autojump_clock: MockClock) -> None:
    results: list[Any] = []
    async with opened(work().registry) as dispatcher, trio.open_nursery() as nursery:
        receipt = await submit(dispatcher, "sleep", 1, id="a")

        async def wait() -> None:
            results.append(await receipt.result())

        for _ in range(5):
            nursery.start_soon(wait)
        with trio.move_on_after(0.5):
            await receipt.outcome()  # who gives up hurts nobody
    assert results == ["a"] * 5


async def test_receipt_keeps_waiting_while_stopped(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1) as dispatcher, trio.open_nursery() as nursery:
        receipt = await submit(dispatcher, "sleep", 5, id="a")
        await at(1)
        await dispatcher.stop(grace=0)

        async def restart() -> None:
            await trio.sleep(10)
            await dispatcher.start()

        nursery.start_soon(restart)
        outcome = await receipt.outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert (outcome.attempts, outcome.duration) == (1, 5.0)
        assert trio.current_time() == 16


async def test_receipt_without_an_outcome_says_so_when_the_block_is_left(
    autojump_clock: MockClock,
) -> None:
    told: list[str] = []
    async with trio.open_nursery() as outer, opened(work().registry) as dispatcher:
        receipt = await submit(dispatcher, "nothing", delay=1000)
        done = await submit(dispatcher, "nothing", 7)

        async def wait() -> None:
            try:
                await receipt.outcome()
            except csjd.DispatcherClosedError as error:
                told.append(error.state)

        outer.start_soon(wait)
        await at(1)
    assert told == ["closed"]
    for ask in (receipt.outcome, receipt.result):
        with pytest.raises(csjd.DispatcherClosedError):
            await ask()
    assert await done.result() == 7


async def test_outcome_of_the_handlers_own_exception_object(autojump_clock: MockClock) -> None:
    async with opened() as dispatcher:
        error = ValueError("mine")

        @dispatcher.handler("t", retry=ONCE)
        async def handler(job: csjd.Job) -> None:  # noqa: ASYNC124
            raise error

        outcome = await (await submit(dispatcher, "t")).outcome()
        assert isinstance(outcome, csjd.Failed)
        assert outcome.error is error


@pytest.mark.parametrize(
    "value",
    [None, ValueError("returned, not raised"), ..., [1]],
    ids=lambda value: type(value).__name__,
)
async def test_whatever_a_handler_returns_is_its_result(value: Any) -> None:
    async with opened() as dispatcher:

        @dispatcher.handler("t")
        async def handler(job: csjd.Job) -> Any:  # noqa: ASYNC124
            return value

        assert await (await submit(dispatcher, "t")).result() is value


async def test_receipts_and_attempts_show_no_payloads(autojump_clock: MockClock) -> None:
    shown: list[str] = []
    log = work()

    @log.handler("show")
    async def show(job: Job, attempt: csjd.Attempt) -> None:
        shown.append(repr(attempt))
        await trio.lowlevel.checkpoint()

    async with opened(log.registry, workers=1) as dispatcher:
        await submit(dispatcher, "show", id="mine", session="s")
        receipts = [
            await submit(dispatcher, "nothing", "secret", session="s", id=f"other-{number}")
            for number in range(1000)
        ]
        await receipts[-1].outcome()
    shown += map(repr, receipts)
    assert "mine" in shown[0]
    assert shown[1] == "<Receipt 'other-0', succeeded>"
    assert max(map(len, shown)) < 500
    assert not any("secret" in each for each in shown)


async def test_job_cannot_be_cancelled_once_the_block_was_left(autojump_clock: MockClock) -> None:
    async with opened(work().registry, stop_grace=0) as dispatcher:
        receipt = await submit(dispatcher, "nothing", id="left", delay=5)
    assert not receipt.cancel()
    assert not dispatcher.cancel("left")
    assert receipt.state is csjd.JobState.SCHEDULED
    assert dispatcher.metrics().cancelled == 0
