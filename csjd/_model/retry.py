"""Retry settings: how often, how long between."""

from collections.abc import Callable
from random import Random
from typing import Protocol, TypeAlias

import attrs

from csjd._model.checks import is_integer, is_number
from csjd._model.errors import RetryAfter, Snooze
from csjd._model.groups import leaves

RetryOn: TypeAlias = (
    type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
)


class RetryPolicy(Protocol):
    """Anything that says how long a failed job waits, or that it has failed for good."""

    def __call__(self, attempt: int, error: BaseException, random: Random, /) -> float | None:
        """
        Return seconds until the next attempt, or None for no more attempts.

        Args:
            attempt: The attempt that just failed, counted from 1.
            error: What it raised.
            random: The dispatcher's random source; draw from it and from no other, so
                that a seeded run can be repeated.
        """
        ...


@attrs.frozen(kw_only=True)
class Retry:
    """
    Exponential backoff with symmetric jitter.

    The wait after attempt *n* is `min_delay * factor ** (n - 1)`, at most `max_delay`,
    then spread evenly over plus or minus `jitter` of itself, and capped again.

    Raises:
        ValueError: Naming the field and its range.
    """

    max_attempts: int = 3
    """Attempts in all, the first included; >= 1."""
    min_delay: float = 0.1
    """Seconds after the first attempt; >= 0."""
    max_delay: float = 5.0
    """Seconds, jitter included; >= `min_delay`."""
    factor: float = 2.0
    """Growth per attempt; >= 1."""
    jitter: float = 0.1
    """Share of the wait by which it may be shorter or longer; 0 to 1."""
    retry_on: RetryOn = Exception
    """Which errors are worth another attempt: classes, or a predicate."""

    def __attrs_post_init__(self) -> None:
        if not (is_integer(self.max_attempts) and self.max_attempts >= 1):
            raise ValueError(f"max_attempts must be an int >= 1, got {self.max_attempts!r}")
        for name, low, high in (
            ("min_delay", 0.0, 1e9),
            ("max_delay", self.min_delay, 1e9),
            ("factor", 1.0, 1e6),
            ("jitter", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not (is_number(value) and low <= value <= high):
                raise ValueError(f"{name} must be a number from {low} to {high}, got {value!r}")
        if not (
            callable(self.retry_on)
            or (
                isinstance(self.retry_on, tuple)
                and all(
                    isinstance(cls, type) and issubclass(cls, BaseException)
                    for cls in self.retry_on
                )
            )
        ):
            raise ValueError(
                f"retry_on must be exception classes or a predicate, got {self.retry_on!r}"
            )

    def __call__(self, attempt: int, error: BaseException, random: Random, /) -> float | None:
        """Return the wait after failed attempt number *attempt*, or None for no more."""
        if attempt >= self.max_attempts or not self.covers(error):
            return None
        return self.delay(attempt, random.random())

    def covers(self, error: BaseException) -> bool:
        """
        Whether `retry_on` names *error*; of a group, whether it names every leaf.

        `RetryAfter` and `Snooze` need no naming: whoever raises them asks for a retry.
        """
        unasked = (leaf for leaf in leaves(error) if not isinstance(leaf, (RetryAfter, Snooze)))
        if isinstance(self.retry_on, (type, tuple)):
            return all(isinstance(leaf, self.retry_on) for leaf in unasked)
        return all(self.retry_on(leaf) for leaf in unasked)

    def delay(self, attempt: int, sample: float) -> float:
        """
        Return the wait after *attempt*, in seconds, from 0 to `max_delay`.

        Args:
            attempt: The attempt that just failed, counted from 1.
            sample: A uniform draw from [0, 1), made by the caller.
        """
        try:
            wait = min(self.max_delay, self.min_delay * float(self.factor) ** (attempt - 1))
        except OverflowError:  # 2.0**1024, and a patient job does get that far
            wait = self.max_delay if self.min_delay else 0.0
        return min(self.max_delay, wait * (1 + self.jitter * (2 * sample - 1)))
