"""The journal: what is acknowledged is durable, and nothing waits that need not."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import csjd
from csjd import Job
from csjd._model.groups import leaves
from csjd.stores import Accepted, Ended
from tests.runtime.durable import SlowStore, opened, virtual_wall
from tests.runtime.scene import at, balanced, state, submit, work


@pytest.fixture(autouse=True)
def _virtual(autojump_clock: MockClock) -> Iterator[None]:
    with virtual_wall(autojump_clock):
        yield


async def test_submit_returns_when_the_job_is_durable_and_not_before(
    autojump_clock: MockClock,
) -> None:
    store, log = SlowStore(0.5), work()
    async with opened(store, log.registry) as dispatcher:
        receipt = await submit(dispatcher, "nothing", 7, id="a")
        assert trio.current_time() == 0.5
        assert store.kinds() == [["Accepted"]]
        assert await receipt.result() == 7
        assert log.times == {"a": [0.5]}
        assert trio.current_time() == 0.5  # an end waits for nobody


async def test_submits_that_arrive_during_a_commit_share_the_next(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(1)
    async with opened(store, work().registry) as dispatcher, trio.open_nursery() as nursery:
        nursery.start_soon(submit, dispatcher, "nothing")
        await trio.sleep(0.5)
        for _ in range(10):
            nursery.start_soon(submit, dispatcher, "nothing")
        await at(1.9)
        assert store.kinds() == [["Accepted"]]
        await at(2.1)
        accepted = [sum(isinstance(each, Accepted) for each in batch) for batch in store.batches]
        assert accepted == [1, 10]


async def test_ends_ride_along_with_the_next_submit(autojump_clock: MockClock) -> None:
    store = SlowStore()
    async with opened(store, work().registry) as dispatcher:
        await (await submit(dispatcher, "nothing", id="a")).outcome()
        await submit(dispatcher, "nothing", id="b")
        assert store.kinds() == [["Accepted"], ["Ended", "Accepted"]]


async def test_an_end_alone_is_written_soon_all_the_same(autojump_clock: MockClock) -> None:
    store = SlowStore()
    async with opened(store, work().registry) as dispatcher:
        await (await submit(dispatcher, "nothing", id="a")).outcome()
        await trio.sleep(0.1)
        assert store.kinds() == [["Accepted"], ["Ended"]]


async def test_orders_ascend_and_a_batch_is_one_commit(autojump_clock: MockClock) -> None:
    store = SlowStore()
    async with opened(store, work().registry) as dispatcher:
        dispatcher.pause()
        jobs = [Job(type="nothing", id=str(n), session="s") for n in range(20)]
        report = await dispatcher.submit_batch([*jobs, jobs[3], Job(type="unheard-of")])
        assert (report.accepted, report.duplicates, report.invalid) == (20, 1, 1)
        [batch] = store.batches
        assert [each.order for each in batch if isinstance(each, Accepted)] == list(range(1, 21))


async def test_batch_of_all_kinds_of_jobs_is_one_commit_in_its_order(
    autojump_clock: MockClock,
) -> None:
    store, log = SlowStore(1), work()
    async with opened(store, log.registry, workers=1) as dispatcher:
        dispatcher.pause()
        jobs = [
            Job(type="nothing", id="bytes", payload=b"x"),
            Job(type="nothing", id="text", payload="x"),
            Job(type="nothing", id="session", payload=b"x", session="s"),
            Job(type="unheard-of", id="nobody's"),
            Job(type="nothing", id="first", payload=b"x", priority=9),
            Job(type="nothing", id="none"),
            Job(type="nothing", id="bytes", payload=b"again"),
            Job(type="nothing", id="last", payload=b"x", timeout=2.0**70, max_attempts=2),
        ]
        report = await dispatcher.submit_batch(jobs)
        assert (report.accepted, report.duplicates, report.invalid) == (6, 1, 1)
        assert [receipt and receipt.job.id for receipt in report.receipts] == [
            *["bytes", "text", "session", None, "first", "none", None, "last"]
        ]
        [batch] = store.batches
        accepted = [each for each in batch if isinstance(each, Accepted)]
        assert [each.order for each in accepted] == [1, 2, 3, 4, 5, 6]
        assert [each.id for each in accepted] == [
            *["bytes", "text", "session", "first", "none", "last"]
        ]
        assert (accepted[-1].timeout, accepted[-1].max_attempts) == (2.0**70, 2)
        dispatcher.resume()
        await report.receipts[-1].outcome()  # type: ignore[union-attr]
        assert log.started == ["first", "bytes", "text", "session", "none", "last"]


async def test_job_let_in_while_a_batch_is_looked_at_keeps_orders_ascending(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(1)

    def make_room(event: csjd.Event) -> None:
        if isinstance(event, csjd.JobRefused):
            dispatcher.cancel("holds")

    async with (
        opened(
            store, work().registry, observers=(make_room,), max_pending_per_session=1
        ) as dispatcher,
        trio.open_nursery() as nursery,
    ):
        await submit(dispatcher, "nothing", id="holds", session="s", delay=60)
        nursery.start_soon(lambda: submit(dispatcher, "nothing", id="w", session="s", wait=True))
        await wait_all_tasks_blocked()
        jobs = [Job(type="nothing", id=job_id) for job_id in "ab"]
        await dispatcher.submit_batch([jobs[0], Job(type="unheard-of"), jobs[1]])
        accepted = [each for batch in store.batches for each in batch if isinstance(each, Accepted)]
        assert [(each.order, each.id) for each in accepted] == [
            *[(1, "holds"), (2, "a"), (3, "w"), (4, "b")]
        ]


async def test_jobs_start_while_the_next_commit_is_being_written(
    autojump_clock: MockClock,
) -> None:
    store, log = SlowStore(1), work()
    async with opened(store, log.registry) as dispatcher:
        for job_id in "abc":
            await submit(dispatcher, "nothing", id=job_id)
    assert log.times == {"a": [1], "b": [2], "c": [3]}


async def test_jobs_start_although_somebody_has_waited_for_the_commit_before(
    autojump_clock: MockClock,
) -> None:
    store, log = SlowStore(1), work()
    async with opened(store, log.registry) as dispatcher, trio.open_nursery() as nursery:
        receipt = await submit(dispatcher, "nothing", delay=60)
        nursery.start_soon(lambda: submit(dispatcher, "nothing", id="b"))
        receipt.cancel()
        await at(1.5)
        assert store.kinds() == [["Accepted"]]  # both are being written, and nothing waits
        await receipt.outcome()
        await trio.sleep(10)
        assert log.times == {"b": [2]}


async def test_run_at_counts_from_when_the_job_was_looked_at(autojump_clock: MockClock) -> None:
    log = work()
    async with opened(SlowStore(), log.registry, max_pending=1, job_timeout=99) as dispatcher:
        late = datetime.now(UTC) + timedelta(seconds=20)  # this clock stands still meanwhile
        await dispatcher.submit_batch(
            [
                Job(type="sleep", id="a", payload=10),
                Job(type="sleep", id="b", payload=1),
                Job(type="nothing", id="c", run_at=late),
            ],
            wait=True,
        )
        await trio.sleep(60)
    [started] = log.times["c"]
    assert started == pytest.approx(30, abs=5)  # real seconds pass, but not that many


async def test_duplicates_and_limits_are_exact_while_a_commit_is_under_way(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(1)
    async with (
        opened(store, work().registry, max_pending=2) as dispatcher,
        trio.open_nursery() as nursery,
    ):
        for job_id in "ab":
            nursery.start_soon(dispatcher.submit, Job(type="sleep", payload=50, id=job_id))
        await wait_all_tasks_blocked()
        with pytest.raises(csjd.DuplicateJobError) as caught:
            await submit(dispatcher, "sleep", 50, id="a")
        assert caught.value.live
        with pytest.raises(csjd.QueueFullError):
            await submit(dispatcher, "sleep", 50, id="c")
        assert dispatcher.metrics().accepted == 0
        assert not dispatcher.cancel("a")
        await at(2.5)
        assert dispatcher.metrics().accepted == 2


async def test_submit_cancelled_before_its_commit_begins_did_nothing(
    autojump_clock: MockClock,
) -> None:
    store, log = SlowStore(1), work()
    heard: list[csjd.Event] = []
    async with (
        opened(store, log.registry, observers=(heard.append,), max_pending=2) as dispatcher,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(submit, dispatcher, "sleep", 9)
        await trio.sleep(0.5)
        with trio.move_on_after(0.1) as scope:
            await submit(dispatcher, "nothing", id="b", session="s")
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(0.6)
        await submit(dispatcher, "nothing", id="b")  # neither its id nor its room is taken
        assert [e.job.id for e in heard if isinstance(e, csjd.JobAccepted)][1:] == ["b"]
        accepted = [
            each.id for batch in store.batches for each in batch if isinstance(each, Accepted)
        ]
        assert accepted[1:] == ["b"]
        assert dispatcher.session_info("s") is None or dispatcher.session_info("s").pending == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("payload", [b"plain", "not plain"])
async def test_batch_cancelled_before_its_commit_begins_did_nothing(
    autojump_clock: MockClock, payload: object
) -> None:
    store = SlowStore(1)
    async with (
        opened(store, work().registry, max_pending=4) as dispatcher,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(submit, dispatcher, "nothing")
        await trio.sleep(0.5)
        batch = [Job(type="nothing", id=i, payload=payload, session="s") for i in "abc"]
        with trio.move_on_after(0.1) as scope:
            await dispatcher.submit_batch(batch)
        assert scope.cancelled_caught
        assert dispatcher.session_info("s").pending == 0  # type: ignore[union-attr]
        report = await dispatcher.submit_batch(batch)
        assert report.accepted == 3
        for receipt in report.receipts:
            await receipt.outcome()  # type: ignore[union-attr]
        accepted = [
            each.id for batch in store.batches for each in batch if isinstance(each, Accepted)
        ]
        assert accepted[1:] == ["a", "b", "c"]
        assert balanced(dispatcher.metrics())


async def test_batch_that_finds_the_disk_full_gives_back_all_it_had(
    autojump_clock: MockClock,
) -> None:
    full = csjd.JobStoreFullError("disk", "no room")
    store = SlowStore(faults=iter([full, None, None]))
    async with opened(store, work().registry, max_pending=3) as dispatcher:
        batch = [Job(type="nothing", id=i, payload=b"x", session="s") for i in "abc"]
        report = await dispatcher.submit_batch([*batch, Job(type="nothing", id="d", payload=b"")])
        assert (report.accepted, report.rejected) == (0, 4)
        assert list(report.receipts) == [None] * 4
        kinds = [type(report.errors[position]) for position in range(4)]
        assert kinds == [csjd.JobStoreFullError] * 3 + [csjd.QueueFullError]
        assert dispatcher.session_info("s").pending == 0  # type: ignore[union-attr]
        assert (await dispatcher.submit_batch(batch)).accepted == 3


async def test_cancellation_is_held_back_while_the_job_is_being_written(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(1)
    async with opened(store, work().registry) as dispatcher:
        with trio.move_on_after(0.5) as scope:
            receipt = await submit(dispatcher, "nothing", 3)
            assert trio.current_time() == 1
            assert receipt.job.payload == 3
            await trio.sleep(1)
        assert scope.cancelled_caught
        assert trio.current_time() == 1


async def test_cancellation_is_held_back_for_commit_grace_at_most(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(100)
    async with opened(store, work().registry, commit_grace=5, job_timeout=1000) as dispatcher:
        with trio.move_on_after(0.5) as scope:
            await submit(dispatcher, "sleep", 500, id="a")
        assert scope.cancelled_caught
        assert trio.current_time() == 5.5
        with pytest.raises(csjd.DuplicateJobError):  # nobody knows yet, so no second one
            await submit(dispatcher, "sleep", id="a")
        await at(101)
        assert dispatcher.metrics().running == 1  # it does exist


async def test_full_disk_refuses_submits_and_still_records_ends(autojump_clock: MockClock) -> None:
    full = csjd.JobStoreFullError("disk", "no room")
    faults = iter([None, full, None, None])
    store = SlowStore(faults=faults)
    async with opened(store, work().registry, duplicate_window=0) as dispatcher:
        await (await submit(dispatcher, "nothing", id="a")).outcome()
        with pytest.raises(csjd.JobStoreFullError):
            await submit(dispatcher, "nothing", id="b", session="s")
        assert store.kinds() == [["Accepted"], ["Ended"]]
        metrics = dispatcher.metrics()
        assert (metrics.accepted, metrics.rejected, metrics.ids_remembered) == (1, 1, 0)
        await (await submit(dispatcher, "nothing", id="b", session="s")).outcome()


async def test_ends_that_a_full_disk_does_not_take_are_tried_again(
    autojump_clock: MockClock,
) -> None:
    full = csjd.JobStoreFullError("disk", "no room")
    store = SlowStore(faults=iter([None, full, full, full, full]))
    async with opened(store, work().registry) as dispatcher:
        await (await submit(dispatcher, "nothing", id="a")).outcome()
        with pytest.raises(csjd.JobStoreFullError):
            await submit(dispatcher, "nothing", id="b")
        report = await dispatcher.submit_batch([Job(type="nothing"), Job(type="nothing")])
        assert report.rejected == 2
        assert all(isinstance(e, csjd.JobStoreFullError) for e in report.errors.values())
        await trio.sleep(5)
        assert store.kinds() == [["Accepted"], ["Ended"]]


async def test_failed_store_ends_acknowledgements_and_running_handlers_finish(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    broken = csjd.JobStoreError("disk", "Input/output error")
    store = SlowStore(faults=itertools.chain([None, None], itertools.repeat(broken)))
    log = work()
    heard: list[csjd.Event] = []
    with pytest.RaisesGroup(csjd.JobStoreClosedError, flatten_subgroups=True) as left:
        async with opened(store, log.registry, workers=1, observers=(heard.append,)) as dispatcher:
            receipt = await submit(dispatcher, "sleep", 5, id="runs")
            await submit(dispatcher, "nothing", id="waits")
            with pytest.raises(csjd.JobStoreError, match="submit the same id again"):
                await submit(dispatcher, "nothing", id="unknown")
            with pytest.raises(csjd.JobStoreClosedError) as caught:
                await submit(dispatcher, "nothing", id="late")
            assert caught.value.__cause__ is broken
            report = await dispatcher.submit_batch([Job(type="nothing")])
            assert isinstance(report.errors[0], csjd.JobStoreClosedError)
            assert isinstance(await receipt.outcome(), csjd.Succeeded)
            await trio.sleep(50)
            assert log.started == ["runs"]
            assert balanced(dispatcher.metrics())
            await dispatcher.stop()
            with pytest.raises(csjd.JobStoreClosedError):
                await dispatcher.start()
    [error] = leaves(left.value)
    assert error.__cause__ is broken
    assert [e.error for e in heard if isinstance(e, csjd.JobStoreFailed)] == [broken]
    assert "nothing is acknowledged" in caplog.text
    assert [job.accepted.id for job in store.crashed().recover().live] == ["runs", "waits"]


async def test_who_waits_for_room_is_refused_when_the_store_fails(
    autojump_clock: MockClock,
) -> None:
    broken = csjd.JobStoreError("disk", "Input/output error")
    store, log = SlowStore(faults=itertools.chain([None], itertools.repeat(broken))), work()
    refused: list[csjd.CsjdError] = []

    @log.handler("again", retry=csjd.Retry(max_attempts=5, min_delay=60, max_delay=60, jitter=0))
    async def again(job: Job, attempt: csjd.Attempt) -> None:
        await trio.sleep(5)
        raise OSError("try again")

    async def wait_for_room(job_id: str, session: str | None = None) -> None:
        with pytest.raises(csjd.JobStoreClosedError) as caught:
            await submit(dispatcher, "nothing", id=job_id, session=session, wait=True)
        refused.append(caught.value)

    with pytest.RaisesGroup(csjd.JobStoreClosedError, flatten_subgroups=True):
        async with (
            opened(store, log.registry, max_pending=1) as dispatcher,
            trio.open_nursery() as nursery,
        ):
            receipt = await submit(dispatcher, "again", id="a")
            nursery.start_soon(wait_for_room, "b")
            nursery.start_soon(wait_for_room, "c", "s")
            await at(6)  # the store was told of the retry, and has failed
            assert [error.__cause__ for error in refused] == [broken, broken]
            assert dispatcher.metrics().rejected == 2
            assert state(receipt) is csjd.JobState.SCHEDULED
            assert balanced(dispatcher.metrics())


async def test_what_is_no_store_error_ends_the_dispatcher(autojump_clock: MockClock) -> None:
    store = SlowStore(faults=iter([ZeroDivisionError("a bug")]))
    with pytest.RaisesGroup(csjd.DispatcherCrashedError, ZeroDivisionError, flatten_subgroups=True):
        async with opened(store, work().registry) as dispatcher:
            await submit(dispatcher, "nothing")


async def test_outcome_of_a_cancelled_job_comes_when_that_is_durable(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(1)
    async with opened(store, work().registry) as dispatcher:
        receipt = await submit(dispatcher, "nothing", delay=60)
        assert receipt.cancel()
        assert isinstance(await receipt.outcome(), csjd.Cancelled)
        assert trio.current_time() == 2
        assert store.model.live == {}


async def test_cancelled_job_whose_end_the_store_did_not_keep_says_so(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(faults=iter([None, csjd.JobStoreError("disk", "gone")]))
    with pytest.RaisesGroup(csjd.JobStoreClosedError, flatten_subgroups=True):
        async with opened(store, work().registry) as dispatcher:
            receipt = await submit(dispatcher, "nothing", delay=60)
            receipt.cancel()
            with pytest.raises(csjd.JobStoreError):
                await receipt.outcome()


async def test_delayed_jobs_take_their_place_in_the_order_the_store_knows(
    autojump_clock: MockClock,
) -> None:
    store, log = SlowStore(1), work()
    async with opened(store, log.registry, job_timeout=99) as dispatcher:
        delayed = await submit(dispatcher, "nothing", id="delayed", session="s", delay=1.5)
        assert trio.current_time() == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: submit(dispatcher, "sleep", 9, id="first", session="s"))
            await at(1.7)  # `first` is being written, the delayed one fell due at 1.5
            assert state(delayed) is csjd.JobState.SCHEDULED
        await delayed.outcome()
        assert log.times == {"first": [2.0], "delayed": [11.0]}
        assert store.kinds()[:3] == [["Accepted"], ["Accepted"], ["Placed"]]


async def test_waiting_for_room_goes_on_when_a_reservation_is_given_back(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(1)
    async with (
        opened(store, work().registry, max_pending=2, job_timeout=99) as dispatcher,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(submit, dispatcher, "sleep", 50)
        await trio.sleep(0.5)
        scope = trio.CancelScope()

        async def second() -> None:
            with scope:
                await submit(dispatcher, "sleep", 50)

        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        nursery.start_soon(lambda: submit(dispatcher, "nothing", id="third", wait=True))
        await wait_all_tasks_blocked()
        scope.cancel()
        await at(3)
        assert [each.id for batch in store.batches for each in batch if isinstance(each, Accepted)][
            1
        ] == "third"


async def test_unstorable_jobs_are_refused_and_change_nothing(autojump_clock: MockClock) -> None:
    store = SlowStore()
    async with opened(store, work().registry, max_payload=100) as dispatcher:
        for job in (
            Job(type="nothing", payload=object),
            Job(type="nothing", payload=["x" * 200]),
            Job(type="nothing", priority=2**70),
            Job(type="nothing", metadata={"a": {1: object}}),
        ):
            with pytest.raises(csjd.InvalidJobError):
                await dispatcher.submit(job)
        await submit(dispatcher, "nothing", b"x" * 100)
        metrics = dispatcher.metrics()
        assert (metrics.accepted, metrics.invalid) == (1, 4)
        assert [len(batch) for batch in store.batches] == [1]


async def test_idle_second_is_told_to_the_store_once(autojump_clock: MockClock) -> None:
    calls: list[float] = []

    class Idle(SlowStore):
        def maintain(self) -> None:
            calls.append(trio.current_time())

    async with opened(Idle(), work().registry) as dispatcher:
        await submit(dispatcher, "nothing")
        await trio.sleep(100)
        assert len(calls) == 1
        assert 1 <= calls[0] < 1.1


async def test_trouble_with_maintenance_is_said_and_harms_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Untidy(SlowStore):
        def maintain(self) -> None:
            raise csjd.JobStoreError("disk", "no room to tidy up")

    async with opened(Untidy(), work().registry) as dispatcher:
        await submit(dispatcher, "nothing")
        await trio.sleep(10)
        assert "no room to tidy up" in caplog.text
        await submit(dispatcher, "nothing")


async def test_closed_store_surfaces_when_the_block_is_entered(autojump_clock: MockClock) -> None:
    store = SlowStore()
    store.recover()
    with pytest.RaisesGroup(csjd.JobStoreLockedError, flatten_subgroups=True):
        async with opened(store):
            raise AssertionError("entered")


async def test_leaving_writes_what_has_ended_and_closes_the_store(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(1)
    async with opened(store, work().registry) as dispatcher:
        await submit(dispatcher, "nothing", id="a")
        await submit(dispatcher, "sleep", 1, id="b")
    assert store.model.live == {}
    assert isinstance(store.batches[-1][-1], Ended)
    assert store.recover().clean


async def test_leaving_by_a_cancellation_keeps_what_was_acknowledged(
    autojump_clock: MockClock,
) -> None:
    store = SlowStore(1)
    with trio.move_on_after(5):
        async with opened(store, work().registry, workers=1, job_timeout=99) as dispatcher:
            await submit(dispatcher, "sleep", 50, id="a", session="s")
            await submit(dispatcher, "nothing", id="b", session="s")
            await trio.sleep_forever()
    assert [job.accepted.id for job in store.recover().live] == ["a", "b"]
