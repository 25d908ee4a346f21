"""
What a store keeps and what it is told: the `JobStore` protocol and its values.

A store is a journal. The dispatcher's memory is the truth while it runs; the store is
told what changed, batch by batch, and can tell it all again after a crash. It decides
nothing: it neither runs jobs nor looks for duplicates, and a job's payload is bytes to it.

Jobs are named by their *order*: a positive int the dispatcher gives each accepted job,
higher than every one before. All moments here are wall-clock seconds since the epoch
(`time.time()`), because Trio's clock means nothing after a restart.

Operations and the values of a `Recovery` are positional when encoded: a field may be
added at the end, with a default, and never be taken away. Their tags are part of the
file format of `FileJobStore`.
"""

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol, TypeAlias

import attrs
import msgspec

NEVER: Final = 0.0
"""For `remembered_until`: the id may be used again at once."""


class DueKind(enum.IntEnum):
    """Why a live job is due only later."""

    DELAY = 0
    """Accepted with a delay; it takes its place in its session when it falls due."""
    BACKOFF = 1
    """An attempt failed; it keeps its place and holds its session."""
    SNOOZE = 2
    """Its handler asked for it; it keeps its place and holds its session."""


class DeathReason(enum.IntEnum):
    """Why a job became a dead letter."""

    FAILED = 0
    """Out of attempts, or failed permanently."""
    TIMED_OUT = 1
    """The last attempt allowed was cancelled at its deadline."""
    CRASHED = 2
    """It was running too often when the process died."""


class _Value(msgspec.Struct, frozen=True, array_like=True, gc=False, tag_field="tag"):
    """Encoded as an array: the tag, then the fields in their order."""


# --- operations ------------------------------------------------------------------------
# Tags 1 to 63 are operations, 64 to 127 entries of a snapshot. A reader refuses a tag
# below 128 that it does not know; from 128 on it may carry it along unread.


class Accepted(_Value, frozen=True, tag=1):
    """
    A job was accepted. Its *order* is above every order used before.

    Its id, type and session have up to 512 bytes in UTF-8, and are the same as others only
    if every character is: no case, normal form or trailing space may be lost.
    """

    order: int
    id: str
    """No other live job has it; jobs that have ended may, dead letters among them."""
    type: str
    payload: bytes
    """As `encode_payload` made it; opaque to the store. As large as `max_payload` allows."""
    created_at: datetime
    """Aware. Comes back as the same instant, in UTC."""
    session: str | None = None
    priority: int = 0
    """From -2**63 to 2**64 - 1."""
    due: float | None = None
    """Not before this moment; the kind of due is `DueKind.DELAY`."""
    run_at: datetime | None = None
    """The job's own field; `due` is what counts."""
    max_attempts: int | None = None
    timeout: float | None = None
    metadata: bytes = b""
    """As `encode_payload` made it; empty for none."""
    delay: float | None = None
    """Seconds it was to wait for `due`, if it was not for a `run_at`; see `LiveJob.delay`."""


class Started(_Value, frozen=True, tag=2):
    """
    A lane is about to run the job's handler.

    Needed only for jobs whose crashes shall be counted, and only then: without it a job
    that was running at a crash comes back all the same, with no crash counted. It need
    not be synced, since what kills a process leaves the kernel's memory alone.
    """

    order: int


class Interrupted(_Value, frozen=True, tag=3):
    """A started job was stopped and is back at its place: nothing used, not running."""

    order: int


class Postponed(_Value, frozen=True, tag=4):
    """A live job waits for its due time: backoff or snooze."""

    order: int
    attempts: int
    """Attempts used so far, in all."""
    due: float
    kind: DueKind = DueKind.BACKOFF
    delay: float | None = None
    """Seconds it was to wait for `due`; see `LiveJob.delay`."""


class Placed(_Value, frozen=True, tag=5):
    """A live job takes a new place, at the end: a delayed one that fell due."""

    order: int
    new_order: int
    """Above every order used before; what follows names the job by it."""


class Ended(_Value, frozen=True, tag=6):
    """A live job succeeded or was cancelled; the store forgets all but its id."""

    order: int
    remembered_until: float = NEVER
    """Until then its id is a duplicate."""


class DeadLettered(_Value, frozen=True, tag=7):
    """A live job failed for good and is kept as a dead letter, under the same order."""

    order: int
    attempts: int
    reason: DeathReason
    error: str
    """What to show people of its last error: up to 4000 characters, NUL not excepted."""
    at: float
    remembered_until: float = NEVER


class Requeued(_Value, frozen=True, tag=8):
    """A dead letter is a live job again: at the end, no attempts used, no crashes."""

    order: int
    new_order: int
    """Above every order used before."""


class Discarded(_Value, frozen=True, tag=9):
    """A dead letter is gone."""

    order: int


class Halted(_Value, frozen=True, tag=10):
    """The session runs nothing until it is resumed."""

    session: str


class Resumed(_Value, frozen=True, tag=11):
    """The session goes on."""

    session: str


Operation: TypeAlias = (
    Accepted
    | Started
    | Interrupted
    | Postponed
    | Placed
    | Ended
    | DeadLettered
    | Requeued
    | Discarded
    | Halted
    | Resumed
)
"""All that a store is told: any of the values above."""


# --- what comes back -------------------------------------------------------------------


class LiveJob(_Value, frozen=True, tag=64):
    """An accepted job that has not ended."""

    accepted: Accepted
    """As it was accepted; after `Placed` or `Requeued` its order is the new one."""
    attempts: int = 0
    """Attempts used."""
    crashes: int = 0
    """How often the process died while the job was known to be running."""
    due: float | None = None
    """Not before this moment; None: at once."""
    kind: DueKind = DueKind.DELAY
    """What the due time is for; says nothing where `due` is None."""
    started: bool = False
    """Inside a store only: whether it is running. Never true in a `Recovery`."""
    delay: float | None = None
    """
    Seconds it was to wait for `due` when that was noted; None: no bound. Should the clock
    have been set back since, it waits no longer than that.
    """

    @property
    def order(self) -> int:
        """Its place."""
        return self.accepted.order


class DeadLetter(_Value, frozen=True, tag=65):
    """A job that will not be tried again, kept with its last error."""

    accepted: Accepted
    attempts: int
    crashes: int
    reason: DeathReason
    error: str
    at: float

    @property
    def order(self) -> int:
        """What `Requeued` and `Discarded` name it by."""
        return self.accepted.order


class Quarantined(_Value, frozen=True, tag=66):
    """A record that is sound as bytes but means nothing here; kept, and shown."""

    reason: str
    raw: bytes
    """The record, msgpack."""
    session: str | None = None
    """Its session, where that much could be read; it is halted."""


@attrs.frozen(kw_only=True)
class Recovery:
    """Everything a store knows, told once when it is opened; the receiver owns it."""

    live: list[LiveJob]
    """In order of acceptance."""
    remembered: dict[str, float]
    """Ids of ended jobs, each with the moment its duplicate window ends."""
    dead_letters: list[DeadLetter]
    """In the order in which they died."""
    halted: frozenset[str]
    """Sessions that run nothing until resumed."""
    quarantined: list[Quarantined]
    """Never empty without a reason to look."""
    next_order: int
    """One more than the highest order ever used, also by jobs that have ended; 1 at first."""
    clean: bool
    """Whether the last owner closed the store; True for a new one."""
    notices: tuple[str, ...] = ()
    """What recovery did that people should know of, such as a torn tail it cut."""


@attrs.frozen(kw_only=True)
class StoreStatistics:
    """A store's numbers, since it was opened where they count."""

    commits: int = 0
    """Batches made durable."""
    operations: int = 0
    """Operations in them."""
    syncs: int = 0
    """How often the disk was asked to make the log durable."""
    bytes_written: int = 0
    """Bytes appended to the log."""
    log_bytes: int = 0
    """Size of the log that a recovery would have to read."""
    snapshot_bytes: int = 0
    """Size of the snapshot it would begin with."""
    compactions: int = 0
    """Snapshots made."""
    maintenance_due: bool = False
    """Whether `maintain` would do something useful now."""
    failed: bool = False
    """Whether an error has made the store unusable until it is reopened."""


class JobStore(Protocol):
    """
    Where one process's accepted jobs survive a crash.

    Every method but `statistics` may block: the dispatcher calls those from threads, each
    time from any, never two at a time, except that `maintain` runs beside `commit`.
    `statistics` is called from the event loop after every commit, beside any other: it
    must return at once. An instance serves one `recover` to one `close`.

    `csjd.testing.stores` has a suite that says whether an implementation keeps to this.
    """

    def recover(self) -> Recovery:
        """
        Open the store, take it for this process, and tell everything in it.

        A job that was `Started` and neither postponed, interrupted nor ended when its
        process died has one crash more than before.

        Raises:
            JobStoreLockedError: Another process has it.
            JobStoreCorruptError: It is damaged; nothing was changed.
            JobStoreError: It cannot be opened.
        """
        ...

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> None:
        """
        Keep a batch of operations: all of them, or none.

        When it returns they survive the loss of power; with `sync=False`, only the death
        of the process, until the next synced commit. Batches take effect in the order of
        the calls, and the operations of one in their order.

        Operations refer to orders that exist. A store need not check that; what refers
        to nothing shows up in quarantine after the next recovery.

        Raises:
            JobStoreFullError: No room. Nothing was kept, and the store goes on; a batch
                that only ends jobs (no `Accepted`, no `Requeued`) may still fit.
            JobStoreClosedError: Closed, not recovered yet, or failed earlier. Nothing was kept.
            JobStoreError: Whether the batch was kept shows only after reopening; no
                later commit will succeed before that.
        """
        ...

    def maintain(self) -> None:
        """
        Do what keeps the store small and its end beyond doubt; beside commits.

        Called when `statistics().maintenance_due`, and once the store has been idle for
        about a second. A store without such work returns at once.

        Raises:
            JobStoreError: It failed. The jobs are as safe as before.
        """
        ...

    def close(self) -> None:
        """
        Give the store up; everything committed with `sync=False` is synced.

        The close is clean: whatever was `Started` counts as interrupted. Closing twice
        does nothing, nor does closing what is not open: an instance that `recover` refused
        leaves the owner's lock alone. What it holds of the operating system is released
        even if it raises.

        A store may also have a method `close_as_found`, which does not make it clean: that
        one is called if an opening was given up before all that `recover` told was taken in.

        Raises:
            JobStoreError: The end could not be synced.
        """
        ...

    def statistics(self) -> StoreStatistics:
        """Return the store's numbers at this moment, and wait for nothing, not even a lock."""
        ...


def ends_only(operations: Sequence[Operation]) -> bool:
    """Whether a batch adds no job, so that a store with its last room should take it."""
    return _GROWING.isdisjoint(map(type, operations))


_GROWING: Final = frozenset({Accepted, Requeued})
