"""
Compaction: a new snapshot in place of the old one and the log since.

It reads finished files and writes a new one, touching nothing that a commit touches. What
it replaces is removed only after the new snapshot has been read back from the disk.
"""

import contextlib

from csjd._store.files import Directory, FileLayer
from csjd._store.framing import DamageError, FileKind
from csjd._store.pacing import Pacer
from csjd._store.replay import BadFileError, read_header, replay, whole_layout
from csjd._store.snapshot import read_snapshot, snapshot_name, write_snapshot
from csjd._store.state import State


def compact(files: FileLayer, directory: Directory, *, through: int) -> int:
    """
    Replace everything up to record *through* by a snapshot.

    Args:
        files: For time, randomness and pauses.
        directory: Where the store is.
        through: The last record of a segment that has a successor.

    Returns:
        The snapshot's size in bytes.

    Raises:
        BadFileError, NewerFormatError: What is to be replaced cannot be read. Nothing was
            removed.
        OSError: The snapshot could not be written or read back. Nothing was removed.
    """
    pacer = Pacer(files.pause)
    layout = whole_layout(name for name in directory.names() if not _begins_after(name, through))
    state = State(now=files.now())
    replayed = replay(directory, layout, state, pacer, through=through)
    if replayed.store_id is None:
        raise BadFileError("the store", DamageError("its files are gone", 0))
    name = snapshot_name(through)
    try:
        size, entries = write_snapshot(
            files,
            directory,
            store_id=replayed.store_id,
            through=through,
            entries=state.drain(),
            next_order=state.next_order,
            pacer=pacer,
        )
    except OSError:
        with contextlib.suppress(OSError):
            directory.unlink(name + ".tmp")
        raise
    _read_back(directory, name, through, entries, pacer)
    _remove_obsolete(directory)
    return size


def _remove_obsolete(directory: Directory) -> None:
    """Remove the files that the newest snapshot covers, and unfinished ones."""
    layout = whole_layout(directory.names())
    for name in (*layout.obsolete, *layout.temporary):
        directory.unlink(name)


def _begins_after(name: str, through: int) -> bool:
    return name.startswith("wal-") and name > f"wal-{through:020d}"


def _read_back(directory: Directory, name: str, through: int, entries: int, pacer: Pacer) -> None:
    seen = 0

    def count(entry: object) -> None:
        nonlocal seen
        seen += 1

    file = directory.open(name)
    try:
        header = read_header(directory, name, file, FileKind.SNAPSHOT, through)
        try:
            read_snapshot(file, header, count, pacer)
        except DamageError as damage:
            raise BadFileError(name, damage) from damage
    finally:
        file.close()
    if seen != entries:
        raise BadFileError(name, DamageError(f"{seen} of {entries} entries came back", 0))
