"""Every number a dispatcher can be told, checked once, each with its unit and its reason."""

import math
from typing import Any

import attrs

from csjd._model.checks import is_integer, is_number
from csjd._model.retry import Retry, RetryPolicy


def _whole(low: int) -> Any:
    """Return an attrs validator for ints from *low* up."""

    def check(instance: object, attribute: "attrs.Attribute[int]", value: object) -> None:
        if not (is_integer(value) and value >= low):  # type: ignore[operator]  # checked
            raise ValueError(f"{attribute.name} must be an int >= {low}, got {value!r}")

    return check


def _limit(instance: object, attribute: "attrs.Attribute[int | None]", value: object) -> None:
    if value is not None and not (is_integer(value) and value >= 1):  # type: ignore[operator]
        raise ValueError(f"{attribute.name} must be an int >= 1 or None, got {value!r}")


def _seconds(low: float, *, open_low: bool = False, high: float = math.inf) -> Any:
    """Return an attrs validator for numbers from *low* (not itself, if *open_low*) to *high*."""

    def check(instance: object, attribute: "attrs.Attribute[float]", value: Any) -> None:
        if not is_number(value) or not low <= value <= high or (open_low and value == low):
            relation = ">" if open_low else ">="
            top = "" if high == math.inf else f" and <= {high}"
            raise ValueError(
                f"{attribute.name} must be a number {relation} {low}{top}, got {value!r}"
            )

    return check


@attrs.frozen(kw_only=True)
class Config:
    """
    A dispatcher's settings.

    Raises:
        ValueError: Naming the field and its allowed range.
    """

    workers: int = attrs.field(default=4, validator=_whole(1))
    """Affinity domains; a session is bound to one."""
    lanes: int = attrs.field(default=1, validator=_whole(1))
    """Handlers a worker runs at a time. `workers=1, lanes=n` orders without affinity."""
    max_pending: int | None = attrs.field(default=None, validator=_limit)
    """Accepted jobs that have not ended; None: no limit."""
    max_pending_per_session: int | None = attrs.field(default=None, validator=_limit)
    """The same within one session."""
    max_sessions: int | None = attrs.field(default=None, validator=_limit)
    """Sessions that have jobs at a time."""
    retry: RetryPolicy = attrs.field(factory=Retry)
    """For handlers that bring no policy of their own."""
    job_timeout: float = attrs.field(default=10.0, validator=_seconds(0, open_low=True))
    """Seconds an attempt may run, unless job or handler say otherwise; `math.inf`: no end."""
    duplicate_window: float = attrs.field(default=2.0, validator=_seconds(0, high=1e9))
    """Seconds an ended job's id is still refused. Two cover a double click."""
    detach_budget: int = attrs.field(default=0, validator=_whole(0))
    """Handlers that may run on beside the lanes because they ignore their cancellation."""
    detach_grace: float = attrs.field(default=1.0, validator=_seconds(0, high=1e9))
    """Seconds a cancelled handler gets for its clean-up before it counts as deaf."""
    stop_grace: float = attrs.field(default=30.0, validator=_seconds(0))
    """Seconds a drain may take before what is left is interrupted."""
    virtual_nodes: int = attrs.field(default=150, validator=_whole(1))
    """Points each worker has on the hash ring; more spread sessions more evenly."""
    load_factor: float = attrs.field(default=1.25, validator=_seconds(1, high=1e9))
    """
    How far above the mean a worker's share of sessions may go, rounded up. 1.25: at most a
    quarter.
    """
    session_idle: float = attrs.field(default=60.0, validator=_seconds(0, high=1e9))
    """Seconds a session without jobs keeps its worker and its statistics."""
    max_crashes: int = attrs.field(default=3, validator=_whole(1))
    """
    Counted crashes of the process during a job before it becomes a dead letter (stores
    only). The first, after a clean start, is not counted.
    """
    commit_grace: float = attrs.field(default=5.0, validator=_seconds(0, high=1e9))
    """Seconds a cancelled submit waits for a commit that is being written (stores only)."""
    max_payload: int = attrs.field(default=1 << 20, validator=_whole(1))
    """
    Bytes of a payload whose size is known: bytes, str, and every typed payload; with a
    store of every payload, as it is written.
    """
    history: int = attrs.field(default=1000, validator=_whole(0))
    """Ended jobs, and dead letters, kept to look at; the oldest make room."""

    @retry.validator
    def _check_retry(self, attribute: "attrs.Attribute[RetryPolicy]", value: object) -> None:
        if not callable(value):
            raise ValueError(f"retry must be a Retry or a callable, got {value!r}")
