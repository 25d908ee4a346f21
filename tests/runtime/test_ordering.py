"""Who comes when: sessions, priorities, delays."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from trio.testing import MockClock

import csjd
from csjd import Job
from tests.runtime.scene import ONCE, at, balanced, opened, submit, work


class Orderly:
    """Watches that the jobs of a session run one at a time and in order."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.running: dict[str, str] = {}
        self.finished: dict[str, list[int]] = {}
        self.attempts: dict[str, int] = {}

    async def __call__(self, job: Job, attempt: csjd.Attempt) -> None:
        assert job.session is not None
        assert self.running.setdefault(job.session, job.id) == job.id, "two at once"
        self.attempts[job.id] = self.attempts.get(job.id, 0) + 1
        done = False
        try:
            await self._misbehave()
            done = True
        finally:
            del self.running[job.session]
            if done:
                self.finished.setdefault(job.session, []).append(job.payload)

    async def _misbehave(self) -> None:
        match self.random.randrange(8):
            case 0:
                raise ValueError
            case 1:
                raise csjd.Snooze(self.random.random())
            case 2:
                await trio.sleep(50)
            case 3:
                with trio.CancelScope(shield=True):
                    await trio.sleep(3)
            case _:
                await trio.sleep(self.random.random())


@pytest.mark.parametrize("seed", range(6))
async def test_session_keeps_its_order_through_everything(
    seed: int, autojump_clock: MockClock
) -> None:
    print("seed", seed)
    handler, random = Orderly(seed), Random(seed)
    retry = csjd.Retry(max_attempts=1000, min_delay=0.1, max_delay=1)
    async with opened(
        workers=3, lanes=2, job_timeout=2, retry=retry, detach_budget=seed % 3
    ) as dispatcher:
        dispatcher.register("t", handler)
        jobs = [Job(type="t", payload=n, session=f"s{n % 5}", priority=n % 3) for n in range(60)]
        await dispatcher.submit_batch(jobs[:40])
        for late in jobs[40:]:
            await trio.sleep(random.random())
            await dispatcher.submit(late)
            match random.randrange(6):
                case 0:
                    await dispatcher.stop(grace=random.choice((0, 1)))
                    assert balanced(dispatcher.metrics())
                    await dispatcher.start()
                case 1:
                    await dispatcher.resize(random.randint(1, 5))
                case 2:
                    dispatcher.pause(session="s1")
                case 3:
                    dispatcher.resume(session="s1")
        dispatcher.resume(session="s1")
        while dispatcher.metrics().live:
            assert balanced(dispatcher.metrics())
            await trio.sleep(5)
    assert handler.finished == {f"s{s}": [n for n in range(60) if n % 5 == s] for s in range(5)}
    assert dispatcher.metrics().succeeded == 60


async def test_failing_job_keeps_its_place_in_its_session(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, retry=csjd.Retry(min_delay=1, jitter=0)) as dispatcher:
        await submit(dispatcher, "script", (ValueError(), ValueError(), 1), id="a", session="s")
        await submit(dispatcher, "nothing", id="b", session="s", priority=9)
        await submit(dispatcher, "script", (csjd.Snooze(5), 1), id="c", session="s")
        await (await submit(dispatcher, "nothing", id="d", session="s")).outcome()
    assert log.started == ["a", "a", "a", "b", "c", "c", "d"]


async def test_session_goes_on_after_a_dead_letter(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry) as dispatcher:
        await submit(dispatcher, "fail", csjd.PermanentError(), id="a", session="s")
        after = await submit(dispatcher, "nothing", id="b", session="s")
        assert isinstance(await after.outcome(), csjd.Succeeded)


async def test_session_halts_at_a_failure_until_it_is_resumed(autojump_clock: MockClock) -> None:
    events: list[csjd.Event] = []
    log = work()

    @log.handler("strict", on_failure="halt", retry=ONCE, timeout=1)
    async def strict(job: Job, attempt: csjd.Attempt) -> None:
        await trio.sleep(job.payload)

    async with opened(log.registry, observers=(events.append,)) as dispatcher:
        await submit(dispatcher, "strict", 50, id="a", session="s")
        behind = await submit(dispatcher, "nothing", id="b", session="s")
        other = await submit(dispatcher, "nothing", id="c", session="other")
        await at(30)
        assert other.state is csjd.JobState.SUCCEEDED
        info = dispatcher.session_info("s")
        assert info is not None
        assert (info.halted, info.paused, info.pending, info.failed) == (True, False, 1, 1)
        [halted] = [event for event in events if isinstance(event, csjd.SessionHalted)]
        assert (halted.session, halted.job.id) == ("s", "a")
        newcomer = await submit(dispatcher, "nothing", id="d", session="s")
        await at(60)
        assert (behind.state, newcomer.state) == (csjd.JobState.READY, csjd.JobState.WAITING)
        dispatcher.resume(session="s")
        await newcomer.outcome()
        assert log.started == ["a", "c", "b", "d"]
        info = dispatcher.session_info("s")
        assert info is not None
        assert not info.halted


async def test_cancelled_job_leaves_its_session_in_order(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry) as dispatcher:
        a, b, _, d = [await submit(dispatcher, "sleep", 1, id=name, session="s") for name in "abcd"]
        await at(0.5)
        assert b.cancel()
        assert b.state is csjd.JobState.CANCELLED
        assert a.cancel()
        await d.outcome()
    assert log.started == ["a", "c", "d"]


async def test_higher_priority_starts_first(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, workers=1) as dispatcher:
        await submit(dispatcher, "sleep", 1, id="first")
        await at(0.5)
        for name, priority in (("a", 0), ("b", 5), ("c", -1), ("d", 5), ("e", 0)):
            session = name if priority else None
            await submit(dispatcher, "nothing", id=name, priority=priority, session=session)
    assert log.started == ["first", "b", "d", "a", "e", "c"]


async def test_session_ranks_by_its_head(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, workers=1) as dispatcher:
        await submit(dispatcher, "sleep", 1, id="first")
        await at(0.5)
        await submit(dispatcher, "nothing", id="low", session="s", priority=-1)
        await submit(dispatcher, "nothing", id="high", session="s", priority=9)
        await submit(dispatcher, "nothing", id="middle")
    assert log.started == ["first", "middle", "low", "high"]


@pytest.mark.parametrize("session", [None, "old"])
async def test_low_priority_is_not_starved(session: str | None, autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, workers=1) as dispatcher:
        await submit(dispatcher, "sleep", 1, id="first")
        await at(0.5)
        await submit(dispatcher, "nothing", id="old", priority=-9, session=session)
        for number in range(100):
            await submit(dispatcher, "nothing", id=str(number), priority=number)
    place = log.started.index("old")
    assert 1 < place <= 16
    others = [name for name in log.started[:place] if name != "first"]
    assert others == [str(99 - n) for n in range(len(others))]


async def test_low_priority_is_not_starved_by_the_picks_of_another_worker(
    autojump_clock: MockClock,
) -> None:
    log = work()
    async with opened(log.registry, workers=2, lanes=1) as dispatcher:
        homes: dict[int, list[str]] = {0: [], 1: []}
        for name in (f"s{number}" for number in range(100)):
            await (await submit(dispatcher, "nothing", session=name)).outcome()
            info = dispatcher.session_info(name)
            assert info is not None
            homes[info.worker].append(name)
        began = trio.current_time()
        for worker, names in homes.items():  # they pick in turns: one on the hour, one on the half
            await submit(dispatcher, "sleep", 1 + worker / 2, session=names[0])
        await trio.lowlevel.checkpoint()
        for worker, names in homes.items():
            low = f"low {worker}"
            await submit(dispatcher, "sleep", 1, id=low, session=names[1], priority=-1)
            for name in names[2:]:
                await submit(dispatcher, "sleep", 1, session=name)
        await trio.sleep(30)
        assert {"low 0", "low 1"} <= log.times.keys()
        assert max(log.times[low][0] - began for low in ("low 0", "low 1")) < 20
        await dispatcher.stop(grace=0)


async def test_delayed_job_starts_when_it_falls_due(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry) as dispatcher:
        receipts = [
            await submit(dispatcher, "nothing", id=str(delay), delay=delay) for delay in (5, 1, 3)
        ]
        assert receipts[0].state is csjd.JobState.SCHEDULED
        assert dispatcher.metrics().scheduled == 3
        for receipt in receipts:
            await receipt.outcome()
    assert log.times == {"1": [1], "3": [3], "5": [5]}


async def test_run_at_in_the_past_is_now_and_in_the_future_is_then(
    autojump_clock: MockClock,
) -> None:
    log = work()
    async with opened(log.registry) as dispatcher:
        now = datetime.now(UTC)
        past = await submit(dispatcher, "nothing", id="past", run_at=now - timedelta(days=1))
        then = await submit(dispatcher, "nothing", id="then", run_at=now + timedelta(hours=1))
        await past.outcome()
        await then.outcome()
    assert log.times["past"] == [0]
    assert log.times["then"][0] == pytest.approx(3600, abs=60)


async def test_delayed_job_takes_its_place_when_it_falls_due(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry) as dispatcher:
        await submit(dispatcher, "nothing", id="delayed", session="s", delay=1.5)
        await submit(dispatcher, "sleep", 1, id="a", session="s")
        await submit(dispatcher, "sleep", 1, id="b", session="s")
        last = await submit(dispatcher, "sleep", 1, id="c", session="s")
        await at(1.7)
        await submit(dispatcher, "sleep", 1, id="d", session="s")
        await last.outcome()
    assert log.started == ["a", "b", "c", "delayed", "d"]


async def test_cancelled_delayed_job_never_starts(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry) as dispatcher:
        receipt = await submit(dispatcher, "nothing", delay=5)
        assert dispatcher.cancel(receipt.job.id)
        assert not dispatcher.cancel(receipt.job.id)
        assert isinstance(await receipt.outcome(), csjd.Cancelled)
        await trio.sleep(10)
    assert log.started == []


@pytest.mark.parametrize(
    "scope", [{}, {"type": "sleep"}, {"session": "s"}], ids=["whole", "type", "session"]
)
async def test_what_is_paused_does_not_start_and_loses_no_place(
    scope: Any, autojump_clock: MockClock
) -> None:
    log = work()
    async with opened(log.registry, workers=1) as dispatcher:
        running = await submit(dispatcher, "sleep", 2, id="running", session="s")
        await at(1)
        dispatcher.pause(**scope)
        dispatcher.pause(**scope)  # twice is once
        held = [await submit(dispatcher, "sleep", 1, id=name, session="s") for name in "abc"]
        held_shared = await submit(dispatcher, "sleep", 1, id="d")
        free = await submit(dispatcher, "nothing", id="free", session="other")
        await at(20)
        assert running.state is csjd.JobState.SUCCEEDED  # what runs, goes on
        assert held[0].state is csjd.JobState.READY
        assert held[1].state is csjd.JobState.WAITING
        assert balanced(dispatcher.metrics())
        expected = csjd.JobState.READY if not scope else csjd.JobState.SUCCEEDED
        assert free.state is expected
        assert (held_shared.state is csjd.JobState.SUCCEEDED) is ("session" in scope)
        assert held[1].cancel()
        dispatcher.resume(**scope)
        await held[2].outcome()
        assert [name for name in log.started if name in "abc"] == ["a", "c"]


async def test_pause_needs_a_type_or_a_session_not_both() -> None:
    async with opened() as dispatcher:
        for change in (dispatcher.pause, dispatcher.resume):
            with pytest.raises(ValueError, match="not both"):
                change(type="t", session="s")
            with pytest.raises(csjd.InvalidJobError, match=r"^session "):
                change(session="")


async def test_pauses_of_different_kinds_add_up(autojump_clock: MockClock) -> None:
    async with opened(work().registry) as dispatcher:
        dispatcher.pause()
        dispatcher.pause(type="nothing")
        dispatcher.pause(session="s")
        receipt = await submit(dispatcher, "nothing", session="s")
        for scope in ({"session": "s"}, {}, {"type": "nothing"}):
            await trio.sleep(1)
            assert receipt.state is csjd.JobState.READY
            dispatcher.resume(**scope)
        await receipt.outcome()


async def test_resize_takes_effect_at_once_and_interrupts_nothing(
    autojump_clock: MockClock,
) -> None:
    log = work()
    async with opened(log.registry, workers=1, job_timeout=100) as dispatcher:
        receipts = [await submit(dispatcher, "sleep", 10) for _ in range(8)]
        await at(1)
        assert log.running == 1
        await dispatcher.resize(4)
        await at(2)
        assert log.running == 4
        await dispatcher.resize(2)
        assert [each.worker for each in dispatcher.worker_stats()] == [0, 1, 2, 3]
        assert [each.leaving for each in dispatcher.worker_stats()] == [False, False, True, True]
        await at(12)
        assert log.running == 2
        assert [each.worker for each in dispatcher.worker_stats()] == [0, 1]
        for receipt in receipts:
            assert (await receipt.outcome()).attempts == 1
        assert dispatcher.add_worker() == 4  # no id is used twice
        dispatcher.remove_worker(0)
        with pytest.raises(csjd.WorkerNotFoundError, match="no worker 0"):
            dispatcher.remove_worker(0)
        dispatcher.remove_worker(1)
        with pytest.raises(ValueError, match="last"):
            dispatcher.remove_worker(4)


async def test_removed_workers_sessions_go_to_others(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(log.registry, workers=4) as dispatcher:
        receipts = [await submit(dispatcher, "sleep", 1, session=f"s{n % 10}") for n in range(40)]
        await at(0.5)
        await dispatcher.resize(1)
        for receipt in receipts:
            await receipt.outcome()
        info = dispatcher.session_info("s3")
        assert info is not None
        assert info.worker == 0
        assert dispatcher.session_distribution().by_worker == {0: 10}


async def test_session_keeps_its_worker_and_is_forgotten_when_idle(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, workers=4, session_idle=60) as dispatcher:
        await (await submit(dispatcher, "nothing", session="s")).outcome()
        before = dispatcher.session_info("s")
        assert before is not None
        await trio.sleep(59)
        await (await submit(dispatcher, "nothing", session="s")).outcome()
        after = dispatcher.session_info("s")
        assert after is not None
        assert (after.worker, after.succeeded, after.pending) == (before.worker, 2, 0)
        await trio.sleep(61)
        assert dispatcher.session_info("s") is None
        assert dispatcher.metrics().sessions_remembered == 0


async def test_sessions_are_spread_within_the_bound(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=4, load_factor=1.25) as dispatcher:
        for number in range(200):
            await submit(dispatcher, "sleep", 1, session=f"s{number}")
        spread = dispatcher.session_distribution()
        assert sum(spread.by_worker.values()) == 200
        assert spread.highest <= 63  # ceil(1.25 * 200 / 4)
        assert spread.mean == 50
        assert spread.imbalance == spread.highest / 50
        await trio.sleep(1000)
