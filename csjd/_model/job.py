"""The job: one unit of work, immutable and valid from the moment it exists."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final, final

import attrs

from csjd._model.checks import check_name, is_integer, is_number
from csjd._model.errors import InvalidJobError
from csjd._model.identity import new_job_id


@final
class FrozenMetadata(Mapping[str, Any]):
    """A mapping that nobody can change; unlike a `mappingproxy` it can be pickled and copied."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> str | tuple[Any, ...]:
        # What all jobs share stays one and the same.
        return "NO_METADATA" if self is NO_METADATA else (FrozenMetadata, (self._items,))


# Shared by all jobs that carry none: a mapping each would cost 64 bytes and a visit of
# the garbage collector.
NO_METADATA: Mapping[str, Any] = FrozenMetadata({})


def _now() -> datetime:
    return datetime.now(UTC)


@attrs.frozen(kw_only=True)
class Job:
    """
    One unit of work.

    Values of subclasses of str, int, float and datetime are made plain ones.

    Raises:
        InvalidJobError: Naming the field, when one is unusable.
    """

    type: str
    """Picks the handler. Like `id` and `session`: 1 to 512 bytes, no control characters."""

    id: str = attrs.field(factory=new_job_id)
    """Refused while another job with it lives, and for the duplicate window after."""

    payload: Any = attrs.field(default=None, hash=False)
    """What the handler works on. Copied at submit, and for each attempt, unless immutable."""

    session: str | None = None
    """Jobs that share it run one at a time, in the order they were accepted."""

    priority: int = 0
    """Higher first, between jobs that could both start. Never reorders a session."""

    max_attempts: int | None = None
    """How many attempts may fail before the job does; default: its retry policy's."""

    timeout: float | None = None
    """Seconds an attempt may run; default: its type's, then `Config.job_timeout`."""

    run_at: datetime | None = None
    """Not before this moment (aware)."""

    created_at: datetime = attrs.field(factory=_now)
    """When this value was made (aware). Says nothing about order."""

    metadata: Mapping[str, Any] = attrs.field(default=NO_METADATA, hash=False)
    """For callers; csjd carries it and never looks inside. Copied as the payload is."""

    def __attrs_post_init__(self) -> None:
        check_name("type", self.type)
        check_name("id", self.id)
        if self.session is not None:
            check_name("session", self.session)
        if not is_integer(self.priority):
            raise InvalidJobError("priority", f"must be an int, got {self.priority!r}")
        if self.max_attempts is not None and not (
            is_integer(self.max_attempts) and self.max_attempts >= 1
        ):
            raise InvalidJobError("max_attempts", f"must be an int >= 1, got {self.max_attempts!r}")
        if self.timeout is not None:
            check_timeout("timeout", self.timeout)
        if self.run_at is not None:
            _check_aware("run_at", self.run_at)
        _check_aware("created_at", self.created_at)
        if not isinstance(self.metadata, Mapping):
            raise InvalidJobError("metadata", f"must be a mapping, got {self.metadata!r}")
        if not _PLAIN_TYPES.issuperset(map(type, _values(self))):
            for name, value in zip(_PLAIN, _values(self), strict=True):
                if type(value) not in _PLAIN_TYPES:
                    object.__setattr__(self, name, _plain(value))


# What a subclass makes of a value is nothing that a store could write, or read again.
_PLAIN: Final = (
    "type",
    "id",
    "session",
    "priority",
    "max_attempts",
    "timeout",
    "run_at",
    "created_at",
)
_PLAIN_TYPES: Final = frozenset({str, int, float, datetime, type(None)})
_values: Final = attrgetter(*_PLAIN)


def _plain(value: object) -> object:
    """Return *value*, of a subclass of one of `_PLAIN_TYPES`, as that type itself has it."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    assert isinstance(value, datetime), "checked before"
    return datetime.combine(value.date(), value.time(), value.tzinfo)


def check_timeout(field: str, value: object) -> None:
    """
    Refuse what cannot be a timeout.

    Raises:
        InvalidJobError: Naming *field*, unless *value* is a number above 0 (`math.inf`: none).
    """
    if not (is_number(value) and 0 < value <= math.inf):  # type: ignore[operator]  # checked
        raise InvalidJobError(field, f"must be seconds > 0 (math.inf for none), got {value!r}")


def check_delay(value: object) -> None:
    """
    Refuse what cannot be a delay.

    Raises:
        InvalidJobError: Unless *value* is a finite number of seconds >= 0.
    """
    if not (is_number(value) and 0 <= value < math.inf):  # type: ignore[operator]  # checked
        raise InvalidJobError("delay", f"must be finite seconds >= 0, got {value!r}")


def _check_aware(field: str, value: object) -> None:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidJobError(field, f"must be a datetime with a time zone, got {value!r}")
    if value.tzinfo is not UTC:
        try:
            value.astimezone(UTC)
        except OverflowError:
            raise InvalidJobError(field, f"must be a moment that UTC has, got {value!r}") from None
