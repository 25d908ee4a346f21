"""
Starts told in advance: of jobs that may have killed the process they ran in.

The store counts a crash for each job that it knows to be running when the process dies.
To tell it of every start would cost every job a commit, so only jobs that came out of a
store nobody had closed, or have crashed before, are announced.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from csjd._core.lanes import CancelReason
from csjd._model.handler import HandlerSpec
from csjd._runtime.current import current_lane
from csjd._runtime.journal import Journal
from csjd._runtime.scheduler import Scheduler


@attrs.define(eq=False)
class Announcing:
    """Has the store know of a start before the handler is called."""

    journal: Journal
    scheduler: Scheduler
    _announced: dict[str, HandlerSpec] = attrs.field(factory=dict)
    """By type: how jobs are run whose starts are told."""

    def announced(self, spec: HandlerSpec) -> HandlerSpec:
        """Return *spec* for a job whose starts are to be told."""
        announced = self._announced.get(spec.type)
        if announced is None:
            announced = attrs.evolve(spec, function=self._announcing(spec.function))
            self._announced[spec.type] = announced
        return announced

    def _announcing(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def call(job: Any, *attempt: Any) -> Any:
            await self._announce(job.id)
            return await function(job, *attempt)

        return call

    async def _announce(self, job_id: str) -> None:
        """Have the store know that a job is about to run, so that it can count its crashes."""
        entry = self.scheduler.backlog.ids.find(job_id)
        assert entry is not None, "a job that runs is live"
        if await self.journal.announce(entry):
            return
        task = current_lane.get()
        assert task is not None, "handlers run in lanes"
        now = self.scheduler.clock.current_time()
        self.scheduler.cancel_attempt(task.lane, CancelReason.SHUTDOWN, now)
        await trio.lowlevel.checkpoint()
