"""Telling observers, who hear everything and can disturb nothing."""

import logging
from collections.abc import Iterable

from csjd._model.events import Event, Observer

logger = logging.getLogger("csjd")


class Observers(list[Observer]):
    """The observers of one dispatcher. A list, because its truth is asked for every job."""

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

    def tell(self, event: Event) -> None:
        """Call every observer; one that raises is dropped, with one logged error."""
        for observer in tuple(self):
            try:
                observer(event)
            except Exception:
                self.remove(observer)
                logger.exception("observer %r raised on %r and was dropped", observer, event)
