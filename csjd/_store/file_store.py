"""
`FileJobStore`: a directory that keeps jobs across crashes.

    LOCK                            who has it
    snap-<number>                   everything up to that record
    wal-<number>, wal-<number>, ... what happened since; only the last one grows

Opening replays these files and then begins a new segment. It never appends to an old one
and never trusts what it has read to be on the disk: after a failed sync the kernel may
serve from memory what it never wrote. So whatever is not known to have been synced is
copied into the new segment, which is synced as a whole before anything goes on. The same
holds for names: opening removes nothing.

One lock guards the segment that grows. `maintain` holds it only to rotate: the long part,
writing a snapshot of what is finished, runs beside commits.
"""

import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Final, get_args

import attrs
import msgspec

from csjd._model.errors import (
    JobStoreClosedError,
    JobStoreError,
    JobStoreFullError,
)
from csjd._model.storing import (
    Accepted,
    DeadLettered,
    Ended,
    Operation,
    Recovery,
    Requeued,
    StoreStatistics,
    ends_only,
)
from csjd._store.batches import encode_batch
from csjd._store.compaction import compact
from csjd._store.files import Directory, FileLayer, Lock, OsFiles
from csjd._store.framing import STORE_ID_BYTES, NewerFormatError, RecordKind
from csjd._store.layout import LOCK_NAME
from csjd._store.lock import LockHeldError
from csjd._store.recovery import corrupt_error, load, locked_error, to_recovery
from csjd._store.replay import BadFileError, Replayed
from csjd._store.segment import (
    Founding,
    NoRoomError,
    NotMadeError,
    Segment,
    found_segment,
)

COMPACT_AT: Final = 64 << 20
"""Bytes of log that make a compaction worth while, at least."""

_MAX_SEGMENTS: Final = 16
"""Each opening adds one, however short."""

# What a full disk must still take: the end of every job. A success is 20 bytes in its
# batch; a quarter of the layer's growth is for dead letters' errors, and for retries.
_RESERVE_PER_JOB: Final = 64

_LIVE_CHANGE: Final[Mapping[type, int]] = dict.fromkeys(get_args(Operation), 0) | {
    Accepted: 1,
    Requeued: 1,
    Ended: -1,
    DeadLettered: -1,
}
"""How many live jobs an operation makes more."""

_encoder: Final = msgspec.msgpack.Encoder()


class FileJobStore:
    """
    A `JobStore` in a directory of its own, on a local disk.

    What it acknowledges survives `kill -9` and the loss of power. Only one process at a
    time has it; a child forked from that process cannot use it. Nothing is opened before
    `recover()`.

    Args:
        path: The directory; made, with mode 0700, if it is missing.
        compact_at: Bytes of log from which on it is compacted, once it is also twice as
            large as the last snapshot.
        files: The file layer; for tests, and for `OsFiles(network=True)`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        compact_at: int = COMPACT_AT,
        files: FileLayer | None = None,
    ) -> None:
        self._path = os.fspath(path)
        self._files: FileLayer = OsFiles() if files is None else files
        self._compact_at = compact_at
        self._mutex = threading.Lock()
        self._opened: _Opened | None = None
        self._unusable = "it is not open: call recover() first"
        self._numbers = _Numbers()

    @property
    def path(self) -> str:
        """Its directory, as given."""
        return self._path

    def __repr__(self) -> str:
        """Return what would make another of the same path."""
        return f"FileJobStore({self._path!r})"

    # --- JobStore ---

    def recover(self) -> Recovery:
        """Open the store, take it for this process, and tell everything in it."""
        with self._mutex:
            if self._opened is not None:
                raise JobStoreError(self._path, "recover() was called before: make another store")
            opened, recovery = self._open()
            self._opened, self._unusable = opened, ""
            return recovery

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> None:
        """Keep a batch of operations: all of them, or none; see `JobStore.commit`."""
        body = encode_batch(operations)
        change = _live_change(operations)
        with self._mutex:
            opened = self._usable()
            segment, numbers = opened.segment, self._numbers
            before = segment.end
            reserve = 0
            if not ends_only(operations):
                reserve = self._reserve(opened.live + change)
            with self._unusable_after_errors(opened):
                segment.append(RecordKind.OPERATIONS, body, sync=sync, reserve=reserve)
            opened.live += change
            numbers.commits += 1
            numbers.operations += len(operations)
            numbers.bytes_written += segment.end - before

    def maintain(self) -> None:
        """Seal an idle log, or compact a long one; beside commits."""
        with self._mutex:
            opened = self._usable()
            if not self._compaction_due(opened):
                self._seal(opened, clean=False)
                return
            through = self._rotate(opened)
        self._compact(opened, through)

    def compact(self) -> None:
        """
        Compact now, however short the log is; as `maintain` otherwise.

        Raises:
            JobStoreError: It failed. The jobs are as safe as before.
        """
        with self._mutex:
            opened = self._usable()
            through = self._rotate(opened)
        self._compact(opened, through)

    def close(self) -> None:
        """Give the store up, clean; see `JobStore.close`."""
        self._close(clean=True)

    def close_as_found(self) -> None:
        """Close the store without saying that its jobs' owner ended well."""
        opened = self._opened
        self._close(clean=opened is None or opened.found_clean)

    def statistics(self) -> StoreStatistics:
        """Return the store's numbers at this moment."""
        opened, numbers = self._opened, self._numbers
        if opened is None:
            return StoreStatistics()
        return StoreStatistics(
            commits=numbers.commits,
            operations=numbers.operations,
            syncs=opened.segment.syncs,
            bytes_written=numbers.bytes_written,
            log_bytes=opened.older_bytes + opened.segment.end,
            snapshot_bytes=opened.snapshot_bytes,
            compactions=numbers.compactions,
            maintenance_due=not self._unusable and self._compaction_due(opened),
            failed=opened.failed,
        )

    # --- opening and closing ---

    def _open(self) -> "tuple[_Opened, Recovery]":
        try:
            directory = self._files.open_directory(self._path, create=True)
        except OSError as error:
            raise JobStoreError(self._path, f"cannot be opened: {error}") from error
        with ExitStack() as if_it_fails, self._translated():
            if_it_fails.callback(directory.close)
            lock = directory.lock(LOCK_NAME, _who_we_are(self._files.now()))
            if_it_fails.callback(lock.release)
            opened = self._recover_in(directory, lock)
            if_it_fails.pop_all()
            return opened

    def _recover_in(self, directory: Directory, lock: Lock) -> "tuple[_Opened, Recovery]":
        state, replayed, layout = load(directory, self._files.now())
        segment = self._begin_segment(directory, replayed, len(state.live))
        # What a crash left of a compaction stays for the next one: the snapshot's own name
        # may not be on the disk yet, as that of anything whose sync may have failed.
        opened = _Opened(
            directory=directory,
            lock=lock,
            segment=segment,
            store_id=replayed.store_id or b"",
            live=len(state.live),
            older_bytes=replayed.log_bytes,
            snapshot_bytes=replayed.snapshot_bytes,
            segments=len(layout.segments) + 1,
            found_clean=replayed.clean,
            compact_after=max(self._compact_at, 2 * replayed.snapshot_bytes),
            segments_after=0 if layout.obsolete else _MAX_SEGMENTS,
        )
        return opened, to_recovery(state, replayed)

    def _begin_segment(self, directory: Directory, replayed: Replayed, live: int) -> Segment:
        """
        Begin a new segment with whatever is not known to be on the disk.

        If not even the last segment's name is known to be, this takes its name and place.
        """
        if replayed.store_id is None:
            replayed.store_id = self._files.entropy(STORE_ID_BYTES)
        about = {"at": self._files.now(), "pid": os.getpid()}
        founding = [Founding(old.kind, old.body, old.flags) for old in replayed.unsettled]
        founding.append(Founding(RecordKind.OPENED, _encoder.encode(about)))
        return found_segment(
            self._files,
            directory,
            store_id=replayed.store_id,
            first=replayed.settled + 1,
            founding=founding,
            reserve=self._reserve(live),
        )

    def _close(self, *, clean: bool) -> None:
        with self._mutex:
            opened = self._opened
            if opened is None or opened.closed:
                self._unusable = self._unusable or "it is closed"
                return
            opened.closed = True
            try:
                if not self._unusable and opened.lock.held():
                    self._seal(opened, clean=clean, trim=True)
            finally:
                self._unusable = "it is closed"
                opened.segment.close()
                opened.lock.release()
                opened.directory.close()

    # --- while it is open ---

    def _usable(self) -> "_Opened":
        opened = self._opened
        if self._unusable or opened is None:
            raise JobStoreClosedError(self._path, self._unusable)
        if not opened.lock.held():
            raise JobStoreClosedError(self._path, "it belongs to the process this one forked from")
        return opened

    def _reserve(self, live: int) -> int:
        """Return how much room must stay free for what a full disk still has to take."""
        return self._files.growth // 4 + _RESERVE_PER_JOB * live

    @contextmanager
    def _unusable_after_errors(self, opened: "_Opened") -> Iterator[None]:
        """Make errors of writing typed, and final: what is on the disk is unknown then."""
        try:
            yield
        except NoRoomError as error:  # and nothing happened
            raise JobStoreFullError(self._path, str(error)) from error
        except NotMadeError as error:  # and nothing happened
            raise JobStoreError(self._path, f"no new segment: {error}") from error
        except OSError as error:
            self._fail(opened, error)
            raise JobStoreError(self._path, self._unusable) from error
        except BaseException as error:  # such as Ctrl-C between a write and its count
            self._fail(opened, error)
            raise

    def _fail(self, opened: "_Opened", error: BaseException) -> None:
        opened.failed = True
        self._unusable = f"writing to it failed ({error!r}): reopen it"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise what callers know in place of what happened below."""
        try:
            yield
        except LockHeldError as error:
            raise locked_error(self._path, error) from None
        except BadFileError as error:
            raise corrupt_error(self._path, error) from error
        except (NewerFormatError, NotMadeError, OSError) as error:
            raise JobStoreError(self._path, str(error)) from error

    def _seal(self, opened: "_Opened", *, clean: bool, trim: bool = False) -> None:
        """Prove to a later recovery that all there is was synced."""
        segment = opened.segment
        if segment.sealed and not clean and not trim:
            return
        with self._unusable_after_errors(opened):
            if segment.durable < segment.number:
                segment.sync()  # a seal vouches only for what was synced before it
            segment.append(RecordKind.SEAL, _encoder.encode(clean), sync=False)
            if trim:
                segment.trim()
            segment.sync()

    def _rotate(self, opened: "_Opened") -> int:
        """Go on in a new segment; return the last record's number in the old one."""
        old = opened.segment
        self._seal(opened, clean=False)
        # Put off the next try first; this one's success sets it anew.
        opened.compact_after = opened.older_bytes + old.end + self._compact_at
        opened.segments_after = opened.segments + _MAX_SEGMENTS
        # If this fails so late that there may be a new segment, a recovery would believe
        # that one rather than what we appended to the old one from here on.
        with self._unusable_after_errors(opened):
            new = self._found_next(opened)
        new.syncs += old.syncs  # before anybody can look at it
        opened.segment = new
        opened.older_bytes += old.end
        opened.segments += 1
        with suppress(OSError):  # the room is for others; nothing else depends on it
            old.trim()
        old.close()
        return new.first - 1

    def _found_next(self, opened: "_Opened") -> Segment:
        """Make the next segment with its reserve, or leave this one's as it is."""
        try:
            return self._found_after(opened)
        except NotMadeError:
            opened.segment.trim()  # there may be room for one of the two
            opened.segment.sync()
        try:
            return self._found_after(opened)
        except NotMadeError:
            opened.segment.regain(self._reserve(opened.live))
            raise

    def _found_after(self, opened: "_Opened") -> Segment:
        return found_segment(
            self._files,
            opened.directory,
            store_id=opened.store_id,
            first=opened.segment.number + 1,
            founding=[Founding(RecordKind.ROTATED, b"")],
            reserve=self._reserve(opened.live),
            must_fit=True,
        )

    def _compaction_due(self, opened: "_Opened") -> bool:
        log_bytes = opened.older_bytes + opened.segment.end
        return log_bytes > opened.compact_after or opened.segments > opened.segments_after

    def _compact(self, opened: "_Opened", through: int) -> None:
        """Replace everything up to *through* by a snapshot."""
        with self._translated():
            size = compact(self._files, opened.directory, through=through)
        opened.snapshot_bytes = size
        opened.older_bytes = 0
        opened.segments = 1
        opened.segments_after = _MAX_SEGMENTS
        opened.compact_after = max(self._compact_at, 2 * size)
        self._numbers.compactions += 1


@attrs.define(eq=False, kw_only=True)
class _Opened:
    """What a store has while it is open."""

    directory: Directory
    lock: Lock
    segment: Segment
    """The one that grows; its `syncs` count those of the ones before it, too."""
    store_id: bytes
    live: int
    """Live jobs, for the reserve."""
    older_bytes: int
    """Bytes of log in the segments before it."""
    snapshot_bytes: int
    segments: int
    found_clean: bool
    compact_after: int
    """Bytes of log from which on a compaction is due."""
    segments_after: int = _MAX_SEGMENTS
    failed: bool = False
    closed: bool = False


@attrs.define(eq=False)
class _Numbers:
    """What is counted."""

    commits: int = 0
    operations: int = 0
    bytes_written: int = 0
    compactions: int = 0


def _live_change(operations: Sequence[Operation]) -> int:
    return sum(map(_LIVE_CHANGE.__getitem__, map(type, operations)))


def _who_we_are(now: float) -> str:
    since = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"
