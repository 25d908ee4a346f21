"""Telling events to callables that may look and never touch."""

import logging
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

_log = logging.getLogger("csjd")


class Observers(list[Callable[[T], object]], Generic[T]):
    """
    The observers of one object, in the order given; false when there are none.

    Ask before you build the event: `if observers: observers.tell(Event(...))`. A list,
    because that is asked for every job.

    Raises:
        ValueError: If one of them is not callable.
    """

    def __init__(self, observers: Iterable[Callable[[T], object]] = ()) -> None:
        super().__init__(observers)
        for observer in self:
            if not callable(observer):
                raise ValueError(f"an observer must be callable, got {observer!r}")

    def tell(self, event: T) -> None:
        """Call each observer; one that raises an Exception is dropped with one logged error."""
        for observer in tuple(self):
            if observer not in self:  # dropped while others heard of this event
                continue
            try:
                observer(event)
            except Exception:
                # It may have raised, and been dropped, on an event that it caused itself.
                if observer in self:
                    self.remove(observer)
                    _log.exception("observer %r raised on %r and was dropped", observer, event)
