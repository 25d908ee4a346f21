"""Which files make up a store, and which are left over from before."""

import re
from collections.abc import Iterable
from itertools import zip_longest
from typing import Final

import attrs

from csjd._store.files import Directory
from csjd._store.framing import DamageError

LOCK_NAME: Final = "LOCK"
MADE_FROM: Final = 2
"""
Where the log begins of a store that is made at one stroke, from what another held.

Its snapshot stands for the record before, and is made last: without it the store is refused.
"""
_NUMBERED: Final = re.compile(r"(wal|snap)-(\d{20})")
_TEMPORARY: Final = re.compile(r"(wal|snap)-\d{20}\.tmp")


@attrs.frozen
class Layout:
    """A store's files, by the numbers in their names."""

    snapshot: int | None
    """The newest snapshot's."""
    segments: tuple[int, ...]
    """Those of the segments a recovery reads after it, ascending."""
    obsolete: tuple[str, ...]
    """Names of files whose contents the snapshot covers."""
    temporary: tuple[str, ...]
    """Names of files that a crash left unfinished."""


def is_store_file(name: str) -> bool:
    """Whether *name* is that of a finished snapshot or segment."""
    return _NUMBERED.fullmatch(name) is not None


def store_files(directory: Directory) -> list[str]:
    """
    Return the names of a store's snapshots and segments at one moment, sorted.

    One listing may be half from before a change and half from after it. But no name comes
    back that was gone, so what two in a row agree on was there between them, and no more.
    """
    before = None
    while (names := sorted(filter(is_store_file, directory.names()))) != before:
        before = names
    return names


def lay_out(names: Iterable[str]) -> Layout:
    """
    Sort a store's directory.

    A segment is obsolete if the next one begins within, or right after, what the snapshot
    covers.

    Raises:
        DamageError: If a file is missing that must be there.
    """
    names = sorted(names)
    numbers: dict[str, list[int]] = {"snap": [], "wal": []}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            numbers[match[1]].append(int(match[2]))
    snapshots, segments = numbers["snap"], numbers["wal"]
    snapshot = snapshots[-1] if snapshots else None
    covered = snapshot or 0
    kept = [
        first
        for first, following in zip_longest(segments, segments[1:])
        if following is None or following > covered + 1
    ]
    # The log went on in a segment of its own before the snapshot was made. A later one, or
    # one from before that is still there, does not stand in for it.
    if (segments or snapshots) and covered + 1 not in kept:
        reason = f"the segment with record {covered + 1} is missing"
        if kept == [MADE_FROM]:
            reason += ", unless an import or a salvage into it was cut short: then begin it again"
        raise DamageError(reason, 0)
    obsolete = [f"snap-{number:020d}" for number in snapshots[:-1]]
    obsolete += [f"wal-{number:020d}" for number in segments if number not in set(kept)]
    temporary = tuple(filter(_TEMPORARY.fullmatch, names))
    return Layout(snapshot, tuple(kept), tuple(obsolete), temporary)
