"""The kit itself: virtual time, scripts, threads, leaks, the guest, the seeded schedule."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio._core import _run

import csjd
from csjd.testing import (
    Checker,
    CleanUp,
    GuestStuckError,
    Hang,
    IgnoreCancel,
    PromiseBrokenError,
    Raise,
    Recorder,
    Return,
    SchedulingChangedError,
    ScriptedHandler,
    Sleep,
    TrioGuest,
    assert_no_leaks,
    blocking,
    deterministic_schedule,
    open_test_dispatcher,
    run_virtual,
    snooze,
)
from csjd.testing.leaks import csjd_tasks


def test_virtual_run_takes_no_time_and_returns_its_result() -> None:
    async def program() -> float:
        await trio.sleep(86_400)
        return trio.current_time()

    assert run_virtual(program) == 86_400


def test_script_is_followed_step_by_step_and_noted_with_its_times() -> None:
    async def program() -> None:
        handler = ScriptedHandler([Raise(OSError("down")), snooze(3), Sleep(2, Return("done"))])
        recorder = Recorder()
        config = csjd.Config(retry=csjd.Retry(min_delay=1, jitter=0))
        async with open_test_dispatcher(config, observers=[recorder]) as dispatcher:
            dispatcher.register("t", handler)
            receipt = await dispatcher.submit(csjd.Job(type="t", id="a"))
            assert await receipt.result() == "done"
        assert [(call.began, call.ended) for call in handler.calls] == [(0, 0), (1, 1), (4, 6)]
        assert recorder.names("a") == [
            "JobAccepted",
            "AttemptStarted",
            "JobRetried",
            "AttemptStarted",
            "JobSnoozed",
            "AttemptStarted",
            "JobEnded",
        ]

    run_virtual(program)


@pytest.mark.parametrize(
    ("step", "ends", "outcome"),
    [
        (Hang(), 1, csjd.TimedOut),
        (IgnoreCancel(5), 5, csjd.Succeeded),
        (CleanUp(2), 3, csjd.TimedOut),
        (CleanUp(2, Return("saved")), 3, csjd.Succeeded),
    ],
)
def test_step_meets_its_cancellation_as_written(
    step: Hang | IgnoreCancel | CleanUp, ends: float, outcome: type
) -> None:
    async def program() -> None:
        handler = ScriptedHandler([step])
        async with open_test_dispatcher() as dispatcher:
            dispatcher.register("t", handler)
            receipt = await dispatcher.submit(csjd.Job(type="t", timeout=1, max_attempts=1))
            assert isinstance(await receipt.outcome(), outcome)
        assert handler.calls[0].ended == ends

    run_virtual(program)


def test_virtual_thread_is_busy_in_virtual_time_and_deaf_to_cancellation() -> None:
    async def program() -> None:
        async with open_test_dispatcher() as dispatcher:

            @dispatcher.handler("t")
            def work(job: csjd.Job) -> object:
                assert threading.current_thread() is threading.main_thread()
                return blocking(30, lambda cancelled: ("cancelled", cancelled))

            receipt = await dispatcher.submit(csjd.Job(type="t", timeout=1))
            assert await receipt.result() == ("cancelled", True)
            assert trio.current_time() == 30

    run_virtual(program)


def test_same_seed_gives_the_same_interleaving() -> None:
    async def program() -> list[int]:
        order = []

        async def note(number: int) -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(note, number)
        return order

    assert run_virtual(program, seed=1) == run_virtual(program, seed=1)
    assert len({tuple(run_virtual(program, seed=seed)) for seed in range(10)}) > 1


@pytest.mark.parametrize("name", ["_ALLOW_DETERMINISTIC_SCHEDULING", "_r"])
def test_change_of_trios_private_names_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(_run, name)
    with pytest.raises(SchedulingChangedError, match=name), deterministic_schedule(1):
        pass


def test_guest_is_stepped_and_time_stands_still_between_steps() -> None:
    guest = TrioGuest()
    try:

        async def now() -> float:
            await trio.lowlevel.checkpoint()
            return trio.current_time()

        assert guest.call(now) == 0
        guest.pass_time(2.5)
        assert guest.call(now) == 2.5
        with pytest.raises(ZeroDivisionError):
            guest.call(_divide_by_zero)
    finally:
        guest.close()
    with pytest.raises(RuntimeError, match="has ended"):
        guest.call(trio.sleep, 0)


async def _go_round_in_circles() -> None:
    while True:  # noqa: ASYNC110
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("never", [trio.sleep_forever, _go_round_in_circles])
def test_guest_that_is_stuck_says_so_and_can_be_closed(never: Callable[[], Any]) -> None:
    guest = TrioGuest(patience=0.05)
    try:
        with pytest.raises(GuestStuckError):
            guest.call(never)
    finally:
        guest.close()


async def _divide_by_zero() -> None:
    await trio.lowlevel.checkpoint()
    raise ZeroDivisionError


def test_tasks_of_an_open_dispatcher_are_found_and_none_after_it() -> None:
    async def program() -> None:
        async with open_test_dispatcher():
            assert csjd_tasks()
            with pytest.raises(AssertionError, match="has left behind"):
                assert_no_leaks()
        assert_no_leaks()

    run_virtual(program)


def test_thread_that_runs_a_handler_is_found_and_an_idle_one_is_not() -> None:
    release = threading.Event()

    async def program() -> None:
        async with open_test_dispatcher() as dispatcher:
            entered = trio.Event()

            @dispatcher.handler("t")
            def work(job: csjd.Job) -> None:
                trio.from_thread.run_sync(entered.set)
                release.wait()

            receipt = await dispatcher.submit(csjd.Job(type="t"))
            await entered.wait()
            with pytest.raises(AssertionError, match="thread"):
                assert_no_leaks()
            release.set()
            await receipt.result()
        assert_no_leaks()

    trio.run(program)


def test_checker_complains_of_an_overlap() -> None:
    checker = Checker(lanes=1, detach_budget=0, detach_grace=1, duplicate_window=0, max_attempts=3)
    one, two = (csjd.Job(type="t", id=name, session="s", timeout=1) for name in "ab")
    checker(csjd.DispatcherStarted(at=0))
    for job in (one, two):
        checker(csjd.JobAccepted(at=0, job=job))
        checker(csjd.AttemptStarted(at=0, job=job, attempt=1, worker=0))
    with pytest.raises(PromiseBrokenError, match="b overlaps a of its session"):
        checker.verify()
