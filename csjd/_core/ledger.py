"""The books: what was counted since the dispatcher was opened."""

from collections import deque
from typing import TypeAlias

import attrs

from csjd._core.histogram import MANY, Recorder
from csjd._core.lanes import Worker
from csjd._model.lifecycle import JobState

EndedTuple: TypeAlias = tuple[str, str, str | None, JobState, int, float, float]
"""A job in the history: (id, type, session, state, attempts, duration, ended)."""


@attrs.define(eq=False)
class Ledger:
    """Counters, histograms and the history of ended jobs; see `MetricsSnapshot` for each."""

    history: deque[EndedTuple]
    """Oldest first."""
    accepted: int = 0
    recovered: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    duplicates: int = 0
    rejected: int = 0
    invalid: int = 0
    retries: int = 0
    snoozed: int = 0
    interrupted: int = 0
    late: int = 0
    panics: int = 0
    detachments: int = 0
    waits: Recorder = attrs.field(factory=Recorder)
    """How long jobs waited until an attempt of them began: one for each begun."""
    runs: Recorder = attrs.field(factory=Recorder)
    """How long attempts ran: one for each that has ended, once its worker's are settled."""

    def settle(self, worker: Worker) -> None:
        """Sort what was recorded of *worker*, if it is much; to be called now and then."""
        if len(self.waits.fresh) >= MANY:
            self.waits.settle()
        if len(worker.runs) >= MANY:
            worker.settle(self.runs)
            self.runs.settle()

    @property
    def live(self) -> int:
        """Jobs accepted and not ended."""
        return self.accepted - self.succeeded - self.failed - self.cancelled
