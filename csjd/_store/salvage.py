"""
Saving what can be saved from a damaged store, into a new one.

Everything that still proves itself by its checksum is taken, wherever it lies; what is
missing between is reported by its numbers. Operations on jobs whose acceptance was lost
end up in quarantine. The damaged store is only read.
"""

from collections.abc import Iterator

import attrs

from csjd._store.batches import Broken, Entry, Foreign, decode_batch, decode_entries
from csjd._store.files import Directory, FileLayer, OsFiles
from csjd._store.framing import (
    HEADER_BYTES,
    MARK,
    BytesSource,
    DamageError,
    FileKind,
    Header,
    NewerFormatError,
    Record,
    RecordKind,
    record_at,
    unpack_header,
)
from csjd._store.inspection import looking_into
from csjd._store.pacing import unpaced
from csjd._store.snapshot import read_snapshot
from csjd._store.state import State
from csjd._store.transfer import create_store


@attrs.frozen(kw_only=True)
class Salvage:
    """What was saved, and what was not."""

    saved: int
    """Jobs, dead letters, remembered ids and the like in the new store."""
    live: int
    """Live jobs among them."""
    lost: tuple[tuple[int, int], ...]
    """Ranges of record numbers, first and last, that are gone."""
    problems: tuple[str, ...]
    """What is wrong with which file."""


def salvage(path: str, into: str, *, files: FileLayer | None = None) -> Salvage:
    """
    Make a new store at *into* from whatever of the one at *path* is sound.

    Raises:
        JobStoreLockedError: What is at *into* is in use.
        JobStoreError: There is nothing at *path*, something at *into*, or one of them
            cannot be read or written.
    """
    layer: FileLayer = OsFiles() if files is None else files
    wreck = looking_into(path, files, lambda directory, _: _collect(directory))
    state = State(now=layer.now())
    through = _restore(wreck, state)
    lost = _replay(wreck, state, through)
    state.crashed()
    state.next_order = max(state.next_order, _highest_order(state) + 1)
    live = len(state.live)
    saved = create_store(into, state, layer)
    return Salvage(saved=saved, live=live, lost=tuple(lost), problems=tuple(wreck.problems))


@attrs.define(eq=False)
class _Wreck:
    """What was found in a damaged store's files."""

    snapshots: list[tuple[Header, bytes]] = attrs.field(factory=list)
    """Ascending by what they cover."""
    records: dict[int, Record] = attrs.field(factory=dict)
    """Of the segments, by number; of two with one number, the later segment's."""
    problems: list[str] = attrs.field(factory=list)


def _collect(directory: Directory) -> _Wreck:
    wreck = _Wreck()
    for name in sorted(directory.names()):
        if not name.startswith(("wal-", "snap-")) or name.endswith(".tmp"):
            continue
        file = directory.open(name)
        try:
            data = file.read(0, file.size())
        finally:
            file.close()
        try:
            header = unpack_header(data)
        except (DamageError, NewerFormatError) as error:
            # Without the header's salt no record can prove itself.
            wreck.problems.append(f"{name}: {error}; nothing in it can be checked")
            continue
        if header.kind is FileKind.SNAPSHOT:
            wreck.snapshots.append((header, data))
        else:
            wreck.records.update((record.number, record) for record in _sound(data, header))
    return wreck


def _sound(data: bytes, header: Header) -> Iterator[Record]:
    """Yield every record that proves itself, wherever it begins."""
    at = HEADER_BYTES
    while (at := data.find(MARK, at)) >= 0:
        record = record_at(data, at, header.seed)
        if record is None:
            at += 1
        else:
            yield record
            at = record.end


def _restore(wreck: _Wreck, state: State) -> int:
    """Begin with the newest whole snapshot, else with what is sound in the newest."""
    for header, data in reversed(wreck.snapshots):
        entries: list[Entry | Broken | Foreign] = []
        try:
            footer, _ = read_snapshot(BytesSource(data), header, entries.append, unpaced())
        except (DamageError, NewerFormatError) as error:
            wreck.problems.append(f"the snapshot up to record {header.first}: {error}")
            continue
        for entry in entries:
            state.restore(entry)
        state.next_order = footer.next_order
        return header.first
    if not wreck.snapshots:
        return 0
    header, data = wreck.snapshots[-1]
    for record in _sound(data, header):
        if record.kind == RecordKind.ENTRIES:
            for entry in decode_entries(record.body):
                state.restore(entry)
    state.next_order = _highest_order(state) + 1
    return header.first


def _replay(wreck: _Wreck, state: State, through: int) -> list[tuple[int, int]]:
    """Apply the records after *through*; return the ranges that are missing between."""
    lost: list[tuple[int, int]] = []
    expected = through + 1
    for number in sorted(number for number in wreck.records if number > through):
        if number > expected:
            lost.append((expected, number - 1))
        record = wreck.records[number]
        if record.kind == RecordKind.OPERATIONS:
            for item in decode_batch(record.body):
                state.apply(item)
        expected = number + 1
    return lost


def _highest_order(state: State) -> int:
    return max(state.live.highest(), max(state.dead, default=0))
