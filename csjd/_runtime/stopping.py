"""Stopping: drain, interrupt what is left, report what was not finished."""

import math
from typing import TYPE_CHECKING

import attrs
import trio

from csjd._core.entry import Entry
from csjd._core.lanes import CancelReason, Lane
from csjd._model.checks import is_number
from csjd._model.errors import (
    DispatcherClosedError,
    DispatcherNotStartedError,
    StuckHandlersError,
    WouldDeadlockError,
)
from csjd._model.events import DispatcherStarted, DispatcherStopped, DispatcherStopping
from csjd._model.job import Job
from csjd._model.lifecycle import DispatcherState, DispatcherStep
from csjd._model.metrics import StopReport, StuckHandler
from csjd._runtime.current import enclosing_lane

if TYPE_CHECKING:
    from csjd._runtime.admission import Admission
    from csjd._runtime.scheduler import Scheduler


@attrs.define(eq=False)
class Drain:
    """One stop that is under way."""

    began: float
    until: float
    """When the grace is over; a later stop that joins may bring it nearer."""
    finished: list[str] = attrs.field(factory=list)
    done: trio.Event = attrs.field(factory=trio.Event)
    _news: trio.Event = attrs.field(factory=trio.Event)

    def look(self) -> None:
        """Have the drain look whether it is over."""
        self._news.set()

    async def wait_for_news(self, until: float) -> None:
        """Wait until there is something to look at, or the time is *until*."""
        with trio.CancelScope(deadline=until):
            await self._news.wait()
        self._news = trio.Event()

    def note(self, entry: Entry, now: float) -> None:
        """Note a job that ended; whether the drain is over, lanes say when they rest."""
        self.finished.append(entry.job.id)


@attrs.define(eq=False)
class Stopping:
    """Starts and stops a scheduler, any number of times."""

    scheduler: "Scheduler"
    admission: "Admission"
    last_stop: StopReport | None = None
    _callers: list[Lane] = attrs.field(factory=list)
    """Lanes whose attempt waits for a stop; a stop does not wait for them."""

    def __attrs_post_init__(self) -> None:
        self.scheduler.on_closed = self.closed

    @trio.lowlevel.enable_ki_protection
    async def start(self) -> None:
        """
        Run jobs (again).

        Raises:
            StuckHandlersError: More handlers outlived earlier stops than there are lanes.
            DispatcherClosedError: The dispatcher's block was left.
            DispatcherNotStartedError: It was never opened.
            WouldDeadlockError: Called by a handler while a stop waits for it to end.
        """
        scheduler = self.scheduler
        if scheduler.token is None:
            raise DispatcherNotStartedError
        await trio.lowlevel.checkpoint_if_cancelled()
        while (drain := scheduler.drain) is not None:
            if enclosing_lane(scheduler) is not None:
                raise WouldDeadlockError("a handler waits for the end of a stop, to start again")
            await drain.done.wait()
        if scheduler.state is DispatcherState.CLOSED:
            raise DispatcherClosedError(scheduler.state.value)
        if scheduler.state is not DispatcherState.RUNNING:
            if scheduler.journal is not None:
                scheduler.journal.check()
            self._check_stuck()
            scheduler.advance(DispatcherStep.START)
            scheduler.backlog.stopped = False
            scheduler.fall_due(scheduler.clock.current_time())
            scheduler.backlog.call_all()
            scheduler.send_calls()
            scheduler.hasten(scheduler.backlog.next_due(draining=False) or math.inf)
            scheduler.tell(lambda at: DispatcherStarted(at=at))
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _check_stuck(self) -> None:
        stuck = [lane for lane in self.scheduler.lanes if lane.left_behind and lane.entry]
        limit = len(self.scheduler.backlog.workers) * self.scheduler.config.lanes
        if len(stuck) > limit:
            ids = tuple(lane.entry.job.id for lane in stuck if lane.entry is not None)
            raise StuckHandlersError(ids, limit)

    @trio.lowlevel.enable_ki_protection
    async def stop(self, grace: float | None) -> StopReport:
        """Drain for at most *grace* seconds; join the stop that is under way, if one is."""
        scheduler = self.scheduler
        if grace is None:
            grace = scheduler.config.stop_grace
        elif not (is_number(grace) and grace >= 0):
            raise ValueError(f"grace must be a number of seconds >= 0, got {grace!r}")
        await trio.lowlevel.checkpoint_if_cancelled()
        if scheduler.state is DispatcherState.NEW:
            raise DispatcherNotStartedError
        now = scheduler.clock.current_time()
        if scheduler.state is DispatcherState.RUNNING:
            self._begin(now, grace)
        drain = scheduler.drain
        if drain is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            drain.until = min(drain.until, now + grace)
            with self._calling(drain):
                await drain.done.wait()
        assert self.last_stop is not None, "a dispatcher that does not run has been stopped"
        return self.last_stop

    def _calling(self, drain: Drain) -> "_Calling":
        drain.look()
        return _Calling(self._callers, enclosing_lane(self.scheduler))

    def _begin(self, now: float, grace: float) -> None:
        scheduler = self.scheduler
        scheduler.advance(DispatcherStep.DRAIN)
        scheduler.drain = drain = Drain(now, now + grace)
        scheduler.watchers.append(drain.note)
        self.admission.close_door()
        scheduler.tell(lambda at: DispatcherStopping(at=at, grace=grace))
        scheduler.start_soon(self._stop, drain, name="csjd stop")

    async def _stop(self, drain: Drain) -> None:
        """Carry a stop out; a task of the dispatcher, so no caller's cancellation breaks it."""
        scheduler = self.scheduler
        await self._work_off(drain)
        scheduler.backlog.stopped = True
        await self._interrupt(drain)
        if scheduler.journal is not None:
            with trio.move_on_after(scheduler.config.commit_grace):
                await scheduler.journal.flush()
        stuck = [lane for lane in self._running() if lane.reason is not None]
        shown = tuple(map(scheduler.show_stuck, stuck))
        for lane in stuck:
            scheduler.leave_behind(lane)
        scheduler.drain = None
        scheduler.watchers.remove(drain.note)
        scheduler.advance(DispatcherStep.STOP)
        self.last_stop = report = self._report(drain, shown)
        drain.done.set()
        scheduler.tell(lambda at: DispatcherStopped(at=at, report=report))

    async def _work_off(self, drain: Drain) -> None:
        scheduler = self.scheduler
        while scheduler.clock.current_time() < drain.until:
            if not self._running() and not self._can_go_on(drain):
                return
            await drain.wait_for_news(drain.until)

    def _can_go_on(self, drain: Drain) -> bool:
        """Whether there is work for the drain, and a lane to do it that does not wait for us."""
        others = (lane for lane in self.scheduler.lanes if lane not in self._callers)
        return self.scheduler.backlog.workable(drain.until, others)

    async def _interrupt(self, drain: Drain) -> None:
        """Cancel what still runs, and give it `detach_grace` to end."""
        scheduler = self.scheduler
        now = scheduler.clock.current_time()
        for lane in self._running():
            scheduler.cancel_attempt(lane, CancelReason.SHUTDOWN, now)
        until = now + scheduler.config.detach_grace
        while self._running() and scheduler.clock.current_time() < until:
            await drain.wait_for_news(until)

    def _running(self) -> list[Lane]:
        """Return the lanes, detached ones included, with attempts that a stop waits for."""
        return [
            lane
            for lane in self.scheduler.lanes
            if lane.entry is not None and lane not in self._callers
        ]

    def closed(self) -> None:
        """Note that the dispatcher's task ends: nothing runs any more, or ever will."""
        scheduler = self.scheduler
        drain = scheduler.drain
        if self.last_stop is None or drain is not None or not scheduler.backlog.stopped:
            self.last_stop = self._report(drain, ())
        else:  # nothing ran since that stop, but what was stuck may have ended
            self.last_stop = attrs.evolve(self.last_stop, unfinished=self._unfinished())
        if drain is not None:
            scheduler.drain = None
            drain.done.set()
        self.admission.close_door()
        for entry in scheduler.backlog.live():
            if entry.listener is not None:
                entry.listener.set()
        scheduler.backlog.dissolve()

    def _unfinished(self) -> tuple[Job, ...]:
        return tuple(entry.job for entry in self.scheduler.backlog.live())

    def _report(self, drain: Drain | None, stuck: tuple[StuckHandler, ...]) -> StopReport:
        """Return the report of a stop, or, without *drain*, of a crash."""
        now = self.scheduler.clock.current_time()
        return StopReport(
            finished=tuple(drain.finished) if drain else (),
            unfinished=self._unfinished(),
            stuck=stuck,
            duration=now - drain.began if drain else 0.0,
        )


@attrs.define(eq=False)
class _Calling:
    """While entered: *lane*'s attempt waits for a stop."""

    _callers: list[Lane]
    _lane: Lane | None

    def __enter__(self) -> None:
        if self._lane is not None:
            self._callers.append(self._lane)

    def __exit__(self, *exc_info: object) -> None:
        if self._lane is not None:
            self._callers.remove(self._lane)
