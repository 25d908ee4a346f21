"""Telling observers, who hear everything and can disturb nothing."""

import logging
from collections.abc import Iterable

import attrs

from csjd._model.events import Event, Observer

logger = logging.getLogger("csjd")


@attrs.define(eq=False)
class Observers:
    """The observers of one dispatcher; false when there are none."""

    _observers: list[Observer] = attrs.field(factory=list)

    @classmethod
    def of(cls, observers: Iterable[Observer]) -> "Observers":
        """
        Return the observers given.

        Raises:
            ValueError: If one of them is not callable.
        """
        listed = list(observers)
        for observer in listed:
            if not callable(observer):
                raise ValueError(f"an observer must be callable, got {observer!r}")
        return cls(listed)

    def __bool__(self) -> bool:
        return bool(self._observers)

    def tell(self, event: Event) -> None:
        """Call every observer; one that raises is dropped, with one logged error."""
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception:
                self._observers.remove(observer)
                logger.exception("observer %r raised on %r and was dropped", observer, event)
