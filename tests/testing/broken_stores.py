"""
A sound store; and what stores get wrong, one thing each, with the tests that must find it.

They keep a log of encoded batches on a `Disk`, and sum it up when they are opened.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import msgspec

from csjd import JobStoreClosedError, JobStoreLockedError
from csjd.stores import (
    Accepted,
    DeadLettered,
    Ended,
    Halted,
    Operation,
    Quarantined,
    Recovery,
    StoreStatistics,
)
from csjd.testing.stores import StoreModel

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[Operation])

OPENED, CLOSED, CLOSED_AS_FOUND = "opened", "closed", "closed as found"


@attrs.define(eq=False)
class Disk:
    """What outlives the instances of a store."""

    log: list[bytes | str] = attrs.field(factory=list)
    owner: object = None


class LogStore:
    """A sound store. Broken ones change one of its methods."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.open = False
        self.numbers = StoreStatistics()

    def recover(self) -> Recovery:
        if self.disk.owner is not None:
            raise JobStoreLockedError("log", "locked", "somebody")
        self.disk.owner = self
        self.open = True
        self.disk.log.append(OPENED)
        return self.told(self.sum_up())

    def sum_up(self) -> Recovery:
        model, clean, found_clean = StoreModel(), True, True
        for entry in self.disk.log:
            if isinstance(entry, bytes):
                model.apply(_decoder.decode(entry))
            elif entry == OPENED:
                found_clean, clean = clean, False
                model.opened(clean=found_clean)
            else:
                clean = entry == CLOSED or found_clean
        return model.recovery(clean=found_clean)

    def told(self, recovery: Recovery) -> Recovery:
        return recovery

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> None:
        if not self.open:
            raise JobStoreClosedError("log", "it is not open")
        self.keep(operations)
        self.numbers = attrs.evolve(
            self.numbers,
            commits=self.numbers.commits + 1,
            operations=self.numbers.operations + len(operations),
        )

    def keep(self, operations: Sequence[Operation]) -> None:
        self.disk.log.append(_encoder.encode(self.written(operations)))

    def written(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        return operations

    def maintain(self) -> None:
        pass

    def close(self) -> None:
        self.leave(CLOSED)

    def close_as_found(self) -> None:
        self.leave(CLOSED_AS_FOUND)

    def die(self) -> None:
        self.leave(None)

    def leave(self, entry: str | None) -> None:
        if self.open:
            self.open = False
            self.disk.owner = None
            if entry is not None:
                self.disk.log.append(entry)

    def statistics(self) -> StoreStatistics:
        return self.numbers


@attrs.frozen
class Broken:
    """A store that is not sound, and the tests of the suite that must find it so."""

    store: type[LogStore]
    caught_by: tuple[str, ...]


BROKEN: Final[dict[str, Broken]] = {}
"""By what is wrong with each."""


def broken(wrong: str, *caught_by: str) -> Callable[[type[LogStore]], type[LogStore]]:
    def keep(store: type[LogStore]) -> type[LogStore]:
        BROKEN[wrong] = Broken(store, tuple(f"test_{name}" for name in caught_by))
        return store

    return keep


# --- what is written of a batch --------------------------------------------------------


def _writes(
    wrong: str, caught_by: str, change: Callable[[Sequence[Operation]], Sequence[Operation]]
) -> None:
    class Writes(LogStore):
        def written(self, operations: Sequence[Operation]) -> Sequence[Operation]:
            return change(operations)

    broken(wrong, caught_by)(Writes)


def _changes(
    wrong: str, caught_by: str, kind: type[Any], /, **changes: Callable[[Any], Any]
) -> None:
    """Have fields of one kind of operation written as *changes* make them, if they are set."""

    def changed(operation: Any) -> Any:
        if not isinstance(operation, kind):
            return operation
        values = {name: getattr(operation, name) for name in changes}
        new = {name: changes[name](value) for name, value in values.items() if value is not None}
        return msgspec.structs.replace(operation, **new)

    _writes(wrong, caught_by, lambda operations: [changed(each) for each in operations])


def _within(low: int, high: int) -> Callable[[int], int]:
    """Clamp, but leave to the encoder what no store can take."""
    return lambda value: max(low, min(value, high)) if -(1 << 64) < value < 1 << 64 else value


_FIELDS: Final = "jobs_come_back_in_order_with_every_field"
_changes("run_at lost", _FIELDS, Accepted, run_at=lambda value: None)
_changes("microseconds lost", _FIELDS, Accepted, created_at=lambda at: at.replace(microsecond=0))
_changes("endless timeout lost", _FIELDS, Accepted, timeout=lambda value: None)

_LARGE: Final = "payload_of_megabytes_comes_back_whole"
_changes("payload cut at 65,535 bytes", _LARGE, Accepted, payload=lambda value: value[:65_535])
_changes("metadata cut at 65,535 bytes", _LARGE, Accepted, metadata=lambda value: value[:65_535])

_ERROR: Final = "error_text_comes_back_whole"
_changes("error cut at 255 characters", _ERROR, DeadLettered, error=lambda text: text[:255])
_changes("error ends at its first NUL", _ERROR, DeadLettered, error=lambda s: s.split("\0")[0])

_LONG: Final = "longest_names_come_back_whole"
_changes("id cut at 64 characters", _LONG, Accepted, id=lambda name: name[:64])
_changes("type cut at 64 characters", _LONG, Accepted, type=lambda name: name[:64])
_changes("session cut at 64 characters", _LONG, Accepted, session=lambda name: name[:64])
_changes("halted session cut at 64", _LONG, Halted, session=lambda name: name[:64])

_NUMBERS: Final = "numbers_of_64_bits_come_back"
_changes("32-bit priority", _NUMBERS, Accepted, priority=_within(-(1 << 31), (1 << 31) - 1))
_changes("signed priority", _NUMBERS, Accepted, priority=_within(-(1 << 63), (1 << 63) - 1))
_changes("32-bit order", _NUMBERS, Accepted, order=lambda order: order & 0xFFFF_FFFF)

_changes("ids without spaces at the end", "ids_that_differ_stay_apart", Accepted, id=str.rstrip)
_changes("types in lower case", "types_that_differ_stay_apart", Accepted, type=str.lower)
_SESSIONS: Final = "sessions_that_differ_stay_apart"
_changes("sessions in lower case", _SESSIONS, Accepted, session=str.lower)
_changes("halted sessions in lower case", _SESSIONS, Halted, session=str.lower)

_writes("batches cut at 50", "batch_of_thousands_is_kept_whole", lambda batch: batch[:50])
_writes(
    "halts forgotten",
    "random_histories_add_up",
    lambda batch: [each for each in batch if not isinstance(each, Halted)],
)
_changes("ended ids forgotten", "random_histories_add_up", Ended, remembered_until=lambda at: 0.0)


@broken("jobs of a batch that was refused kept", "unwritable_batch_is_refused_whole")
class KeepsHalf(LogStore):
    def keep(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            super().keep([operation])


@broken("unsynced batches dropped by close", "random_histories_add_up")
class DropsUnsynced(LogStore):
    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.waiting: list[Operation] = []

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> None:
        if sync:
            super().commit([*self.waiting, *operations])
            self.waiting = []
        else:
            self.waiting += operations


@broken("unsynced batches kept in the process", "unsynced_commit_outlives_the_process")
class KeepsUnsynced(DropsUnsynced):
    def close(self) -> None:
        if self.waiting:
            super().commit([])
        super().close()


# --- what is told of what was kept -----------------------------------------------------


def _tells(wrong: str, *caught_by: str) -> Callable[[Callable[[Recovery], Recovery]], object]:
    def keep(change: Callable[[Recovery], Recovery]) -> object:
        class Tells(LogStore):
            def told(self, recovery: Recovery) -> Recovery:
                return change(recovery)

        return broken(wrong, *caught_by)(Tells)

    return keep


@_tells("never clean", "clean_close_is_told", "new_store_is_empty_and_clean")
def never_clean(recovery: Recovery) -> Recovery:
    return attrs.evolve(recovery, clean=False)


@_tells("always clean", "unclean_end_is_told", "store_closed_as_found_is_not_clean")
def always_clean(recovery: Recovery) -> Recovery:
    return attrs.evolve(recovery, clean=True)


def _with_jobs(recovery: Recovery, **changes: Any) -> Recovery:
    live = [msgspec.structs.replace(job, **changes) for job in recovery.live]
    return attrs.evolve(recovery, live=live)


@_tells("crashes not counted", "crash_is_counted_of_what_was_running", "counted_crashes_stay")
def no_crashes(recovery: Recovery) -> Recovery:
    return _with_jobs(recovery, crashes=0)


@_tells("a crash for every job", "crash_is_counted_of_what_was_running")
def crashes_for_all(recovery: Recovery) -> Recovery:
    return recovery if recovery.clean else _with_jobs(recovery, crashes=1)


@_tells("crashes forgotten once clean", "counted_crashes_stay")
def crashes_until_clean(recovery: Recovery) -> Recovery:
    return _with_jobs(recovery, crashes=0) if recovery.clean else recovery


@_tells("dead letters without their crashes", "counted_crashes_stay")
def letters_without_crashes(recovery: Recovery) -> Recovery:
    letters = [msgspec.structs.replace(each, crashes=0) for each in recovery.dead_letters]
    return attrs.evolve(recovery, dead_letters=letters)


@_tells("jobs in order of their ids", _FIELDS)
def jobs_by_id(recovery: Recovery) -> Recovery:
    return attrs.evolve(recovery, live=sorted(recovery.live, key=lambda job: job.accepted.id))


@_tells(
    "dead letters in order of acceptance",
    "dead_letters_come_back_in_the_order_in_which_they_died",
)
def letters_by_order(recovery: Recovery) -> Recovery:
    letters = sorted(recovery.dead_letters, key=lambda letter: letter.order)
    return attrs.evolve(recovery, dead_letters=letters)


@_tells("one job for each id", "id_of_an_ended_job_may_be_used_again")
def jobs_by_their_ids(recovery: Recovery) -> Recovery:
    taken = {letter.accepted.id for letter in recovery.dead_letters}
    live = [job for job in recovery.live if job.accepted.id not in taken]
    return attrs.evolve(recovery, live=live)


@_tells(
    "next_order above what lives",
    "orders_of_ended_jobs_are_not_given_again_while_others_live",
    "random_histories_add_up",
)
def next_order_above_the_living(recovery: Recovery) -> Recovery:
    if not recovery.live:
        return recovery
    return attrs.evolve(recovery, next_order=max(job.order for job in recovery.live) + 1)


@_tells(
    "next_order above what lives or died",
    "orders_of_ended_jobs_are_not_given_again_while_others_live",
    "random_histories_add_up",
)
def next_order_above_all_there_is(recovery: Recovery) -> Recovery:
    orders = [job.order for job in recovery.live]
    orders += [letter.order for letter in recovery.dead_letters]
    return attrs.evolve(recovery, next_order=max(orders) + 1) if orders else recovery


@_tells("next_order 1 once nothing is left", "orders_are_never_given_again")
def next_order_anew(recovery: Recovery) -> Recovery:
    return recovery if recovery.live else attrs.evolve(recovery, next_order=1)


@_tells("quarantine made up", "sound_records_are_not_quarantined")
def made_up_quarantine(recovery: Recovery) -> Recovery:
    letters = [Quarantined("odd", b"", each.accepted.session) for each in recovery.dead_letters]
    return attrs.evolve(recovery, quarantined=letters)


# --- who has it ------------------------------------------------------------------------


@broken("no lock", "second_owner_is_refused")
class Unlocked(LogStore):
    def recover(self) -> Recovery:
        self.disk.owner = None
        return super().recover()


@broken("lock freed by whom it kept out", "refused_instance_does_not_free_the_lock")
class Frees(LogStore):
    def close(self) -> None:
        self.disk.owner = None
        super().close()


@broken("opened by a commit", "store_refuses_before_it_is_opened")
class OpensItself(LogStore):
    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> None:
        if self.disk.owner is None and not self.disk.log:
            self.keep(operations)
        else:
            super().commit(operations, sync=sync)


@broken("commits after close", "closed_store_refuses_and_closes_again")
class NeverShut(LogStore):
    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> None:
        if CLOSED in self.disk.log:
            self.keep(operations)
        else:
            super().commit(operations, sync=sync)


@broken("second close raises", "closed_store_refuses_and_closes_again")
class ClosesOnce(LogStore):
    def close(self) -> None:
        if not self.open:
            raise JobStoreClosedError("log", "it is closed")
        super().close()


@broken("bound to the thread that opened it", "any_thread_may_call")
class ThreadBound(LogStore):
    def recover(self) -> Recovery:
        self.thread = threading.current_thread()
        return super().recover()

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> None:
        if self.open and threading.current_thread() is not self.thread:
            raise RuntimeError("wrong thread")
        super().commit(operations, sync=sync)


@broken("what was running at a clean close counted as crashed", "clean_close_is_told")
class CountsAll(LogStore):
    def sum_up(self) -> Recovery:
        log, self.disk.log = self.disk.log, [each for each in self.disk.log if each != CLOSED]
        recovery = super().sum_up()
        self.disk.log = log
        return attrs.evolve(recovery, clean=CLOSED in log or len(log) == 1)


@broken("closed as found means clean", "store_closed_as_found_is_not_clean")
class ClosesClean(LogStore):
    def close_as_found(self) -> None:
        self.close()


@broken("batches counted as operations", "statistics_count")
class CountsBatches(LogStore):
    def statistics(self) -> StoreStatistics:
        return attrs.evolve(self.numbers, operations=self.numbers.commits)
