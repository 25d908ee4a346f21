"""Opening a dispatcher on what an earlier one left: order, counts, times, jobs nobody can run."""

import logging
import random
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

import csjd
from csjd import Job
from csjd.logs import LogObserver
from csjd.stores import (
    DeadLettered,
    DeathReason,
    FileJobStore,
    Recovery,
    Started,
    encode_payload,
)
from csjd.testing.simfs import SimFs
from csjd.testing.stores import accepted
from tests.runtime.durable import SlowStore, opened, virtual_wall
from tests.runtime.scene import ONCE, Log, at, balanced, submit, work


@pytest.fixture(autouse=True)
def _virtual(autojump_clock: MockClock) -> Iterator[None]:
    with virtual_wall(autojump_clock):
        yield


def recorder() -> Log:
    """Return a log whose `note` handlers take a second."""
    log = work()

    @log.handler("note")
    async def note(job: Job, attempt: csjd.Attempt) -> int:
        await trio.sleep(1)
        return attempt.number

    return log


async def test_jobs_come_back_in_the_order_they_were_accepted(autojump_clock: MockClock) -> None:
    store = SlowStore()
    async with opened(store, recorder().registry, stop_grace=0) as dispatcher:
        dispatcher.pause()
        await dispatcher.submit_batch(
            Job(type="note", id=f"{session}{n}", session=session, payload={"n": (n, b"x")})
            for n in range(5)
            for session in "ab"
        )
        await submit(dispatcher, "note", id="alone", metadata={"who": ["me"]})
    log = recorder()
    heard: list[csjd.Event] = []
    async with opened(store.crashed(), log.registry, observers=(heard.append,)) as dispatcher:
        metrics = dispatcher.metrics()
        assert metrics.recovered == metrics.accepted == metrics.live == 11
        assert balanced(metrics)
    for session in "ab":
        mine = [name for name in log.started if name in {f"{session}{n}" for n in range(5)}]
        assert mine == [f"{session}{n}" for n in range(5)]
    assert "alone" in log.started
    [told] = [event for event in heard if isinstance(event, csjd.JobStoreOpened)]
    assert (told.recovered, told.unready, told.clean) == (11, 0, False)
    jobs = {event.job.id: event.job for event in heard if isinstance(event, csjd.JobEnded)}
    assert jobs["a3"].payload == {"n": (3, b"x")}
    assert jobs["alone"].metadata == {"who": ["me"]}
    with pytest.raises(TypeError):
        jobs["alone"].metadata["who"] = "you"  # type: ignore[index]


async def test_interrupted_job_is_at_the_head_of_its_session_after_a_restart(
    autojump_clock: MockClock,
) -> None:
    store, log = SlowStore(), recorder()
    async with opened(store, log.registry, stop_grace=5, job_timeout=99) as dispatcher:
        await submit(dispatcher, "sleep", 50, id="long", session="s")
        await submit(dispatcher, "note", id="next", session="s")
        await trio.sleep(0.1)
    assert log.started == ["long"]
    assert dispatcher.last_stop is not None
    assert [job.id for job in dispatcher.last_stop.unfinished] == ["long", "next"]
    log = recorder()
    async with opened(store, log.registry, job_timeout=99, stop_grace=99):
        pass
    assert log.started == ["long", "next"]


async def test_leaving_unfinished_jobs_in_a_store_is_no_reason_to_warn(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(SlowStore(), recorder().registry) as dispatcher:
        await submit(dispatcher, "note", delay=3600)
    assert caplog.text == ""


async def test_attempts_backoff_and_delays_go_on_where_they_were(
    autojump_clock: MockClock,
) -> None:
    retry = csjd.Retry(max_attempts=3, min_delay=100, max_delay=100, jitter=0)
    store = SlowStore()

    def flaky(log: Log) -> csjd.Registry:
        @log.handler("flaky", retry=retry)
        async def flaky(job: Job, attempt: csjd.Attempt) -> None:  # noqa: ASYNC124  a handler
            numbers.append(attempt.number)
            raise OSError("no luck")

        @log.handler("dozer")
        async def dozer(job: Job, attempt: csjd.Attempt) -> None:  # noqa: ASYNC124  a handler
            if trio.current_time() < 50:
                raise csjd.Snooze(60)

        return log.registry

    numbers: list[int] = []
    async with opened(store, flaky(recorder()), stop_grace=0) as dispatcher:
        await submit(dispatcher, "flaky", id="f", session="s")
        await submit(dispatcher, "note", id="behind", session="s")
        await submit(dispatcher, "note", id="delayed", session="s", delay=30)
        await submit(dispatcher, "dozer", id="snoozer")
        await at(10)
    log = recorder()
    began = trio.current_time()
    async with opened(store.crashed(), flaky(log), stop_grace=0) as dispatcher:
        assert dispatcher.metrics().scheduled == 3
        await at(1000)
        [letter] = await dispatcher.dead_letters()
        assert (letter.job.id, letter.attempts) == ("f", 3)
    assert began == pytest.approx(10)
    assert numbers == [1, 2, 3]
    assert log.times["f"] == pytest.approx([100, 200], abs=0.1)
    assert log.times["snoozer"] == pytest.approx([60], abs=0.1)
    assert log.times["behind"] == pytest.approx([200], abs=0.1)
    assert log.times["delayed"] == pytest.approx([201], abs=0.1)


async def test_delayed_jobs_overdue_after_a_restart_keep_the_places_the_store_knows(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore()
    async with opened(store, recorder().registry) as dispatcher:
        dispatcher.pause()
        await submit(dispatcher, "note", id="late", session="s", delay=100)
        await submit(dispatcher, "note", id="early", session="s", delay=50)
        await submit(dispatcher, "note", id="now", session="s")
        await at(60)
        left = store.crashed()
    await at(500)
    log = recorder()
    async with opened(left, log.registry):
        await at(600)
    assert log.started == ["now", "early", "late"]


async def test_ids_are_refused_over_a_restart_until_their_window_ends(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore()
    async with opened(store, recorder().registry, duplicate_window=60) as dispatcher:
        await submit(dispatcher, "note", id="a")
        await trio.sleep(5)
    async with opened(store, recorder().registry, duplicate_window=60) as dispatcher:
        with pytest.raises(csjd.DuplicateJobError):
            await submit(dispatcher, "note", id="a")
        await at(62)
        await submit(dispatcher, "note", id="a")


async def test_dead_letters_and_halts_survive(autojump_clock: MockClock) -> None:
    store = SlowStore()

    def strict(log: Log) -> csjd.Registry:
        @log.handler("strict", retry=ONCE, on_failure="halt")
        async def strict(job: Job, attempt: csjd.Attempt) -> None:  # noqa: ASYNC124  a handler
            if job.payload:
                raise ValueError(job.payload)

        return log.registry

    async with opened(store, strict(recorder()), duplicate_window=0) as dispatcher:
        await submit(dispatcher, "strict", "bad", id="a", session="s")
        await submit(dispatcher, "strict", "", id="b", session="s")
        await submit(dispatcher, "strict", "worse", id="c")
        await trio.sleep(1)
    log = recorder()
    async with opened(store.crashed(), strict(log), duplicate_window=0) as dispatcher:
        await trio.sleep(1)
        first, second = await dispatcher.dead_letters()
        assert [first.job.id, second.job.id] == ["a", "c"]
        assert (first.attempts, str(first.error)) == (1, "ValueError: bad")
        assert isinstance(first.error, csjd.RecordedError)
        assert first.failed == pytest.approx(0, abs=0.1)
        assert log.started == []
        assert dispatcher.session_info("s").halted  # type: ignore[union-attr]
        dispatcher.resume(session="s")
        await trio.sleep(1)
        assert log.started == ["b"]
        receipt = await dispatcher.requeue("c")
        assert isinstance(await receipt.outcome(), csjd.Failed)
        await dispatcher.discard("a")


async def test_requeued_discarded_and_resumed_are_durable(autojump_clock: MockClock) -> None:
    store = SlowStore(0.1)
    async with opened(store, work().registry, history=2, duplicate_window=0) as dispatcher:
        dispatcher.register("bad", bad, retry=ONCE, on_failure="halt")
        for n in range(4):
            await submit(dispatcher, "bad", id=str(n), session=str(n))
        await trio.sleep(1)
        assert [each.accepted.id for each in store.model.dead.values()] == ["2", "3"]
        await dispatcher.discard("2")
        assert [each.accepted.id for each in store.model.dead.values()] == ["3"]
        dispatcher.resume(session="0")
        dispatcher.pause()
        await dispatcher.requeue("3")
        assert store.model.dead == {}
        assert [each.accepted.id for each in store.model.live.values()] == ["3"]
        assert store.model.halted == {"1", "2", "3"}
        with pytest.raises(csjd.DeadLetterNotFoundError):
            await dispatcher.requeue("3")


async def bad(job: Job) -> None:  # noqa: ASYNC124  a handler
    raise ValueError


async def test_an_id_that_dies_again_leaves_one_dead_letter(autojump_clock: MockClock) -> None:
    store = SlowStore()
    async with opened(store, duplicate_window=0) as dispatcher:
        dispatcher.register("bad", bad, retry=ONCE)
        for _ in range(2):
            await submit(dispatcher, "bad", id="same")
            await trio.sleep(1)
    assert len(store.recover().dead_letters) == 1


async def test_requeue_the_store_has_no_room_for_changes_nothing(
    autojump_clock: MockClock,
) -> None:
    full = csjd.JobStoreFullError("disk", "no room")
    store = SlowStore(faults=iter([None, None, full]))
    async with opened(store, max_pending=1) as dispatcher:
        dispatcher.register("bad", bad, retry=ONCE)
        await submit(dispatcher, "bad", id="a")
        await trio.sleep(10)
        with pytest.raises(csjd.JobStoreFullError):
            await dispatcher.requeue("a")
        assert len(await dispatcher.dead_letters()) == 1
        await dispatcher.requeue("a")


# --- jobs nobody can run ---------------------------------------------------------------


async def test_jobs_without_a_handler_wait_for_one_and_hold_their_session(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore()
    async with opened(store, recorder().registry) as dispatcher:
        dispatcher.pause()
        dispatcher.register("odd", bad)
        await submit(dispatcher, "odd", id="odd", session="s")
        await submit(dispatcher, "note", id="behind", session="s")
        await submit(dispatcher, "odd", id="cancelled")
        await submit(dispatcher, "odd", id="later", delay=50)
        await submit(dispatcher, "note", id="free")
    log = recorder()
    async with opened(store, log.registry) as dispatcher:
        await trio.sleep(10)
        metrics = dispatcher.metrics()
        assert (metrics.parked, metrics.waiting, metrics.scheduled, metrics.failed) == (2, 1, 1, 0)
        assert balanced(metrics)
        assert log.started == ["free"]
        assert dispatcher.cancel("cancelled")
        await at(60)
        assert dispatcher.metrics().parked == 2

        @log.handler("odd")
        async def odd(job: Job, attempt: csjd.Attempt) -> None:
            pass

        dispatcher.register("odd", log.registry["odd"].function)
        await trio.sleep(10)
        assert sorted(log.started) == ["behind", "free", "later", "odd"]
        assert log.started.index("odd") < log.started.index("behind")
        assert balanced(dispatcher.metrics())


@attrs.frozen
class Point:
    x: int
    y: int


@attrs.frozen
class Point3:
    x: int
    y: int
    z: int


async def test_typed_payloads_are_rebuilt(autojump_clock: MockClock) -> None:
    store = SlowStore()
    seen: list[Any] = []

    async def take(job: Job) -> None:  # noqa: ASYNC124  a handler
        seen.append(job.payload)

    async with opened(store) as dispatcher:
        dispatcher.register("point", take, payload=Point)
        dispatcher.pause()
        await submit(dispatcher, "point", Point(1, 2), id="a", session="s")
    async with opened(store) as dispatcher:
        dispatcher.register("point", take, payload=Point)  # after the recovery
    assert seen == [Point(1, 2)]


async def test_payload_its_handler_cannot_take_parks_the_job_and_says_so(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = SlowStore()

    async def take(job: Job) -> Any:  # noqa: ASYNC124  a handler
        return job.payload

    async with opened(store) as dispatcher:
        dispatcher.register("point", take, payload=Point)
        dispatcher.pause()
        await submit(dispatcher, "point", Point(1, 2), id="a", session="s")
        await submit(dispatcher, "point", Point(1, 2), id="b", session="s")
    newer = csjd.Registry()
    newer.register("point", take, payload=Point3)
    heard: list[csjd.Event] = []
    async with opened(store, newer, observers=(heard.append,)) as dispatcher:
        assert dispatcher.metrics().parked == 1
        assert [e.job.id for e in heard if isinstance(e, csjd.JobParked)] == ["a", "b"]
        assert "job 'a' is parked" in caplog.text
        assert dispatcher.cancel("a")
        assert dispatcher.metrics().parked == 1
    older = csjd.Registry()
    older.register("point", take, payload=Point)
    async with opened(store, older) as dispatcher:
        await trio.sleep(1)
        assert [job.job_id for job in dispatcher.history()] == ["b"]


async def test_requeue_of_a_payload_its_handler_cannot_take_is_refused(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore()
    async with opened(store, duplicate_window=0) as dispatcher:
        dispatcher.register("point", bad, retry=ONCE, payload=Point)
        await submit(dispatcher, "point", Point(1, 2), id="a")
    async with opened(store, duplicate_window=0) as dispatcher:
        dispatcher.register("point", bad, payload=Point3)
        with pytest.raises(csjd.InvalidJobError, match="payload is not what its handler takes"):
            await dispatcher.requeue("a")
        assert [letter.job.id for letter in await dispatcher.dead_letters()] == ["a"]


@pytest.mark.parametrize("early", [True, False])
async def test_class_that_raises_parks_its_job_and_no_other(
    autojump_clock: MockClock, early: bool
) -> None:
    least = 0

    @attrs.frozen
    class Limited:
        x: int

        def __attrs_post_init__(self) -> None:
            assert self.x >= least, "too small now"

    async def take(job: Job) -> None:  # noqa: ASYNC124  a handler
        seen.append(job.payload.x)

    store = SlowStore()
    seen: list[int] = []
    registry = csjd.Registry()
    registry.register("limited", take, payload=Limited)
    async with opened(store, registry) as dispatcher:
        dispatcher.pause()
        for x in (11, 1, 12):
            await submit(dispatcher, "limited", Limited(x))
    least = 10
    heard: list[csjd.Event] = []
    async with opened(store, registry if early else None, observers=(heard.append,)) as dispatcher:
        if not early:
            dispatcher.register("limited", take, payload=Limited)
        await trio.sleep(1)
        assert dispatcher.metrics().parked == 1
        assert sorted(seen) == [11, 12]
        told = [event.reason for event in heard if isinstance(event, csjd.JobParked)]
        assert "too small now" in told[-1]


async def test_job_that_is_none_any_more_stays_in_the_store_and_holds_its_session(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    store, log = SlowStore(), recorder()
    store.recover()
    store.commit([accepted(1, id="a", session="s", type="note", priority=1, timeout=-5.0)])
    store.commit([accepted(2, id="b", session="s", type="note", payload=encode_payload(None))])
    store.close()
    async with opened(store, log.registry) as dispatcher:
        await trio.sleep(10)
        assert log.started == []
        assert "'a' stays in the store" in caplog.text
        with pytest.raises(csjd.DuplicateJobError):
            await submit(dispatcher, "note", id="a")
    assert [job.accepted.id for job in store.recover().live] == ["a", "b"]


# --- crashes ---------------------------------------------------------------------------


async def test_job_that_keeps_killing_its_process_becomes_a_dead_letter(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(0.1)
    runs = 0
    for _ in range(10):
        log = recorder()
        async with opened(store, log.registry, job_timeout=99, stop_grace=0) as dispatcher:
            if not runs:
                await submit(dispatcher, "sleep", 50, id="killer", session="s")
                await submit(dispatcher, "note", id="next", session="s")
            await trio.sleep(5)
            runs += "killer" in log.started
            left = store.crashed()  # while the handler runs
            letters = await dispatcher.dead_letters()
        if letters:
            break
        store = left
    assert runs == 4  # once before its starts are written, and max_crashes times after
    [letter] = letters
    assert (letter.job.id, letter.attempts) == ("killer", 0)
    assert "died 3 times while the job was known to run" in str(letter.error)
    assert log.started == ["next"]


async def test_start_of_a_recovered_job_is_written_before_its_handler_runs(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(1)
    async with opened(store, recorder().registry) as dispatcher:
        dispatcher.pause()
        await submit(dispatcher, "note", id="a")
    for clean in (True, False):
        before = store if clean else store.crashed()
        again, log = SlowStore(1), recorder()
        again.model, again._clean = before.model.copy(), clean
        began = trio.current_time()
        async with opened(again, log.registry):
            pass
        wait = 0 if clean else 1
        assert log.times == {"a": [began + wait]}
        starts = [each for batch in again.batches for each in batch if isinstance(each, Started)]
        assert len(starts) == wait
        if not clean:
            assert again.syncs[0] is False


async def test_interrupted_start_is_no_crash(autojump_clock: MockClock) -> None:
    store = SlowStore()
    async with opened(store, recorder().registry) as dispatcher:
        dispatcher.pause()
        await submit(dispatcher, "sleep", 50, id="a")
    store = store.crashed()
    async with opened(store, recorder().registry, stop_grace=1, job_timeout=99) as dispatcher:
        await dispatcher.stop()
        assert [type(each).__name__ for batch in store.batches for each in batch] == [
            "Started",
            "Interrupted",
        ]
        left = store.crashed()
    assert [job.crashes for job in left.recover().live] == [0]


@pytest.mark.parametrize("seed", range(40))
async def test_random_work_with_crashes_loses_nothing_and_keeps_its_order(
    autojump_clock: MockClock, seed: int
) -> None:
    rng = random.Random(seed)
    store = SlowStore(rng.choice([0, 0.01, 0.3]))
    story = Story(rng)
    for _ in range(4):
        async with (
            opened(
                store,
                story.registry,
                workers=rng.randrange(1, 4),
                stop_grace=rng.choice([0, 1, 5]),
                duplicate_window=0,
                session_idle=rng.choice([0, 60]),
            ) as dispatcher,
            trio.open_nursery() as nursery,
        ):
            for session in "abc"[: rng.randrange(1, 4)]:
                nursery.start_soon(story.submit_some, dispatcher, session, rng.randrange(10))
            await trio.sleep(rng.random() * 3)
            left = store.crashed()
            promised = story.snapshot()
            if rng.random() < 0.5:
                nursery.cancel_scope.cancel()
        if rng.random() < 0.7:
            store = left
            story.crash(promised)
        story.check(store)
    async with opened(store, story.registry, duplicate_window=0):
        await trio.sleep(1000)
    story.check(store)
    assert not store.model.live
    assert story.done >= story.acknowledged, f"seed {seed}"


class Story:
    """What jobs were promised, which ended, and in which order sessions began them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.numbers = iter(range(10_000))
        self.acknowledged: set[str] = set()
        self.done: set[str] = set()
        self.begun: dict[str, list[int]] = {}
        """By session: the numbers of its jobs, as they began for the first time."""
        self.registry = csjd.Registry()
        self.registry.register("do", self.do, retry=csjd.Retry(max_attempts=50, max_delay=1))

    async def submit_some(self, dispatcher: csjd.Dispatcher, session: str, count: int) -> None:
        for _ in range(count):
            number = next(self.numbers)
            job = Job(type="do", id=f"{session}{number}", session=session, payload=number)
            await dispatcher.submit(job)
            self.acknowledged.add(job.id)
            await trio.sleep(self.rng.random() * 0.3)

    async def do(self, job: Job) -> None:
        assert job.session is not None
        numbers = self.begun.setdefault(job.session, [])
        if job.payload not in numbers:
            numbers.append(job.payload)
        await trio.sleep(self.rng.random() * 0.3)
        if self.rng.random() < 0.2:
            raise OSError("once more")
        if self.rng.random() < 0.1:
            raise csjd.Snooze(self.rng.random())
        self.done.add(job.id)

    def snapshot(self) -> set[str]:
        return set(self.acknowledged)

    def crash(self, promised: set[str]) -> None:
        """Forget what was promised after the moment of the crash: that never happened."""
        self.acknowledged = promised

    def check(self, store: SlowStore) -> None:
        live = [job.accepted.id for job in store.model.live.values()]
        assert self.acknowledged <= self.done | set(live)
        for numbers in self.begun.values():
            assert numbers == sorted(numbers)


async def test_logs_tell_of_the_store(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    broken = csjd.JobStoreError("disk", "Input/output error")
    store = SlowStore(faults=iter([None, broken]))
    store.recover()
    store.commit([accepted(1, id="a", type="odd", payload=encode_payload(None))])
    store.close()
    with pytest.RaisesGroup(csjd.JobStoreClosedError, flatten_subgroups=True):
        async with opened(store, work().registry, observers=(LogObserver(),)) as dispatcher:
            with pytest.raises(csjd.JobStoreError):
                await submit(dispatcher, "nothing")
    told = {
        vars(record)["event"]: (record.levelname, record.getMessage())
        for record in caplog.records
        if "event" in vars(record)
    }
    assert told["JobStoreOpened"] == ("INFO", "store opened with 1 unfinished job")
    assert told["JobParked"] == ("WARNING", "odd job a: parked: no handler")
    assert told["JobStoreFailed"][0] == "ERROR"


async def test_job_that_dies_of_crashes_replaces_its_older_dead_letter(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore()
    store.recover()
    store.commit([accepted(1, id="a", type="nothing", payload=encode_payload(None))])
    store.commit([DeadLettered(1, 1, DeathReason.FAILED, "older", 0.0)])
    store.commit([accepted(2, id="a", type="nothing", payload=encode_payload(None))])
    for _ in range(3):
        store.commit([Started(2)])
        store.crash()
        store.recover()
    store.close()
    for _ in range(2):
        async with opened(store, work().registry, max_crashes=3) as dispatcher:
            [letter] = await dispatcher.dead_letters()
            assert "died 3 times while the job was known to run" in str(letter.error)
            assert balanced(dispatcher.metrics())


def store_of_a_killer() -> SlowStore:
    """Return a store with a job "a" of type `point` that killed its process once."""
    store = SlowStore()
    store.recover()
    payload = encode_payload({"x": 1, "y": 2})
    store.commit([accepted(1, id="a", type="point", payload=payload), Started(1)])
    store.crash()
    return store


async def test_job_that_died_of_crashes_without_a_handler_can_be_requeued_once_there_is_one(
    autojump_clock: MockClock,
) -> None:
    seen: list[Any] = []

    async def take(job: Job) -> None:  # noqa: ASYNC124  a handler
        seen.append(job.payload)

    async with opened(store_of_a_killer(), max_crashes=1, duplicate_window=0) as dispatcher:
        with pytest.raises(csjd.HandlerNotFoundError):
            await dispatcher.requeue("a")
        dispatcher.register("point", take, payload=Point)
        await (await dispatcher.requeue("a")).outcome()
        assert seen == [Point(1, 2)]
        assert balanced(dispatcher.metrics())


async def test_job_that_died_of_crashes_is_requeued_only_for_a_handler_that_can_take_it(
    autojump_clock: MockClock,
) -> None:
    registry = csjd.Registry()
    registry.register("point", bad, payload=Point3)
    async with opened(
        store_of_a_killer(), registry, max_crashes=1, duplicate_window=0
    ) as dispatcher:
        with pytest.raises(csjd.InvalidJobError):
            await dispatcher.requeue("a")
        assert [letter.job.id for letter in await dispatcher.dead_letters()] == ["a"]


async def test_job_that_died_of_crashes_is_gone_where_no_dead_letters_are_kept(
    autojump_clock: MockClock,
) -> None:
    store = store_of_a_killer()
    async with opened(store, max_crashes=1, history=0) as dispatcher:
        assert await dispatcher.dead_letters() == ()
        assert balanced(dispatcher.metrics())
    assert store.recover().dead_letters == []


@pytest.mark.parametrize("clean", [True, False])
async def test_cancelled_opening_leaves_the_store_as_it_was_found(
    autojump_clock: MockClock, clean: bool
) -> None:
    fs = SimFs()
    store = FileJobStore("sim", files=fs)
    store.recover()
    store.commit([accepted(1, type="note"), Started(1)])
    if clean:
        store.close()
    else:
        fs.kill()

    class Cancelling(FileJobStore):
        def recover(self) -> Recovery:
            scope.cancel()
            return super().recover()

    with trio.CancelScope() as scope:
        async with opened(Cancelling("sim", files=fs), recorder().registry):
            raise AssertionError("it was cancelled before")
    assert scope.cancelled_caught
    recovery = FileJobStore("sim", files=fs).recover()
    assert recovery.clean is clean
    assert [job.crashes for job in recovery.live] == [0 if clean else 1]


async def test_cancelled_opening_closes_a_store_that_knows_but_one_way(
    autojump_clock: MockClock,
) -> None:
    class Cancelling(SlowStore):
        def recover(self) -> Recovery:
            scope.cancel()
            return super().recover()

    store = Cancelling()
    store.model = store_of_a_killer().model.copy()
    with trio.CancelScope() as scope:
        async with opened(store, recorder().registry):
            raise AssertionError("it was cancelled before")
    assert store.is_clean


async def test_older_dead_letter_of_an_id_does_not_come_back_when_the_newer_is_discarded(
    autojump_clock: MockClock,
) -> None:
    # As after a salvage that had to do without the record which discarded the older.
    store = SlowStore()
    store.recover()
    for order in (1, 2):
        store.commit([accepted(order, id="a", type="nothing", payload=encode_payload(None))])
        store.commit([DeadLettered(order, 1, DeathReason.FAILED, f"death {order}", 0.0)])
    store.close()
    async with opened(store, work().registry) as dispatcher:
        [letter] = await dispatcher.dead_letters()
        assert str(letter.error) == "death 2"
        await dispatcher.discard("a")
    async with opened(store, work().registry) as dispatcher:
        assert await dispatcher.dead_letters() == ()
