"""
A segment: the one file that records are appended to.

It is made beside, filled with its founding records, synced, renamed, and its directory
synced, before anything is acknowledged from it. So a segment that has its name is whole
up to its founding records, and no crash leaves one that cannot be read.

Room is allocated ahead of use, and filled with zeros where writes are in place. That halves
the time of a sync, since nothing but data changes with a batch, and it is what lets a full
disk still record what ends: a batch that adds jobs must leave `reserve` bytes of the
allocated room untouched.
"""

import contextlib
from collections.abc import Sequence

import attrs

from csjd._store.files import NO_ROOM, Directory, File, FileLayer, write_all
from csjd._store.framing import (
    HEADER_BYTES,
    SALT_BYTES,
    FileKind,
    Header,
    RecordKind,
    pack_record,
)


class NoRoomError(Exception):
    """The disk is full. The segment is as it was before."""


class NotMadeError(Exception):
    """A segment could not be made, and there is none; its cause says why."""


@attrs.frozen
class Founding:
    """A record that a segment begins with."""

    kind: int
    body: bytes
    flags: int = 0


def segment_name(first: int) -> str:
    """Return the name of the segment whose first record has that number."""
    return f"wal-{first:020d}"


@attrs.define(eq=False)
class Segment:
    """An open segment, ready for more records. Not safe for two threads at a time."""

    _file: File
    first: int
    """Its first record's number."""
    _seed: int
    number: int
    """The last record's number."""
    durable: int
    """The highest number known to be synced; `number`, while nothing waits for a sync."""
    end: int
    """Bytes used."""
    _allocated: int
    """Bytes with room on disk."""
    _growth: int
    """Bytes of room to allocate at a time."""
    sealed: bool = False
    """Whether the last record is a seal."""
    syncs: int = 1
    """How often the disk was asked to make it durable; once when it was made."""

    def append(self, kind: int, body: bytes, *, sync: bool, reserve: int = 0) -> None:
        """
        Append a record, and make it and all before it durable if *sync*.

        Args:
            kind: A `RecordKind`.
            body: What is in it.
            sync: Whether to return only when it is durable.
            reserve: Bytes of room that must be left after it; 0: take the last.

        Raises:
            NoRoomError: The disk is full.
            OSError: What is on disk is unknown; the segment must not be used again.
        """
        data = pack_record(self.number + 1, self.durable, kind, body, seed=self._seed)
        self._make_room(self.end + len(data), reserve)
        alone = sync and self.durable == self.number and self._file.writes_through
        write = self._write_through if alone else self._file.write
        try:
            write_all(write, data, self.end)
        except OSError as error:
            self._take_back(error)
        self.end += len(data)
        self.number += 1
        self.sealed = kind == RecordKind.SEAL
        if alone:
            self.durable = self.number
        elif sync:
            self.sync()

    def sync(self) -> None:
        """
        Make everything appended durable.

        Raises:
            OSError: What is on disk is unknown; the segment must not be used again. The
                kernel may have dropped what it could not write and would let a second
                sync succeed, so there is no second try.
        """
        self.syncs += 1
        self._file.sync()
        self.durable = self.number

    def trim(self) -> None:
        """Give back the room that was allocated and not used; the next sync makes it so."""
        self._file.truncate(self.end)
        self._allocated = self.end

    def regain(self, reserve: int) -> None:
        """Allocate *reserve* bytes of room again that `trim` has given back, if they are free."""
        with contextlib.suppress(NoRoomError):
            self._make_room(self.end, reserve)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write_through(self, data: bytes | memoryview, offset: int) -> int:
        self.syncs += 1
        return self._file.write_through(data, offset)

    def _make_room(self, end: int, reserve: int) -> None:
        """Allocate until *end* and *reserve* fit; a full disk may lend the reserve."""
        if end + reserve <= self._allocated:
            return
        missing = end + reserve - self._allocated
        try:
            self._file.allocate(self._allocated, missing + self._growth)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._make_little_room(end, reserve, missing)
        else:
            self._allocated += missing + self._growth
            if self._file.writes_through:
                self.sync()  # what fills it, or it would be new to the first write through

    def _make_little_room(self, end: int, reserve: int, missing: int) -> None:
        """Allocate what is needed and no more; or use what there is, if that is allowed."""
        try:
            self._file.allocate(self._allocated, missing)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            if reserve or end > self._allocated:
                raise NoRoomError(str(error)) from error
        else:
            self._allocated += missing

    def _take_back(self, error: OSError) -> None:
        """Undo a write that stopped half-way for lack of room; re-raise anything else."""
        if error.errno not in NO_ROOM:
            raise error
        # Cut, so that no half record stays in front of the next one; if that fails too,
        # its error is the one to pass on: the segment is unusable.
        self._file.truncate(self.end)
        self._allocated = self.end
        self.sync()
        raise NoRoomError(str(error)) from error


def found_segment(
    files: FileLayer,
    directory: Directory,
    *,
    store_id: bytes,
    first: int,
    founding: Sequence[Founding],
    reserve: int,
    must_fit: bool = False,
) -> Segment:
    """
    Make a segment that begins with the *founding* records, all of them durable.

    Args:
        files: The file layer.
        directory: Where.
        store_id: Its store's.
        first: The first record's number.
        founding: What it begins with.
        reserve: Bytes of room to allocate, and some growth if the disk has it.
        must_fit: Whether to make none if there is no room for the reserve.

    Raises:
        NotMadeError: It could not be made, and there is none.
        OSError: There may be one, whole, that a recovery would find: records of these
            numbers must not be written anywhere else.
    """
    header = Header(
        kind=FileKind.SEGMENT,
        store_id=store_id,
        first=first,
        founded=first + len(founding) - 1,
        salt=files.entropy(SALT_BYTES),
    )
    name = segment_name(first)
    rooms = [reserve + files.growth, reserve, *([] if must_fit else [0])]
    segment = _make_beside(files, directory, name + ".tmp", header, founding, rooms)
    try:
        directory.rename(name + ".tmp", name)
        directory.sync()
    except BaseException:
        segment.close()
        raise
    return segment


def _make_beside(
    files: FileLayer,
    directory: Directory,
    name: str,
    header: Header,
    founding: Sequence[Founding],
    rooms: Sequence[int],
) -> Segment:
    try:
        file = directory.create(name)
    except OSError as error:
        raise NotMadeError(str(error)) from error
    try:
        end = _fill(file, header, founding)
        allocated = _allocate_ahead(file, end, rooms)
        file.sync()
    except OSError as error:
        file.close()
        with contextlib.suppress(OSError):
            directory.unlink(name)
        raise NotMadeError(str(error)) from error
    last = header.founded
    return Segment(
        file,
        first=header.first,
        seed=header.seed,
        number=last,
        durable=last,
        end=end,
        allocated=allocated,
        growth=files.growth,
    )


def _fill(file: File, header: Header, founding: Sequence[Founding]) -> int:
    """Write the header and the first records; return where they end."""
    write_all(file.write, header.pack(), 0)
    end = HEADER_BYTES
    for number, record in enumerate(founding, header.first):
        data = pack_record(
            number,
            header.first - 1,
            record.kind,
            record.body,
            seed=header.seed,
            flags=record.flags,
        )
        write_all(file.write, data, end)
        end += len(data)
    return end


def _allocate_ahead(file: File, end: int, rooms: Sequence[int]) -> int:
    """Allocate the first of so many bytes that there is room for; return where they end."""
    for room in rooms:
        try:
            if room:
                file.allocate(end, room)
        except OSError as error:
            if error.errno not in NO_ROOM or room == rooms[-1]:
                raise
        else:
            break
    return end + room
