"""Limits hold, and who waits for room gets it in turn, or is told that it never comes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import csjd
from csjd import Job
from tests.runtime.scene import ONCE, at, balanced, opened, submit, work


@pytest.mark.parametrize(
    ("limits", "before", "refused", "name"),
    [
        ({"max_pending": 2}, [None, "s"], None, "max_pending"),
        ({"max_pending_per_session": 2}, ["s", "s"], "s", "max_pending_per_session"),
        ({"max_sessions": 2}, ["s", "t"], "u", "max_sessions"),
    ],
)
async def test_limit_refuses_and_changes_nothing(
    limits: Any, before: Any, refused: Any, name: str, autojump_clock: MockClock
) -> None:
    async with opened(work().registry, **limits) as dispatcher:
        for session in before:
            await submit(dispatcher, "sleep", 5, session=session)
        metrics = dispatcher.metrics()
        with pytest.raises(csjd.QueueFullError) as caught:
            await submit(dispatcher, "nothing", session=refused)
        assert (caught.value.limit_name, caught.value.limit) == (name, 2)
        after = dispatcher.metrics()
        assert (after.accepted, after.rejected) == (metrics.accepted, 1)
        await trio.sleep(20)
        await submit(dispatcher, "nothing", session=refused)


async def test_limits_count_delayed_jobs(autojump_clock: MockClock) -> None:
    async with opened(work().registry, max_pending_per_session=1) as dispatcher:
        await submit(dispatcher, "nothing", session="s", delay=5)
        with pytest.raises(csjd.QueueFullError):
            await submit(dispatcher, "nothing", session="s")


async def test_room_is_given_first_come_first_served(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, workers=1, max_pending=1) as dispatcher:
        await submit(dispatcher, "sleep", 1, id="first")
        async with trio.open_nursery() as nursery:

            async def come(name: str) -> None:
                await submit(dispatcher, "sleep", 1, id=name, wait=True)

            for name in "abcdef":
                nursery.start_soon(come, name)
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(csjd.QueueFullError):
                await submit(dispatcher, "nothing")
    assert log.started == ["first", *"abcdef"]


async def test_who_gives_up_waiting_is_out_and_holds_nobody_up(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, workers=1, max_pending=1) as dispatcher:
        await submit(dispatcher, "sleep", 5, id="first")
        with trio.move_on_after(1):
            await submit(dispatcher, "sleep", 1, id="gone", wait=True)
        assert dispatcher.metrics().accepted == 1
        await submit(dispatcher, "sleep", 1, id="next", wait=True)
        assert trio.current_time() == 5
    assert log.started == ["first", "next"]


async def test_who_gives_up_as_room_comes_has_it(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, workers=1, max_pending=1) as dispatcher:
        first = await submit(dispatcher, "nothing", id="first", delay=100)
        scope, receipts = trio.CancelScope(), list[csjd.Receipt]()

        async def come() -> None:
            with scope:
                receipts.append(await submit(dispatcher, "nothing", id="second", wait=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come)
            await at(1)
            scope.cancel()
            first.cancel()
        assert [receipt.job.id for receipt in receipts] == ["second"]
        assert not scope.cancelled_caught
    assert log.started == ["second"]


async def test_those_who_gave_up_are_forgotten_while_nothing_ends(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, max_pending=1) as dispatcher:
        await submit(dispatcher, "nothing", delay=1000)
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(_waiting(dispatcher, "gone", "s"))
            await at(1)
            nursery.cancel_scope.cancel()
        line = dispatcher._admission._line
        assert sum(map(len, line._lines.values())) < 100
        await trio.sleep(1000)
        await submit(dispatcher, "nothing")


async def test_full_session_holds_no_other_up(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, max_pending_per_session=1, max_pending=3) as dispatcher:
        await submit(dispatcher, "sleep", 8, session="s")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_waiting(dispatcher, "second of s", "s"))
            await at(1)
            await submit(dispatcher, "sleep", 1, id="other", session="t", wait=True)
            assert trio.current_time() == 1
    assert log.started[1:] == ["other", "second of s"]


def _waiting(dispatcher: csjd.Dispatcher, name: str, session: str) -> Any:
    async def wait() -> None:
        await submit(dispatcher, "sleep", 1, id=name, session=session, wait=True)

    return wait


async def test_who_waits_at_one_limit_is_not_forgotten_for_another(
    autojump_clock: MockClock,
) -> None:
    log = work()
    async with opened(log.registry, max_sessions=1, max_pending_per_session=2) as dispatcher:
        await submit(dispatcher, "sleep", 1, id="x1", session="x")
        await submit(dispatcher, "sleep", 1, id="x2", session="x")
        async with trio.open_nursery() as nursery:
            for name, session in (("y", "y"), ("x3", "x"), ("z", "z")):
                nursery.start_soon(_waiting(dispatcher, name, session))
                await trio.testing.wait_all_tasks_blocked()
            await at(1.5)  # x1 has ended: x has room again
            assert dispatcher.metrics().accepted == 3
    assert log.started == ["x1", "x2", "x3", "y", "z"]
    assert balanced(dispatcher.metrics())


async def test_waiting_submit_is_refused_when_its_id_was_taken_meanwhile(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=1, max_pending_per_session=1) as dispatcher:
        await submit(dispatcher, "sleep", 5, session="s")
        async with trio.open_nursery() as nursery:

            async def twin() -> None:
                with pytest.raises(csjd.DuplicateJobError):
                    await submit(dispatcher, "nothing", id="a", session="s", wait=True)

            nursery.start_soon(twin)
            await at(1)
            await submit(dispatcher, "sleep", 9, id="a")
    assert dispatcher.metrics().duplicates == 1


async def test_waiting_submit_is_sent_away_when_the_door_closes(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1, max_pending=1) as dispatcher:
        await submit(dispatcher, "sleep", 5)
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(csjd.DispatcherClosedError):
                    await submit(dispatcher, "nothing", wait=True)
                assert trio.current_time() == 1

            nursery.start_soon(wait)
            await at(1)
            await dispatcher.stop()
    assert dispatcher.metrics().accepted == 1


# --- waits that could never end ------------------------------------------------------------


async def _ask(dispatcher: csjd.Dispatcher, ask: Any, **settings: Any) -> csjd.Outcome:
    """Run *ask* as a handler and return how it ended."""

    async def asking(job: Job) -> Any:
        return await ask()

    dispatcher.register("ask", asking, retry=csjd.Retry(max_attempts=1))
    return await (await submit(dispatcher, "ask", **settings)).outcome()


def _deadlocked(outcome: csjd.Outcome) -> bool:
    return isinstance(outcome, csjd.Failed) and isinstance(outcome.error, csjd.WouldDeadlockError)


async def test_handler_may_wait_while_another_lane_gets_on(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=2) as dispatcher:

        async def ask() -> Any:
            return await (await submit(dispatcher, "sleep", 1, id="a")).result()

        outcome = await _ask(dispatcher, ask)
        assert isinstance(outcome, csjd.Succeeded)
        assert outcome.result == "a"


@pytest.mark.parametrize("how", ["outcome", "result"])
async def test_wait_of_the_last_lane_is_refused_at_once(
    how: str, autojump_clock: MockClock
) -> None:
    async with opened(work().registry, workers=1) as dispatcher:

        async def ask() -> Any:
            return await getattr(await submit(dispatcher, "sleep", 1), how)()

        assert _deadlocked(await _ask(dispatcher, ask))
        assert trio.current_time() == 0


async def test_job_that_would_wait_for_ever_for_room_counts_as_rejected(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=1, max_pending=1) as dispatcher:

        async def ask() -> csjd.BatchReport:
            return await dispatcher.submit_batch([Job(type="nothing")], wait=True)

        outcome = await _ask(dispatcher, ask)
        assert isinstance(outcome, csjd.Succeeded)
        report: csjd.BatchReport = outcome.result
        assert isinstance(report.errors[0], csjd.WouldDeadlockError)
        assert (report.accepted, report.invalid, report.rejected) == (0, 0, 1)
        assert (dispatcher.metrics().invalid, dispatcher.metrics().rejected) == (0, 1)


async def test_wait_that_would_leave_every_lane_waiting_is_refused(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=3) as dispatcher:
        results: list[Any] = []

        @dispatcher.handler("parent", retry=csjd.Retry(max_attempts=1), timeout=1000)
        async def parent(job: Job) -> None:
            await trio.sleep(1)  # until all three run
            child = await submit(dispatcher, "sleep", 1)
            try:
                results.append(await child.outcome())
            except csjd.WouldDeadlockError as error:
                results.append(error)

        for _ in range(3):
            await submit(dispatcher, "parent")
        await trio.sleep(100)
        assert [type(each).__name__ for each in results].count("WouldDeadlockError") == 1
        assert len(results) == 3


async def test_wait_for_a_job_behind_ones_own_is_refused(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=4, lanes=4) as dispatcher:

        async def ask() -> Any:
            return await (await submit(dispatcher, "nothing", session="s")).outcome()

        assert _deadlocked(await _ask(dispatcher, ask, session="s"))


async def test_wait_for_oneself_is_refused(autojump_clock: MockClock) -> None:
    async with opened(lanes=4) as dispatcher:
        box: list[csjd.Receipt] = []

        @dispatcher.handler("self", retry=csjd.Retry(max_attempts=1))
        async def handler(job: Job) -> None:
            await trio.sleep(1)
            await box[0].outcome()

        box.append(await submit(dispatcher, "self"))
        assert _deadlocked(await box[0].outcome())


async def test_two_handlers_cannot_wait_for_each_other(autojump_clock: MockClock) -> None:
    async with opened(lanes=4) as dispatcher:
        box: dict[str, csjd.Receipt] = {}

        @dispatcher.handler("t", retry=csjd.Retry(max_attempts=1))
        async def handler(job: Job) -> str:
            await trio.sleep(job.payload)
            other = {"a": "b", "b": "a"}[job.id]
            await box[other].outcome()
            return job.id

        box["a"] = await submit(dispatcher, "t", 1, id="a")
        box["b"] = await submit(dispatcher, "t", 2, id="b")
        assert _deadlocked(await box["b"].outcome())
        assert await box["a"].result() == "a"
        assert trio.current_time() == 2


async def test_child_task_of_a_handler_is_the_handler(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1) as dispatcher:

        async def ask() -> Any:
            receipt = await submit(dispatcher, "sleep", 1)
            with pytest.RaisesGroup(csjd.WouldDeadlockError):
                async with trio.open_nursery() as nursery:  # noqa: ASYNC112
                    nursery.start_soon(receipt.outcome)
            await receipt.outcome()

        assert _deadlocked(await _ask(dispatcher, ask))


@pytest.mark.parametrize("workers", [1, 4])
async def test_handler_that_holds_all_the_room_cannot_wait_for_room(
    workers: int, autojump_clock: MockClock
) -> None:
    async with opened(work().registry, workers=workers, max_pending=1) as dispatcher:

        async def ask() -> None:
            await submit(dispatcher, "nothing", wait=True)

        assert _deadlocked(await _ask(dispatcher, ask))


async def test_handler_cannot_wait_for_room_in_its_own_full_session(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=4, max_pending_per_session=1) as dispatcher:

        async def ask() -> None:
            await submit(dispatcher, "nothing", session="s", wait=True)

        assert _deadlocked(await _ask(dispatcher, ask, session="s"))


@pytest.mark.parametrize("delay", [0, 10])
async def test_handler_cannot_wait_for_room_that_only_jobs_behind_it_would_make(
    delay: float, autojump_clock: MockClock
) -> None:
    async with opened(work().registry, workers=2, lanes=2, max_pending=2) as dispatcher:

        async def ask() -> None:
            await submit(dispatcher, "nothing", session="s", delay=delay)
            await submit(dispatcher, "nothing", session="t", wait=True)

        assert _deadlocked(await _ask(dispatcher, ask, session="s"))
        assert trio.current_time() == 0


async def test_jobs_behind_one_that_waits_for_the_caller_make_no_room(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=2, lanes=2, max_pending=4) as dispatcher:
        asking: list[csjd.Receipt] = []

        @dispatcher.handler("parent", retry=ONCE)
        async def parent(job: Job) -> None:
            await asking[0].outcome()

        @dispatcher.handler("ask", retry=ONCE)
        async def ask(job: Job) -> None:
            await trio.sleep(1)
            await submit(dispatcher, "nothing", wait=True)

        asking.append(await submit(dispatcher, "ask", session="s"))
        await submit(dispatcher, "nothing", session="s")
        await submit(dispatcher, "parent", session="t")
        await submit(dispatcher, "nothing", session="t")
        assert _deadlocked(await asking[0].outcome())


async def test_handler_may_wait_for_room_that_a_job_behind_nobody_waiting_makes(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=1, lanes=2, max_pending=3) as dispatcher:

        async def ask() -> float:
            await submit(dispatcher, "nothing", session="s")
            await submit(dispatcher, "nothing", session="t", delay=5)
            await submit(dispatcher, "nothing", session="s", wait=True)
            return trio.current_time()

        outcome = await _ask(dispatcher, ask, session="s")
        assert isinstance(outcome, csjd.Succeeded)
        assert outcome.result == 5


async def test_handler_of_the_only_session_cannot_wait_for_room_for_another(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=1, lanes=3, max_sessions=1) as dispatcher:

        async def ask() -> None:
            await submit(dispatcher, "nothing", session="t", wait=True)

        # That one ends does not help: it belongs to no session.
        await submit(dispatcher, "sleep", 5)
        assert _deadlocked(await _ask(dispatcher, ask, session="s"))
        assert trio.current_time() == 0


@pytest.mark.parametrize("delay", [0, 3])
async def test_handler_may_wait_for_another_session_to_end(
    delay: float, autojump_clock: MockClock
) -> None:
    async with opened(work().registry, workers=1, lanes=2, max_sessions=2) as dispatcher:
        for seconds in (1, 2):
            await submit(dispatcher, "sleep", seconds, session="r", delay=delay)

        async def ask() -> float:
            await submit(dispatcher, "nothing", session="t", wait=True)
            return trio.current_time()

        outcome = await _ask(dispatcher, ask, session="s")
        assert isinstance(outcome, csjd.Succeeded)
        assert outcome.result == delay + 3


async def test_handler_may_wait_for_room_that_comes(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=2, max_pending=2) as dispatcher:
        await submit(dispatcher, "sleep", 5)

        async def ask() -> float:
            await submit(dispatcher, "nothing", wait=True)
            return trio.current_time()

        outcome = await _ask(dispatcher, ask)
        assert isinstance(outcome, csjd.Succeeded)
        assert outcome.result == 5


async def test_handler_may_wait_for_a_session_whose_worker_was_removed(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=3) as dispatcher:
        receipt = await submit(dispatcher, "nothing", session="s", delay=10)
        info = dispatcher.session_info("s")
        assert info is not None
        dispatcher.remove_worker(info.worker)
        await trio.sleep(1)

        async def ask() -> Any:
            return await receipt.outcome()

        assert not _deadlocked(await _ask(dispatcher, ask, timeout=100))


@asynccontextmanager
async def _one_stuck(
    session: str | None = None, **limits: Any
) -> AsyncIterator[tuple[csjd.Dispatcher, csjd.Receipt]]:
    """Open a dispatcher with a job that no longer hears anything and ends at 9, and give both."""
    settings: Any = {"workers": 2, "detach_budget": 0, "detach_grace": 1, "retry": ONCE}
    async with opened(work().registry, **settings, **limits) as dispatcher:
        stuck = await submit(dispatcher, "stubborn", 9, timeout=1, session=session)
        await at(5)
        assert dispatcher.metrics().lanes_stuck == 1
        yield dispatcher, stuck


async def _waits_until_nine(dispatcher: csjd.Dispatcher, wait: Any) -> bool:
    """Run *wait* in a handler; return whether it was let wait until 9."""

    async def ask() -> float:
        await wait()
        return trio.current_time()

    outcome = await _ask(dispatcher, ask)
    return isinstance(outcome, csjd.Succeeded) and outcome.result == 9


async def test_handler_may_wait_for_a_stuck_one(autojump_clock: MockClock) -> None:
    async with _one_stuck() as (dispatcher, stuck):
        assert await _waits_until_nine(dispatcher, stuck.outcome)


async def test_handler_may_wait_for_room_that_a_stuck_one_makes(
    autojump_clock: MockClock,
) -> None:
    async with _one_stuck(max_pending=2) as (dispatcher, _):

        async def get_room() -> None:
            await submit(dispatcher, "nothing", wait=True)

        assert await _waits_until_nine(dispatcher, get_room)


async def test_handler_may_wait_for_a_job_behind_a_stuck_one(autojump_clock: MockClock) -> None:
    async with _one_stuck("s") as (dispatcher, _):
        behind = await submit(dispatcher, "nothing", session="s")
        assert await _waits_until_nine(dispatcher, behind.outcome)


async def test_stuck_lane_is_not_counted_on_for_a_queued_job(autojump_clock: MockClock) -> None:
    async with _one_stuck() as (dispatcher, _):

        async def ask() -> Any:
            return await (await submit(dispatcher, "nothing")).outcome()

        assert _deadlocked(await _ask(dispatcher, ask))


async def test_handlers_of_two_dispatchers_may_wait_for_each_other(
    autojump_clock: MockClock,
) -> None:
    async with (
        opened(work().registry, workers=1) as one,
        opened(work().registry, workers=1) as other,
    ):

        async def ask() -> Any:
            return await (await submit(other, "sleep", 1, id="a")).result()

        outcome = await _ask(one, ask)
        assert isinstance(outcome, csjd.Succeeded)
