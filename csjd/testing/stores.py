"""
For whoever writes a `JobStore`: a suite that holds it to the protocol, and a plain model.

    class TestMyStore(JobStoreSuite):
        def open_store(self) -> JobStore:
            return MyStore(self.path)

        @pytest.fixture(autouse=True)
        def _path(self, tmp_path: Path) -> None:
            self.path = tmp_path / "store"
"""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from csjd._model.errors import JobStoreClosedError, JobStoreLockedError
from csjd._model.storing import (
    Accepted,
    DeadLetter,
    DeadLettered,
    DeathReason,
    Discarded,
    DueKind,
    Ended,
    Halted,
    Interrupted,
    JobStore,
    LiveJob,
    Operation,
    Placed,
    Postponed,
    Recovery,
    Requeued,
    Resumed,
    Started,
    StoreStatistics,
)

_CREATED: Final = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)

Summary: TypeAlias = tuple[Any, ...]
"""All that a recovery must get right, comparable with `==`."""


def summarize(recovery: Recovery) -> Summary:
    """Return what of a recovery must not depend on the store."""
    return (
        tuple(recovery.live),
        tuple(sorted(recovery.remembered.items())),
        tuple(recovery.dead_letters),
        tuple(sorted(recovery.halted)),
        recovery.next_order,
    )


@attrs.define(eq=False)
class StoreModel:
    """
    What operations add up to, as plainly as it can be said.

    Written apart from any store, to hold stores against. It takes operations that refer
    to what exists, and fails with a `KeyError` on others.
    """

    live: dict[int, LiveJob] = attrs.field(factory=dict)
    dead: dict[int, DeadLetter] = attrs.field(factory=dict)
    remembered: dict[str, float] = attrs.field(factory=dict)
    halted: set[str] = attrs.field(factory=set)
    next_order: int = 1

    def copy(self) -> "StoreModel":
        """Return another that is the same now."""
        return StoreModel(
            dict(self.live),
            dict(self.dead),
            dict(self.remembered),
            set(self.halted),
            self.next_order,
        )

    def apply(self, operations: Sequence[Operation]) -> None:
        """Let a batch take effect."""
        for operation in operations:
            self._apply(operation)

    def _apply(self, operation: Operation) -> None:
        match operation:
            case Accepted(order=order, due=due):
                self._new_order(order)
                self.live[order] = LiveJob(operation, due=due)
            case Started(order=order):
                self._change(order, started=True, due=None)
            case Interrupted(order=order):
                self._change(order, started=False)
            case Postponed(order=order, attempts=attempts, due=due, kind=kind):
                self._change(order, attempts=attempts, due=due, kind=kind, started=False)
            case Placed(order=order, new_order=new_order):
                self._new_order(new_order)
                job = self.live.pop(order)
                self.live[new_order] = msgspec.structs.replace(
                    job,
                    accepted=msgspec.structs.replace(job.accepted, order=new_order),
                    due=None,
                    started=False,
                )
            case Ended(order=order, remembered_until=until):
                self._remember(self.live.pop(order).accepted.id, until)
            case DeadLettered(order=order, attempts=attempts, reason=reason, error=error, at=at):
                job = self.live.pop(order)
                self.dead[order] = DeadLetter(
                    job.accepted, attempts, job.crashes, reason, error, at
                )
                self._remember(job.accepted.id, operation.remembered_until)
            case Requeued(order=order, new_order=new_order):
                self._new_order(new_order)
                accepted = self.dead.pop(order).accepted
                self.live[new_order] = LiveJob(
                    msgspec.structs.replace(accepted, order=new_order, due=None)
                )
            case Discarded(order=order):
                del self.dead[order]
            case Halted(session=session):
                self.halted.add(session)
            case Resumed(session=session):
                self.halted.discard(session)

    def opened(self, *, clean: bool) -> None:
        """Let the owner's end take effect: nothing runs, and unless *clean* it crashed."""
        for order, job in self.live.items():
            if job.started:
                crashes = job.crashes if clean else job.crashes + 1
                self.live[order] = msgspec.structs.replace(job, started=False, crashes=crashes)

    def recovery(self, *, clean: bool = True) -> Recovery:
        """Return what a store that was told the same would tell."""
        return Recovery(
            live=[self.live[order] for order in sorted(self.live)],
            remembered=dict(self.remembered),
            dead_letters=list(self.dead.values()),
            halted=frozenset(self.halted),
            quarantined=[],
            next_order=self.next_order,
            clean=clean,
        )

    def _new_order(self, order: int) -> None:
        if order < self.next_order:
            raise KeyError(order)
        self.next_order = order + 1

    def _change(self, order: int, **changes: Any) -> None:
        self.live[order] = msgspec.structs.replace(self.live[order], **changes)

    def _remember(self, id: str, until: float) -> None:
        self.remembered.pop(id, None)
        if until > 0:
            self.remembered[id] = until


class MemoryJobStore:
    """
    A `JobStore` that survives only its own `close`: for tests of what uses one.

    Args:
        faults: Raised by the next commits in turn; None lets one pass.
        model: What is in it.
        clean: Whether its last owner closed it.
    """

    def __init__(
        self,
        *,
        faults: Iterator[Exception | None] | None = None,
        model: StoreModel | None = None,
        clean: bool = True,
    ) -> None:
        self.model: StoreModel = StoreModel() if model is None else model
        self.batches: list[tuple[Operation, ...]] = []
        """Every batch committed, oldest first."""
        self._faults = faults
        self._open = False
        self._clean = clean
        self._statistics = StoreStatistics()

    @property
    def is_clean(self) -> bool:
        """Whether its last owner, if it had any, has closed it."""
        return self._clean

    def recover(self) -> Recovery:
        """Open the store, and tell everything in it."""
        if self._open:
            raise JobStoreLockedError("memory", "locked", "this process")
        self.model.opened(clean=self._clean)
        recovery = self.model.recovery(clean=self._clean)
        self._open, self._clean = True, False
        return recovery

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> None:
        """Keep a batch of operations."""
        self._check_open()
        fault = None if self._faults is None else next(self._faults, None)
        if fault is not None:
            raise fault
        msgspec.msgpack.encode(operations)  # refuse what other stores could not carry
        changed = self.model.copy()
        changed.apply(operations)
        self.model = changed
        self.batches.append(tuple(operations))
        self._statistics = attrs.evolve(
            self._statistics,
            commits=self._statistics.commits + 1,
            operations=self._statistics.operations + len(operations),
            syncs=self._statistics.syncs + sync,
        )

    def maintain(self) -> None:
        """Do nothing."""
        self._check_open()

    def crash(self) -> None:
        """Let its owner die."""
        self._open = False

    def close(self) -> None:
        """Give the store up, clean."""
        if self._open:
            self._open, self._clean = False, True

    def statistics(self) -> StoreStatistics:
        """Return the store's numbers at this moment."""
        return self._statistics

    def _check_open(self) -> None:
        if not self._open:
            raise JobStoreClosedError("memory", "it is closed")


# --- something to store ----------------------------------------------------------------


def accepted(order: int, **changes: Any) -> Accepted:
    """Return an `Accepted` for tests."""
    fields: dict[str, Any] = {
        "id": f"job-{order}",
        "type": "email",
        "payload": b"\x81\xa2to\xa5you@x",
        "created_at": _CREATED,
    }
    return Accepted(order=order, **(fields | changes))


def random_batch(model: StoreModel, rng: random.Random, *, now: float = 1e9) -> list[Operation]:
    """
    Return one to five operations that make sense after what *model* was told, and tell it.

    Args:
        model: Changed.
        rng: Where all choices come from.
        now: Wall-clock seconds that due times and duplicate windows are around.
    """
    batch: list[Operation] = []
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        operation = _random_operation(model, rng, now)
        model.apply([operation])
        batch.append(operation)
    return batch


def _random_operation(model: StoreModel, rng: random.Random, now: float) -> Operation:
    if not model.live or rng.random() < 0.45:
        return _random_accepted(model, rng, now)
    order = rng.choice(sorted(model.live))
    until = rng.choice((0.0, now + rng.randrange(1, 1000)))
    kind = rng.randrange(11)
    if kind <= 2:
        return Ended(order, until)
    if kind == 3:
        return Started(order)
    if kind == 4:
        return Interrupted(order)
    if kind <= 6:
        attempts = model.live[order].attempts + rng.randrange(2)
        return Postponed(order, attempts, now + rng.random(), rng.choice((*DueKind,)))
    if kind == 7:
        return Placed(order, model.next_order + rng.randrange(3))
    if kind == 8:
        reason = rng.choice((*DeathReason,))
        return DeadLettered(order, rng.randrange(4), reason, "ValueError: no", now, until)
    if kind == 9 and model.dead:
        letter = rng.choice(sorted(model.dead))
        return rng.choice((Discarded(letter), Requeued(letter, model.next_order)))
    return rng.choice((Halted, Resumed))(f"s{rng.randrange(3)}")


def _random_accepted(model: StoreModel, rng: random.Random, now: float) -> Accepted:
    order = model.next_order + rng.choice((0, 0, 0, 2))
    return accepted(
        order,
        payload=rng.randbytes(rng.choice((0, 3, 20, 60))),
        session=rng.choice((None, "s0", "s1", "sessión")),
        priority=rng.choice((0, 0, 5, -1)),
        due=rng.choice((None, None, now + 7.5)),
        timeout=rng.choice((None, float("inf"), 1.5)),
        metadata=rng.choice((b"", b"\x80")),
    )


# --- the suite -------------------------------------------------------------------------


class JobStoreSuite:
    """
    What every `JobStore` must do; subclass it in a test module, for pytest or by hand.

    Each test begins with an empty store; `open_store` is called again to reopen it.
    """

    def open_store(self) -> JobStore:
        """Return an instance, not recovered yet, on what this test's others left."""
        raise NotImplementedError

    def _reopened(self) -> tuple[JobStore, Recovery]:
        store = self.open_store()
        return store, store.recover()

    def test_new_store_is_empty_and_clean(self) -> None:
        """Nothing in it, and the first order is 1 or above."""
        store, recovery = self._reopened()
        store.close()
        assert summarize(recovery) == summarize(StoreModel().recovery())
        assert recovery.clean
        assert not recovery.quarantined

    def test_jobs_come_back_in_order_with_every_field(self) -> None:
        """Orders may have gaps; ids sort differently; every field survives."""
        first = accepted(
            1,
            id="zeta",
            session="s",
            priority=-3,
            due=2e9,
            run_at=_CREATED,
            max_attempts=7,
            timeout=float("inf"),
            metadata=b"\x80",
        )
        jobs = [first, accepted(5, id="mid"), accepted(6, id="alpha", payload=bytes(range(256)))]
        store, _ = self._reopened()
        store.commit(jobs[:1])
        store.commit(jobs[1:])
        store.close()
        store, recovery = self._reopened()
        store.close()
        assert [job.accepted for job in recovery.live] == jobs
        assert [job.due for job in recovery.live] == [2e9, None, None]
        assert recovery.next_order == 7

    def test_orders_are_never_given_again(self) -> None:
        """Not even when their jobs have ended and nothing else is left."""
        store, _ = self._reopened()
        store.commit([accepted(1), accepted(4)])
        store.commit([Ended(4), Ended(1)])
        store.maintain()
        store.close()
        store, recovery = self._reopened()
        store.close()
        assert not recovery.live
        assert recovery.next_order == 5

    def test_ids_that_differ_stay_apart(self) -> None:
        """Not even by case, normal form or trailing space are two ids the same."""
        ids = ["é", "e\u0301", "E\u0301", "a", "a ", "A", "\U0001f600", "0", "00"]
        store, _ = self._reopened()
        store.commit([accepted(n, id=name) for n, name in enumerate(ids, 1)])
        store.close()
        store, recovery = self._reopened()
        store.close()
        assert [job.accepted.id for job in recovery.live] == ids

    def test_random_histories_add_up(self) -> None:
        """Whatever was committed, reopening tells what the model says."""
        for seed in range(20):
            rng = random.Random(seed)
            self._tell_history(rng, f"seed {seed}: ")

    def _tell_history(self, rng: random.Random, label: str) -> None:
        store, recovery = self._reopened()
        now = 4e9  # in the future, so that no duplicate window ends during the test
        model = _model_of(recovery)
        for _ in range(rng.randrange(1, 15)):
            if rng.random() < 0.2:
                store.close()
                model.opened(clean=True)
                store, recovery = self._reopened()
                assert summarize(recovery) == summarize(model.recovery()), label
            if rng.random() < 0.2:
                store.maintain()
            store.commit(random_batch(model, rng, now=now), sync=rng.random() < 0.8)
        store.close()
        model.opened(clean=True)
        store, recovery = self._reopened()
        store.close()
        assert summarize(recovery) == summarize(model.recovery()), label

    def test_second_owner_is_refused(self) -> None:
        """One owner at a time; the next gets it when the first has closed it."""
        store, _ = self._reopened()
        try:
            self.open_store().recover()
        except JobStoreLockedError:
            pass
        else:
            raise AssertionError("two owners")
        store.commit([accepted(1)])
        store.close()
        store, recovery = self._reopened()
        store.close()
        assert len(recovery.live) == 1

    def test_closed_store_refuses_and_closes_again(self) -> None:
        """After close, commits raise and keep nothing; another close does nothing."""
        store, _ = self._reopened()
        store.close()
        store.close()
        try:
            store.commit([accepted(1)])
        except JobStoreClosedError:
            pass
        else:
            raise AssertionError("a closed store took a job")
        store, recovery = self._reopened()
        store.close()
        assert recovery.live == []

    def test_unwritable_batch_is_refused_whole(self) -> None:
        """What cannot be encoded raises, and nothing of its batch is kept."""
        store, _ = self._reopened()
        try:
            store.commit([accepted(1), accepted(2, priority=2**70)])
        except (OverflowError, TypeError, ValueError):
            pass
        else:
            raise AssertionError("an int that msgpack cannot carry was taken")
        store.commit([accepted(3)])
        store.close()
        store, recovery = self._reopened()
        store.close()
        assert [job.order for job in recovery.live] == [3]

    def test_statistics_count(self) -> None:
        """Commits and operations are counted."""
        store, _ = self._reopened()
        store.commit([accepted(1), accepted(2)])
        store.commit([Ended(1)])
        numbers = store.statistics()
        store.close()
        assert (numbers.commits, numbers.operations, numbers.failed) == (2, 3, False)


def _model_of(recovery: Recovery) -> StoreModel:
    """Return a model that begins where a recovery leaves off."""
    return StoreModel(
        {job.order: job for job in recovery.live},
        {letter.order: letter for letter in recovery.dead_letters},
        dict(recovery.remembered),
        set(recovery.halted),
        recovery.next_order,
    )
