"""
Batches of operations, and entries of a snapshot, as bytes and back.

The quick way decodes a whole batch at once. Only when that fails is each item looked at
alone: one this version does not know but may ignore is carried along, one it must not
ignore refuses the store, and one that is broken goes to quarantine. Nothing is dropped.
"""

from collections.abc import Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs
import msgspec

from csjd._model.storing import (
    DeadLetter,
    LiveJob,
    Operation,
    Quarantined,
    _Value,
)
from csjd._store.framing import NewerFormatError

FIRST_IGNORABLE: Final = 128
"""Items with this tag or a higher one may be carried along by who does not know them."""

_HIGHEST_KNOWN: Final = 127


class Remembered(_Value, frozen=True, tag=67):
    """In a snapshot: an ended job's id and when its duplicate window ends."""

    id: str
    until: float


class HaltedSession(_Value, frozen=True, tag=68):
    """In a snapshot: a session that runs nothing until resumed."""

    session: str


class Footer(msgspec.Struct, frozen=True, array_like=True):
    """In a snapshot's last record: what is known of it as a whole."""

    entries: int
    next_order: int


Entry: TypeAlias = LiveJob | DeadLetter | Quarantined | Remembered | HaltedSession


@attrs.frozen
class Foreign:
    """An item of a later version that this one may carry along without reading it."""

    raw: bytes


@attrs.frozen
class Broken:
    """An item that cannot be read although its bytes are the ones that were written."""

    reason: str
    raw: bytes
    session: str | None = None
    """Its session, where that much could be read."""


T = TypeVar("T")

_encoder: Final = msgspec.msgpack.Encoder()
_raws: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_any: Final = msgspec.msgpack.Decoder()


class _Items(Generic[T]):
    """One kind of item: how to read arrays of it."""

    def __init__(self, union: Any) -> None:
        self._many: msgspec.msgpack.Decoder[list[T]] = msgspec.msgpack.Decoder(list[union])
        self._one: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(union)
        self._known = frozenset(cls.__struct_config__.tag for cls in union.__args__)

    def decode(self, body: bytes, *, keep_newer: bool) -> Sequence[T | Broken | Foreign]:
        try:
            return self._many.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._decode_apart(body, keep_newer=keep_newer)

    def _decode_apart(self, body: bytes, *, keep_newer: bool) -> list[T | Broken | Foreign]:
        try:
            raws = _raws.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            return [Broken(reason=f"not an array of items: {error}", raw=body)]
        return [self._decode_one(bytes(raw), keep_newer=keep_newer) for raw in raws]

    def _decode_one(self, raw: bytes, *, keep_newer: bool) -> T | Broken | Foreign:
        try:
            return self._one.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = str(error)
        fields = _fields(raw)
        tag = fields[0] if fields else None
        if type(tag) is int and tag not in self._known:
            if tag >= FIRST_IGNORABLE:
                return Foreign(raw)
            if tag > 0:
                reason = (
                    f"it holds records of a kind ({tag}) that this version of csjd does not "
                    "know and must not ignore: use the version that wrote it, or a later one"
                )
                if not keep_newer:
                    raise NewerFormatError(reason)
        return Broken(reason=reason, raw=raw, session=_session(fields))


def _fields(raw: bytes) -> list[Any]:
    try:
        fields = _any.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, TypeError):
        return []
    return fields if isinstance(fields, list) else []


def _session(fields: list[Any]) -> str | None:
    """Return the session of an `Accepted` too broken to be decoded, if it can be read."""
    at = 6  # tag, order, id, type, payload, created_at, session
    if len(fields) <= at or fields[0] != 1:
        return None
    session = fields[at]
    return session if isinstance(session, str) else None


_operations: Final = _Items[Operation](Operation)
_entries: Final = _Items[Entry](Entry)


def encode_batch(operations: Sequence[Operation]) -> bytes:
    """
    Return a batch as bytes.

    Raises:
        TypeError, ValueError, OverflowError: If a field holds what cannot be written.
    """
    return _encoder.encode(operations)


def decode_batch(
    body: bytes, *, keep_newer: bool = False
) -> Sequence[Operation | Broken | Foreign]:
    """
    Return a batch's operations, with a stand-in for each that cannot be read.

    Args:
        body: The batch.
        keep_newer: Take what is of a later kind, and must not be ignored, for broken.

    Raises:
        NewerFormatError: If one is of such a kind; not with *keep_newer*.
    """
    return _operations.decode(body, keep_newer=keep_newer)


def encode_entries(entries: Sequence[Entry | Foreign]) -> bytes:
    """Return entries of a snapshot as bytes."""
    return _encoder.encode(
        [msgspec.Raw(entry.raw) if type(entry) is Foreign else entry for entry in entries]
    )


def decode_entries(body: bytes, *, keep_newer: bool = False) -> Sequence[Entry | Broken | Foreign]:
    """As `decode_batch`, for entries of a snapshot."""
    return _entries.decode(body, keep_newer=keep_newer)
