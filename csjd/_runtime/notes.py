"""What the store is told of jobs, in its own words: moments by the wall clock, errors as text."""

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from csjd._core.dead_letters import Buried
from csjd._core.entry import Entry
from csjd._model.handler import OnFailure
from csjd._model.lifecycle import JobState
from csjd._model.storing import (
    NEVER,
    DeadLettered,
    DeathReason,
    Discarded,
    DueKind,
    Ended,
    Halted,
    Interrupted,
    Operation,
    Postponed,
    Resumed,
)

_ERROR_TEXT: Final = 4000
"""Characters kept of a dead letter's error."""


@attrs.define(eq=False)
class Notes:
    """Tells of what has happened in memory; nobody waits for it."""

    note: Callable[[Operation], None]
    """Has an operation written soon."""
    window: float
    """Seconds an ended id is remembered."""
    started: set[int] = attrs.field(factory=set)
    """Orders of the jobs that the store believes to be running."""

    def succeeded(self, ends: Sequence[tuple[int, float]], now: float) -> list[Operation]:
        """
        Return what tells of jobs that have succeeded.

        Args:
            ends: Of each its order, and when it ended.
            now: The present time.
        """
        if self.started:
            self.started.difference_update(order for order, _ in ends)
        if not self.window:
            return [Ended(order) for order, _ in ends]
        shift = wall_time() - now + self.window
        return [Ended(order, ended + shift) for order, ended in ends]

    def ended(self, entry: Entry) -> None:
        """Note a job that has ended, and not in success."""
        self.started.discard(entry.order)
        if entry.state is JobState.CANCELLED:
            self.note(Ended(entry.order, self._remembered_until()))
            return
        reason = DeathReason.TIMED_OUT if entry.timed_out else DeathReason.FAILED
        self._died(entry, reason, entry.result)

    def crashed(self, entry: Entry, error: BaseException) -> None:
        """Note a job that has killed its process too often."""
        self._died(entry, DeathReason.CRASHED, error)

    def _died(self, entry: Entry, reason: DeathReason, error: BaseException) -> None:
        self.note(
            DeadLettered(
                entry.order,
                entry.attempts,
                reason,
                error_text(error),
                at=wall_time(),
                remembered_until=self._remembered_until(),
            )
        )
        if entry.job.session is not None and entry.spec.on_failure is OnFailure.HALT:
            self.note(Halted(entry.job.session))

    def _remembered_until(self) -> float:
        return wall_time() + self.window if self.window else NEVER

    def postponed(self, entry: Entry, kind: DueKind, now: float) -> None:
        """Note a job that waits for its next attempt."""
        self.started.discard(entry.order)
        delay = entry.due - now
        self.note(Postponed(entry.order, entry.attempts, wall_time() + delay, kind, delay))

    def interrupted(self, entry: Entry) -> None:
        """Note a job that a stop has put back."""
        if entry.order in self.started:
            self.started.discard(entry.order)
            self.note(Interrupted(entry.order))

    def discarded(self, buried: Buried) -> None:
        """Note a dead letter that is gone."""
        self.note(Discarded(buried.order))

    def resumed(self, session: str) -> None:
        """Note that a halted session goes on."""
        self.note(Resumed(session))


def wall_time() -> float:
    """Return the time that still means something after a restart, in seconds."""
    return time.time()


def error_text(error: BaseException) -> str:
    """Return what people need to see of *error*, as a store can keep it."""
    text = "".join(traceback.format_exception_only(error)).strip()[:_ERROR_TEXT]
    return text.encode(errors="replace").decode()
