"""The attempt, as its handler sees it."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from csjd._model.checks import is_number
from csjd._model.events import JobProgressed
from csjd._model.job import Job

if TYPE_CHECKING:
    from csjd._core.lanes import Lane
    from csjd._runtime.scheduler import Scheduler

T = TypeVar("T")


@attrs.define(eq=False)
class Attempt:
    """
    One run of a handler for one job.

    All of it may be used from the handler's task, its children, and its threads. Once
    the attempt has ended nothing it does has an effect.
    """

    # Not the entry: an error's traceback holds the handler's frame and so this value, and
    # an entry must not be held by its own result.
    _lane: "Lane" = attrs.field(repr=False)
    _scheduler: "Scheduler" = attrs.field(repr=False)
    job: Job
    """The job, with a payload of this attempt's own if it could be changed."""
    number: int
    """Counted from 1; snoozed and interrupted attempts are not counted."""
    max_attempts: int | None
    """Attempts the job may use; None when its retry policy alone decides."""
    _running: bool = attrs.field(default=True, init=False)

    @property
    def worker(self) -> int:
        """The worker the attempt runs on."""
        return self._lane.worker.id

    @property
    def deadline(self) -> float:
        """
        When the attempt will be cancelled, on Trio's clock; `math.inf` for never.

        This is the authority: `trio.current_effective_deadline()` does not know it.
        """
        return self._lane.deadline if self._running else -math.inf

    def time_left(self) -> float:
        """Return the seconds until the deadline; not below 0."""
        return max(0.0, self.deadline - self._scheduler.clock.current_time())

    def extend(self, seconds: float) -> bool:
        """
        Move the deadline *seconds* further away; return False if the attempt was cancelled.

        Raises:
            ValueError: If *seconds* is not a finite number >= 0.
        """
        if not (is_number(seconds) and 0 <= seconds < math.inf):
            raise ValueError(f"seconds must be a finite number >= 0, got {seconds!r}")
        return self._at_home(self._extend, seconds)

    def _extend(self, seconds: float) -> bool:
        if not self._running or self._lane.reason is not None:
            return False
        self._lane.deadline += seconds
        return True

    def progress(self, value: Any) -> None:
        """Tell observers how far the attempt has come, in whatever form they understand."""
        self._at_home(self._progress, value)

    def _progress(self, value: Any) -> None:
        scheduler = self._scheduler
        if scheduler.observers and self._running:
            scheduler.observers.tell(
                JobProgressed(
                    at=scheduler.clock.current_time(),
                    job=self.job,
                    attempt=self.number,
                    value=value,
                )
            )

    def end(self) -> None:
        """Have no effect from now on; called when the handler has ended."""
        self._running = False

    def _at_home(self, function: Callable[..., T], *args: Any) -> T:
        """Call *function* in the dispatcher's Trio run, from whichever thread we are in."""
        token = self._scheduler.token
        if not trio.lowlevel.in_trio_run():
            return trio.from_thread.run_sync(function, *args, trio_token=token)
        if trio.lowlevel.current_trio_token() is not token:
            # To wait for the other run here would block this one.
            raise RuntimeError(
                "this attempt belongs to another Trio run: call its methods from a thread, "
                "with trio.to_thread.run_sync"
            )
        return function(*args)
