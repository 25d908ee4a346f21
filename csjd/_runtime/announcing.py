"""
Starts told in advance: of jobs that may have killed the process they ran in.

The store counts a crash for each job that it knows to be running when the process dies.
To tell it of every start would cost every job a commit, so only jobs that came out of a
store nobody had closed, or have crashed before, are announced.
"""

import math
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
        scheduler = self.scheduler
        entry = scheduler.backlog.ids.find(job_id)
        assert entry is not None, "a job that runs is live"
        task = current_lane.get()
        assert task is not None, "handlers run in lanes"
        lane = task.lane
        # A timeout is the handler's, and not the disk's: full for long enough, it would
        # use up every attempt of a job whose handler was never called.
        timeout, lane.deadline = lane.deadline - lane.started, math.inf
        known = await self.journal.announce(entry)
        now = scheduler.clock.current_time()
        if known:
            lane.deadline = now + timeout
            scheduler.hasten(lane.deadline)
            return
        scheduler.cancel_attempt(lane, CancelReason.SHUTDOWN, now)
        await trio.lowlevel.checkpoint()
