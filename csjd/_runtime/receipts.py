"""Receipts: what a caller holds of an accepted job."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from csjd._core.entry import Entry
from csjd._model.errors import (
    DispatcherClosedError,
    DuplicateJobError,
    JobCancelledError,
    JobFailedError,
    JobStoreError,
    QueueFullError,
    WouldDeadlockError,
)
from csjd._model.job import Job
from csjd._model.lifecycle import TERMINAL, JobState
from csjd._model.outcome import Cancelled, Failed, Outcome, Succeeded, TimedOut

if TYPE_CHECKING:
    from csjd._runtime.scheduler import Scheduler


def outcome_of(entry: Entry) -> Outcome:
    """Return how the job of *entry*, which has ended, did so."""
    job, attempts, duration = entry.job, entry.attempts, entry.duration
    match entry.state:
        case JobState.SUCCEEDED:
            return Succeeded(
                job=job, attempts=attempts, duration=duration, result=entry.result, late=entry.late
            )
        case JobState.FAILED:
            ending = TimedOut if entry.timed_out else Failed
            return ending(job=job, attempts=attempts, duration=duration, error=entry.result)
        case JobState.CANCELLED:
            return Cancelled(job=job, attempts=attempts, duration=duration, error=entry.result)
        case state:
            raise AssertionError(f"job {job.id!r} has not ended, it is {state.name}")


@attrs.frozen(eq=False, repr=False)
class Receipt:
    """An accepted job: how it ends can be waited for, and it can be cancelled."""

    _entry: Entry
    _scheduler: "Scheduler"

    def __repr__(self) -> str:
        """Return the job's id and state; its payload may be long, and nobody else's business."""
        return f"<Receipt {self.job.id!r}, {self.state.name.lower()}>"

    @property
    def job(self) -> Job:
        """The job, as it was accepted."""
        return self._entry.job

    @property
    def state(self) -> JobState:
        """Where the job is in its life now."""
        return self._entry.state

    async def outcome(self) -> Outcome:
        """
        Wait for the job's end, however it ends, and return it.

        Keeps waiting while the dispatcher is stopped: `start()` goes on with the job.

        Raises:
            DispatcherClosedError: The dispatcher's block was left before the job ended.
            JobStoreError: The job was cancelled, but the store did not keep that.
            WouldDeadlockError: Called by a handler whose waiting would keep the job from
                ever ending.
            RuntimeError: Called from another Trio run.
        """
        self._scheduler.check_home("Receipt.outcome")
        entry = self._entry
        if entry.state in TERMINAL:
            await trio.lowlevel.checkpoint()
        else:
            await self._scheduler.wait_for_end(entry)
        if entry.state not in TERMINAL:
            raise DispatcherClosedError("closed")
        journal = self._scheduler.journal
        if journal is not None and entry.state is JobState.CANCELLED:
            await journal.settle(entry)
        return outcome_of(entry)

    async def result(self) -> Any:
        """
        Wait for the job's end and return what its handler returned.

        Raises:
            JobFailedError: From the handler's exception, if the job failed or timed out.
            JobCancelledError: If it was cancelled.
            DispatcherClosedError: As for `outcome`.
            JobStoreError: As for `outcome`.
            WouldDeadlockError: As for `outcome`.
            RuntimeError: As for `outcome`.
        """
        match await self.outcome():
            case Succeeded(result=result):
                return result
            case Failed(job=job, attempts=attempts, error=error):
                raise JobFailedError(job.id, attempts) from error
            case TimedOut(job=job, attempts=attempts, error=error):
                raise JobFailedError(job.id, attempts, timed_out=True) from error
            case Cancelled(job=job, error=error):
                raise JobCancelledError(job.id) from error

    def cancel(self) -> bool:
        """
        Ask for the job to be cancelled; return False if it has ended.

        A job that is not running ends at once. A running one has its handler cancelled; if that
        returns normally all the same, the job has succeeded.

        Raises:
            RuntimeError: Called from another thread or another Trio run.
        """
        self._scheduler.check_home("Receipt.cancel")
        return self._scheduler.cancel(self._entry)


class _Receipts(Sequence[Receipt | None]):
    """Receipts by position, made when they are looked at."""

    __slots__ = ("_entries", "_scheduler")

    def __init__(self, entries: Sequence[Entry | None], scheduler: "Scheduler") -> None:
        self._entries = entries
        self._scheduler = scheduler

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return tuple(map(self._receipt, self._entries[position]))
        return self._receipt(self._entries[position])

    def _receipt(self, entry: Entry | None) -> Receipt | None:
        return None if entry is None else Receipt(entry, self._scheduler)


@attrs.frozen(kw_only=True, eq=False)
class BatchReport:
    """What became of each job of a batch."""

    accepted: int
    duplicates: int
    """Refused: the id is live or ended within the duplicate window."""
    invalid: int
    """Refused: something about the job is unusable, or its type has no handler."""
    rejected: int
    """
    Refused: a limit is reached, for ever if a handler waited for room; the dispatcher closed
    meanwhile; or the store has no room.
    """
    errors: Mapping[int, Exception]
    """By position in the batch: why that job was refused."""
    receipts: Sequence[Receipt | None]
    """By position in the batch: None where the job was refused."""


def report_batch(
    entries: Sequence[Entry | None], errors: Mapping[int, Exception], scheduler: "Scheduler"
) -> BatchReport:
    """Return the report of a batch whose jobs became *entries*, or *errors*, by position."""
    duplicates = sum(isinstance(error, DuplicateJobError) for error in errors.values())
    rejected = sum(
        isinstance(
            error, (QueueFullError, WouldDeadlockError, DispatcherClosedError, JobStoreError)
        )
        for error in errors.values()
    )
    return BatchReport(
        accepted=len(entries) - len(errors),
        duplicates=duplicates,
        invalid=len(errors) - duplicates - rejected,
        rejected=rejected,
        errors=errors,
        receipts=_Receipts(entries, scheduler),
    )
