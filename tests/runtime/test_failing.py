"""What becomes of a job whose handler raises."""

import math
import subprocess
import sys
import textwrap
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import csjd
from csjd import Job
from tests.breaking_down import break_down_when_cancelled
from tests.runtime.scene import ONCE, balanced, opened, submit, work

STEADY = csjd.Retry(max_attempts=3, min_delay=1, jitter=0)


async def test_failed_attempts_are_repeated_with_backoff(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, retry=STEADY) as dispatcher:
        outcome = await (await submit(dispatcher, "fail", ValueError("x"), id="a")).outcome()
        assert isinstance(outcome, csjd.Failed)
        assert outcome.attempts == 3
        assert log.times["a"] == [0, 1, 3]
        metrics = dispatcher.metrics()
        assert (metrics.attempts, metrics.retries, metrics.failed) == (3, 2, 1)
        assert metrics.dead_letters == 1


@pytest.mark.parametrize(
    ("steps", "times", "attempts"),
    [
        ((ValueError(), "end"), [0, 1], 2),
        ((csjd.RetryAfter(7), "end"), [0, 7], 2),
        ((csjd.Snooze(7), "end"), [0, 7], 1),
        ((csjd.Snooze(1),) * 9 + ("end",), list(range(10)), 1),
        ((ExceptionGroup("", [csjd.Snooze(2), csjd.Snooze(7)]), "end"), [0, 7], 1),
        ((ExceptionGroup("", [csjd.Snooze(2), ValueError()]), "end"), [0, 2], 2),
        ((csjd.RetryAfter(0), csjd.RetryAfter(0), "end"), [0, 0, 0], 3),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_handler_steers_its_job_by_what_it_raises(
    steps: Any, times: list[float], attempts: int, autojump_clock: MockClock
) -> None:
    log = work()
    async with opened(log.registry, retry=STEADY) as dispatcher:
        outcome = await (await submit(dispatcher, "script", steps, id="a")).outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert outcome.attempts == attempts
        assert log.times["a"] == times


@pytest.mark.parametrize(
    "error",
    [
        csjd.PermanentError("never"),
        ExceptionGroup("", [csjd.RetryAfter(1), ExceptionGroup("", [csjd.PermanentError()])]),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_permanent_error_ends_the_job(error: Exception) -> None:
    async with opened(work().registry, retry=STEADY) as dispatcher:
        outcome = await (await submit(dispatcher, "fail", error)).outcome()
        assert isinstance(outcome, csjd.Failed)
        assert outcome.attempts == 1


async def test_nursery_of_a_handler_is_judged_by_its_leaves(autojump_clock: MockClock) -> None:
    async with opened(retry=STEADY) as dispatcher:
        calls: list[float] = []

        async def child() -> None:  # noqa: ASYNC124
            raise csjd.RetryAfter(5)

        @dispatcher.handler("t")
        async def handler(job: Job) -> str:
            calls.append(trio.current_time())
            if len(calls) == 1:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(child)
                    nursery.start_soon(trio.sleep_forever)
            return "end"

        assert await (await submit(dispatcher, "t")).result() == "end"
        assert calls == [0, 5]


@pytest.mark.parametrize("delay", [-1, math.nan, 10**400, "1"], ids=lambda value: repr(value)[:9])
async def test_broken_policy_ends_its_job_and_nothing_else(delay: Any) -> None:
    async with opened(work().registry, retry=lambda *_: delay) as dispatcher:
        outcome = await (await submit(dispatcher, "fail", ValueError())).outcome()
        assert isinstance(outcome, csjd.Failed)
        assert await (await submit(dispatcher, "nothing", 3)).result() == 3


@pytest.mark.parametrize("kind", [csjd.Snooze, csjd.RetryAfter])
async def test_unusable_wait_is_a_failed_attempt_and_nothing_else(kind: Any) -> None:
    async with opened() as dispatcher:

        @dispatcher.handler("t", retry=ONCE)
        async def handler(job: Job) -> None:  # noqa: ASYNC124
            raise kind(10**400)

        outcome = await (await submit(dispatcher, "t")).outcome()
        assert isinstance(outcome, csjd.Failed)
        assert isinstance(outcome.error, ValueError)


class Odd(BaseException):
    """No Exception."""


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), GeneratorExit(), Odd(), BaseExceptionGroup("", [ValueError(), Odd()])],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("threaded", [False, True])
async def test_panic_is_counted_and_final_and_the_lane_lives_on(
    error: BaseException, threaded: bool
) -> None:
    async with opened(work().registry, workers=1) as dispatcher:

        def plain(job: Job) -> None:
            raise error

        async def panicking(job: Job) -> None:  # noqa: ASYNC124
            raise error

        dispatcher.register("panic", plain if threaded else panicking)
        outcome = await (await submit(dispatcher, "panic")).outcome()
        assert isinstance(outcome, csjd.Failed)
        assert outcome.attempts == 1
        assert type(outcome.error) is type(error)
        assert dispatcher.metrics().panics == 1
        assert await (await submit(dispatcher, "nothing", 3)).result() == 3


async def test_stray_cancelled_is_a_panic() -> None:
    stray: list[trio.Cancelled] = []
    async with opened(work().registry, workers=1) as dispatcher:

        @dispatcher.handler("stray")
        async def handler(job: Job) -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                try:
                    await trio.sleep_forever()
                except trio.Cancelled as cancelled:
                    stray.append(cancelled)
                    raise
            raise stray[0]

        outcome = await (await submit(dispatcher, "stray")).outcome()
        assert isinstance(outcome, csjd.Failed)
        assert outcome.error is stray[0]
        assert dispatcher.metrics().panics == 1
        assert await (await submit(dispatcher, "nothing", 3)).result() == 3


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("threaded", [False, True])
def test_keyboard_interrupt_goes_to_the_caller_and_puts_the_job_back(
    grouped: bool, threaded: bool
) -> None:
    interrupt: BaseException = KeyboardInterrupt("mine")
    if grouped:
        interrupt = BaseExceptionGroup("", [ValueError("with it"), interrupt])
    log = work()
    box: list[csjd.Dispatcher] = []

    def plain(job: Job) -> None:
        raise interrupt

    async def interrupted(job: Job) -> None:  # noqa: ASYNC124
        raise interrupt

    async def main() -> None:
        async with opened(log.registry, lanes=2) as dispatcher:
            box.append(dispatcher)
            dispatcher.register("interrupt", plain if threaded else interrupted)
            await submit(dispatcher, "sleep", 1000, id="a", timeout=math.inf)
            await submit(dispatcher, "interrupt", id="b", session="s")
            await submit(dispatcher, "nothing", id="c", session="s")
            await trio.sleep_forever()

    with pytest.raises(BaseException) as caught:  # noqa: PT011  looked at below
        trio.run(main)
    assert {type(each) for each in _leaves(caught.value)} == {KeyboardInterrupt}
    [dispatcher] = box
    assert dispatcher.state is csjd.DispatcherState.CLOSED
    report = dispatcher.last_stop
    assert report is not None
    assert [job.id for job in report.unfinished] == ["a", "b", "c"]


def test_job_that_was_interrupted_is_not_begun_anew_on_the_way_out() -> None:
    begun: list[str] = []

    async def interrupted(job: Job) -> None:  # noqa: ASYNC124
        begun.append(job.id)
        raise KeyboardInterrupt

    async def main() -> None:
        async with opened(workers=4, lanes=2) as dispatcher:
            dispatcher.register("interrupt", interrupted)
            await trio.testing.wait_all_tasks_blocked()
            await submit(dispatcher, "interrupt", id="a")
            await trio.sleep_forever()

    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        trio.run(main)
    assert begun == ["a"]


async def test_error_of_a_handler_that_the_program_cancels_does_not_end_the_program(
    autojump_clock: MockClock,
) -> None:
    async def handler(job: Job) -> None:
        await break_down_when_cancelled()

    async with trio.open_nursery() as nursery, csjd.open_dispatcher(nursery) as dispatcher:
        dispatcher.register("t", handler)
        await submit(dispatcher, "t", id="a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    assert dispatcher.last_stop is not None
    assert [job.id for job in dispatcher.last_stop.unfinished] == ["a"]


PROGRAM = """
import os, signal, sys, threading
import trio, csjd

async def main():
    async with trio.open_nursery() as nursery:
        config = csjd.Config(workers=2, job_timeout=float("inf"))
        async with csjd.open_dispatcher(nursery, config) as dispatcher:
            @dispatcher.handler("spin")
            async def spin(job):
                {body}
            await dispatcher.submit(csjd.Job(type="spin", id="a", session="s"))
            await dispatcher.submit(csjd.Job(type="spin", id="b", session="s"))
            box.append(dispatcher)
            await trio.sleep_forever()

box = []
try:
    trio.run(main)
except BaseException as error:
    while isinstance(error, BaseExceptionGroup):
        assert len(error.exceptions) == 1, error.exceptions
        error = error.exceptions[0]
    print(type(error).__name__, [job.id for job in box[0].last_stop.unfinished])
"""


@pytest.mark.parametrize(
    "body",
    [
        # A handler that never awaits can be interrupted ...
        "os.kill(os.getpid(), signal.SIGINT)\n                while True: pass",
        # ... and one that sleeps is cancelled with everything else.
        "os.kill(os.getpid(), signal.SIGINT)\n                await trio.sleep_forever()",
    ],
    ids=["spinning", "sleeping"],
)
def test_ctrl_c_interrupts_a_handler_and_loses_nothing(body: str) -> None:
    program = textwrap.dedent(PROGRAM).replace("{body}", body)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "KeyboardInterrupt ['a', 'b']", done.stderr


async def test_dead_letters_can_be_looked_at_requeued_and_discarded(
    autojump_clock: MockClock,
) -> None:
    log = work()
    async with opened(log.registry, workers=1) as dispatcher:
        boom = csjd.PermanentError("boom")
        await submit(dispatcher, "script", (boom, 1), id="a", session="s")
        await submit(dispatcher, "fail", boom, id="b")
        await (await submit(dispatcher, "sleep", 1, id="c", session="s")).outcome()
        first, second = await dispatcher.dead_letters()
        assert (first.job.id, first.attempts, first.timed_out, first.failed) == ("a", 1, False, 0)
        assert str(first.error) == "boom"
        assert second.job.id == "b"
        again = await dispatcher.requeue("a")
        assert [letter.job.id for letter in await dispatcher.dead_letters()] == ["b"]
        outcome = await again.outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert outcome.attempts == 1
        await dispatcher.discard("b")
        assert await dispatcher.dead_letters() == ()
        for ask in (dispatcher.requeue, dispatcher.discard):
            with pytest.raises(csjd.DeadLetterNotFoundError, match="'b'"):
                await ask("b")
        metrics = dispatcher.metrics()
        assert (metrics.accepted, metrics.failed, metrics.succeeded) == (4, 2, 2)
        assert balanced(metrics)


async def test_requeue_is_refused_where_a_submit_would_be(autojump_clock: MockClock) -> None:
    async with opened(work().registry, max_pending=1, duplicate_window=0) as dispatcher:
        await submit(dispatcher, "fail", csjd.PermanentError(), id="a")
        await trio.sleep(1)
        live = await submit(dispatcher, "sleep", 1, id="b")
        with pytest.raises(csjd.QueueFullError):
            await dispatcher.requeue("a")
        await live.outcome()
        live = await submit(dispatcher, "sleep", 1, id="a")
        with pytest.raises(csjd.DuplicateJobError):
            await dispatcher.requeue("a")
        await live.outcome()
        assert len(await dispatcher.dead_letters()) == 1
        await dispatcher.stop()
        with pytest.raises(csjd.DispatcherClosedError):
            await dispatcher.requeue("a")
        assert len(await dispatcher.dead_letters()) == 1


async def test_refused_requeue_leaves_the_duplicate_window_as_it_was(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, max_pending=1, duplicate_window=10) as dispatcher:
        await submit(dispatcher, "fail", csjd.PermanentError(), id="a")
        await trio.sleep(1)
        live = await submit(dispatcher, "sleep", 1, id="b")
        with pytest.raises(csjd.QueueFullError):
            await dispatcher.requeue("a")
        await live.outcome()
        with pytest.raises(csjd.DuplicateJobError):
            await submit(dispatcher, "nothing", id="a")
        again = await dispatcher.requeue("a")  # in spite of its own window
        assert isinstance(await again.outcome(), csjd.Failed)


async def test_dead_letters_are_bounded(autojump_clock: MockClock) -> None:
    async with opened(work().registry, history=3) as dispatcher:
        for number in range(10):
            await (
                await submit(dispatcher, "fail", csjd.PermanentError(), id=str(number))
            ).outcome()
        assert [each.job.id for each in await dispatcher.dead_letters()] == ["7", "8", "9"]
        assert dispatcher.metrics().dead_letters_dropped == 7
        assert [each.job_id for each in dispatcher.history()] == ["7", "8", "9"]
