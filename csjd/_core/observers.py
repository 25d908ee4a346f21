"""Telling events to callables that may look and never touch."""

import logging
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T_contra = TypeVar("T_contra", contravariant=True)

_log = logging.getLogger("csjd")


class Observers(Generic[T_contra]):
    """
    The observers of one object, in the order given; false when there are none.

    Ask before you build the event: `if observers: observers.tell(Event(...))`.

    Raises:
        ValueError: If one of them is not callable.
    """

    __slots__ = ("_listening",)

    def __init__(self, observers: Iterable[Callable[[T_contra], object]]) -> None:
        self._listening = tuple(observers)
        for observer in self._listening:
            if not callable(observer):
                raise ValueError(f"an observer must be callable, got {observer!r}")

    def __bool__(self) -> bool:
        return bool(self._listening)

    def tell(self, event: T_contra) -> None:
        """Call each observer; one that raises an Exception is dropped with one logged error."""
        for observer in self._listening:
            try:
                observer(event)
            except Exception:
                # Whatever it was told meanwhile, by way of an event of its own making, it
                # may be gone already: then the error has been logged.
                if observer in self._listening:
                    self._listening = tuple(o for o in self._listening if o is not observer)
                    _log.exception("observer %r raised on %r and is dropped", observer, event)
