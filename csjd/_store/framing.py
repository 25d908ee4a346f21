"""
How bytes lie in a file: one header, then records, each provably whole.

A file begins with 64 bytes that say what it is and check themselves. A record is

    mark 4 | checksum 4 | length 4 | number 8 | durable 8 | kind 1 | flags 1 | body

little-endian. The checksum covers everything after itself and starts from the file's
salt, so that a record of another file, or of this one at another time, never passes. A
record's number is one more than that of the record before. *Durable* is the highest
number known to be synced when the record was written; `tail` lives on it.

The checksum is zlib's CRC-32 and the header says so. CRC-32C would be as good and no
better here: every single-bit flip and every burst up to 32 bits is caught by both, one
checksum per batch costs microseconds beside a sync of hundreds, and it would take a
dependency.
"""

import enum
import struct
import zlib
from collections.abc import Iterator
from typing import Final, Protocol

import attrs

MAGIC: Final = b"csjd\r\n\x1a\x00"  # text-mode damage shows in it, as in PNG's
MAJOR: Final = 1
MINOR: Final = 0
CRC32_ZLIB: Final = 1
SALT_BYTES: Final = 8
STORE_ID_BYTES: Final = 16
MARK: Final = b"\xc5\x1dJ\xb0"  # no UTF-8 text holds it

_HEADER: Final = struct.Struct("<8sHHBBH16sQQ8sI")
_CHECKSUM: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEADER.size + _CHECKSUM.size

_RECORD: Final = struct.Struct("<4sIIQQBB")
_COVERED: Final = struct.Struct("<IQQBB")
RECORD_BYTES: Final = _RECORD.size
_COVERED_FROM: Final = RECORD_BYTES - _COVERED.size

MAX_BODY: Final = (1 << 32) - 1
_WINDOW: Final = 1 << 18  # bytes read at a time: enough to be fast, small enough to be nice


class FileKind(enum.IntEnum):
    """What a file is."""

    SEGMENT = 1
    SNAPSHOT = 2


class RecordKind(enum.IntEnum):
    """What a record is."""

    OPERATIONS = 1
    """A batch of operations: body, a msgpack array of them."""
    OPENED = 2
    """An owner opened the store: body, a msgpack map about it."""
    SEAL = 3
    """Everything before it is synced: body, msgpack true if the store was closed clean."""
    ROTATED = 4
    """The first record of a segment that follows another; empty."""
    ENTRIES = 5
    """In a snapshot: a msgpack array of entries."""
    FOOTER = 6
    """A snapshot's last record: without it the snapshot is not whole."""


class DamageError(Exception):
    """A file is not what was written."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset


class NewerFormatError(Exception):
    """Sound, but of a version this code does not know."""


@attrs.frozen(kw_only=True)
class Header:
    """What a file says of itself."""

    kind: FileKind
    store_id: bytes
    """The same in all files of a store."""
    first: int
    """Of a segment: its first record's number. Of a snapshot: the last number it covers."""
    founded: int = 0
    """Of a segment: up to this number its records were synced before it got its name."""
    salt: bytes
    major: int = MAJOR
    minor: int = MINOR

    @property
    def seed(self) -> int:
        """Where the checksums of its records start."""
        return zlib.crc32(self.salt)

    def pack(self) -> bytes:
        """Return its 64 bytes."""
        front = _HEADER.pack(
            MAGIC,
            self.major,
            self.minor,
            self.kind,
            CRC32_ZLIB,
            0,
            self.store_id,
            self.first,
            self.founded,
            self.salt,
            0,
        )
        return front + _CHECKSUM.pack(zlib.crc32(front))


def unpack_header(data: bytes) -> Header:
    """
    Return the header that *data* begins with.

    Raises:
        DamageError: If it cannot be believed.
        NewerFormatError: If it is sound, and of a version this code does not know.
    """
    if len(data) < HEADER_BYTES:
        raise DamageError("the file is shorter than a header", len(data))
    front = data[: _HEADER.size]
    if _CHECKSUM.unpack_from(data, _HEADER.size)[0] != zlib.crc32(front):
        raise DamageError("the header's checksum is wrong", 0)
    magic, major, minor, kind, algorithm, _, store_id, first, founded, salt, _ = _HEADER.unpack(
        front
    )
    if magic != MAGIC:
        raise DamageError("the file is not one of a store", 0)
    if major != MAJOR or algorithm != CRC32_ZLIB or kind not in set(FileKind):
        raise NewerFormatError(
            f"format {major}.{minor} (kind {kind}, checksum {algorithm}) is not known to this "
            "version of csjd: use the version that wrote it, or a later one"
        )
    return Header(
        kind=FileKind(kind),
        store_id=store_id,
        first=first,
        founded=founded,
        salt=salt,
        major=major,
        minor=minor,
    )


@attrs.frozen
class Record:
    """One record as it was found."""

    number: int
    durable: int
    kind: int
    flags: int
    body: bytes
    offset: int
    """Where it begins in its file."""

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.offset + RECORD_BYTES + len(self.body)


def pack_record(
    number: int, durable: int, kind: int, body: bytes, *, seed: int, flags: int = 0
) -> bytes:
    """
    Return a record's bytes.

    Raises:
        OverflowError: If *body* is longer than a record can say.
    """
    if len(body) > MAX_BODY:
        raise OverflowError(f"a batch of {len(body)} bytes is more than one record holds")
    covered = _COVERED.pack(len(body), number, durable, kind, flags)
    checksum = _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(covered, seed)))
    return b"".join((MARK, checksum, covered, body))


class Source(Protocol):
    """What records are read from."""

    def size(self) -> int:
        """Return its length in bytes."""
        ...

    def read(self, offset: int, count: int) -> bytes:
        """Return up to *count* bytes from *offset*."""
        ...


@attrs.frozen
class BytesSource:
    """Bytes in memory, as a source."""

    data: bytes

    def size(self) -> int:
        """Return how many there are."""
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        """Return up to *count* bytes from *offset*."""
        return self.data[offset : offset + count]


def sound_records(source: Source, offset: int, number: int, seed: int) -> Iterator[Record]:
    """
    Yield the records from *offset* on, for as long as they are sound and in sequence.

    It ends, without a word, before the first that is not: whether that is the end, a torn
    tail or damage is not decided here. Nothing is allocated on the word of a length that
    the file is too short for.

    Args:
        source: A file that at most grows meanwhile; what is new may be left out.
        offset: Where the first record should be.
        number: Its number.
        seed: Of the file's header.
    """
    size = source.size()
    window, base = b"", offset
    while size - offset >= RECORD_BYTES:
        at = offset - base
        if len(window) - at < RECORD_BYTES:
            window, base, at = source.read(offset, _WINDOW), offset, 0
            if len(window) < RECORD_BYTES:
                return
        mark, checksum, length, found, durable, kind, flags = _RECORD.unpack_from(window, at)
        whole = RECORD_BYTES + length
        if mark != MARK or found != number or whole > size - offset:
            return
        if len(window) - at < whole:
            window, base, at = source.read(offset, max(_WINDOW, whole)), offset, 0
            if len(window) < whole:
                return
        covered = memoryview(window)[at + _COVERED_FROM : at + whole]
        if zlib.crc32(covered, seed) != checksum:
            return
        yield Record(number, durable, kind, flags, bytes(covered[_COVERED.size :]), offset)
        offset += whole
        number += 1


def record_at(data: bytes, offset: int, seed: int) -> Record | None:
    """Return the record that begins at *offset*, whatever its number, if it is sound."""
    if len(data) - offset < RECORD_BYTES:
        return None
    mark, checksum, length, number, durable, kind, flags = _RECORD.unpack_from(data, offset)
    whole = RECORD_BYTES + length
    if mark != MARK or whole > len(data) - offset:
        return None
    covered = memoryview(data)[offset + _COVERED_FROM : offset + whole]
    if zlib.crc32(covered, seed) != checksum:
        return None
    return Record(number, durable, kind, flags, bytes(covered[_COVERED.size :]), offset)


def claims_of_durability(data: bytes, seed: int, number: int) -> Iterator[int]:
    """
    Yield where in *data* a sound record says that record *number* was synced before it.

    A checksum is computed only where a record's numbers make such a claim, so a disk full
    of false marks costs a search and no more.
    """
    last_possible = number + len(data) // RECORD_BYTES
    at = data.find(MARK)
    while at >= 0 and len(data) - at >= RECORD_BYTES:
        _, checksum, length, found, durable, _, _ = _RECORD.unpack_from(data, at)
        whole = RECORD_BYTES + length
        if number <= durable < found <= last_possible and whole <= len(data) - at:
            covered = memoryview(data)[at + _COVERED_FROM : at + whole]
            if zlib.crc32(covered, seed) == checksum:
                yield at
        at = data.find(MARK, at + 1)
