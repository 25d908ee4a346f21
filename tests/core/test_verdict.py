import math
from random import Random
from typing import Any

import pytest
import trio

import csjd
from csjd._core.lanes import CancelReason
from csjd._core.verdict import Kind, Verdict, judge
from csjd._model.handler import describe
from tests.core.naive import nothing

THRICE = csjd.Retry(max_attempts=3, min_delay=1, jitter=0)


def _judge(
    error: BaseException,
    *,
    attempt: int = 1,
    reason: CancelReason | None = None,
    policy: Any = THRICE,
    job: Any = None,
    **settings: Any,
) -> Verdict:
    return judge(
        error,
        job=job or csjd.Job(type="t", id="a"),
        spec=describe("t", nothing, **settings),
        policy=policy,
        attempt=attempt,
        reason=reason,
        random=Random(1),
    )


def _group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("several", errors)


def test_failure_is_retried_with_backoff() -> None:
    verdict = _judge(ValueError(), attempt=2)
    assert (verdict.kind, verdict.delay) == (Kind.RETRY, 2)


def test_last_failure_is_final_with_its_error() -> None:
    error = ValueError()
    verdict = _judge(error, attempt=3)
    assert verdict.kind is Kind.FAIL
    assert verdict.error is error


@pytest.mark.parametrize(
    ("error", "kind", "delay"),
    [
        (csjd.PermanentError(), Kind.FAIL, 0),
        (_group(ValueError(), csjd.PermanentError()), Kind.FAIL, 0),
        (_group(csjd.Snooze(9), csjd.PermanentError()), Kind.FAIL, 0),
        (_group(ValueError(), _group(OSError(), csjd.PermanentError())), Kind.FAIL, 0),
        (csjd.Snooze(9), Kind.SNOOZE, 9),
        (_group(csjd.Snooze(2), _group(csjd.Snooze(9))), Kind.SNOOZE, 9),
        (csjd.RetryAfter(7), Kind.RETRY, 7),
        (csjd.RetryAfter(0), Kind.RETRY, 0),
        (_group(csjd.RetryAfter(7), csjd.RetryAfter(8)), Kind.RETRY, 8),
        (_group(csjd.RetryAfter(7), csjd.Snooze(8)), Kind.RETRY, 8),
        (_group(ValueError(), csjd.Snooze(8)), Kind.RETRY, 8),
        (_group(ValueError(), OSError()), Kind.RETRY, 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_handler_steers_by_the_leaves_of_what_it_raises(
    error: BaseException, kind: Kind, delay: float
) -> None:
    verdict = _judge(error)
    assert (verdict.kind, verdict.delay) == (kind, delay)


def test_snooze_is_granted_on_the_last_attempt_and_retry_after_is_not() -> None:
    assert _judge(csjd.Snooze(1), attempt=3).kind is Kind.SNOOZE
    assert _judge(csjd.RetryAfter(1), attempt=3).kind is Kind.FAIL


def test_keyboard_interrupt_anywhere_puts_the_job_back() -> None:
    for error in (KeyboardInterrupt(), _group(ValueError(), KeyboardInterrupt())):
        for reason in (None, CancelReason.TIMEOUT, CancelReason.SHUTDOWN):
            assert _judge(error, reason=reason).kind is Kind.INTERRUPT


class _Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), GeneratorExit(), _Odd(), _group(ValueError(), _Odd()), trio.Cancelled],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_exception_is_a_panic_and_final(error: Any) -> None:
    if error is trio.Cancelled:
        error = trio.Cancelled._create(source="unknown")
    verdict = _judge(error)
    assert (verdict.kind, verdict.panic) == (Kind.FAIL, True)


@pytest.mark.parametrize(
    "error",
    [ValueError(), csjd.PermanentError(), SystemExit()],
    ids=lambda value: type(value).__name__,
)
def test_the_recorded_reason_decides_whatever_the_handler_raised(error: BaseException) -> None:
    cancelled = _judge(error, reason=CancelReason.REQUEST)
    assert cancelled.kind is Kind.CANCEL
    assert isinstance(cancelled.error, csjd.JobCancelledError)
    assert cancelled.error.__cause__ is error
    assert _judge(error, reason=CancelReason.SHUTDOWN).kind is Kind.INTERRUPT
    assert _judge(error, reason=CancelReason.LEASE_LOST).kind is Kind.INTERRUPT
    assert _judge(error, reason=CancelReason.TIMEOUT).timed_out


def test_timeout_is_retried_like_a_failure_with_its_cause() -> None:
    cause = ValueError("in clean-up")
    verdict = _judge(cause, reason=CancelReason.TIMEOUT)
    assert (verdict.kind, verdict.timed_out) == (Kind.RETRY, True)
    assert isinstance(verdict.error, TimeoutError)
    assert verdict.error.__cause__ is cause
    assert _judge(cause, reason=CancelReason.TIMEOUT, attempt=3).kind is Kind.FAIL


def test_timeout_of_a_type_that_says_so_is_final() -> None:
    verdict = _judge(ValueError(), reason=CancelReason.TIMEOUT, retry_on_timeout=False)
    assert (verdict.kind, verdict.timed_out) == (Kind.FAIL, True)
    assert _judge(ValueError(), retry_on_timeout=False).kind is Kind.RETRY


def test_jobs_own_limit_replaces_that_of_its_policy() -> None:
    generous = csjd.Job(type="t", max_attempts=5)
    assert _judge(ValueError(), attempt=4, job=generous).kind is Kind.RETRY
    assert _judge(ValueError(), attempt=5, job=generous).kind is Kind.FAIL
    strict = csjd.Job(type="t", max_attempts=1)
    assert _judge(ValueError(), job=strict).kind is Kind.FAIL
    assert _judge(ValueError(), job=strict, policy=lambda *_: 1).kind is Kind.FAIL


def test_own_policy_is_asked_with_what_it_needs() -> None:
    error, asked = ValueError(), []

    def policy(*args: Any) -> float:
        asked.append(args)
        return 4

    assert _judge(error, attempt=2, policy=policy).delay == 4
    [(attempt, given, random)] = asked
    assert (attempt, given, type(random)) == (2, error, Random)


@pytest.mark.parametrize(
    "answer", [-1, math.nan, math.inf, 10**400, "1", True], ids=lambda value: type(value).__name__
)
def test_nonsense_from_a_policy_ends_its_job_and_nothing_else(answer: Any) -> None:
    error = ValueError()
    verdict = _judge(error, policy=lambda *_: answer)
    assert verdict.kind is Kind.FAIL
    assert verdict.error.__cause__ is error


@pytest.mark.parametrize("kind", [LookupError, SystemExit, GeneratorExit])
def test_policy_that_raises_ends_its_job_and_nothing_else(kind: type[BaseException]) -> None:
    error = ValueError()

    def policy(*_: Any) -> float:
        raise kind("broken policy")

    verdict = _judge(error, policy=policy)
    assert verdict.kind is Kind.FAIL
    assert isinstance(verdict.error, kind)
    assert verdict.error.__cause__ is error


def test_policy_that_raises_the_error_or_its_cause_makes_no_circle() -> None:
    error = ValueError()
    error.__cause__ = cause = LookupError()
    for raised in (error, cause):

        def policy(*_: Any, raised: Exception = raised) -> float:
            raise raised

        verdict = _judge(error, policy=policy)
        assert verdict.kind is Kind.FAIL
        assert verdict.error is raised
        assert (error.__cause__, cause.__cause__) == (cause, None)
