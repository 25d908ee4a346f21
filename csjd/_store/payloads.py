"""
Payloads as bytes and back: what goes in comes out, or is refused before anything happens.

msgpack carries None, bools, ints, floats, strings, bytes, lists and dictionaries. Python's
other plain values travel as extensions, so that a tuple comes back as a tuple and a naive
datetime as a naive one. Whatever else a payload is made of belongs to a class, and only
its handler's registration can say which; `encode_typed` and `decode_typed` are for those.

Nothing here can run code: decoding builds only values of the types named below.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar
from uuid import UUID

import attrs
import msgspec

from csjd._model.errors import InvalidJobError

MAX_DEPTH: Final = 64
"""How deep a payload may nest; what decodes deeper payloads could run out of stack."""

T = TypeVar("T")


@attrs.frozen
class _Extension:
    """A type that msgpack does not know: as something it does, and back."""

    code: int
    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


def _split(delta: timedelta) -> list[int]:
    return [delta.days, delta.seconds, delta.microseconds]


def _folded(moment: datetime | time) -> list[Any]:
    return [moment.isoformat(), moment.fold]


def _unfolded(kind: type[Any], parts: list[Any]) -> Any:
    text, fold = parts
    return kind.fromisoformat(text).replace(fold=fold)


# The codes are part of the file format.
_EXTENSIONS: Final[Mapping[type, _Extension]] = {
    tuple: _Extension(1, list, tuple),
    set: _Extension(2, list, set),
    frozenset: _Extension(3, list, frozenset),
    bytearray: _Extension(4, bytes, bytearray),
    int: _Extension(5, hex, lambda text: int(text, 16)),  # only those beyond 64 bits
    datetime: _Extension(6, _folded, lambda parts: _unfolded(datetime, parts)),
    date: _Extension(7, date.isoformat, date.fromisoformat),
    time: _Extension(8, _folded, lambda parts: _unfolded(time, parts)),
    timedelta: _Extension(9, _split, lambda parts: timedelta(*parts)),
    Decimal: _Extension(10, str, Decimal),
    UUID: _Extension(11, lambda value: value.bytes, lambda data: UUID(bytes=data)),
}
_UNPACK: Final = {extension.code: extension.unpack for extension in _EXTENSIONS.values()}

_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
_KEYS: Final = frozenset({type(None), bool, int, float, str, bytes})
_LOW, _HIGH = -(1 << 63), (1 << 64) - 1

_encoder: Final = msgspec.msgpack.Encoder()


def encode_payload(payload: object, *, field: str = "payload") -> bytes:
    """
    Return a payload as bytes that `decode_payload` turns into an equal one.

    Args:
        payload: None, bools, numbers, strings, bytes, dates and times, `timedelta`,
            `Decimal`, `UUID`, and lists, tuples, sets and dictionaries of these, nested
            at most `MAX_DEPTH` deep. Exactly these types: a subclass would come back as
            something else. Dates and times keep their offset, not their zone's name.
        field: What a refusal calls it.

    Raises:
        InvalidJobError: It is made of something else.
    """
    try:
        return _encoder.encode(_carried(payload, field, 0))
    except UnicodeEncodeError:
        raise InvalidJobError(field, "holds a str that is not Unicode (lone surrogate)") from None


encode_plain: Final[Callable[[bytes], bytes]] = _encoder.encode
"""`encode_payload` for bytes, which need no looking at."""


def decode_payload(data: bytes) -> Any:
    """
    Return the payload that `encode_payload` was given.

    Raises:
        ValueError: If *data* is not what it returned.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, ArithmeticError, TypeError, RecursionError) as error:
        raise ValueError(f"not a payload: {error}") from error


def encode_typed(payload: object, *, field: str = "payload") -> bytes:
    """
    Return a payload of a registered class as bytes: its fields, by name.

    Raises:
        InvalidJobError: It holds something that msgspec cannot write.
    """
    try:
        return _encoder.encode(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidJobError(field, f"cannot be stored: {error}") from error


def decode_typed(data: bytes, type: type[T]) -> T:
    """
    Return a payload of a registered class, checked against it.

    Raises:
        ValueError: If *data* does not fit *type*.
    """
    try:
        return msgspec.msgpack.decode(data, type=type)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a payload of {type!r}: {error}") from error
    except Exception as error:  # the class's own code runs here, and may raise anything
        raise ValueError(f"not a payload of {type!r}: {error!r}") from error


def _carried(value: Any, field: str, depth: int) -> Any:
    """Return *value* as msgpack can carry it; itself, wherever it already can."""
    kind = type(value)
    if kind in _PLAIN:
        if kind is int and not _LOW <= value <= _HIGH:
            return _extended(kind, value, field, depth)
        return value
    if depth > MAX_DEPTH:
        raise InvalidJobError(field, f"is nested more than {MAX_DEPTH} deep")
    if kind is list:
        return _carried_list(value, field, depth)
    if kind is dict:
        strange = set(map(type, value)) - _KEYS
        if strange:
            raise InvalidJobError(field, f"has a {strange.pop().__name__} as a key")
        if any(type(key) is int and not _LOW <= key <= _HIGH for key in value):
            raise InvalidJobError(field, "has an int of more than 64 bits as a key")
        values = _carried_list(list(value.values()), field, depth)
        return dict(zip(value, values, strict=True))
    if kind in _EXTENSIONS:
        return _extended(kind, value, field, depth)
    raise InvalidJobError(
        field,
        f"holds a {kind.__qualname__}, which a store cannot give back: register the handler "
        "with payload=<its type>, or use plain values",
    )


def _carried_list(values: list[Any], field: str, depth: int) -> list[Any]:
    kinds = set(map(type, values))
    if kinds <= _PLAIN and (int not in kinds or _fits(values)):
        return values  # the common case, without a step of Python for each item
    return [_carried(value, field, depth + 1) for value in values]


def _fits(values: list[Any]) -> bool:
    return all(_LOW <= value <= _HIGH for value in values if type(value) is int)


def _extended(kind: type, value: Any, field: str, depth: int) -> msgspec.msgpack.Ext:
    extension = _EXTENSIONS[kind]
    inner = _carried(extension.pack(value), field, depth + 1)
    return msgspec.msgpack.Ext(extension.code, _encoder.encode(inner))


def _unpack(code: int, data: memoryview) -> Any:
    unpack = _UNPACK.get(code)
    if unpack is None:
        raise ValueError(f"unknown extension {code}")
    return unpack(_decoder.decode(data))


_decoder: Final = msgspec.msgpack.Decoder(ext_hook=_unpack)
