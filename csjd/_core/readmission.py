"""Coming out of a store: the jobs of an earlier run take their old places."""

import attrs

from csjd._core.backlog import Backlog
from csjd._core.dead_letters import Displaced
from csjd._core.entry import Entry
from csjd._core.timers import DueTimes
from csjd._model.handler import OnFailure
from csjd._model.lifecycle import LIFECYCLE, JobStep

_POSTPONE = LIFECYCLE[JobStep.POSTPONE]
_QUEUE = LIFECYCLE[JobStep.QUEUE]


@attrs.define(eq=False)
class Readmission:
    """Fills the backlog of a dispatcher that has not started yet."""

    backlog: Backlog

    def continue_from(self, next_order: int) -> None:
        """Have orders given out from *next_order* on."""
        self.backlog.last_order = next_order - 1

    def readmit(self, entry: Entry, now: float, heap: DueTimes | None, due: float) -> None:
        """
        Take in a job behind all that were taken in before.

        Args:
            entry: The job, with its old order and attempts.
            now: The time.
            heap: Which of the heaps it waits in, None if it is not due later.
            due: When it falls due.
        """
        backlog = self.backlog
        backlog.ids.known[entry.job.id] = entry
        self._book()
        if entry.job.session is not None:
            entry.session = backlog.sessions.enter(entry.job.session, now)
        if heap is None:
            backlog.line_up(entry)
        elif heap is backlog.delays or entry.session is None or entry.session.append(entry):
            entry.state = _POSTPONE[entry.state]
            heap.add(entry, due)
        else:
            entry.state = _QUEUE[entry.state]

    def halt(self, session: str, now: float) -> None:
        """Let no job of the session start, because one had failed."""
        self.backlog.holds.halt_session(self.backlog.sessions.open(session, now))

    def readmit_dead(self, entry: Entry, error: BaseException, now: float) -> Displaced:
        """Book a job as failed, since it must not run again; as `Backlog.fail`."""
        backlog, job = self.backlog, entry.job
        self._book()
        backlog.ledger.failed += 1
        backlog.ids.end(job.id, now)
        if job.session is not None and entry.spec.on_failure is OnFailure.HALT:
            self.halt(job.session, now)
        return backlog.dead_letters.bury(entry, error, timed_out=False, now=now)

    def _book(self) -> None:
        self.backlog.ledger.accepted += 1
        self.backlog.ledger.recovered += 1
