"""When the block is left, nothing is left behind; and a bug of csjd is never quiet."""

import contextlib
import gc
import logging
import weakref
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import csjd
from csjd import DispatcherState, Job
from tests.runtime.scene import ONCE, at, balanced, opened, submit, work


async def test_caller_sees_one_child_task() -> None:
    async with trio.open_nursery() as nursery:
        async with csjd.open_dispatcher(nursery, csjd.Config(workers=5, lanes=3)):
            assert len(nursery.child_tasks) == 1
        assert not nursery.child_tasks


async def test_leaving_normally_drains(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1) as dispatcher:
        await submit(dispatcher, "sleep", 5, id="a")
        await submit(dispatcher, "sleep", 5, id="b")
    assert trio.current_time() == 10
    assert dispatcher.state is DispatcherState.CLOSED
    assert dispatcher.last_stop is not None
    assert dispatcher.last_stop.finished == ("a", "b")


async def test_leaving_normally_drains_for_the_grace_at_most(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(work().registry, workers=1, stop_grace=7) as dispatcher:
        await submit(dispatcher, "sleep", 5, id="a")
        await submit(dispatcher, "sleep", 5, id="b")
        await submit(dispatcher, "sleep", 5, id="c")
    assert trio.current_time() == 7
    report = dispatcher.last_stop
    assert report is not None
    assert (report.finished, [job.id for job in report.unfinished]) == (("a",), ["b", "c"])
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert ["2 unfinished jobs" in record.getMessage() for record in warnings] == [True]


async def test_leaving_without_unfinished_jobs_logs_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(work().registry) as dispatcher:
        await submit(dispatcher, "sleep", 5)
    assert not caplog.records


async def test_leaving_by_an_exception_stops_at_once(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="mine"))):
        async with trio.open_nursery(), opened(work().registry) as dispatcher:
            receipt = await submit(dispatcher, "sleep", 5, id="a")
            await at(1)
            raise ValueError("mine")
    assert trio.current_time() == 1
    assert dispatcher.last_stop is not None
    assert [job.id for job in dispatcher.last_stop.unfinished] == ["a"]
    with pytest.raises(csjd.DispatcherClosedError):
        await receipt.outcome()


@pytest.mark.parametrize("what", ["the body", "the nursery"])
async def test_leaving_by_cancellation_stops_at_once_and_is_no_crash(
    what: str, autojump_clock: MockClock
) -> None:
    with trio.CancelScope() as body:
        async with (
            trio.open_nursery() as nursery,
            csjd.open_dispatcher(nursery, registry=work().registry) as dispatcher,
        ):
            await submit(dispatcher, "sleep", 5, id="a", session="s")
            await submit(dispatcher, "sleep", 5, id="b", session="s")
            await submit(dispatcher, "sleep", 5, id="c")
            await at(1)
            scope = body if what == "the body" else nursery.cancel_scope
            scope.cancel()
            await trio.sleep_forever()
    assert trio.current_time() == 1
    assert dispatcher.state is DispatcherState.CLOSED
    assert dispatcher.last_stop is not None
    assert [job.id for job in dispatcher.last_stop.unfinished] == ["a", "b", "c"]


async def test_bodys_own_error_is_not_hidden_by_a_cancelled_nursery() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="mine")):
        async with trio.open_nursery() as nursery, csjd.open_dispatcher(nursery):
            try:
                nursery.cancel_scope.cancel()
                await trio.sleep_forever()
            finally:
                raise ValueError("mine")


async def test_shielded_body_ends_in_peace_when_the_nursery_is_cancelled() -> None:
    with trio.CancelScope() as outer:
        async with trio.open_nursery() as nursery, csjd.open_dispatcher(nursery) as dispatcher:
            with trio.CancelScope(shield=True):
                nursery.cancel_scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
    assert not outer.cancelled_caught
    assert dispatcher.state is DispatcherState.CLOSED


@pytest.mark.parametrize("how", ["exception", "cancellation"])
async def test_leaving_waits_for_a_stuck_handler(how: str, autojump_clock: MockClock) -> None:
    log = work()
    with contextlib.suppress(BaseExceptionGroup), trio.move_on_after(3):
        async with opened(log.registry) as dispatcher:
            receipt = await submit(dispatcher, "stubborn", 20, id="a")
            if how == "exception":
                await at(1)
                raise ValueError
            await trio.sleep_forever()
    assert trio.current_time() == 20
    assert log.ended == ["a"]
    assert isinstance(await receipt.outcome(), csjd.Succeeded)
    report = dispatcher.last_stop
    assert report is not None
    if how == "exception":  # else it was cancelled with everything else, and nobody stopped
        assert [stuck.job.id for stuck in report.stuck] == ["a"]
    assert report.unfinished == ()
    assert balanced(dispatcher.metrics())


async def test_stopped_dispatcher_is_left_at_once(autojump_clock: MockClock) -> None:
    async with opened(work().registry) as dispatcher:
        await submit(dispatcher, "nothing", delay=5, id="a")
        report = await dispatcher.stop()
        await trio.sleep(100)
    assert trio.current_time() == 100
    assert dispatcher.last_stop is not None
    assert dispatcher.last_stop.unfinished == report.unfinished


async def test_leaving_while_stopping_joins_the_stop(autojump_clock: MockClock) -> None:
    async with opened(work().registry) as dispatcher:
        await submit(dispatcher, "sleep", 5, id="a")
        with trio.move_on_after(1):
            await dispatcher.stop()
    assert trio.current_time() == 5
    assert dispatcher.last_stop is not None
    assert dispatcher.last_stop.finished == ("a",)


def _break(dispatcher: csjd.Dispatcher) -> None:
    """Plant a bug in csjd: the next attempt that fails raises inside the lane."""
    scheduler = dispatcher._scheduler
    sound = scheduler.book

    def broken(*args: Any, **kwargs: Any) -> None:
        scheduler.book = sound  # type: ignore[method-assign]  # once will do
        raise ZeroDivisionError("a bug in csjd")

    scheduler.book = broken  # type: ignore[method-assign]


async def _crash(nursery: trio.Nursery, dispatchers: list[csjd.Dispatcher]) -> None:
    async with csjd.open_dispatcher(nursery, registry=work().registry) as dispatcher:
        dispatchers.append(dispatcher)
        await submit(dispatcher, "sleep", 1000, id="a")
        _break(dispatcher)
        await submit(dispatcher, "fail", ValueError(), id="b")
        await trio.sleep_forever()


async def test_bug_surfaces_in_the_body_and_in_the_nursery(autojump_clock: MockClock) -> None:
    dispatchers: list[csjd.Dispatcher] = []
    with pytest.RaisesGroup(csjd.DispatcherCrashedError, ZeroDivisionError) as caught:
        async with trio.open_nursery() as nursery:
            await _crash(nursery, dispatchers)
    [crashed] = [e for e in caught.value.exceptions if isinstance(e, csjd.DispatcherCrashedError)]
    assert isinstance(crashed.__cause__, ZeroDivisionError)
    [dispatcher] = dispatchers
    assert dispatcher.state is DispatcherState.CLOSED
    assert dispatcher.last_stop is not None
    assert [job.id for job in dispatcher.last_stop.unfinished] == ["a", "b"]


async def test_bug_surfaces_in_a_body_outside_the_nursery_too(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(ZeroDivisionError):
        async with trio.open_nursery() as elsewhere:
            with pytest.raises(csjd.DispatcherCrashedError), trio.CancelScope(shield=True):
                await _crash(elsewhere, [])


async def test_receipts_of_a_crashed_dispatcher_say_so(autojump_clock: MockClock) -> None:
    box: list[csjd.Receipt] = []
    told: list[str] = []

    async def wait() -> None:
        try:
            await box[0].outcome()
        except csjd.DispatcherClosedError as error:
            told.append(error.state)

    async with trio.open_nursery() as outer:
        try:
            async with (
                trio.open_nursery() as nursery,
                csjd.open_dispatcher(nursery, registry=work().registry) as dispatcher,
            ):
                box.append(await submit(dispatcher, "sleep", 1000))
                outer.start_soon(wait)
                await at(1)
                _break(dispatcher)
                await submit(dispatcher, "fail", ValueError())
                await trio.sleep_forever()
        except* (csjd.DispatcherCrashedError, ZeroDivisionError):
            pass
    assert told == ["closed"]


async def test_two_dispatchers_never_notice_each_other(autojump_clock: MockClock) -> None:
    one_log, other_log = work(), work()
    async with opened(one_log.registry, workers=1) as one:
        async with opened(other_log.registry, workers=1) as other:
            for dispatcher in (one, other):
                await submit(dispatcher, "sleep", 3, id="same", session="same")
            one.pause(session="same")
            await submit(one, "nothing", id="held", session="same")
            await submit(other, "nothing", id="free", session="same")
            assert not one.cancel("free")
        assert other_log.started == ["same", "free"]
        assert one.metrics().live == 1
        one.resume(session="same")
    assert one_log.started == ["same", "held"]
    assert other.metrics().accepted == one.metrics().accepted == 2


async def test_dispatcher_inside_a_handler_of_another(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1) as outer:

        @outer.handler("nest")
        async def nest(job: Job) -> Any:
            async with opened(work().registry, workers=1) as inner:
                return await (await submit(inner, "sleep", 1, id="inner")).result()

        for _ in range(2):
            assert await (await submit(outer, "nest")).result() == "inner"


async def test_nothing_is_kept_alive_after_the_block() -> None:
    class Payload:
        pass

    async with opened() as dispatcher:
        dispatcher.register("t", lambda job: None)
        for _ in range(5):
            await submit(dispatcher, "t", Payload(), session="s", delay=0)
    del dispatcher
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is Payload]


@pytest.mark.parametrize("stopping", [False, True])
async def test_dispatcher_that_was_left_can_be_collected(
    stopping: bool, autojump_clock: MockClock
) -> None:
    # Entries and sessions are hidden from the garbage collector: nothing may hang on them.
    async with opened(work().registry, workers=3, stop_grace=0) as dispatcher:
        for number in range(9):
            await submit(dispatcher, "nothing", session=f"s{number % 4}")
        await trio.sleep(1)
        for number in range(9):
            await submit(dispatcher, "sleep", 100, session=f"s{number}")
        dispatcher.pause(session="s8")
        await trio.sleep(1)
        if stopping:
            await dispatcher.stop(grace=0)
        backlog = weakref.ref(dispatcher._scheduler.backlog.sessions)
        workers = [weakref.ref(each) for each in dispatcher._scheduler.backlog.workers.values()]
    del dispatcher
    gc.collect()
    assert backlog() is None
    assert [each() for each in workers] == [None] * 3


@pytest.mark.parametrize("how", ["timeout", "cancel", "cancel and raise", "raise"])
async def test_job_that_was_ended_is_let_go_of(how: str, autojump_clock: MockClock) -> None:
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    async def handle(job: csjd.Job) -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        if how == "raise":
            raise csjd.PermanentError("no")
        try:
            await trio.sleep(10)
        finally:
            if how == "cancel and raise":
                raise ValueError("on the way out")

    async with opened(history=0, duplicate_window=0) as dispatcher:
        dispatcher.register("t", handle, timeout=1, retry=ONCE)
        for _ in range(5):
            receipt = await submit(dispatcher, "t")
            await trio.sleep(0.5)
            if how.startswith("cancel"):
                assert receipt.cancel()
            await receipt.outcome()
    del receipt, dispatcher
    gc.collect()
    assert [each() for each in held] == [None] * 5


@pytest.mark.parametrize("delay", [0.0, 100.0])
async def test_handler_may_belong_to_what_keeps_the_receipts(
    delay: float, autojump_clock: MockClock
) -> None:
    class Service:
        def __init__(self) -> None:
            self.receipts: list[csjd.Receipt] = []

        async def handle(self, job: csjd.Job) -> None:
            pass

    service = Service()
    async with opened(stop_grace=0) as dispatcher:
        dispatcher.register("t", service.handle)
        service.receipts.append(await submit(dispatcher, "t", delay=delay))
        await trio.sleep(1)
    kept = weakref.ref(service)
    del service, dispatcher
    gc.collect()
    assert kept() is None
