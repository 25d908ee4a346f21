"""Small scenes with a store, for defects that the machine cannot meet."""

import time
from collections.abc import Sequence

import trio

import csjd
from csjd import Config, Job, Registry, Retry
from csjd.stores import Accepted, DueKind, Operation, Started
from csjd.testing import run_virtual
from csjd.testing.stores import MemoryJobStore
from csjd.testing.worlds import SlowStore


def _crashed(store: MemoryJobStore) -> MemoryJobStore:
    """Return what the next process finds once this one has died."""
    return MemoryJobStore(model=store.model.copy(), clean=False)


def _registry(*types: str) -> Registry:
    registry = Registry()

    async def handle(job: Job) -> None:
        await trio.lowlevel.checkpoint()
        if job.payload is not None:
            raise OSError(job.payload)

    for each in types:
        registry.register(each, handle, retry=Retry(min_delay=50, max_delay=50, jitter=0))
    return registry


async def handler_comes_later() -> None:
    """Jobs of a type without a handler wait for one: a rolling deploy destroys nothing."""
    store = MemoryJobStore()
    for types in (["old", "new"], ["old"], ["old", "new"]):
        async with (
            trio.open_nursery() as nursery,
            csjd.open_dispatcher(nursery, registry=_registry(*types), store=store) as dispatcher,
        ):
            if not store.batches:
                await dispatcher.submit(Job(type="new", id="precious"), delay=1)
            await trio.sleep(0 if len(types) > 1 else 100)
        owed = [each.accepted.id for each in store.model.live.values()]
        assert owed == ["precious"] or len(types) > 1, owed
    assert not store.model.dead, store.model.dead


async def back_off_ends_in_time() -> None:
    """A job that waits for its next attempt when the process dies waits no longer than that."""
    store = MemoryJobStore()
    async with trio.open_nursery() as nursery:
        config = Config(stop_grace=0)
        registry = _registry("do")
        async with csjd.open_dispatcher(nursery, config, registry=registry, store=store) as first:
            await first.submit(Job(type="do", id="j", payload="no"))
            await trio.sleep(10)
            left = _crashed(store)
            began = trio.current_time()
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, registry=_registry("do"), store=left) as second,
    ):
        assert second.metrics().scheduled == 1, second.metrics()
        await trio.sleep_until(began + 39)
        assert second.metrics().retries == 0, second.metrics()
        await trio.sleep_until(began + 41)
        assert second.metrics().retries == 1, second.metrics()


async def cancelled_while_its_place_is_written() -> None:
    """A delayed job that is cancelled when it has just fallen due leaves nothing behind."""
    store = MemoryJobStore()
    slow = SlowStore(store, seconds=1.0)
    async with (
        trio.open_nursery() as outer,
        csjd.open_dispatcher(outer, registry=_registry("do"), store=slow) as dispatcher,
        trio.open_nursery() as nursery,
    ):
        await dispatcher.submit(Job(type="do", id="delayed"), delay=2)
        await trio.sleep_until(1.9)
        nursery.start_soon(dispatcher.submit, Job(type="do", id="other"))
        await trio.sleep_until(2.1)  # the other is being written, the delayed one fell due
        assert dispatcher.cancel("delayed")
        await trio.sleep(10)
    assert not store.model.live, store.model.live


async def slow_disk_lets_its_callers_go() -> None:
    """A cancelled submit that is being written is held back for the grace and no longer."""
    slow = SlowStore(MemoryJobStore(), seconds=100.0)
    config = Config(commit_grace=5)
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, config, registry=_registry("do"), store=slow) as dispatcher,
    ):
        began = trio.current_time()
        with trio.move_on_after(1):
            await dispatcher.submit(Job(type="do"))
        assert trio.current_time() - began == 6, trio.current_time() - began


async def interrupted_is_not_crashed() -> None:
    """A job that a stop had put back when the process died has not killed it."""
    store = MemoryJobStore()
    config = Config(stop_grace=0, job_timeout=1000, duplicate_window=100)
    registry = _registry("do")

    @registry.handler("hang")
    async def hang(job: Job) -> None:
        await trio.sleep_forever()

    for life in range(3):
        async with (
            trio.open_nursery() as nursery,
            csjd.open_dispatcher(nursery, config, registry=registry, store=store) as dispatcher,
        ):
            if not life:
                await dispatcher.submit(Job(type="hang"))
            await trio.sleep(1)
            await dispatcher.stop(grace=0)
            await trio.sleep(10)
            left = _crashed(store)
        store = left
    store.recover()
    assert [each.crashes for each in store.model.live.values()] == [0], store.model.live


async def ended_id_is_refused_over_a_crash() -> None:
    """The duplicate window survives, and the next dispatcher knows of it."""
    store = MemoryJobStore()
    config = Config(duplicate_window=100)
    async with trio.open_nursery() as nursery:
        async with csjd.open_dispatcher(
            nursery, config, registry=_registry("do"), store=store
        ) as first:
            await first.submit(Job(type="do", id="once"))
            await trio.sleep(10)
            left = _crashed(store)
        async with csjd.open_dispatcher(
            nursery, config, registry=_registry("do"), store=left
        ) as second:
            refused = False
            try:
                await second.submit(Job(type="do", id="once"))
            except csjd.DuplicateJobError:
                refused = True
            assert refused, "the same id twice"


async def nothing_begins_after_a_failure() -> None:
    """What waits behind a running handler when the store fails does not begin any more."""
    faults = [None, None, csjd.JobStoreError("memory", "gone")]
    store = MemoryJobStore(faults=iter(faults))
    begun: list[str] = []
    registry = Registry()

    @registry.handler("slow")
    async def slow(job: Job) -> None:
        begun.append(job.id)
        await trio.sleep(5)

    try:
        async with trio.open_nursery() as nursery:
            config = Config(workers=1)
            async with csjd.open_dispatcher(
                nursery, config, registry=registry, store=store
            ) as dispatcher:
                await dispatcher.submit(Job(type="slow", id="runs"))
                await dispatcher.submit(Job(type="slow", id="waits"))
                try:
                    await dispatcher.submit(Job(type="slow", id="unknown"))
                except csjd.JobStoreError:
                    await trio.sleep(20)
    except* csjd.JobStoreError:
        pass
    assert begun == ["runs"], begun


async def discarded_letter_is_gone() -> None:
    """A discard that has returned is known to the store."""
    store = MemoryJobStore()
    slow = SlowStore(store, seconds=1.0)
    registry = Registry()
    registry.register("bad", _fail)

    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, registry=registry, store=slow) as dispatcher,
    ):
        await dispatcher.submit(Job(type="bad", id="letter"))
        await trio.sleep(10)
        assert len(store.model.dead) == 1, store.model.dead
        await dispatcher.discard("letter")
        assert not store.model.dead, store.model.dead


async def what_waits_is_known_with_its_reason() -> None:
    """The store knows of each job that waits: since how many attempts, until when, and why."""
    store = MemoryJobStore()
    registry = _registry("do")

    @registry.handler("later")
    async def later(job: Job) -> None:  # noqa: ASYNC124  a handler
        raise csjd.Snooze(70)

    async with trio.open_nursery() as nursery:
        config = Config(stop_grace=0)
        async with csjd.open_dispatcher(
            nursery, config, registry=registry, store=store
        ) as dispatcher:
            await dispatcher.submit(Job(type="do", id="delayed"), delay=90)
            await dispatcher.submit(Job(type="do", id="failed", payload="no"))
            await dispatcher.submit(Job(type="later", id="snoozing"))
            await trio.sleep(1)
            told = {
                live.accepted.id: (live.attempts, round((live.due or 0.0) - 1e9), live.kind)
                for live in _crashed(store).recover().live
            }
    assert told == {
        "delayed": (0, 90, DueKind.DELAY),
        "failed": (1, 50, DueKind.BACKOFF),
        "snoozing": (0, 70, DueKind.SNOOZE),
    }, told


async def halted_session_waits_for_its_resume_and_no_longer() -> None:
    """A session that a failure has halted is halted in the next process, until it is resumed."""
    registry = _registry("do")
    registry.register("bad", _fail, on_failure="halt")
    store = MemoryJobStore()
    for halted in (False, True, False):
        async with trio.open_nursery() as nursery:
            config = Config(stop_grace=0)
            async with csjd.open_dispatcher(
                nursery, config, registry=registry, store=store
            ) as dispatcher:
                info = dispatcher.session_info("s")
                assert (info is not None and info.halted) == halted, info
                if halted:
                    dispatcher.resume(session="s")
                elif info is None and not store.model.dead:
                    await dispatcher.submit(Job(type="bad", session="s"))
                    await dispatcher.submit(Job(type="do", session="s"))
                await trio.sleep(10)
                left = _crashed(store)
        store = left
    assert not store.model.live, store.model.live


async def _fail(job: Job) -> None:  # noqa: ASYNC124  a handler
    raise csjd.PermanentError("no")


async def cancellation_is_durable_when_it_is_reported() -> None:
    """Whoever awaits the outcome of a job that is cancelled is not told too early."""
    store = MemoryJobStore()
    slow = SlowStore(store, seconds=1.0)
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, registry=_registry("do"), store=slow) as dispatcher,
    ):
        receipt = await dispatcher.submit(Job(type="do"), delay=100)
        assert receipt.cancel()
        await receipt.outcome()
        assert not store.model.live, store.model.live


async def leaving_writes_what_has_gathered() -> None:
    """The end of a handler that outlives even the stop is written."""
    store = MemoryJobStore()
    registry = Registry()

    @registry.handler("deaf")
    async def deaf(job: Job) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)

    config = Config(stop_grace=0, detach_grace=1)
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, config, registry=registry, store=store) as dispatcher,
    ):
        await dispatcher.submit(Job(type="deaf"))
        await trio.sleep(1)
    assert not store.model.live, store.model.live


async def full_disk_keeps_ends() -> None:
    """What ended while the disk was full is written when there is room again."""
    full = csjd.JobStoreFullError("memory", "no room")
    store = MemoryJobStore(faults=iter([None, full, full, full]))
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, registry=_registry("do"), store=store) as dispatcher,
    ):
        await (await dispatcher.submit(Job(type="do"))).outcome()
        try:
            await dispatcher.submit(Job(type="do"))
        except csjd.JobStoreFullError:
            await trio.sleep(10)
        assert not store.model.live, store.model.live


async def _left_by_a_crash(*ids: str) -> MemoryJobStore:
    """Return a store with jobs that nobody has begun, and that nobody closed."""
    store = MemoryJobStore()
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, Config(stop_grace=0), registry=_registry("do"), store=store
        ) as dispatcher,
    ):
        dispatcher.pause()
        for each in ids:
            await dispatcher.submit(Job(type="do", id=each, session="s"))
        left = _crashed(store)
    return left


async def suspects_start_when_the_store_knows_and_in_order() -> None:
    """After a crash a start is written before its handler runs; the order is the old one."""
    store = await _left_by_a_crash("a", "b", "c")
    begun: list[str] = []
    registry = Registry()

    @registry.handler("do")
    async def do(job: Job) -> None:  # noqa: ASYNC124  a handler
        order = next(live.order for live in store.model.live.values() if live.accepted.id == job.id)
        told = [each for batch in store.batches for each in batch if isinstance(each, Started)]
        assert order in [each.order for each in told], f"{job.id} runs and the store has no idea"
        begun.append(job.id)

    config = Config(workers=1, retry=Retry(max_attempts=1))
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, config, registry=registry, store=store) as dispatcher,
    ):
        await trio.sleep(1)
        assert not await dispatcher.dead_letters(), await dispatcher.dead_letters()
    assert begun == ["a", "b", "c"], begun


async def job_that_kills_its_process_dies() -> None:
    """After `max_crashes` a job is a dead letter, in the store too."""
    registry = Registry()

    @registry.handler("hang")
    async def hang(job: Job) -> None:
        await trio.sleep_forever()

    store = MemoryJobStore()
    for life in range(5):
        async with trio.open_nursery() as nursery:
            config = Config(stop_grace=0, job_timeout=1000, max_crashes=2)
            async with csjd.open_dispatcher(
                nursery, config, registry=registry, store=store
            ) as dispatcher:
                if not life:
                    await dispatcher.submit(Job(type="hang"))
                await trio.sleep(1)
                left = _crashed(store)
        store = left
    assert not store.model.live, store.model.live
    assert len(store.model.dead) == 1, store.model.dead


async def full_disk_refuses_and_keeps_nothing() -> None:
    """A submit that a full disk refuses changes nothing: its id and its room are free."""
    full = csjd.JobStoreFullError("memory", "no room")
    store = MemoryJobStore(faults=iter([full]))
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, Config(max_pending=1), registry=_registry("do"), store=store
        ) as dispatcher,
    ):
        refused = False
        try:
            await dispatcher.submit(Job(type="do", id="again"))
        except csjd.JobStoreFullError:
            refused = True
        assert refused, "accepted by a full disk"
        assert dispatcher.metrics().live == 0, dispatcher.metrics()
        await dispatcher.submit(Job(type="do", id="again"))


class _Synced(MemoryJobStore):
    """A store that knows which of its commits had to survive a loss of power."""

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> None:
        accepts = any(isinstance(each, Accepted) for each in operations)
        assert sync or not accepts, "acknowledged what the power can take"
        super().commit(operations, sync=sync)


async def acknowledged_survives_the_power() -> None:
    """What a submit waits for is synced."""
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, registry=_registry("do"), store=_Synced()) as dispatcher,
    ):
        await dispatcher.submit(Job(type="do"))


SCENES = [
    suspects_start_when_the_store_knows_and_in_order,
    job_that_kills_its_process_dies,
    full_disk_refuses_and_keeps_nothing,
    acknowledged_survives_the_power,
    what_waits_is_known_with_its_reason,
    halted_session_waits_for_its_resume_and_no_longer,
    cancellation_is_durable_when_it_is_reported,
    leaving_writes_what_has_gathered,
    full_disk_keeps_ends,
    discarded_letter_is_gone,
    nothing_begins_after_a_failure,
    interrupted_is_not_crashed,
    ended_id_is_refused_over_a_crash,
    handler_comes_later,
    back_off_ends_in_time,
    cancelled_while_its_place_is_written,
    slow_disk_lets_its_callers_go,
]


def play(scene: int) -> None:
    """Play one of `SCENES`; one that would never end fails after a virtual hour."""

    async def bounded() -> None:
        clock = trio.lowlevel.current_clock()
        told, time.time = time.time, lambda: 1e9 + clock.current_time()
        try:
            with trio.fail_after(3600):
                await SCENES[scene]()
        finally:
            time.time = told

    run_virtual(bounded)
