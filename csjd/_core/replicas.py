"""One error for many callers: raising writes into an exception, so each needs one of its own."""

import copy
from contextlib import suppress
from types import MemberDescriptorType
from typing import Any, TypeVar, cast

E = TypeVar("E", bound=BaseException)

_MADE_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
# What every exception has, in a form that its class can neither hide nor freeze.
_ARGS = vars(BaseException)["args"]
_COMMON = [_ARGS] + [
    vars(BaseException)[name]
    for name in ("__cause__", "__context__", "__suppress_context__", "__traceback__")
]


def replica(error: E) -> E:
    """
    Return an exception that tells what *error* tells and shares nothing a raise writes to.

    Type, arguments, attributes, notes, traceback so far, cause and context are those of
    *error*; so are, each replicated in its turn, the members of an exception group.
    No `__init__` is run: many cannot be called with `args`. An exception whose class will
    not have it is returned itself: better shared than hidden behind an error of ours.
    """
    try:
        twin = _blank(error)
        for base in type(error).__mro__:
            _copy_members(base, error, twin)
        twin.__dict__.update(error.__dict__)
        notes = error.__dict__.get("__notes__")
        if isinstance(notes, list):
            twin.__dict__["__notes__"] = list(notes)
        for descriptor in _COMMON:
            descriptor.__set__(twin, descriptor.__get__(error))
    except Exception:
        return error
    return twin


def _copy_members(base: type, error: BaseException, twin: BaseException) -> None:
    """Copy what *base* keeps outside of `__dict__`: errno, value, slots."""
    native = not base.__flags__ & _MADE_IN_PYTHON
    for descriptor in vars(base).values():
        if isinstance(descriptor, MemberDescriptorType):
            with suppress(AttributeError, TypeError):  # unset; read-only
                value = descriptor.__get__(error)
                # An unset member of a built-in class reads as None, and once set to that
                # it counts: an OSError would name its second file, None.
                if value is not None or not native:
                    descriptor.__set__(twin, value)


def _blank(error: E) -> E:
    cls: Any = type(error)
    if isinstance(error, BaseExceptionGroup):
        members = [replica(member) for member in error.exceptions]
        return cast("E", BaseExceptionGroup.__new__(cls, error.message, members))
    # Python lets only the nearest built-in class lay out the object; a `__new__` written
    # in Python is passed over, as it may want arguments that nobody kept.
    native: Any = next(base for base in cls.__mro__ if not base.__flags__ & _MADE_IN_PYTHON)
    try:
        return cast("E", native.__new__(cls, *_ARGS.__get__(error)))
    except TypeError:  # laid out by an extension module: its own copying has to do
        return copy.copy(error)
