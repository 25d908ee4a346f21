"""
Saving what can be saved from a damaged store, into a new one.

Everything that still proves itself by its checksum, and counts, is taken, wherever it
lies; what is missing between is reported by its numbers. Operations on jobs whose
acceptance was lost end up in quarantine, and so does what a later version wrote and this
one must not ignore. What opens as it is comes out as it would open. The damaged store is
only read.
"""

from collections.abc import Hashable

import attrs

from csjd._model.storing import DeadLetter, LiveJob, Quarantined
from csjd._store.batches import Broken, Entry, Foreign, Remembered, decode_entries
from csjd._store.files import FileLayer, OsFiles
from csjd._store.framing import BytesSource, DamageError, NewerFormatError, RecordKind
from csjd._store.inspection import looking_into
from csjd._store.pacing import unpaced
from csjd._store.replay import apply_record
from csjd._store.snapshot import read_snapshot
from csjd._store.state import State
from csjd._store.transfer import create_store
from csjd._store.wreck import Remains, Wreck, survey


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
    """What is wrong with which file, and what was left out of it."""


def salvage(path: str, into: str, *, files: FileLayer | None = None) -> Salvage:
    """
    Make a new store at *into* from whatever of the one at *path* is sound.

    Raises:
        JobStoreLockedError: What is at *into* is in use.
        JobStoreError: There is nothing at *path*, something at *into*, or one of them
            cannot be read or written.
    """
    layer: FileLayer = OsFiles() if files is None else files
    wreck = looking_into(path, files, lambda directory, _: survey(directory))
    rebuilding = _Rebuilding(wreck, State(now=layer.now()))
    lost = rebuilding.run()
    state = rebuilding.state
    live = len(state.live)
    saved = create_store(into, state, layer)
    return Salvage(saved=saved, live=live, lost=tuple(lost), problems=tuple(wreck.problems))


@attrs.define
class _Snapshot:
    """What a snapshot tells."""

    through: int
    entries: list[Entry | Broken | Foreign] = attrs.field(factory=list)
    next_order: int | None = None
    """None: it is not whole, and there were more entries."""


@attrs.define(eq=False)
class _Rebuilding:
    """From what is left of a store to its state, as near as that comes."""

    _wreck: Wreck
    state: State
    _through: int = 0
    """The last record that the state knows of."""
    _clean: bool = True
    """Whether the log so far ends with the store closed."""

    def run(self) -> list[tuple[int, int]]:
        """Bring the state to the end; return the ranges of records that are missing for it."""
        wreck = self._wreck
        whole, broken = self._snapshots()
        if whole is not None:
            self._restore(whole)
        if broken is not None and not self._can_replace(broken, from_nothing=whole is None):
            self._replay(broken.through)
            self._put_together(broken)
        lost = wreck.gaps(self._through, wreck.reach)
        self._replay(wreck.reach)
        if not self._clean:
            self.state.crashed()
        self.state.next_order = max(self.state.next_order, _highest_order(self.state) + 1)
        return lost

    def _snapshots(self) -> tuple[_Snapshot | None, _Snapshot | None]:
        """Return the newest whole snapshot, and the newest broken one if that is newer."""
        broken: _Snapshot | None = None
        for remains in reversed(self._wreck.snapshots):
            snapshot = _read(remains, self._wreck.problems)
            if snapshot.next_order is not None:
                return snapshot, broken
            broken = broken or snapshot
        return None, broken

    def _can_replace(self, broken: _Snapshot, *, from_nothing: bool) -> bool:
        """Whether the records tell all that *broken* should have told."""
        if self._wreck.gaps(self._through, broken.through):
            return False
        first = self._wreck.records.get(1)
        # A store that was imported begins with a snapshot, and not by being opened.
        return not from_nothing or (first is not None and first.kind == RecordKind.OPENED)

    def _restore(self, snapshot: _Snapshot) -> None:
        for entry in snapshot.entries:
            self.state.restore(entry)
        self.state.next_order = snapshot.next_order or _highest_order(self.state) + 1
        self._through, self._clean = snapshot.through, True

    def _put_together(self, broken: _Snapshot) -> None:
        """Begin anew with *broken*, and add what it lacks of the state so far, which has gaps."""
        told, self.state = self.state, State(now=self.state.now)
        self._restore(broken)
        self.state.next_order = max(self.state.next_order, told.next_order)
        known = {_subject(entry) for entry in broken.entries}
        for piece in told.drain():
            for entry in piece:
                if _subject(entry) not in known:
                    self.state.restore(entry)

    def _replay(self, through: int) -> None:
        """Apply the records up to *through* that are there."""
        records = self._wreck.records
        for number in sorted(each for each in records if self._through < each <= through):
            record = records[number]
            try:
                self._clean = apply_record(record, self.state, unpaced(), clean=self._clean)
            except NewerFormatError as error:
                self._wreck.problems.append(f"record {number}, now in quarantine: {error}")
                self._clean = apply_record(
                    record, self.state, unpaced(), clean=self._clean, keep_newer=True
                )
        self._through = max(self._through, through)


def _read(remains: Remains, problems: list[str]) -> _Snapshot:
    """Return what a snapshot tells: all of it, or what is sound in it."""
    for keep_newer in (False, True):
        snapshot = _Snapshot(remains.number)
        take = snapshot.entries.append
        source, header = BytesSource(remains.data), remains.header
        assert header is not None
        try:
            footer, _ = read_snapshot(source, header, take, unpaced(), keep_newer=keep_newer)
            snapshot.next_order = footer.next_order
            return snapshot
        except NewerFormatError as error:
            problems.append(f"{remains.name}: what is now in quarantine: {error}")
        except DamageError as damage:
            reason = damage.reason
            break
    snapshot = _Snapshot(remains.number)
    for record in remains.sound():
        if record.kind == RecordKind.ENTRIES:
            snapshot.entries += decode_entries(record.body, keep_newer=True)
    problems.append(f"{remains.name}: {reason}; {len(snapshot.entries)} entries are sound")
    return snapshot


def _subject(entry: Entry | Broken | Foreign) -> Hashable:
    """Return what an entry is about: a state holds no two that are about the same."""
    match entry:
        case LiveJob() | DeadLetter():  # one job's order may have changed in between
            return LiveJob, entry.accepted.id
        case Remembered():
            return Remembered, entry.id
        case Broken():
            return Quarantined(entry.reason, entry.raw, entry.session)
        case _:
            return entry


def _highest_order(state: State) -> int:
    return max(state.live.highest(), max(state.dead, default=0))
