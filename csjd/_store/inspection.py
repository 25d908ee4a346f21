"""
Looking at a store without touching it: no lock is taken and nothing is written.

A store that is in use can be looked at as well; its last record may then be seen half
written, and a file may vanish under a compaction, which shows as an `OSError`.
"""

import enum
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import attrs

from csjd._model.errors import JobStoreError
from csjd._model.storing import Recovery
from csjd._store.batches import Foreign, decode_batch, decode_entries
from csjd._store.files import Directory, FileLayer, OsFiles
from csjd._store.framing import (
    HEADER_BYTES,
    DamageError,
    NewerFormatError,
    Record,
    RecordKind,
    sound_records,
    unpack_header,
)
from csjd._store.recovery import corrupt_error, load, to_recovery
from csjd._store.replay import BadFileError
from csjd._store.tail import TailState

T = TypeVar("T")


class Health(enum.IntEnum):
    """What a look at a store found; the exit status of `store verify`."""

    CLEAN = 0
    TORN = 1
    """Ends in what a crash cut short; opening it loses nothing that was acknowledged."""
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
    """One file of a store."""

    name: str
    kind: str
    size: int
    """In bytes."""
    used: int = 0
    """Bytes of header and sound records."""
    records: int = 0
    first: int = 0
    last: int = 0
    format: str = ""
    problem: str = ""


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
    return looking_into(path, files, _verify)


def inspect(path: str, *, files: FileLayer | None = None) -> Inspection:
    """
    Return what is in a sound store.

    Raises:
        JobStoreCorruptError: It is damaged.
        JobStoreError: There is none, it cannot be read, or a later version wrote it.
    """
    return looking_into(path, files, lambda directory, layer: _inspect(path, directory, layer))


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

    Raises:
        JobStoreError: There is no store, it cannot be read, or a later version wrote it.
    """
    layer: FileLayer = OsFiles(network=True) if files is None else files
    try:
        directory = layer.open_directory(path, create=False)
    except OSError as error:
        raise JobStoreError(path, f"cannot be opened: {error}") from error
    try:
        if not any(name.startswith(("wal-", "snap-")) for name in directory.names()):
            raise JobStoreError(path, "holds no store")
        return look(directory, layer)
    except (NewerFormatError, OSError) as error:
        raise JobStoreError(path, str(error)) from error
    finally:
        directory.close()


def _verify(directory: Directory, layer: FileLayer) -> Verdict:
    try:
        _, replayed, _ = load(directory, layer.now())
    except BadFileError as error:
        return Verdict(
            health=Health.CORRUPT, reason=error.reason, file=error.file, offset=error.offset
        )
    if replayed.tail.state is TailState.TORN:
        return Verdict(
            health=Health.TORN,
            reason=f"{replayed.tail_bytes} bytes that a crash left unfinished",
            file=replayed.tail_file,
            offset=replayed.tail_offset,
        )
    return Verdict(health=Health.CLEAN)


def _inspect(path: str, directory: Directory, layer: FileLayer) -> Inspection:
    try:
        state, replayed, _ = load(directory, layer.now())
    except BadFileError as error:
        raise corrupt_error(path, error) from error
    foreign = len(state.foreign)
    return Inspection(
        store_id=(replayed.store_id or b"").hex(),
        recovery=to_recovery(state, replayed),
        files=tuple(_file_report(directory, name) for name in sorted(directory.names())),
        foreign=foreign,
    )


def _file_report(directory: Directory, name: str) -> FileReport:
    if not name.startswith(("wal-", "snap-")) or name.endswith(".tmp"):
        return FileReport(name=name, kind="other", size=_size(directory, name))
    found: list[Record] = []
    file = directory.open(name)
    try:
        size = file.size()
        try:
            header = unpack_header(file.read(0, HEADER_BYTES))
        except (DamageError, NewerFormatError) as error:
            return FileReport(name=name, kind="unreadable", size=size, problem=str(error))
        start = header.first if name.startswith("wal-") else 1
        count, used = 0, HEADER_BYTES
        for record in sound_records(file, HEADER_BYTES, start, header.seed):
            count, used = count + 1, record.end
            found[:] = [record]
        return FileReport(
            name=name,
            kind=header.kind.name.lower(),
            size=size,
            used=used,
            records=count,
            first=header.first,
            last=found[0].number if found and name.startswith("wal-") else header.first,
            format=f"{header.major}.{header.minor}",
        )
    finally:
        file.close()


def _size(directory: Directory, name: str) -> int:
    file = directory.open(name)
    try:
        return file.size()
    finally:
        file.close()


def _records(directory: Directory) -> Iterator[dict[str, Any]]:
    for name in sorted(directory.names()):
        if not name.startswith(("wal-", "snap-")) or name.endswith(".tmp"):
            continue
        file = directory.open(name)
        try:
            header = unpack_header(file.read(0, HEADER_BYTES))
            start = header.first if name.startswith("wal-") else 1
            for record in sound_records(file, HEADER_BYTES, start, header.seed):
                yield _record_report(name, record)
        except DamageError as damage:
            yield {"file": name, "offset": damage.offset, "problem": damage.reason}
        finally:
            file.close()


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
