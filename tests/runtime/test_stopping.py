"""Stopping, starting again, and what is left then."""

import math
import threading
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import csjd
from csjd import DispatcherState, Job
from tests.runtime.scene import ONCE, at, balanced, opened, submit, work


def _ids(jobs: Any) -> list[str]:
    return [job.id for job in jobs]


async def test_stop_works_off_what_is_ready_and_reports(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1) as dispatcher:
        for name in "abc":
            await submit(dispatcher, "sleep", 2, id=name)
        report = await dispatcher.stop()
        assert report.finished == ("a", "b", "c")
        assert (report.unfinished, report.stuck, report.duration) == ((), (), 6.0)
        assert dispatcher.last_stop is report
        assert dispatcher.state is DispatcherState.STOPPED
        assert await dispatcher.stop() is report  # idempotent


async def test_stop_waits_for_backoff_that_falls_due_in_time_only(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, retry=lambda n, *_: (5, 50)[n - 1]) as dispatcher:
        steps = (ValueError(), "end")
        await submit(dispatcher, "script", steps, id="soon")
        await submit(dispatcher, "script", (ValueError(), ValueError(), "end"), id="late")
        await trio.sleep(1)
        report = await dispatcher.stop(grace=20)
        assert report.finished == ("soon",)
        assert _ids(report.unfinished) == ["late"]
        assert report.duration == 4  # no use in waiting for what falls due after the grace


async def test_stop_leaves_what_is_not_ready_in_order_of_acceptance(
    autojump_clock: MockClock,
) -> None:
    log = work()
    async with opened(log.registry) as dispatcher:
        dispatcher.pause(type="nothing")
        await submit(dispatcher, "sleep", 1, id="delayed", delay=100)
        await submit(dispatcher, "script", (csjd.Snooze(100), 1), id="snoozed", session="s")
        await submit(dispatcher, "sleep", 1, id="behind", session="s")
        await submit(dispatcher, "nothing", id="paused", priority=9)
        await submit(dispatcher, "sleep", 1, id="works")
        report = await dispatcher.stop()
        assert report.finished == ("works",)
        assert _ids(report.unfinished) == ["delayed", "snoozed", "behind", "paused"]
        assert report.duration == 1
        await dispatcher.start()
        dispatcher.resume(type="nothing")
        await trio.sleep(200)
        assert dispatcher.metrics().live == 0
    assert log.started == ["snoozed", "works", "paused", "snoozed", "delayed", "behind"] or (
        set(log.started) == {"snoozed", "works", "paused", "delayed", "behind"}
    )


async def test_interrupted_job_keeps_its_place_and_its_attempts(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, workers=1) as dispatcher:
        first = await submit(dispatcher, "script", (ValueError(), 9, 1), id="a", session="s")
        await submit(dispatcher, "nothing", id="b", session="s")
        await at(3)
        report = await dispatcher.stop(grace=2)
        assert _ids(report.unfinished) == ["a", "b"]
        assert report.duration == 2
        metrics = dispatcher.metrics()
        assert (metrics.interrupted, metrics.ready, metrics.waiting) == (1, 1, 1)
        assert balanced(metrics)
        await dispatcher.start()
        outcome = await first.outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert outcome.attempts == 2
    assert log.started == ["a", "a", "a", "b"]


async def test_grace_of_nothing_interrupts_at_once(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1) as dispatcher:
        await submit(dispatcher, "sleep", 5, id="a")
        await submit(dispatcher, "sleep", 5, id="b")
        await at(1)
        report = await dispatcher.stop(grace=0)
        assert _ids(report.unfinished) == ["a", "b"]
        assert report.duration == 0


async def test_success_in_spite_of_the_interruption_counts(autojump_clock: MockClock) -> None:
    async with opened(work().registry) as dispatcher:
        receipt = await submit(dispatcher, "stubborn", 5, id="a")
        await at(4.5)
        report = await dispatcher.stop(grace=0)
        assert report.finished == ("a",)
        assert report.duration == 0.5
        assert isinstance(await receipt.outcome(), csjd.Succeeded)


async def test_stuck_handler_is_reported_and_does_not_block_a_restart(
    autojump_clock: MockClock,
) -> None:
    log = work()
    async with opened(log.registry, workers=1) as dispatcher:
        deaf = await submit(dispatcher, "stubborn", 20, id="deaf", session="s")
        behind = await submit(dispatcher, "nothing", id="behind", session="s")
        await at(1)
        report = await dispatcher.stop(grace=1)
        assert report.duration == 2  # grace and detach_grace
        [stuck] = report.stuck
        assert (stuck.job.id, stuck.running_for) == ("deaf", 3.0)
        assert any("stubborn" in line for line in stuck.stack)
        assert _ids(report.unfinished) == ["deaf", "behind"]
        await dispatcher.start()
        assert await (await submit(dispatcher, "nothing", 5)).result() == 5
        assert log.started == ["deaf", *log.started[1:2]]
        assert isinstance(await deaf.outcome(), csjd.Succeeded)
        assert trio.current_time() == 20
        await behind.outcome()


async def test_too_many_stuck_handlers_refuse_a_start(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1, job_timeout=math.inf) as dispatcher:
        for number in range(2):
            await submit(dispatcher, "stubborn", 1000, id=str(number))
            await trio.sleep(1)
            await dispatcher.stop(grace=0)
            if number == 0:
                await dispatcher.start()
        with pytest.raises(csjd.StuckHandlersError) as caught:
            await dispatcher.start()
        assert (caught.value.job_ids, caught.value.limit) == (("0", "1"), 1)
        assert dispatcher.state is DispatcherState.STOPPED
        await trio.sleep(2000)
        await dispatcher.start()


async def test_stuck_handlers_are_limited_by_the_lanes_there_are_now(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=1, job_timeout=math.inf) as dispatcher:
        await dispatcher.resize(2)
        for number in range(2):
            await submit(dispatcher, "stubborn", 1000, id=str(number))
        await trio.sleep(1)
        await dispatcher.stop(grace=0)
        await dispatcher.start()
        await dispatcher.stop(grace=0)
        await dispatcher.resize(1)
        with pytest.raises(csjd.StuckHandlersError) as caught:
            await dispatcher.start()
        assert caught.value.limit == 1
        await trio.sleep(2000)


async def test_cancelled_stop_is_not_called_off(autojump_clock: MockClock) -> None:
    async with opened(work().registry) as dispatcher:
        await submit(dispatcher, "sleep", 5, id="a")
        with trio.move_on_after(1):
            await dispatcher.stop()
        assert dispatcher.state is DispatcherState.STOPPING
        report = await dispatcher.stop()
        assert (report.finished, trio.current_time()) == (("a",), 5)


async def test_joined_stop_takes_the_shorter_grace(autojump_clock: MockClock) -> None:
    async with opened(work().registry) as dispatcher, trio.open_nursery() as nursery:
        reports: list[csjd.StopReport] = []

        async def stop(grace: float) -> None:
            reports.append(await dispatcher.stop(grace=grace))

        await submit(dispatcher, "sleep", 9, id="a")
        nursery.start_soon(stop, 100)
        await at(1)
        nursery.start_soon(stop, 2)
        nursery.start_soon(stop, 50)
        await at(4)
        assert len(reports) == 3
        assert reports[0] is reports[1] is reports[2]
        assert reports[0].duration == 3


async def test_start_waits_for_the_stop_under_way(autojump_clock: MockClock) -> None:
    async with opened(work().registry) as dispatcher, trio.open_nursery() as nursery:
        await submit(dispatcher, "sleep", 5)
        nursery.start_soon(dispatcher.stop)
        await at(1)
        await dispatcher.start()
        assert trio.current_time() == 5
        assert dispatcher.state is DispatcherState.RUNNING
        await dispatcher.start()  # which does nothing


@pytest.mark.parametrize("change", ["cancel", "pause", "pause type"])
async def test_stop_ends_when_nothing_is_left_to_wait_for(
    change: str, autojump_clock: MockClock
) -> None:
    async with opened(work().registry, retry=lambda *_: 20) as dispatcher:
        receipt = await submit(dispatcher, "fail", ValueError())
        await at(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: dispatcher.stop(grace=1000))
            await at(5)
            match change:
                case "cancel":
                    receipt.cancel()
                case "pause":
                    dispatcher.pause()
                case "pause type":
                    dispatcher.pause(type="fail")
        assert trio.current_time() == 5


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("caller", ["handler", "child", "thread", "thread with a token"])
async def test_stop_by_a_handler_does_not_wait_for_it(
    caller: str, workers: int, mock_clock: MockClock
) -> None:
    async with opened(work().registry, workers=workers, job_timeout=math.inf) as dispatcher:
        token = trio.lowlevel.current_trio_token()
        reports: list[csjd.StopReport] = []

        async def stop() -> None:
            reports.append(await dispatcher.stop())

        @dispatcher.handler("stop")
        async def handler(job: Job) -> str:
            match caller:
                case "handler":
                    await stop()
                case "child":
                    async with trio.open_nursery() as nursery:  # noqa: ASYNC112
                        nursery.start_soon(stop)
            return "went on"

        def threaded(job: Job) -> str:
            if caller == "thread":
                trio.from_thread.run(stop)
            else:
                trio.from_thread.run(stop, trio_token=token)
            return "went on"

        dispatcher.register("thread", threaded)
        kind = "thread" if caller.startswith("thread") else "stop"
        receipt = await submit(dispatcher, kind, id="a")
        with trio.CancelScope() as patience:
            async with trio.open_nursery() as nursery:

                async def give_up() -> None:
                    # No time passes on this clock: if nothing else can happen, it hangs.
                    for _ in range(200):
                        await trio.testing.wait_all_tasks_blocked(0.001)
                        if receipt.state is csjd.JobState.SUCCEEDED:
                            break
                    patience.cancel()

                nursery.start_soon(give_up)
                await receipt.outcome()
        mock_clock.autojump_threshold = 0.01  # if it waits for time to pass, it may have it
        await receipt.outcome()
        assert reports[0].duration == 0
        assert _ids(reports[0].unfinished) == ["a"]
        assert await receipt.result() == "went on"


async def test_two_handlers_may_stop_at_once(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=3) as dispatcher:

        @dispatcher.handler("stop")
        async def handler(job: Job) -> float:
            await trio.sleep(1)
            return (await dispatcher.stop()).duration

        receipts = [await submit(dispatcher, "stop") for _ in range(2)]
        await submit(dispatcher, "sleep", 4)
        for receipt in receipts:
            assert await receipt.result() == 3


async def test_handler_may_stop_and_start_again(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1) as dispatcher:

        @dispatcher.handler("restart")
        async def handler(job: Job) -> None:
            await dispatcher.stop()
            await dispatcher.start()
            await submit(dispatcher, "nothing", id="follow-up")

        await (await submit(dispatcher, "restart")).result()
        assert trio.current_time() == 0
        assert dispatcher.state is DispatcherState.RUNNING
    assert dispatcher.metrics().succeeded == 2


async def _sessions_of_worker(dispatcher: csjd.Dispatcher, worker: int) -> list[str]:
    """Return sessions that were bound to the worker by a job each."""
    found = []
    for name in map(str, range(20)):
        await (await submit(dispatcher, "nothing", session=name)).outcome()
        info = dispatcher.session_info(name)
        assert info is not None
        if info.worker == worker:
            found.append(name)
    return found


def _stops(dispatcher: csjd.Dispatcher, grace: float) -> list[csjd.StopReport]:
    """Register the handler `stop`; return where it puts its reports."""
    reports: list[csjd.StopReport] = []

    @dispatcher.handler("stop", timeout=math.inf)
    async def handler(job: Job) -> None:
        await trio.sleep(1)
        reports.append(await dispatcher.stop(grace=grace))

    return reports


async def test_stop_by_a_handler_leaves_what_only_its_own_lane_could_do(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=2) as dispatcher:
        mine, other, *_ = await _sessions_of_worker(dispatcher, 0)
        elsewhere, *_ = await _sessions_of_worker(dispatcher, 1)
        reports = _stops(dispatcher, math.inf)
        await submit(dispatcher, "stop", session=mine)
        await submit(dispatcher, "nothing", id="stays", session=other)
        await submit(dispatcher, "sleep", 2, id="runs", session=elsewhere)
        await submit(dispatcher, "sleep", 3, id="ready", session=elsewhere)
        await submit(dispatcher, "sleep", 1, id="shared")
        await trio.sleep(100)
        [report] = reports
        assert set(report.finished) == {"runs", "ready", "shared"}
        assert _ids(report.unfinished)[-1] == "stays"
        assert report.duration == 5
        await dispatcher.start()


@pytest.mark.parametrize("lanes", [1, 2])
async def test_stop_by_a_handler_works_off_what_another_lane_of_its_worker_can_do(
    lanes: int, autojump_clock: MockClock
) -> None:
    async with opened(work().registry, workers=1, lanes=lanes) as dispatcher:
        reports = _stops(dispatcher, math.inf)
        await submit(dispatcher, "stop", session="mine")
        await submit(dispatcher, "sleep", 1, session="other")
        await submit(dispatcher, "sleep", 2, id="last", session="other")
        await trio.sleep(100)
        [report] = reports
        assert ("last" in report.finished) is (lanes == 2)
        assert report.duration == (lanes == 2) * 2


@pytest.mark.parametrize("worker", [0, 1, None])
async def test_stop_by_a_handler_waits_only_for_backoff_that_another_lane_can_end(
    worker: int | None, autojump_clock: MockClock
) -> None:
    async with opened(work().registry, workers=2, retry=lambda *_: 10) as dispatcher:
        mine, other, *_ = await _sessions_of_worker(dispatcher, 0)
        [elsewhere, *_] = await _sessions_of_worker(dispatcher, 1)
        session = {0: other, 1: elsewhere, None: None}[worker]
        failing = await submit(
            dispatcher, "script", (ValueError(), "end"), id="failing", session=session
        )
        await at(1)
        assert failing.state is csjd.JobState.SCHEDULED
        reports = _stops(dispatcher, 1000)
        await submit(dispatcher, "stop", session=mine)
        await trio.sleep(100)
        [report] = reports
        assert report.finished == (() if worker == 0 else ("failing",))
        assert report.duration == (0 if worker == 0 else 8)


async def test_stop_by_a_handler_ends_when_a_session_moves_to_its_worker(
    autojump_clock: MockClock,
) -> None:
    registry = work().registry
    settings: dict[str, Any] = {"load_factor": 100, "retry": lambda *_: 10}
    async with opened(registry, workers=2, **settings) as dispatcher:
        without_last = await _sessions_of_worker(dispatcher, 0)
    async with opened(registry, workers=3, **settings) as dispatcher:
        mine, *_ = await _sessions_of_worker(dispatcher, 0)
        moving = next(
            name for name in await _sessions_of_worker(dispatcher, 2) if name in without_last
        )
        await submit(dispatcher, "script", (ValueError(), "end"), id="moves", session=moving)
        await at(1)
        reports = _stops(dispatcher, math.inf)
        await submit(dispatcher, "stop", session=mine)
        dispatcher.remove_worker(2)
        await trio.sleep(100)
        [report] = reports
        assert report.duration == 8
        assert _ids(report.unfinished)[0] == "moves"


async def test_handler_cannot_wait_for_the_end_of_a_stop_that_waits_for_it(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry) as dispatcher:

        @dispatcher.handler("start", retry=ONCE)
        async def handler(job: Job) -> None:
            await trio.sleep(1)
            await dispatcher.start()

        receipt = await submit(dispatcher, "start")
        await dispatcher.stop()
        outcome = await receipt.outcome()
        assert isinstance(outcome, csjd.Failed)
        assert isinstance(outcome.error, csjd.WouldDeadlockError)


async def test_handler_of_another_dispatcher_may_wait_for_a_stop(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry) as one, opened(work().registry) as other:

        @one.handler("start", retry=ONCE)
        async def handler(job: Job) -> None:
            await trio.sleep(1)
            await other.start()

        await submit(other, "sleep", 5)
        receipt = await submit(one, "start")
        await other.stop()
        await receipt.result()
        assert other.state is DispatcherState.RUNNING


# --- threads: gated by events, never by time --------------------------------------------------


async def test_plain_handler_runs_in_a_thread_and_hears_of_its_cancellation() -> None:
    started, threads = threading.Event(), []

    def plain(job: Job) -> None:
        threads.append(threading.get_ident())
        started.set()
        while True:
            trio.from_thread.check_cancelled()
            gate.wait(0.001)

    gate = threading.Event()
    async with opened(retry=ONCE) as dispatcher:
        dispatcher.register("plain", plain)
        receipt = await submit(dispatcher, "plain")
        await trio.to_thread.run_sync(started.wait)
        assert threads != [threading.get_ident()]
        assert receipt.cancel()
        assert isinstance(await receipt.outcome(), csjd.Cancelled)


async def test_many_stuck_threads_leave_trios_own_limiter_alone(mock_clock: MockClock) -> None:
    gate = threading.Event()
    async with opened(workers=1, lanes=60, job_timeout=math.inf) as dispatcher:
        dispatcher.register("wait", lambda job: gate.wait())
        for _ in range(60):
            await submit(dispatcher, "wait")
        while dispatcher.metrics().running < 60:  # noqa: ASYNC110
            await trio.lowlevel.checkpoint()
        limiter = trio.to_thread.current_default_thread_limiter()
        assert limiter.borrowed_tokens == 0
        assert await trio.to_thread.run_sync(lambda: 5) == 5
        gate.set()
    assert dispatcher.metrics().succeeded == 60


async def test_attempts_methods_work_from_the_handlers_thread(mock_clock: MockClock) -> None:
    events: list[Any] = []
    async with opened(
        retry=ONCE, observers=(lambda event: events.append((event, threading.get_ident())),)
    ) as dispatcher:

        def plain(job: Job, attempt: csjd.Attempt) -> Any:
            attempt.progress("half")
            before = attempt.deadline
            assert attempt.extend(5)
            return attempt.deadline - before, attempt.time_left(), attempt.number

        dispatcher.register("plain", plain)
        assert await (await submit(dispatcher, "plain", timeout=10)).result() == (5, 15, 1)
    [thread] = [each for event, each in events if isinstance(event, csjd.JobProgressed)]
    assert thread == threading.get_ident()


async def test_deaf_thread_is_detached_with_its_own_stack(mock_clock: MockClock) -> None:
    gate, started = threading.Event(), threading.Event()
    events: list[csjd.Event] = []

    def deaf_in_a_thread(job: Job) -> str:
        started.set()
        gate.wait()
        return "at last"

    async with opened(
        work().registry, workers=1, detach_budget=1, retry=ONCE, observers=(events.append,)
    ) as dispatcher:
        dispatcher.register("deaf", deaf_in_a_thread)
        receipt = await submit(dispatcher, "deaf", timeout=3)
        await trio.to_thread.run_sync(started.wait)
        for _ in range(3):
            mock_clock.jump(2)
            await trio.testing.wait_all_tasks_blocked()
        [told] = [event for event in events if isinstance(event, csjd.HandlerDetached)]
        assert any("deaf_in_a_thread" in line for line in told.handler.stack)
        assert await (await submit(dispatcher, "nothing", 5)).result() == 5
        gate.set()
        outcome = await receipt.outcome()
        assert isinstance(outcome, csjd.Succeeded)
        assert (outcome.late, outcome.result) == (True, "at last")


async def test_stack_of_a_stuck_handler_shows_no_foreign_thread(mock_clock: MockClock) -> None:
    gate, started = threading.Event(), threading.Event()

    def foreign() -> None:
        started.set()
        gate.wait()

    async with opened(work().registry, workers=1, retry=ONCE) as dispatcher:
        dispatcher.register("plain", lambda job: None)
        await (await submit(dispatcher, "plain")).result()
        async with trio.open_nursery() as nursery:
            # Trio hands out the thread that was used last.
            nursery.start_soon(trio.to_thread.run_sync, foreign)
            await trio.lowlevel.checkpoint()
            await trio.to_thread.run_sync(started.wait)
            await submit(dispatcher, "stubborn", 10)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                nursery.start_soon(lambda: dispatcher.stop(grace=0))
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(2)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
            report = dispatcher.last_stop
            gate.set()
        assert report is not None
        [stuck] = report.stuck
        assert not any("foreign" in line for line in stuck.stack)
        mock_clock.jump(20)
