"""A look at a program whenever all of its tasks wait."""

from collections.abc import Callable

import attrs
import trio


@attrs.frozen(eq=False)
class IdleWatch(trio.abc.Instrument):
    """
    Calls *look* every time no task of the run can go on before something happens.

    On a mock clock that is after every step of the program. *look* must not raise: an
    instrument that does is dropped.
    """

    look: Callable[[], object]

    def before_io_wait(self, timeout: float) -> None:
        """Trio is about to wait, if it has nothing to do."""
        if trio.lowlevel.current_statistics().tasks_runnable == 0:
            self.look()
