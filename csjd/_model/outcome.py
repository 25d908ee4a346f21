"""How a job ended, as values."""

from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from csjd._model.job import Job

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Succeeded(Generic[T]):
    """The handler returned."""

    job: Job
    attempts: int
    """Attempts used, this one included; snoozed and interrupted ones are not counted."""
    duration: float
    """Seconds the last attempt ran."""
    result: T
    """What the handler returned."""
    late: bool = False
    """Whether it returned only after its deadline."""


@attrs.frozen(kw_only=True)
class Failed:
    """The last attempt allowed failed, or one failed permanently."""

    job: Job
    attempts: int
    """Attempts used, the last included."""
    duration: float
    """Seconds the last attempt ran."""
    error: BaseException
    """What the last attempt raised."""


@attrs.frozen(kw_only=True)
class TimedOut:
    """The last attempt allowed was cancelled at its deadline."""

    job: Job
    attempts: int
    """Attempts used, the last included."""
    duration: float
    """Seconds the last attempt ran, clean-up after the deadline included."""
    error: BaseException
    """A `TimeoutError`; what the handler raised on its way out, if anything, is its cause."""


@attrs.frozen(kw_only=True)
class Cancelled:
    """The job was cancelled by request."""

    job: Job
    attempts: int
    """Attempts begun, without those that were snoozed or interrupted."""
    duration: float
    """Seconds the cancelled attempt ran; 0 when none was running."""
    error: BaseException
    """A `JobCancelledError`; what the handler raised on its way out, if anything, is its cause."""


Outcome: TypeAlias = Succeeded[Any] | Failed | TimedOut | Cancelled
