"""Long work in small slices, so that other threads get their turn."""

from collections.abc import Callable
from typing import Final

import attrs

_SLICE: Final = 200
"""Items worked off between two pauses: well below a millisecond of the interpreter."""


@attrs.define(eq=False)
class Pacer:
    """Counts items done, and pauses after each slice of them."""

    _pause: Callable[[], None]
    _done: int = 0

    def __call__(self, items: int) -> None:
        """Note that so many more items are done."""
        self._done += items
        if self._done >= _SLICE:
            self._done = 0
            self._pause()


def _no_pause() -> None:
    """Go on at once."""


def unpaced() -> Pacer:
    """Return a pacer for work that nobody waits beside."""
    return Pacer(_no_pause)
