import math
from random import Random

import pytest
from hypothesis import given, strategies as st

import csjd

HUGE = 10**400
"""Beyond all floats."""


def test_wait_doubles_up_to_the_ceiling() -> None:
    retry = csjd.Retry(max_attempts=100, min_delay=1, max_delay=20, jitter=0)
    waits = [retry.delay(attempt, 0.5) for attempt in range(1, 8)]
    assert waits == [1, 2, 4, 8, 16, 20, 20]


def test_jitter_is_symmetric_and_capped() -> None:
    retry = csjd.Retry(min_delay=10, max_delay=100, jitter=0.5)
    assert retry.delay(1, 0.0) == 5
    assert retry.delay(1, 0.5) == 10
    assert retry.delay(1, 1 - 2**-53) == pytest.approx(15)
    assert retry.delay(4, 0.75) == pytest.approx(100)  # 80 * 1.25


def test_each_failure_draws_afresh() -> None:
    retry = csjd.Retry(max_attempts=1000, min_delay=1, factor=1, jitter=1, max_delay=10)
    random = Random(1)
    waits = {retry(1, ValueError(), random) for _ in range(100)}
    assert len(waits) == 100
    numbers = [wait for wait in waits if wait is not None]
    assert min(numbers) < 0.2  # reaches both ends
    assert max(numbers) > 1.8


@given(
    attempt=st.integers(1, 10**9),
    minimum=st.floats(0, 1e9),
    extra=st.floats(0, 1e9),
    factor=st.floats(1, 1e6),
    jitter=st.floats(0, 1),
    sample=st.floats(0, 1, exclude_max=True),
)
def test_wait_is_always_a_number_in_range(
    attempt: int, minimum: float, extra: float, factor: float, jitter: float, sample: float
) -> None:
    ceiling = min(1e9, minimum + extra)
    retry = csjd.Retry(min_delay=minimum, max_delay=ceiling, factor=factor, jitter=jitter)
    assert 0 <= retry.delay(attempt, sample) <= ceiling


@pytest.mark.parametrize("factor", [1e6, 65536, 10**6])
def test_steep_backoff_does_not_overflow(factor: float) -> None:
    assert csjd.Retry(factor=factor, jitter=0).delay(10_000, 0.5) == 5.0


def test_gentle_backoff_reaches_its_ceiling() -> None:
    retry = csjd.Retry(min_delay=0.1, max_delay=100, factor=1.05, jitter=0)
    assert retry.delay(100, 0.5) == pytest.approx(0.1 * 1.05**99)
    assert retry.delay(200, 0.5) == 100


def test_last_attempt_has_no_successor() -> None:
    retry = csjd.Retry(max_attempts=3)
    assert retry(2, ValueError(), Random(1)) is not None
    assert retry(3, ValueError(), Random(1)) is None


@pytest.mark.parametrize(
    ("retry_on", "error", "covered"),
    [
        (OSError, ConnectionError(), True),
        (OSError, ValueError(), False),
        ((OSError, ValueError), ValueError(), True),
        (lambda error: "again" in str(error), ValueError("again"), True),
        (lambda error: "again" in str(error), ValueError("never"), False),
        (OSError, ExceptionGroup("", [OSError(), ConnectionError()]), True),
        (OSError, ExceptionGroup("", [OSError(), ValueError()]), False),
        (OSError, csjd.RetryAfter(1), True),
        (OSError, ExceptionGroup("", [csjd.RetryAfter(1), ValueError()]), False),
    ],
)
def test_retry_on_is_asked_of_each_leaf_that_asks_for_nothing(
    retry_on: object, error: Exception, covered: bool
) -> None:
    retry = csjd.Retry(retry_on=retry_on)  # type: ignore[arg-type]
    assert (retry(1, error, Random(1)) is not None) is covered


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 1.0),
        ("max_attempts", True),
        ("min_delay", -1),
        ("min_delay", math.nan),
        ("max_delay", 0.01),
        ("max_delay", math.inf),
        ("factor", 0.5),
        ("factor", math.nan),
        ("factor", HUGE),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("jitter", "0"),
        ("retry_on", 5),
        ("retry_on", (OSError, 5)),
    ],
)
def test_unusable_setting_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be"):
        csjd.Retry(**{field: value})  # type: ignore[arg-type]
