"""A store's contents as JSON lines, and a new store from them, or from anything else."""

import contextlib
from collections.abc import Iterable, Iterator

import msgspec

from csjd._model.errors import JobStoreError
from csjd._store.files import Directory, FileLayer, OsFiles
from csjd._store.framing import (
    HEADER_BYTES,
    STORE_ID_BYTES,
    DamageError,
    NewerFormatError,
    RecordKind,
    sound_records,
    unpack_header,
)
from csjd._store.inspection import looking_into
from csjd._store.layout import LOCK_NAME, MADE_FROM, store_files
from csjd._store.lines import LineTaker, to_lines
from csjd._store.lock import LockHeldError
from csjd._store.pacing import unpaced
from csjd._store.recovery import load, locked_error
from csjd._store.segment import Founding, NotMadeError, found_segment, segment_name
from csjd._store.snapshot import snapshot_name, write_snapshot
from csjd._store.state import State


def export_lines(path: str, *, files: FileLayer | None = None) -> Iterator[bytes]:
    """
    Yield a sound store's contents, line by line, each without its newline.

    Raises:
        JobStoreCorruptError: It is damaged: salvage it first.
        JobStoreError: There is none, or it cannot be read.
    """
    state = looking_into(path, files, lambda directory, layer: load(directory, layer.now())[0])
    yield from to_lines(state)


def import_lines(lines: Iterable[bytes | str], path: str, *, files: FileLayer | None = None) -> int:
    """
    Make a new store from exported lines; return how many things are in it.

    Raises:
        JobStoreLockedError: There is one, and it is in use.
        JobStoreError: There is a store already, a line is unusable, or it cannot be
            written. Only in the last case was anything made; `recover` refuses what is left
            of it, and an import to the same path takes its place.
    """
    layer: FileLayer = OsFiles() if files is None else files
    taker = LineTaker(State(now=0.0))
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            taker.take(line)
        except ValueError as error:
            raise JobStoreError(path, f"line {number} is unusable: {error}") from error
    if not taker.ended:
        raise JobStoreError(path, "the last line is missing: the export is not whole")
    return create_store(path, taker.state, layer)


def create_store(path: str, state: State, files: FileLayer) -> int:
    """
    Make a new store that holds *state*, which is empty after; return how much is in it.

    Raises:
        JobStoreLockedError: There is one, and it is in use.
        JobStoreError: There is a store already, or it cannot be written. What a failure
            leaves `recover` refuses; making a store there again takes its place.
    """
    try:
        directory = files.open_directory(path, create=True)
        try:
            return _create_in(path, directory, state, files)
        finally:
            directory.close()
    except LockHeldError as error:
        raise locked_error(path, error) from None
    except (OSError, NotMadeError) as error:
        raise JobStoreError(path, f"cannot be written: {error}") from error


def _create_in(path: str, directory: Directory, state: State, files: FileLayer) -> int:
    lock = directory.lock(LOCK_NAME, "an import")
    try:
        names = store_files(directory)
        if names and not _is_unfinished(directory, names):
            raise JobStoreError(path, "holds a store already: give another path")
        store_id = files.entropy(STORE_ID_BYTES)
        # The snapshot's name comes last and makes it a store at one stroke. The segment
        # alone is refused: it lacks the record before it.
        _found_log(files, directory, store_id)
        try:
            _, count = write_snapshot(
                files,
                directory,
                store_id=store_id,
                through=MADE_FROM - 1,
                entries=state.drain(),
                next_order=state.next_order,
                pacer=unpaced(),
            )
        except BaseException:
            _remove_snapshot(directory)
            raise
        return count
    finally:
        lock.release()


def _found_log(files: FileLayer, directory: Directory, store_id: bytes) -> None:
    """Make the segment that follows the snapshot; nothing is in it."""
    seal = msgspec.msgpack.encode(True)
    segment = found_segment(
        files,
        directory,
        store_id=store_id,
        first=MADE_FROM,
        founding=[Founding(RecordKind.ROTATED, b""), Founding(RecordKind.SEAL, seal)],
        reserve=0,
    )
    try:
        segment.trim()
        segment.sync()
    finally:
        segment.close()


def _remove_snapshot(directory: Directory) -> None:
    """Take back what there is of the snapshot, whole or not, and the room it has."""
    name = snapshot_name(MADE_FROM - 1)
    for each in (name, name + ".tmp"):
        with contextlib.suppress(OSError):
            directory.unlink(each)


def _is_unfinished(directory: Directory, names: list[str]) -> bool:
    """Whether all there is is what `_found_log` makes: no job is lost with it."""
    if names != [segment_name(MADE_FROM)]:
        return False
    file = directory.open(names[0])
    try:
        header = unpack_header(file.read(0, HEADER_BYTES))
        records = sound_records(file, HEADER_BYTES, MADE_FROM, header.seed)
        return [record.kind for record in records] == [RecordKind.ROTATED, RecordKind.SEAL]
    except (DamageError, NewerFormatError):
        return False
    finally:
        file.close()
