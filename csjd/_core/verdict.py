"""What becomes of a job whose attempt raised."""

import enum
import math
from random import Random

import attrs

from csjd._core.lanes import CancelReason
from csjd._model.checks import is_number
from csjd._model.errors import JobCancelledError, PermanentError, RetryAfter, Snooze
from csjd._model.groups import leaves
from csjd._model.handler import HandlerSpec
from csjd._model.job import Job
from csjd._model.retry import Retry, RetryPolicy


class Kind(enum.Enum):
    """How an attempt that raised goes into the books."""

    RETRY = "another attempt after a delay"
    SNOOZE = "again after a delay, attempt not counted"
    FAIL = "failed for good"
    CANCEL = "cancelled by request"
    INTERRUPT = "put back, attempt not counted"


@attrs.frozen
class Verdict:
    """The decision, and the error to show for it."""

    kind: Kind
    error: BaseException
    delay: float = 0.0
    """Seconds; for RETRY and SNOOZE."""
    timed_out: bool = False
    panic: bool = False
    """The handler raised something that is no `Exception`."""


def judge(
    error: BaseException,
    *,
    job: Job,
    spec: HandlerSpec,
    policy: RetryPolicy,
    attempt: int,
    reason: CancelReason | None,
    random: Random,
) -> Verdict:
    """
    Decide what becomes of a job whose attempt ended with *error*.

    Args:
        error: What the handler raised.
        job: The job.
        spec: Its type's settings.
        policy: Says whether and when there is another attempt.
        attempt: Which attempt this was, counted from 1.
        reason: Why csjd cancelled the attempt, None if it did not. The reason decides,
            whatever the handler made of its cancellation.
        random: Where jitter is drawn from.
    """
    parts = tuple(leaves(error))
    if any(isinstance(part, KeyboardInterrupt) for part in parts):
        return Verdict(Kind.INTERRUPT, error)
    match reason:
        case CancelReason.REQUEST:
            return Verdict(Kind.CANCEL, _caused(JobCancelledError(job.id), error))
        case CancelReason.SHUTDOWN | CancelReason.LEASE_LOST:
            return Verdict(Kind.INTERRUPT, error)
    timed_out = reason is CancelReason.TIMEOUT
    if timed_out:
        error = _caused(TimeoutError(f"job {job.id!r} ran into its timeout"), error)
    elif not isinstance(error, Exception):
        return Verdict(Kind.FAIL, error, panic=True)
    if any(isinstance(part, PermanentError) for part in parts):
        return Verdict(Kind.FAIL, error, timed_out=timed_out)
    if timed_out and not spec.retry_on_timeout:
        return Verdict(Kind.FAIL, error, timed_out=True)
    asked = max((p.seconds for p in parts if isinstance(p, (Snooze, RetryAfter))), default=None)
    if asked is not None and not timed_out and all(isinstance(part, Snooze) for part in parts):
        return Verdict(Kind.SNOOZE, error, asked)
    try:
        delay = _delay(error, job, policy, attempt, random)
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # noqa: ASYNC103  from plain code comes no cancellation
        # The policy is the caller's code: what it raises ends its job, not the lane.
        failure = _caused(broken, error)
        return Verdict(Kind.FAIL, failure, timed_out=timed_out)  # noqa: ASYNC104
    if delay is None:
        return Verdict(Kind.FAIL, error, timed_out=timed_out)
    return Verdict(Kind.RETRY, error, delay if asked is None else asked, timed_out=timed_out)


def _delay(
    error: BaseException, job: Job, policy: RetryPolicy, attempt: int, random: Random
) -> float | None:
    """Return seconds until the next attempt, None if there is none."""
    if job.max_attempts is not None:
        if attempt >= job.max_attempts:
            return None
        if isinstance(policy, Retry):  # the job's own limit replaces the policy's
            return policy.delay(attempt, random.random()) if policy.covers(error) else None
    delay = policy(attempt, error, random)
    if delay is not None and not (is_number(delay) and 0 <= delay < math.inf):
        raise ValueError(f"a retry policy must return finite seconds >= 0 or None, got {delay!r}")
    return delay


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    """Return *error* with its cause, unless it is itself behind that: no chain is a circle."""
    behind: set[BaseException] = set()
    link: BaseException | None = cause
    while link is not None and link not in behind:
        behind.add(link)
        link = link.__cause__ or link.__context__
    if error not in behind:
        error.__cause__ = cause
    return error
