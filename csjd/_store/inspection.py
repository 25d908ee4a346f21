"""
Looking at a store without touching it: no lock is taken and nothing is written.

A store that is in use can be looked at as well, and is shown as it was at one moment since
the look began. Whether it is in use cannot be told without the lock: a record seen half
written twice over is taken for what a crash cut short.
"""

import enum
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import attrs

from csjd._model.errors import JobStoreCorruptError, JobStoreError
from csjd._model.storing import Recovery
from csjd._store.batches import Foreign, decode_batch, decode_entries
from csjd._store.files import Directory, File, FileLayer, OsFiles
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
from csjd._store.layout import is_store_file, store_files
from csjd._store.recovery import corrupt_error, load, to_recovery
from csjd._store.replay import BadFileError
from csjd._store.tail import TailState

T = TypeVar("T")


class Health(enum.IntEnum):
    """What a look at a store found; the exit status of `store verify`."""

    CLEAN = 0
    TORN = 1
    """
    Ends in what a crash cut short, or in what is being written right now if it is in use;
    opening it loses nothing that was acknowledged.
    """
    CORRUPT = 2
    """Damaged; it will not open."""


@attrs.frozen(kw_only=True)
class Verdict:
    """Whether a store is sound."""

    health: Health
    reason: str = ""
    file: str = ""
    offset: int = 0


@attrs.frozen(kw_only=True)
class FileReport:
    """One file of a store, or another in its directory."""

    name: str
    kind: str
    """`segment`, `snapshot`, `unreadable` or `other`."""
    size: int
    """In bytes."""
    used: int = 0
    """Bytes of header and sound records."""
    records: int = 0
    first: int = 0
    last: int = 0
    format: str = ""
    problem: str = ""
    """Why nothing is known of what is in it."""


@attrs.frozen(kw_only=True)
class Inspection:
    """What is in a store."""

    store_id: str
    recovery: Recovery
    files: tuple[FileReport, ...]
    foreign: int = 0
    """Items of a later version, carried along unread."""


def verify(path: str, *, files: FileLayer | None = None) -> Verdict:
    """
    Say whether a store would open.

    Raises:
        JobStoreError: There is none, it cannot be read, or a later version wrote it.
    """
    try:
        return looking_into(path, files, _verify)
    except JobStoreCorruptError as error:
        return Verdict(
            health=Health.CORRUPT, reason=error.reason, file=error.file, offset=error.offset
        )


def inspect(path: str, *, files: FileLayer | None = None) -> Inspection:
    """
    Return what is in a sound store.

    Raises:
        JobStoreCorruptError: It is damaged.
        JobStoreError: There is none, it cannot be read, or a later version wrote it.
    """
    return looking_into(path, files, _inspect)


def records(path: str, *, files: FileLayer | None = None) -> Iterator[dict[str, Any]]:
    """
    Yield the sound records of a store's files, up to the first unsound one in each.

    Raises:
        JobStoreError: There is no store, or it cannot be read.
    """
    yield from looking_into(path, files, lambda directory, _: list(_records(directory)))


def require_store(path: str, *, files: FileLayer | None = None) -> None:
    """
    Refuse a path without a store, whatever state a store there is in.

    Raises:
        JobStoreError: There is none, or its directory cannot be read.
    """
    looking_into(path, files, lambda directory, layer: None)


def looking_into(
    path: str, files: FileLayer | None, look: Callable[[Directory, FileLayer], T]
) -> T:
    """
    Return what *look* finds in a store's directory.

    Called again if it ends with a file that is damaged or missing while the store's files
    have changed: they may do so between its listing and its reading of them.

    Raises:
        JobStoreCorruptError: *look* found it damaged, with a `BadFileError`.
        JobStoreError: There is no store, it cannot be read, or a later version wrote it.
    """
    layer: FileLayer = OsFiles(network=True) if files is None else files
    try:
        directory = layer.open_directory(path, create=False)
    except OSError as error:
        raise JobStoreError(path, f"cannot be opened: {error}") from error
    try:
        return _look_until_steady(directory, lambda: look(directory, layer))
    except BadFileError as error:
        raise corrupt_error(path, error) from error
    except (NewerFormatError, OSError) as error:
        raise JobStoreError(path, str(error)) from error
    finally:
        directory.close()


def _look_until_steady(directory: Directory, look: Callable[[], T]) -> T:
    while True:
        names = store_files(directory)
        if not names:
            raise FileNotFoundError("holds no store")
        try:
            return look()
        except (BadFileError, FileNotFoundError):
            if store_files(directory) == names:
                raise


def _verify(directory: Directory, layer: FileLayer) -> Verdict:
    _, replayed, _ = load(directory, layer.now())
    if replayed.tail.state is TailState.TORN:
        return Verdict(
            health=Health.TORN,
            reason=f"{replayed.tail_bytes} bytes of unfinished records",
            file=replayed.tail_file,
            offset=replayed.tail_offset,
        )
    return Verdict(health=Health.CLEAN)


def _inspect(directory: Directory, layer: FileLayer) -> Inspection:
    state, replayed, _ = load(directory, layer.now())
    foreign = len(state.foreign)
    return Inspection(
        store_id=(replayed.store_id or b"").hex(),
        recovery=to_recovery(state, replayed),
        files=tuple(_file_reports(directory)),
        foreign=foreign,
    )


def _file_reports(directory: Directory) -> Iterator[FileReport]:
    for name in sorted(directory.names()):
        try:
            file = directory.open(name)
        except FileNotFoundError:
            continue  # since the listing a compaction has removed it
        except OSError as error:  # of one that no look needs, or it would have ended before
            kind = "unreadable" if is_store_file(name) else "other"
            yield FileReport(name=name, kind=kind, size=0, problem=error.strerror or str(error))
            continue
        try:
            if is_store_file(name):
                yield _file_report(name, file)
            else:
                yield FileReport(name=name, kind="other", size=file.size())
        finally:
            file.close()


def _file_report(name: str, file: File) -> FileReport:
    size = file.size()
    try:
        header = unpack_header(file.read(0, HEADER_BYTES))
    except (DamageError, NewerFormatError) as error:
        return FileReport(name=name, kind="unreadable", size=size, problem=str(error))
    count, used, last = 0, HEADER_BYTES, header.first
    for record in _records_of(file, header):
        count, used, last = count + 1, record.end, record.number
    return FileReport(
        name=name,
        kind=header.kind.name.lower(),
        size=size,
        used=used,
        records=count,
        first=header.first,
        last=last if header.kind is FileKind.SEGMENT else header.first,
        format=f"{header.major}.{header.minor}",
    )


def _records(directory: Directory) -> Iterator[dict[str, Any]]:
    for name in store_files(directory):
        file = directory.open(name)
        try:
            header = unpack_header(file.read(0, HEADER_BYTES))
            for record in _records_of(file, header):
                yield _record_report(name, record)
        except DamageError as damage:
            yield {"file": name, "offset": damage.offset, "problem": damage.reason}
        finally:
            file.close()


def _records_of(file: File, header: Header) -> Iterator[Record]:
    first = header.first if header.kind is FileKind.SEGMENT else 1
    return sound_records(file, HEADER_BYTES, first, header.seed)


def _record_report(name: str, record: Record) -> dict[str, Any]:
    report: dict[str, Any] = {
        "file": name,
        "offset": record.offset,
        "number": record.number,
        "durable": record.durable,
        "kind": _KINDS.get(record.kind, str(record.kind)),
    }
    decode = {RecordKind.OPERATIONS: decode_batch, RecordKind.ENTRIES: decode_entries}
    if record.kind in decode:
        try:
            items = decode[RecordKind(record.kind)](record.body)
        except NewerFormatError as error:
            report["problem"] = str(error)
        else:
            report["items"] = [
                "Foreign" if type(item) is Foreign else type(item).__name__ for item in items
            ]
    return report


_KINDS: Final = {kind.value: kind.name.lower() for kind in RecordKind}
