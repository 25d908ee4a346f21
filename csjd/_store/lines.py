"""
An export, line by line: a store's contents as JSON, and what must be true of them.

The first line names the format. Each other line is one thing: `{"live": {...}}`,
`{"dead": {...}}`, `{"remembered": {...}}`, `{"halted": {...}}`, `{"quarantined": {...}}`,
`{"foreign": "..."}`, or, last, `{"next_order": n}`. Bytes are base64.

Lines pass through people's hands and programs, so nothing is taken from one that a store
could not keep, or that a dispatcher would never have told it.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import attrs
import msgspec

from csjd._model.checks import check_name
from csjd._model.job import Job
from csjd._model.storing import Accepted, DeadLetter, LiveJob, Quarantined
from csjd._store.batches import (
    Entry,
    Foreign,
    HaltedSession,
    Remembered,
    decode_entries,
    encode_entries,
)
from csjd._store.framing import NewerFormatError
from csjd._store.jobs import check_storable
from csjd._store.state import State

FORMAT: Final = 1
_FORMAT_KEY: Final = "csjd-store"
_END_KEY: Final = "next_order"
_ENDLESS: Final = "inf"
_HIGHEST: Final = (1 << 63) - 1  # well below what a record can no longer hold

_asdict: Final = msgspec.structs.asdict
_NAMES: Final[dict[str, type[Entry]]] = {
    "live": LiveJob,
    "dead": DeadLetter,
    "quarantined": Quarantined,
    "remembered": Remembered,
    "halted": HaltedSession,
}
_KEYS: Final = {cls: name for name, cls in _NAMES.items()}


def to_lines(state: State) -> Iterator[bytes]:
    """Yield the lines of all that is in *state*, which is empty after, without newlines."""
    next_order = state.next_order
    yield msgspec.json.encode({_FORMAT_KEY: FORMAT})
    for piece in state.drain():
        for entry in piece:
            yield msgspec.json.encode(_as_json(entry))
    yield msgspec.json.encode({_END_KEY: next_order})


def _as_json(entry: Entry | Foreign) -> dict[str, Any]:
    if isinstance(entry, Foreign):
        return {"foreign": entry.raw}
    fields = _asdict(entry)
    if "accepted" in fields:
        fields["accepted"] = accepted = _asdict(fields["accepted"])
        if accepted["timeout"] == math.inf:
            accepted["timeout"] = _ENDLESS  # JSON has no number for it
    return {_KEYS[type(entry)]: fields}


@attrs.define(eq=False)
class LineTaker:
    """Takes an export's lines, one after the other."""

    state: State
    """What the lines taken so far add up to."""
    ended: bool = False
    """Whether the last line was taken."""
    _begun: bool = False
    _orders: set[int] = attrs.field(factory=set)
    _live_ids: set[str] = attrs.field(factory=set)

    def take(self, line: bytes | str) -> None:
        """
        Take one line into account.

        Raises:
            ValueError: Saying what is wrong with it.
        """
        try:
            self._take(msgspec.json.decode(line))
        except (msgspec.MsgspecError, OverflowError, RecursionError, NewerFormatError) as error:
            raise ValueError(str(error)) from error

    def _take(self, thing: Any) -> None:
        if not isinstance(thing, dict) or len(thing) != 1:
            raise ValueError("it is no line of an export")
        if self.ended:
            raise ValueError("it comes after the last one")
        ((key, value),) = thing.items()
        if self._begun == (key == _FORMAT_KEY):
            raise ValueError(f"the first line, and no other, must be of {_FORMAT_KEY!r}")
        self._begun = True
        if key == _FORMAT_KEY:
            _check_format(value)
        elif key == _END_KEY:
            self._take_end(msgspec.convert(value, int))
        elif key == "foreign":
            self.state.restore(_foreign(msgspec.convert(value, bytes)))
        elif key in _NAMES:
            entry = _entry(_NAMES[key], value)
            self._check(entry)
            self.state.restore(entry)
        else:
            raise ValueError(f"{key!r} is nothing that this version knows")

    def _take_end(self, next_order: int) -> None:
        _check_range("next_order", next_order, 1 + max(self._orders, default=0))
        self.state.next_order = next_order
        self.ended = True

    def _check(self, entry: Entry) -> None:
        """Refuse what a dispatcher would never have told a store."""
        match entry:
            case LiveJob() | DeadLetter():
                self._check_job(entry)
            case Remembered():
                check_name("id", entry.id)
                if entry.id in self.state.remembered:
                    raise ValueError(f"the id {entry.id!r} is remembered already")
            case HaltedSession():
                check_name("session", entry.session)

    def _check_job(self, job: LiveJob | DeadLetter) -> None:
        _check_accepted(job.accepted)
        for field in ("attempts", "crashes"):
            _check_range(field, getattr(job, field), 0)
        if job.order in self._orders:
            raise ValueError(f"another line has order {job.order}, too")
        self._orders.add(job.order)
        if isinstance(job, LiveJob):
            if job.accepted.id in self._live_ids:
                raise ValueError(f"another live job has the id {job.accepted.id!r}, too")
            self._live_ids.add(job.accepted.id)


def _check_format(value: Any) -> None:
    if type(value) is not int or value != FORMAT:
        raise ValueError(f"export format {value!r} is not known to this version")


def _check_range(field: str, value: int, lowest: int) -> None:
    if not lowest <= value <= _HIGHEST:
        raise ValueError(f"{field} must be at least {lowest} and fit in 63 bits, got {value}")


def _check_accepted(accepted: Accepted) -> None:
    _check_range("order", accepted.order, 1)
    job = Job(
        type=accepted.type,
        id=accepted.id,
        session=accepted.session,
        priority=accepted.priority,
        max_attempts=accepted.max_attempts,
        timeout=accepted.timeout,
        run_at=accepted.run_at,
        created_at=accepted.created_at,
    )
    check_storable(job)


def _entry(cls: type[Entry], value: Any) -> Entry:
    """Return an entry from its named fields; `msgspec.convert` wants these by position."""
    fields = _fields(cls, value)
    if "accepted" in fields:
        accepted = _fields(Accepted, fields["accepted"])
        if accepted["timeout"] == _ENDLESS:
            accepted["timeout"] = math.inf
        fields["accepted"] = _by_position(Accepted, accepted)
    return msgspec.convert(_by_position(cls, fields), cls)


def _fields(cls: type[msgspec.Struct], value: Any) -> dict[str, Any]:
    """Return named fields with the defaults of those that an earlier version did not have."""
    if not isinstance(value, dict):
        raise ValueError(f"the fields of {cls.__name__} must have their names")
    names, defaults = cls.__struct_fields__, cls.__struct_defaults__
    fields = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True)) | value
    if set(fields) != set(names):
        raise ValueError(f"fields {sorted(value)} are not those of {cls.__name__}")
    return fields


def _by_position(cls: type[msgspec.Struct], fields: dict[str, Any]) -> list[Any]:
    return [cls.__struct_config__.tag, *(fields[name] for name in cls.__struct_fields__)]


def _foreign(raw: bytes) -> Foreign:
    item = Foreign(raw)
    if list(decode_entries(encode_entries([item]))) != [item]:
        raise ValueError("it is no item of a later version")
    return item
