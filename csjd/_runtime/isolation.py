"""What keeps jobs apart: what can change and must be copied, and lanes left as they were."""

import datetime
import decimal
import enum
import fractions
import ipaddress
import pathlib
import types
import uuid
from collections.abc import Callable
from contextvars import Context, copy_context
from operator import attrgetter
from typing import Any

import attrs
import msgspec
import trio

_ATOMS: frozenset[type] = frozenset(
    {
        bool,
        bytes,
        complex,
        datetime.date,
        datetime.datetime,
        datetime.time,
        datetime.timedelta,
        datetime.timezone,
        decimal.Decimal,
        float,
        fractions.Fraction,
        int,
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
        pathlib.PosixPath,
        pathlib.PurePosixPath,
        range,
        str,
        types.BuiltinFunctionType,
        types.FunctionType,
        types.NoneType,
        uuid.UUID,
    }
)


def is_immutable(value: object) -> bool:
    """
    Whether nothing reachable from *value* can be changed.

    Subclasses of the plain types may carry attributes and count as mutable; so does
    whatever is nested too deeply to look through.
    """
    if type(value) in _ATOMS:
        return True
    try:
        return _is_immutable(value)
    except RecursionError:
        return False


def _is_immutable(value: Any) -> bool:
    cls = type(value)
    if cls in _ATOMS or isinstance(value, (type, enum.Enum)):
        return True
    if cls is tuple or cls is frozenset or (isinstance(value, tuple) and _is_bare(value)):
        return all(map(_is_immutable, value))
    if attrs.has(cls):
        # No public way tells a frozen class; what it does to __setattr__ does.
        frozen = cls.__setattr__ is _FROZEN_ATTRS.__setattr__ and _is_bare(value)
        return frozen and all(
            _is_immutable(getattr(value, field.name, None)) for field in attrs.fields(cls)
        )
    if isinstance(value, msgspec.Struct):
        return (value.__struct_config__.frozen and _is_bare(value)) and all(
            _is_immutable(getattr(value, name)) for name in value.__struct_fields__
        )
    # Its own parameters: a subclass that is no dataclass itself takes any attribute.
    parameters = vars(cls).get("__dataclass_params__")
    if parameters is not None and parameters.frozen:
        fields = cls.__dataclass_fields__
        return (_is_bare(value) or vars(value).keys() <= fields.keys()) and all(
            _is_immutable(getattr(value, name, None)) for name in fields
        )
    return False


def _is_bare(value: object) -> bool:
    """Whether *value* has no dictionary that could take attributes."""
    return not hasattr(value, "__dict__")


@attrs.frozen
class _FROZEN_ATTRS:  # noqa: N801  a specimen, used as a constant
    pass


cancel_status: Callable[[trio.lowlevel.Task], object] = attrgetter("_cancel_status")
"""
Returns a token for the innermost cancel scope that a task is in.

Trio has no public way to ask; a scope or nursery that a handler opened and left open
shows in nothing else.
"""


def disown_nurseries(task: trio.lowlevel.Task) -> list[trio.Nursery]:
    """
    Take the nurseries that *task* has left open out of its hands; return them.

    Trio has no public way to do that either. It would complain of them when the task ends,
    to whoever is above; and a generator that holds one and is collected from now on would
    wait in it, and be woken in place of the task. As when a task ends that left one open,
    such a generator finds it closed.
    """
    nurseries = list(task.child_nurseries)
    for nursery in nurseries:
        nursery._closed = True
    task._child_nurseries.clear()
    return nurseries


def has_changed(baseline: Context) -> bool:
    """Whether a context variable of the running task differs from *baseline*."""
    try:
        return copy_context() != baseline
    except Exception:  # a value whose comparison raises: we cannot know, so it has
        return True
