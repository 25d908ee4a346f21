"""
Bugs that stores have had, planted into ours one at a time.

Each is a change of one named decision, and names the check of the short battery in
`tests/store/test_mutants.py` that must find it. One that survives means that the check
has become too weak.
"""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Final

import attrs
import pytest

from csjd._model.storing import Operation, Recovery
from csjd._store import (
    batches,
    compaction,
    file_store,
    framing,
    lock,
    recovery as recovering,
    replay,
    segment,
    snapshot,
    state,
    tail,
)
from csjd._store.batches import Broken, Footer
from csjd._store.file_store import FileJobStore
from csjd._store.framing import DamageError, Header, Record
from csjd._store.segment import NotMadeError, Segment
from csjd._store.state import State
from csjd._store.tail import Tail, TailState
from csjd.testing import simfs

Plant = Callable[[pytest.MonkeyPatch], None]


@attrs.frozen
class Mutant:
    """A planted bug, and the check of the battery that must find it."""

    plant: Plant
    killer: str


STORE_MUTANTS: Final[dict[str, Mutant]] = {}


def mutant(killer: str) -> Callable[[Plant], Plant]:
    def keep(plant: Plant) -> Plant:
        STORE_MUTANTS[plant.__name__] = Mutant(plant, f"check_{killer}")
        return plant

    return keep


class Proxy:
    """Something with some of its methods replaced."""

    def __init__(self, target: Any, **replaced: Any) -> None:
        self._target = target
        self.replace(**replaced)

    def replace(self, **replaced: Any) -> None:
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def nothing(*_: object, **__: object) -> None:
    """Do nothing."""


def without_file_sync(directory: Any) -> Any:
    """A directory whose new files ignore their first sync."""

    def create(name: str) -> Any:
        file = directory.create(name)
        proxy = Proxy(file)

        def first_sync() -> None:
            proxy.replace(sync=file.sync)

        proxy.replace(sync=first_sync)
        return proxy

    return Proxy(directory, create=create)


# --- acknowledging -----------------------------------------------------------------------


@mutant("full_disk")
def commit_does_not_sync(patch: pytest.MonkeyPatch) -> None:
    append = Segment.append

    def unsynced(self: Segment, kind: int, body: bytes, *, sync: bool, reserve: int = 0) -> None:
        append(self, kind, body, sync=False, reserve=reserve)

    patch.setattr(Segment, "append", unsynced)


@mutant("crash_states")
def sync_is_forgotten_but_believed(patch: pytest.MonkeyPatch) -> None:
    def sync(self: Segment) -> None:
        self.durable = self.number

    patch.setattr(Segment, "sync", sync)


@mutant("full_disk")
def write_through_is_a_mere_write(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(simfs._SimFile, "write_through", simfs._SimFile.write)


@mutant("crash_states")
def write_through_is_believed_to_sync_all(patch: pytest.MonkeyPatch) -> None:
    append = Segment.append

    def hasty(self: Segment, kind: int, body: bytes, *, sync: bool, reserve: int = 0) -> None:
        file = self._file
        self._file = Proxy(file, write=file.write_through) if sync else file
        append(self, kind, body, sync=False, reserve=reserve)
        self._file = file
        if sync:
            self.durable = self.number

    patch.setattr(Segment, "append", hasty)


@mutant("crash_states")
def records_claim_what_is_not_synced_yet(patch: pytest.MonkeyPatch) -> None:
    pack = framing.pack_record

    def early(number: int, durable: int, kind: int, body: bytes, **more: Any) -> bytes:
        return pack(number, number - 1, kind, body, **more)

    patch.setattr(segment, "pack_record", early)


@mutant("crash_states")
def seal_vouches_for_what_is_not_synced(patch: pytest.MonkeyPatch) -> None:
    seal = FileJobStore._seal

    def hasty(self: FileJobStore, opened: Any, **more: Any) -> None:
        opened.segment.durable = opened.segment.number
        seal(self, opened, **more)

    patch.setattr(FileJobStore, "_seal", hasty)


@mutant("crash_states")
def batch_is_written_in_pieces(patch: pytest.MonkeyPatch) -> None:
    commit = FileJobStore.commit

    def piecemeal(
        self: FileJobStore, operations: Sequence[Operation], *, sync: bool = True
    ) -> None:
        for operation in operations:
            commit(self, [operation], sync=sync)

    patch.setattr(FileJobStore, "commit", piecemeal)


@mutant("conformance")
def short_write_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(segment, "write_all", lambda write, data, offset: write(data, offset))


# --- failing disks -----------------------------------------------------------------------


@mutant("faults")
def failed_sync_is_tried_again(patch: pytest.MonkeyPatch) -> None:
    sync = Segment.sync

    def stubborn(self: Segment) -> None:
        try:
            sync(self)
        except OSError:
            sync(self)

    patch.setattr(Segment, "sync", stubborn)


@mutant("faults")
def failed_sync_is_swallowed(patch: pytest.MonkeyPatch) -> None:
    sync = Segment.sync

    def deaf(self: Segment) -> None:
        try:
            sync(self)
        except OSError:
            self.durable = self.number

    patch.setattr(Segment, "sync", deaf)


@mutant("faults")
def failure_does_not_last(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FileJobStore, "_fail", nothing)


@mutant("faults")
def failed_rotation_goes_on_in_the_old_segment(patch: pytest.MonkeyPatch) -> None:
    found = segment.found_segment

    def careless(*args: Any, **more: Any) -> Segment:
        try:
            return found(*args, **more)
        except OSError as error:
            raise NotMadeError(str(error)) from error

    patch.setattr(file_store, "found_segment", careless)


@mutant("full_disk")
def full_disk_has_no_reserve(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FileJobStore, "_reserve", lambda self, live: 0)


@mutant("full_disk")
def full_disk_refuses_ends_too(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(file_store, "ends_only", lambda operations: False)


# --- making files ------------------------------------------------------------------------


@mutant("crash_states")
def segment_is_written_in_place(patch: pytest.MonkeyPatch) -> None:
    found = segment.found_segment

    def in_place(files: Any, directory: Any, **more: Any) -> Segment:
        def create(name: str) -> Any:
            return directory.create(name.removesuffix(".tmp"))

        return found(files, Proxy(directory, create=create, rename=nothing), **more)

    patch.setattr(file_store, "found_segment", in_place)


@mutant("crash_states")
def segment_is_not_synced_before_its_name(patch: pytest.MonkeyPatch) -> None:
    found = segment.found_segment
    patch.setattr(
        file_store,
        "found_segment",
        lambda files, directory, **more: found(files, without_file_sync(directory), **more),
    )


@mutant("crash_states")
def segment_name_is_not_synced(patch: pytest.MonkeyPatch) -> None:
    found = segment.found_segment
    patch.setattr(
        file_store,
        "found_segment",
        lambda files, directory, **more: found(files, Proxy(directory, sync=nothing), **more),
    )


@mutant("crash_states")
def snapshot_is_not_synced(patch: pytest.MonkeyPatch) -> None:
    write = snapshot.write_snapshot
    patch.setattr(
        compaction,
        "write_snapshot",
        lambda files, directory, **more: write(files, without_file_sync(directory), **more),
    )


@mutant("crash_states")
def snapshot_name_is_not_synced(patch: pytest.MonkeyPatch) -> None:
    write = snapshot.write_snapshot
    patch.setattr(
        compaction,
        "write_snapshot",
        lambda files, directory, **more: write(files, Proxy(directory, sync=nothing), **more),
    )


@mutant("crash_states")
def old_files_go_before_the_snapshot_is_there(patch: pytest.MonkeyPatch) -> None:
    write = snapshot.write_snapshot

    def eager(files: Any, directory: Any, **more: Any) -> tuple[int, int]:
        entries = list(more.pop("entries"))
        for name in directory.names():
            if name.startswith("snap") or name <= f"wal-{more['through']:020d}":
                directory.unlink(name)
        return write(files, directory, entries=iter(entries), **more)

    patch.setattr(compaction, "write_snapshot", eager)


@mutant("read_back")
def snapshot_is_not_read_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compaction, "_read_back", nothing)


# --- what compaction keeps ---------------------------------------------------------------


def forgetting(patch: pytest.MonkeyPatch, forget: Callable[[State], None]) -> None:
    drain = State.drain

    def drained(self: State) -> Iterator[Any]:
        forget(self)
        return drain(self)

    patch.setattr(State, "drain", drained)


@mutant("conformance")
def compaction_forgets_dead_letters(patch: pytest.MonkeyPatch) -> None:
    forgetting(patch, lambda state: state.dead.clear())


@mutant("conformance")
def compaction_forgets_duplicate_windows(patch: pytest.MonkeyPatch) -> None:
    forgetting(patch, lambda state: state.remembered.clear())


@mutant("conformance")
def compaction_forgets_halted_sessions(patch: pytest.MonkeyPatch) -> None:
    forgetting(patch, lambda state: state.halted.clear())


@mutant("single_promises")
def compaction_forgets_what_runs(patch: pytest.MonkeyPatch) -> None:
    forgetting(patch, State.interrupted)


@mutant("single_promises")
def compaction_forgets_quarantine(patch: pytest.MonkeyPatch) -> None:
    forgetting(patch, lambda state: state.quarantined.clear())


@mutant("crash_states")
def compaction_forgets_the_next_order(patch: pytest.MonkeyPatch) -> None:
    write = snapshot.write_snapshot
    patch.setattr(
        compaction,
        "write_snapshot",
        lambda *args, next_order, **more: write(*args, next_order=1, **more),
    )


# --- reading -----------------------------------------------------------------------------


@mutant("damage")
def checksums_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(framing, "zlib", SimpleNamespace(crc32=lambda *_: 0))


@mutant("foreign_bytes")
def checksums_have_no_salt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Header, "seed", property(lambda self: 0))


@mutant("misplaced_records")
def numbers_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    sound = framing.sound_records

    def any_number(source: Any, offset: int, number: int, seed: int) -> Iterator[Record]:
        while True:
            head = source.read(offset, framing.RECORD_BYTES)
            if len(head) < framing.RECORD_BYTES:
                return
            found = framing._RECORD.unpack(head)[3]
            record = next(sound(source, offset, found, seed), None)
            if record is None:
                return
            yield attrs.evolve(record, number=number)
            offset, number = record.end, number + 1

    patch.setattr(replay, "sound_records", any_number)


@mutant("misplaced_records")
def file_names_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    def credulous(directory: Any, name: str, file: Any, kind: Any, first: int) -> Header:
        try:
            return attrs.evolve(framing.unpack_header(file.read(0, 64)), first=first)
        except DamageError as damage:
            raise replay.BadFileError(name, damage) from damage

    patch.setattr(replay, "read_header", credulous)


@mutant("damage")
def bad_tail_is_always_torn(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replay, "judge_tail", lambda rest, **_: Tail(TailState.TORN))


@mutant("crash_states")
def any_record_after_a_hole_is_damage(patch: pytest.MonkeyPatch) -> None:
    judge = tail.judge_tail

    def strict(rest: bytes, *, missing: int, proven: int, seed: int) -> Tail:
        for at in range(len(rest)):
            if rest.startswith(framing.MARK, at):
                found = framing._RECORD.unpack_from(rest.ljust(at + 30, b"\0"), at)[3]
                source = framing.BytesSource(rest)
                if found > missing and next(framing.sound_records(source, at, found, seed), None):
                    return Tail(TailState.ROTTEN, at)
        return judge(rest, missing=missing, proven=proven, seed=seed)

    patch.setattr(replay, "judge_tail", strict)


@mutant("damage")
def snapshot_needs_no_footer(patch: pytest.MonkeyPatch) -> None:
    read = snapshot.read_snapshot

    def credulous(file: Any, header: Header, take: Any, pacer: Any) -> tuple[Footer, int]:
        try:
            return read(file, header, take, pacer)
        except DamageError:
            return Footer(0, 10**6), file.size()

    patch.setattr(replay, "read_snapshot", credulous)


@mutant("single_promises")
def broken_items_are_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(state._APPLY, Broken, nothing)


@mutant("single_promises")
def unknown_items_are_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(batches, "FIRST_IGNORABLE", 0)


# --- recovering --------------------------------------------------------------------------


@mutant("crash_states")
def unsynced_records_are_not_copied_forward(patch: pytest.MonkeyPatch) -> None:
    begin = FileJobStore._begin_segment

    def empty_handed(self: FileJobStore, directory: Any, replayed: Any, live: int) -> Segment:
        replayed.unsettled.clear()
        return begin(self, directory, replayed, live)

    patch.setattr(FileJobStore, "_begin_segment", empty_handed)


@mutant("faults")
def unsynced_records_are_believed_to_be_on_disk(patch: pytest.MonkeyPatch) -> None:
    begin = FileJobStore._begin_segment

    def trusting(self: FileJobStore, directory: Any, replayed: Any, live: int) -> Segment:
        replayed.unsettled.clear()
        replayed.settled = replayed.number
        return begin(self, directory, replayed, live)

    patch.setattr(FileJobStore, "_begin_segment", trusting)


@mutant("faults")
def names_seen_are_believed_to_be_on_disk(patch: pytest.MonkeyPatch) -> None:
    records = replay._replay_records

    def trusting(file: Any, header: Header, *more: Any) -> int:
        end = records(file, header, *more)
        result = more[-1]
        result.settled = max(result.settled, min(header.founded, result.number))
        while result.unsettled and result.unsettled[0].number <= result.settled:
            result.unsettled.popleft()
        return end

    patch.setattr(replay, "_replay_records", trusting)


@mutant("faults")
def opening_removes_what_a_snapshot_covers(patch: pytest.MonkeyPatch) -> None:
    recover = FileJobStore._recover_in

    def tidy(self: FileJobStore, directory: Any, lock: Any) -> Any:
        opened = recover(self, directory, lock)
        compaction._remove_obsolete(directory)
        return opened

    patch.setattr(FileJobStore, "_recover_in", tidy)


def changed_recovery(patch: pytest.MonkeyPatch, change: Callable[[Recovery], Recovery]) -> None:
    original = recovering.to_recovery
    patch.setattr(file_store, "to_recovery", lambda *args: change(original(*args)))


@mutant("conformance")
def jobs_come_back_by_id(patch: pytest.MonkeyPatch) -> None:
    changed_recovery(
        patch,
        lambda recovery: attrs.evolve(
            recovery, live=sorted(recovery.live, key=lambda job: job.accepted.id)
        ),
    )


@mutant("conformance")
def orders_are_used_again(patch: pytest.MonkeyPatch) -> None:
    changed_recovery(
        patch,
        lambda recovery: attrs.evolve(
            recovery, next_order=max([job.order for job in recovery.live], default=0) + 1
        ),
    )


@mutant("conformance")
def duplicate_windows_end_with_the_process(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "_remember", nothing)


@mutant("single_promises")
def crashes_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "crashed", State.interrupted)


@mutant("conformance")
def clean_close_counts_as_a_crash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(replay, "_says_clean", lambda body: False)


@mutant("crash_states")
def one_crash_counts_again_and_again(patch: pytest.MonkeyPatch) -> None:
    crashed = State.crashed

    def repeated(self: State) -> None:
        running = set(self.started)
        crashed(self)
        self.started |= running

    patch.setattr(State, "crashed", repeated)


@mutant("real_lock")
def lock_is_not_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fcntl, "flock", nothing)


@mutant("real_lock")
def forked_child_keeps_the_lock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lock.FlockLock, "held", lambda self: True)
    patch.setattr(lock, "_held", set())
    patch.setattr(lock.FlockLock, "__hash__", object.__hash__, raising=False)
