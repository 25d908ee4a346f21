"""How the suite says what is wrong: in a line or two, however large what was compared."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from csjd._model.storing import Recovery
from csjd.testing.stores.model import StoreModel, summarize

_PARTS: Final = ("live", "remembered", "dead_letters", "halted", "next_order")

_short: Final = reprlib.Repr()
_short.maxstring = _short.maxother = 160
_short.maxlist = _short.maxtuple = 3


def check(told: object, expected: object, wrong: str) -> None:
    """Fail, saying what is *wrong* and where, unless the store told what was expected."""
    if told != expected:
        where, one, other = _difference(told, expected, "")
        at = f"at {where} it " if where else ""
        raise AssertionError(f"{wrong}: {at}told {_show(one)}, not {_show(other)}")


def check_recovery(told: Recovery, model: StoreModel, wrong: str) -> None:
    """Fail, saying what is *wrong* and where, unless a recovery tells what *model* says."""
    check(_parts_of(told), _parts_of(model.recovery()), wrong)


def _parts_of(recovery: Recovery) -> dict[str, object]:
    return dict(zip(_PARTS, summarize(recovery), strict=True))


@contextmanager
def refused(error: type[Exception] | tuple[type[Exception], ...], otherwise: str) -> Iterator[None]:
    """Fail, saying *otherwise*, unless what is done in it raises *error*."""
    try:
        yield
    except error:
        return
    raise AssertionError(otherwise)


def _difference(told: Any, expected: Any, path: str) -> tuple[str, object, object]:
    """Return the first place in two values where they differ, and what stands there."""
    for step, one, other in _parts(told, expected):
        if one != other:
            return _difference(one, other, path + step)
    return path.lstrip("."), told, expected


def _parts(told: Any, expected: Any) -> Iterator[tuple[str, object, object]]:
    """Yield what two values of one shape are made of: the way there, and both sides."""
    if type(told) is not type(expected):
        return
    if isinstance(told, msgspec.Struct):
        for name in told.__struct_fields__:
            yield f".{name}", getattr(told, name), getattr(expected, name)
    elif isinstance(told, dict):
        for name, value in told.items():
            yield f".{name}", value, expected[name]
    elif isinstance(told, tuple | list) and len(told) == len(expected):
        for index, pair in enumerate(zip(told, expected, strict=True)):
            yield f"[{index}]", *pair


def _show(value: object) -> str:
    text = _short.repr(value)
    if isinstance(value, str | bytes) and "..." in text:
        text += f" (of length {len(value)})"
    return text
