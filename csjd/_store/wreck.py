"""
What is left of a damaged store: its own files, and the records in them that count.

A record proves itself by its checksum. It counts if the store believed it, too: what lies
behind the spot where a crash tore a segment was never acknowledged, and the next segment
tells other things under the same numbers. Whether a spot is torn or damaged is judged
there as it is in a store that opens, so that of such a store the same records count.
"""

import contextlib
from collections.abc import Iterator
from itertools import zip_longest
from typing import Final

import attrs

from csjd._store.files import Directory, File
from csjd._store.framing import (
    HEADER_BYTES,
    MARK,
    DamageError,
    FileKind,
    Header,
    NewerFormatError,
    Record,
    record_at,
    unpack_header,
)
from csjd._store.layout import lay_out
from csjd._store.segment import segment_name
from csjd._store.snapshot import snapshot_name
from csjd._store.tail import Tail, TailState, judge_tail

_BLOCK: Final = 4096
"""Bytes that a disk fails to give back together."""
_NAMES: Final = {FileKind.SEGMENT: segment_name, FileKind.SNAPSHOT: snapshot_name}
_PREFIXES: Final = ("wal-", "snap-")


@attrs.frozen
class Remains:
    """A file of a store, as it was found."""

    name: str
    kind: FileKind
    """By its name; so is its number."""
    number: int
    data: bytes = b""
    header: Header | None = None
    """None: it cannot be believed, and without its salt no record can prove itself."""

    @property
    def fits(self) -> bool:
        """Whether its header says what its name says."""
        header = self.header
        return header is not None and (header.kind, header.first) == (self.kind, self.number)

    def sound(self) -> Iterator[Record]:
        """Yield every record in it that proves itself, wherever it begins."""
        if self.header is None:
            return
        at = HEADER_BYTES
        while (at := self.data.find(MARK, at)) >= 0:
            record = record_at(self.data, at, self.header.seed)
            if record is None:
                at += 1
            else:
                yield record
                at = record.end


@attrs.define(eq=False)
class Wreck:
    """What was found in a damaged store's directory."""

    problems: list[str]
    """What is wrong with which file."""
    snapshots: list[Remains] = attrs.field(factory=list)
    """Those with a header, ascending."""
    records: dict[int, Record] = attrs.field(factory=dict)
    """Those of the segments that count, by number."""
    reach: int = 0
    """Up to this number at least there were records, and they were synced."""

    def gaps(self, after: int, through: int) -> list[tuple[int, int]]:
        """Return which of those numbers have no record, as ranges from first to last."""
        gaps: list[tuple[int, int]] = []
        there = sorted(number for number in self.records if after < number <= through)
        for number in (*there, through + 1):
            if number > after + 1:
                gaps.append((after + 1, number - 1))
            after = number
        return gaps


def survey(directory: Directory) -> Wreck:
    """
    Look at all of a store's files.

    Raises:
        FileNotFoundError: One was removed meanwhile: the store is in use.
        OSError: The directory cannot be read.
    """
    names = sorted(directory.names())
    wreck = Wreck(_missing_and_misnamed(names))
    found = [
        _look(directory, Remains(name, *place), wreck.problems)
        for name in names
        if (place := _place(name)) is not None
    ]
    files = _placed(_of_one_store(found, wreck.problems), wreck.problems)
    wreck.snapshots = [
        file for file in files if file.kind is FileKind.SNAPSHOT and file.header is not None
    ]
    segments = [file for file in files if file.kind is FileKind.SEGMENT]
    for segment, follower in zip_longest(segments, segments[1:]):
        _take_segment(wreck, segment, None if follower is None else follower.number)
    wreck.reach = max(wreck.reach, max(wreck.records, default=0))
    return wreck


def _take_segment(wreck: Wreck, segment: Remains, follower: int | None) -> None:
    wreck.reach = max(wreck.reach, segment.number - 1)  # synced, or it would not be there
    if segment.header is None:
        return
    wreck.reach = max(wreck.reach, segment.header.founded)
    found = records_that_count(segment, follower)
    wreck.records.update(found.records)  # what was copied forward is to be taken from there
    if found.damage:
        first, more = found.damage[0], len(found.damage) - 1
        others = f", and {more} more places" if more else ""
        wreck.problems.append(f"{segment.name}: {first.reason}, at byte {first.offset}{others}")
    if follower is None and found.tail.state is TailState.TORN:
        wreck.problems.append(
            f"{segment.name}: left out the last {len(segment.data) - found.end} bytes, from byte "
            f"{found.end}: records that a crash left unfinished, none acknowledged"
        )


# --- which files -----------------------------------------------------------------------


def _missing_and_misnamed(names: list[str]) -> list[str]:
    problems: list[str] = []
    try:
        lay_out(names)
    except DamageError as damage:
        problems.append(damage.reason)
    problems += [
        f"{name}: left out, no file of a store has such a name"
        for name in names
        if name.startswith(_PREFIXES) and not name.endswith(".tmp") and _place(name) is None
    ]
    return problems


def _place(name: str) -> tuple[FileKind, int] | None:
    """Return which snapshot or segment has that name, if one can have it."""
    digits = name.rpartition("-")[2]
    for kind, name_of in _NAMES.items():
        if digits.isdecimal() and name == name_of(int(digits)):
            return kind, int(digits)
    return None


def _look(directory: Directory, remains: Remains, problems: list[str]) -> Remains:
    """Return *remains* with what is in the file."""
    name = remains.name
    try:
        data = _read(directory, name, problems)
        return attrs.evolve(remains, data=data, header=unpack_header(data))
    except FileNotFoundError:
        raise
    except OSError as error:
        problems.append(f"{name}: it cannot be read: {error.strerror}")
    except (DamageError, NewerFormatError) as error:
        problems.append(f"{name}: {error}; nothing in it can be checked")
    return remains


def _read(directory: Directory, name: str, problems: list[str]) -> bytes:
    """Return a file's bytes, with zeros in place of those that the disk does not give back."""
    file = directory.open(name)
    try:
        size = file.size()
        try:
            return file.read(0, size)
        except OSError as error:
            data = b"".join(_read_block(file, at, size) for at in range(0, size, _BLOCK))
            if not any(data):
                raise
            problems.append(f"{name}: not all of it can be read: {error.strerror}")
            return data
    finally:
        file.close()


def _read_block(file: File, at: int, size: int) -> bytes:
    count, data = min(_BLOCK, size - at), b""
    with contextlib.suppress(OSError):
        data = file.read(at, count)
    return data.ljust(count, b"\0")


def _of_one_store(found: list[Remains], problems: list[str]) -> list[Remains]:
    """Leave out the files of other stores."""
    store_id = _store_id([file for file in found if file.fits] or found)
    ours: list[Remains] = []
    for file in found:
        if file.header is None or file.header.store_id == store_id:
            ours.append(file)
        else:
            problems.append(f"{file.name}: left out, it belongs to another store")
    return ours


def _store_id(files: list[Remains]) -> bytes | None:
    """
    Return which store it is, by files sorted by name.

    A store that opens has its newest snapshot and its last segment in common, whatever
    else lies about. Otherwise it is the one that most files are of.
    """
    ids = [(file.kind, file.header.store_id) for file in files if file.header is not None]
    newest = dict(ids)  # the last of each kind
    if len(newest) == len(FileKind) and len({*newest.values()}) == 1:
        return ids[-1][1]
    votes = [store_id for _, store_id in reversed(ids)]
    return max(votes, key=votes.count, default=None)


def _placed(files: list[Remains], problems: list[str]) -> list[Remains]:
    """Return the files in order, each where its header says, one to a place."""
    placed: dict[tuple[FileKind, int], Remains] = {}
    for file in sorted(files, key=_trust):
        if file.header is None or file.fits:
            placed.setdefault((file.kind, file.number), file)
            continue
        place = (file.header.kind, file.header.first)
        name = _NAMES[file.header.kind](file.header.first)
        if place in placed:
            problems.append(f"{file.name}: left out, by its header it is another {name}")
        else:
            problems.append(f"{file.name}: by its header it is {name}, and was taken for that")
            placed[place] = attrs.evolve(file, kind=file.header.kind, number=file.header.first)
    return [placed[place] for place in sorted(placed)]


def _trust(file: Remains) -> int:
    """Return where a file comes in when two claim one place: the lowest has it."""
    if file.fits:
        return 0
    return 1 if file.header is not None else 2


# --- which records ---------------------------------------------------------------------


@attrs.define(eq=False)
class Counted:
    """What of a segment counts."""

    missing: int
    """The number that would come next."""
    records: dict[int, Record] = attrs.field(factory=dict)
    end: int = HEADER_BYTES
    """Where the last of them ends."""
    damage: list[DamageError] = attrs.field(factory=list)
    """Where there is no record, although one was synced."""
    tail: Tail = attrs.field(default=Tail(TailState.END))
    """What it means that they end there."""


def records_that_count(segment: Remains, follower: int | None) -> Counted:
    """
    Return the sound records of a segment, up to where a crash tore it.

    Args:
        segment: The segment, with its header.
        follower: Where the next segment begins; None: it is the last. From there on this
            one's records mean nothing but what was copied, and that has no gap.
    """
    assert segment.header is not None
    header, data = segment.header, segment.data
    found, proven = Counted(header.first), header.founded

    def note_damage() -> None:
        found.damage.append(DamageError(f"record {found.missing} is unreadable", found.end))

    def judged() -> Tail:
        rest = data[found.end :]
        return judge_tail(rest, missing=found.missing, proven=proven, seed=header.seed)

    for record in segment.sound():
        if record.number in found.records:
            continue
        in_sequence = (record.offset, record.number) == (found.end, found.missing)
        if not in_sequence and record.number >= found.missing:
            if follower is not None and record.number > follower:
                continue
            if judged().state is not TailState.ROTTEN:
                break
            note_damage()
        found.records[record.number] = record
        found.end, found.missing = record.end, max(found.missing, record.number + 1)
        proven = max(proven, record.durable)
    found.tail = judged()
    short = follower is not None and found.missing < follower
    if short or found.tail.state is TailState.ROTTEN:
        note_damage()
    return found
