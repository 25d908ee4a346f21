"""
Every error csjd raises, in families by who can act.

Names that end in `Error` are raised at callers, with two exceptions: `PermanentError` is
raised by handlers, as are `Snooze` and `RetryAfter`, which steer a job; and a
`RecordedError` is raised by nobody, it stands in a dead letter for an error of an earlier run.
"""

import sys
from typing import Any, NoReturn

import attrs


def _revive(cls: type["CsjdError"], args: tuple[Any, ...], state: dict[str, Any]) -> "CsjdError":
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class CsjdError(Exception):
    """The root of every error that csjd raises on its own account."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with `args`, which need not be what its `__init__`
        # takes. The dictionary holds every field, and the notes.
        return _revive, (type(self), self.args, self.__dict__.copy())


# --- the caller misused us -------------------------------------------------------------


@attrs.define(eq=False, slots=False)  # slots would drop notes when pickled; so for all below
class InvalidJobError(CsjdError, ValueError):
    """The job was refused because a field of it is unusable; nothing changed."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field} {self.reason}"


@attrs.define(eq=False, slots=False)
class HandlerNotFoundError(CsjdError, LookupError):
    """No handler is registered for the job's type; nothing changed."""

    type: str

    def __str__(self) -> str:
        return f"no handler for jobs of type {self.type!r}: register one before you submit"


@attrs.define(eq=False, slots=False)
class DeadLetterNotFoundError(CsjdError, LookupError):
    """No dead letter has this id (any more); nothing changed."""

    job_id: str

    def __str__(self) -> str:
        return f"no dead letter has the id {self.job_id!r}: look at `await dead_letters()`"


@attrs.define(eq=False, slots=False)
class WorkerNotFoundError(CsjdError, LookupError):
    """There is no such worker; nothing changed."""

    worker: object
    workers: tuple[int, ...]

    def __str__(self) -> str:
        return f"there is no worker {self.worker!r}, there are {list(self.workers)}"


@attrs.define(eq=False, slots=False)
class WouldDeadlockError(CsjdError, RuntimeError):
    """The wait could never have ended, so it was not begun; nothing changed."""

    reason: str

    def __str__(self) -> str:
        return f"{self.reason}: submit follow-up work and return instead of waiting for it"


@attrs.define(eq=False, slots=False)
class DispatcherNotStartedError(CsjdError, RuntimeError):
    """The dispatcher has not been started; nothing changed."""

    def __str__(self) -> str:
        return "the dispatcher is not started: enter it with `async with csjd.open_dispatcher(...)`"


@attrs.define(eq=False, slots=False)
class DispatcherClosedError(CsjdError, RuntimeError):
    """The dispatcher is stopping, stopped or left; nothing changed."""

    state: str

    def __str__(self) -> str:
        remedy = "open a new one" if self.state == "closed" else "call `await start()` first"
        return f"the dispatcher is {self.state}: {remedy}"


# --- we refused ------------------------------------------------------------------------


@attrs.define(eq=False, slots=False)
class DuplicateJobError(CsjdError):
    """The id belongs to a live job, or to one that ended a moment ago; nothing changed."""

    job_id: str
    live: bool

    def __str__(self) -> str:
        if self.live:
            return f"job {self.job_id!r} is already accepted and has not ended"
        return f"job {self.job_id!r} ended within the duplicate window"


@attrs.define(eq=False, slots=False)
class QueueFullError(CsjdError):
    """The job was refused because a limit is reached; nothing changed."""

    limit_name: str
    limit: int
    session: str | None = None

    def __str__(self) -> str:
        where = f" of session {self.session!r}" if self.session is not None else ""
        return (
            f"{self.limit_name}{where} is reached ({self.limit}): "
            "retry later, submit with wait=True, or raise the limit"
        )


@attrs.define(eq=False, slots=False)
class StuckHandlersError(CsjdError, RuntimeError):
    """Too many handlers of earlier runs still have not ended, so no new run began."""

    job_ids: tuple[str, ...]
    limit: int

    def __str__(self) -> str:
        names = ", ".join(map(repr, self.job_ids[:5]))
        return (
            f"{len(self.job_ids)} handlers outlived the last stop (limit {self.limit}), "
            f"first {names}: wait for them to end, or end the process"
        )


# --- how a job ended, for `Receipt.result()` -------------------------------------------


@attrs.define(eq=False, slots=False)
class JobFailedError(CsjdError):
    """The job failed for good; the handler's exception is the cause."""

    job_id: str
    attempts: int
    timed_out: bool = False

    def __str__(self) -> str:
        how = "timed out" if self.timed_out else "failed"
        return f"job {self.job_id!r} {how} after {self.attempts} attempts"


@attrs.define(eq=False, slots=False)
class JobCancelledError(CsjdError):
    """The job was cancelled before it succeeded."""

    job_id: str

    def __str__(self) -> str:
        return f"job {self.job_id!r} was cancelled"


# --- something of ours, or below us, broke ---------------------------------------------


@attrs.define(eq=False, slots=False)
class DispatcherCrashedError(CsjdError):
    """The dispatcher's task died; what killed it is the cause."""

    def __str__(self) -> str:
        return "the dispatcher's task died, see the cause; its unfinished jobs are in `last_stop`"


@attrs.define(eq=False, slots=False)
class JobStoreError(CsjdError):
    """The store cannot be used; jobs acknowledged before are still in it."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@attrs.define(eq=False, slots=False)
class JobStoreLockedError(JobStoreError):
    """Another process holds the store, or another `FileJobStore` of this one."""

    holder: str = "unknown"

    def __str__(self) -> str:
        return f"{self.path} is in use by {self.holder}: stop it first, or open another store"


@attrs.define(eq=False, slots=False)
class JobStoreClosedError(JobStoreError):
    """The store was closed, or poisoned by an earlier write error; reopen it."""


@attrs.define(eq=False, slots=False)
class JobStoreFullError(JobStoreError):
    """The store's disk is full; nothing of the batch was kept, and the store goes on."""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}. Nothing was kept; free some room and submit again"


@attrs.define(eq=False, slots=False)
class JobStoreCorruptError(JobStoreError):
    """The store's files are damaged; nothing was changed in them."""

    file: str = ""
    offset: int = 0

    def __str__(self) -> str:
        return (
            f"{self.file} is damaged at byte {self.offset}: {self.reason}. Nothing was changed. "
            f"Look with `python -m csjd store verify {self.path}`, "
            f"save what can be saved with `python -m csjd store salvage {self.path} OUT`"
        )


@attrs.define(eq=False, slots=False)
class CacheClosedError(CsjdError, RuntimeError):
    """The cache's block was left, or its nursery cancelled."""

    def __str__(self) -> str:
        return "the cache is closed: open a new one"


@attrs.define(eq=False, slots=False)
class BatchLoaderClosedError(CsjdError, RuntimeError):
    """The batch loader is closed."""

    def __str__(self) -> str:
        return "the batch loader is closed: open a new one"


@attrs.define(eq=False, slots=False)
class MissingBatchResultError(CsjdError, LookupError):
    """The batch's fetch returned nothing for this key."""

    key: object

    def __str__(self) -> str:
        return f"the batch's fetch returned no value for key {self.key!r}"


@attrs.define(eq=False, slots=False)
class RecordedError(CsjdError):
    """What a job failed of in an earlier run of the program; only its text is left."""

    text: str

    def __str__(self) -> str:
        return self.text


# --- raised by handlers ----------------------------------------------------------------


class PermanentError(CsjdError):
    """Raised by a handler: this job must not be tried again."""


def permanent(error: BaseException) -> NoReturn:
    """
    End the job now with *error* as the cause, whatever attempts are left.

    Raises:
        PermanentError: Always, from *error*.
    """
    raise PermanentError(str(error)) from error


class _Steering(CsjdError):  # noqa: N818  a signal, not an error
    """A wait, in seconds, that a handler asks for."""

    seconds: float

    def __init__(self, seconds: float) -> None:
        # Not `checks.is_number`, which needs this module.
        usable = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (usable and 0 <= seconds <= sys.float_info.max):
            raise ValueError(f"seconds must be a finite number >= 0, got {seconds!r}")
        super().__init__(seconds)
        self.seconds = seconds


class Snooze(_Steering):
    """Raised by a handler: run the job again after *seconds*; this attempt is not counted."""

    def __str__(self) -> str:
        return f"snoozed for {self.seconds} s"


class RetryAfter(_Steering):
    """
    Raised by a handler: the attempt failed, and the next one waits just *seconds*.

    Whether there is a next one, its retry policy decides as for any other error.
    """

    def __str__(self) -> str:
        return f"failed, retry after {self.seconds} s"
