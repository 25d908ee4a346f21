"""
Replay: from a store's files to its state.

The newest snapshot comes first, whole or not at all. Then the segments, each up to where
the next one begins: what a segment holds beyond that was copied forward, and perhaps cut,
when the next one was made, and says nothing any more. Only the last segment may end in a
torn tail.
"""

from collections import deque
from collections.abc import Iterable
from itertools import zip_longest
from typing import Final

import attrs
import msgspec

from csjd._store.batches import Broken, decode_batch
from csjd._store.files import Directory, File
from csjd._store.framing import (
    HEADER_BYTES,
    DamageError,
    FileKind,
    Header,
    NewerFormatError,
    Record,
    RecordKind,
    sound_records,
    unpack_header,
)
from csjd._store.layout import Layout, lay_out
from csjd._store.pacing import Pacer
from csjd._store.segment import segment_name
from csjd._store.snapshot import read_snapshot, snapshot_name
from csjd._store.state import State
from csjd._store.tail import Tail, TailState, judge_tail

_decoder: Final = msgspec.msgpack.Decoder()


class BadFileError(Exception):
    """A file of the store is damaged, or missing."""

    def __init__(self, file: str, damage: DamageError) -> None:
        super().__init__(file, damage)
        self.file = file
        self.reason = damage.reason
        self.offset = damage.offset


def whole_layout(names: Iterable[str]) -> Layout:
    """
    Sort a store's directory; see `lay_out`.

    Raises:
        BadFileError: A file is missing that must be there.
    """
    try:
        return lay_out(names)
    except DamageError as damage:
        raise BadFileError("the store", damage) from damage


@attrs.define(eq=False)
class Replayed:
    """What replaying gave, besides the state."""

    store_id: bytes | None = None
    """None: the store is new."""
    number: int = 0
    """The last sound record's."""
    applied: int = 0
    """The highest number the state knows of: a snapshot may cover more than a segment holds."""
    settled: int = 0
    """The highest number known to be synced, in a file whose name is known to be, too."""
    unsettled: deque[Record] = attrs.field(factory=deque)
    """The sound records after that."""
    clean: bool = True
    """Whether the last owner closed the store."""
    snapshot_bytes: int = 0
    log_bytes: int = 0
    """Bytes of sound records and headers in the segments that were read."""
    tail: Tail = attrs.field(default=Tail(TailState.END))
    tail_file: str = ""
    tail_offset: int = 0
    tail_bytes: int = 0


def replay(
    directory: Directory, layout: Layout, state: State, pacer: Pacer, *, through: int | None = None
) -> Replayed:
    """
    Bring *state* to what the files say.

    Args:
        directory: Where they are.
        layout: Which they are.
        state: A new one.
        pacer: Told of each record.
        through: Replay up to this number, which must be there; None: to the end.

    Raises:
        BadFileError: Damage.
        NewerFormatError: A later version wrote it.
        OSError: They cannot be read.
    """
    result = Replayed()
    if layout.snapshot is not None:
        _replay_snapshot(directory, layout.snapshot, state, pacer, result)
    end = None if through is None else through + 1
    for first, limit in zip_longest(layout.segments, layout.segments[1:], fillvalue=end):
        assert first is not None
        _replay_segment(directory, first, limit, state, pacer, result)
    return result


def read_header(directory: Directory, name: str, file: File, kind: FileKind, first: int) -> Header:
    """
    Read a file's header and hold it against its name.

    Raises:
        BadFileError, NewerFormatError: If it is not what the name says.
    """
    try:
        header = unpack_header(file.read(0, HEADER_BYTES))
        if header.kind != kind or header.first != first:
            raise DamageError("its name does not fit its contents", 0)
    except DamageError as damage:
        raise BadFileError(name, damage) from damage
    return header


def _replay_snapshot(
    directory: Directory, through: int, state: State, pacer: Pacer, result: Replayed
) -> None:
    name = snapshot_name(through)
    file = directory.open(name)
    try:
        header = read_header(directory, name, file, FileKind.SNAPSHOT, through)
        try:
            footer, size = read_snapshot(file, header, state.restore, pacer)
        except DamageError as damage:
            raise BadFileError(name, damage) from damage
    finally:
        file.close()
    state.next_order = footer.next_order
    result.store_id = header.store_id
    result.number = result.applied = result.settled = through
    result.snapshot_bytes = size


def _replay_segment(
    directory: Directory,
    first: int,
    limit: int | None,
    state: State,
    pacer: Pacer,
    result: Replayed,
) -> None:
    name = segment_name(first)
    file = directory.open(name)
    try:
        header = read_header(directory, name, file, FileKind.SEGMENT, first)
        if result.store_id not in (None, header.store_id):
            raise BadFileError(name, DamageError("it belongs to another store", 0))
        result.store_id = header.store_id
        result.number = result.settled = header.first - 1  # else it would not have been begun
        result.unsettled.clear()
        end = _replay_records(file, header, HEADER_BYTES, limit, state, pacer, result)
        if limit is None:
            end = _replay_end(file, name, header, end, state, pacer, result)
        elif result.number != limit - 1:
            raise BadFileError(name, DamageError(f"record {result.number + 1} is unreadable", end))
        result.log_bytes += end
    finally:
        file.close()


def _replay_records(
    file: File,
    header: Header,
    end: int,
    limit: int | None,
    state: State,
    pacer: Pacer,
    result: Replayed,
) -> int:
    """Apply a segment's records from *end* on; return where the last one that counts ends."""
    for record in sound_records(file, end, result.number + 1, header.seed):
        if limit is not None and record.number >= limit:
            break
        if record.number > result.applied:
            result.clean = apply_record(record, state, pacer, clean=result.clean)
            result.applied = record.number
        result.number, end = record.number, record.end
        # What a segment was founded with is on the disk, but its name may not be: the
        # sync of the directory may have failed. Only then is nothing ever appended.
        founded = header.founded if record.number > header.founded else 0
        result.settled = max(result.settled, record.durable, founded)
        result.unsettled.append(record)
        while result.unsettled and result.unsettled[0].number <= result.settled:
            result.unsettled.popleft()
    return end


def _replay_end(
    file: File,
    name: str,
    header: Header,
    end: int,
    state: State,
    pacer: Pacer,
    result: Replayed,
) -> int:
    """
    Decide what it means that the newest segment's records end; return where they do.

    Who reads without the lock may be reading a file that grows. Zeros become records
    meanwhile, a record shows before all of it is there, and of one read the end may be
    newer than the beginning; so behind an unsound spot may lie what says that the record
    there was synced. But then it was whole before that was written, and reading it *again*
    shows it, unless it is damaged. What a crash cut short, too, stays as it is; one look
    that finds the same as the last is enough for both.
    """
    before = None
    while True:
        rest = file.read(end, file.size() - end)
        proven = max(result.settled, header.founded)
        tail = judge_tail(rest, missing=result.number + 1, proven=proven, seed=header.seed)
        found = (end, tail.state, rest if tail.state is TailState.TORN else b"")
        if tail.state is TailState.END or found == before:
            break
        before = found
        end = _replay_records(file, header, end, None, state, pacer, result)
    if tail.state is TailState.ROTTEN:
        reason = f"record {result.number + 1} is unreadable, and was synced"
        raise BadFileError(name, DamageError(reason, end))
    result.tail, result.tail_file = tail, name
    result.tail_offset, result.tail_bytes = end, len(rest)
    return end


def apply_record(
    record: Record, state: State, pacer: Pacer, *, clean: bool, keep_newer: bool = False
) -> bool:
    """
    Let a log's next record take effect.

    Args:
        record: The record.
        state: What the ones before it came to.
        pacer: Told of it, and of each operation in it.
        clean: Whether those before it end with the store closed.
        keep_newer: Put what a later version wrote into quarantine, instead of raising.

    Returns:
        Whether the log, should it end here, ends with the store closed.

    Raises:
        NewerFormatError: A later version wrote it, and it must not be ignored. Nothing
            of it has taken effect.
    """
    match record.kind:
        case RecordKind.OPERATIONS:
            for item in decode_batch(record.body, keep_newer=keep_newer):
                state.apply(item)
                pacer(1)
            clean = False
        case RecordKind.OPENED:
            if not clean:
                state.crashed()
            clean = False
        case RecordKind.SEAL:
            clean = _says_clean(record.body)
            if clean:
                state.interrupted()
        case RecordKind.ROTATED:
            clean = False
        case _:
            reason = (
                f"it holds records of a kind ({record.kind}) that this version of csjd does "
                "not know: use the version that wrote it, or a later one"
            )
            if not keep_newer:
                raise NewerFormatError(reason)
            state.apply(Broken(reason, record.body))
            clean = False
    pacer(1)
    return clean


def _says_clean(body: bytes) -> bool:
    try:
        return _decoder.decode(body) is True
    except msgspec.DecodeError:
        return False
