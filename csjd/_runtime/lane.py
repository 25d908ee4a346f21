"""
The lane's task: takes a job, runs its handler, books the end, takes the next.

Tasks are alike, and one that is awake takes over the lane of another that sleeps when
there is work for that: see `calls`.

This is the fast path of csjd, and the only place where readable code gave way to speed:
an attempt must not cost more than a few microseconds, so nothing is opened, created or
asked per attempt that can be per lane.

* Handlers run inside one cancel scope that stays open over many attempts. It has no
  deadline: the scheduler keeps the time and cancels it. A scope that was cancelled is
  left before the next handler starts, so that no cancel reaches a second job.
* The clock is read once per attempt: one attempt's end is the next one's start.
* After each attempt the task is compared with what it was when it was new. If a context
  variable changed, or a cancel scope was left open, a fresh task takes the lane.
"""

import math
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import enable_ki_protection

from csjd._core.entry import Entry
from csjd._core.lanes import CancelReason, Lane
from csjd._core.verdict import judge
from csjd._model.groups import leaves
from csjd._model.job import Job
from csjd._model.retry import Retry
from csjd._runtime.attempt import Attempt
from csjd._runtime.clock import split_clock
from csjd._runtime.current import current_lane
from csjd._runtime.isolation import cancel_status, has_changed
from csjd._runtime.leaks import close_leaks
from csjd._runtime.payloads import for_attempt

if TYPE_CHECKING:
    from csjd._runtime.scheduler import Scheduler

SLICE = 0.001
"""Seconds after which a lane that never had to wait lets other tasks run."""
BURST = 256
"""Attempts after which it does so too: on a mock clock no time passes without yielding."""


PATIENCE = 2
"""
Times a lane that has worked lets other tasks run and looks again, before it parks: Trio
runs tasks in random order, so only after two rounds has a steady submitter had its turn.
With a store it parks at once: work comes with a commit, and that calls lanes; each round
would keep the interpreter from the thread that comes back from the disk.
"""


class LaneTask:
    """The task that serves a lane; `Lane.handle` is this."""

    __slots__ = (
        "_calls",
        "_parking",
        "baseline",
        "disturbed",
        "lane",
        "leaked",
        "opener",
        "scheduler",
        "scope",
        "task",
        "thread",
    )

    baseline: Context
    scope: trio.CancelScope
    task: trio.lowlevel.Task
    opener: "LaneTask | None"
    """That of the handler which opened this one's dispatcher, if one did."""

    def __init__(self, lane: Lane, scheduler: "Scheduler") -> None:
        self.lane = lane
        # Carries wake-ups, never jobs; there is room for one that comes as this task ends.
        self._calls, self._parking = trio.open_memory_channel[None](1)
        self.scheduler = scheduler
        self.disturbed = False
        """The scope was cancelled, or something leaked: no other handler must start in it."""
        self.leaked = False
        """A handler left a scope or nursery open: Trio will complain when this task ends."""
        self.thread: int | None = None
        """The thread the handler runs in, by ident, while it does."""
        lane.handle = self

    async def run(self) -> None:
        """Run attempts until the worker goes away or this task has to be replaced."""
        # A nursery of its own, so that a handler's leak ends this lane and nothing else.
        try:
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112  there for its errors
                nursery.start_soon(self._run, name=trio.lowlevel.current_task().name)
        except* RuntimeError:
            if not self.leaked:
                raise
        finally:
            if self.lane.handle is self:  # else a fresh task has taken over
                self.scheduler.lane_ended(self.lane)

    @enable_ki_protection
    async def _run(self) -> None:
        self.opener = current_lane.get()
        current_lane.set(self)
        self.task = trio.lowlevel.current_task()
        self.baseline = copy_context()
        await trio.lowlevel.checkpoint()
        going_on = True
        while going_on:
            with trio.CancelScope() as self.scope:
                going_on = await self._serve()

    async def _serve(self) -> bool:
        """Run attempts; return True for more in a new scope, False if this task is done."""
        lane, scheduler, task = self.lane, self.scheduler, self.task
        # The task's context is the one it runs in: to compare that needs no copy of it.
        backlog, baseline, context = scheduler.backlog, self.baseline, task.context
        calls, watchers, observers = backlog.calls, scheduler.watchers, scheduler.observers
        offset, clock = split_clock()
        note_success = None if scheduler.journal is None else scheduler.journal.note_success
        status = cancel_status(task)
        self.disturbed = False
        patience, when_idle = 0, PATIENCE if scheduler.journal is None else 0
        job = None
        while True:
            idle = False
            now = offset + clock()
            slice_ends = now + SLICE
            for _ in range(BURST):
                entry = backlog.take(lane, now)
                if calls.pending:
                    scheduler.send_calls()
                if entry is None:
                    if not self._take_over():
                        idle = True
                        break
                    lane = self.lane
                    continue
                spec = entry.spec
                job = entry.job
                timeout = job.timeout
                if timeout is None:
                    timeout = spec.timeout
                lane.deadline = deadline = now + timeout  # type: ignore[operator]  # filled in
                if deadline < scheduler.wakes_at:
                    scheduler.hasten(deadline)
                if observers:
                    scheduler.tell_started(lane, entry, now)
                error = None
                try:
                    if entry.copies:
                        job = for_attempt(job)
                    if spec.takes_attempt:
                        result = await self._call_with_attempt(entry, job)
                    else:
                        function = spec.function  # called in place it takes longer to find
                        result = await function(job)
                except BaseException as raised:  # noqa: ASYNC103  see `_raised`
                    error = raised
                if cancel_status(task) is not status:
                    self.leaked = self.disturbed = True
                    error = await close_leaks(task, "handler", error)
                now = offset + clock()
                if error is None:
                    backlog.succeed(lane, entry, result, now)
                    if note_success is not None:
                        note_success(entry.order, now)
                    if entry.listener is not None or watchers:
                        scheduler.ended(entry, now)
                else:
                    self._raised(entry, error, now)
                try:
                    changed = context != baseline
                except Exception:  # a value whose comparison raises: we cannot know, so it has
                    changed = True
                if changed or self.disturbed:
                    # An error knows this frame, which must not know the job it ended then.
                    entry = spec = job = result = error = None  # type: ignore[assignment]
                    scheduler.send_calls()
                    return self._recover()
                if now >= slice_ends:
                    break
            if job is not None:
                patience = when_idle if idle else PATIENCE
                backlog.ledger.settle(lane.worker)
            # What waits here, perhaps for long, must not keep the last job alive.
            entry = spec = job = result = error = None  # type: ignore[assignment]
            if patience:
                patience -= 1
                await self._linger()
            elif await self._park():
                lane = self.lane
            else:
                return False

    def _take_over(self) -> bool:
        """Exchange lanes with a task that sleeps although there is work for its lane."""
        mine = self.lane
        other = self.scheduler.backlog.take_over(mine)
        if other is None:
            return False
        sleeper = other.handle
        self.lane, sleeper.lane = other, mine
        other.handle, mine.handle = self, sleeper
        return True

    def _recover(self) -> bool:
        """Return whether this task may go on, in a new scope, or else see to its successor."""
        if self.lane.detached:
            return False
        if self.leaked or has_changed(self.baseline):
            self.scheduler.replace(self.lane)
            return False
        return True

    async def _linger(self) -> None:
        """
        Let other tasks run, then look again before parking; for a lane that was not idle.

        Under load the next work comes while the lane lets others run, and that is far
        cheaper than to park and be called. Nobody needs to call who will look anyway:
        a lane that lingers counts as called.
        """
        scheduler = self.scheduler
        calls = scheduler.backlog.calls
        if calls.pending:
            scheduler.send_calls()
        calls.linger()
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            calls.arrived()
            self._pass_on()
            raise
        calls.arrived()

    async def _park(self) -> bool:
        """Wait until there may be work; return False if the worker has been removed."""
        scheduler = self.scheduler
        calls = scheduler.backlog.calls
        if self.lane.worker.leaving:
            self._pass_on()
            return False
        calls.park(self.lane)
        scheduler.rest()
        try:
            await self._parking.receive()
        except trio.EndOfChannel:
            return False
        except BaseException:
            calls.unpark(self.lane)
            raise
        calls.arrived()
        if self.lane.worker.leaving:
            self._pass_on()
            return False
        return True

    def wake(self) -> None:
        """Wake the task, which is parked."""
        self._calls.send_nowait(None)

    def dismiss(self) -> None:
        """End the task, which is parked."""
        self._calls.close()

    def _pass_on(self) -> None:
        """Have others called, by a lane that was called and goes away instead of looking."""
        self.scheduler.backlog.call_all()
        self.scheduler.send_calls()

    async def _call_with_attempt(self, entry: Entry, job: Job) -> Any:
        spec = entry.spec
        attempt = Attempt(
            lane=self.lane,
            scheduler=self.scheduler,
            job=job,
            number=entry.attempts,
            max_attempts=job.max_attempts
            or (spec.retry.max_attempts if isinstance(spec.retry, Retry) else None),
        )
        try:
            return await spec.function(job, attempt)
        finally:
            attempt.end()

    def _raised(self, entry: Entry, error: BaseException, now: float) -> None:
        """Book an attempt whose handler raised; re-raise what is meant for our caller."""
        lane, scheduler, policy = self.lane, self.scheduler, entry.spec.retry
        assert policy is not None, "filled in when the handler was registered"
        reason = lane.reason
        if reason is not None:
            _forget_canceller(error)
        passed_on = self._not_for_the_job(error)
        if passed_on is not None:
            reason = CancelReason.SHUTDOWN
            # Or another lane, which has not heard of it yet, would begin the job anew.
            scheduler.backlog.end()
        verdict = judge(
            error,
            job=entry.job,
            spec=entry.spec,
            policy=policy,
            attempt=entry.attempts,
            reason=reason,
            random=scheduler.random,
        )
        scheduler.book(lane, entry, verdict, now)
        if passed_on is not None:
            raise passed_on

    def _not_for_the_job(self, error: BaseException) -> BaseException | None:
        """Return the part of *error* that ends the lane itself, None if all is the handler's."""
        part = _only(error, (KeyboardInterrupt, trio.Cancelled))
        if part is None:
            return None
        own = self.lane.reason is not None or self.leaked
        if own or trio.current_effective_deadline() > -math.inf:
            return _only(part, (KeyboardInterrupt,))
        return part


def _only(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds)[0]
    return error if isinstance(error, kinds) else None


def _forget_canceller(error: BaseException) -> None:
    """
    Cut from *error* the frame in which Trio has made the cancellation.

    It stands on the stack of whoever cancelled, such as a receipt's owner; kept with a job
    as its error, it would keep all of them alive, and with them the job.
    """
    for leaf in leaves(error):
        link: BaseException | None = leaf
        while link is not None:
            if isinstance(link, trio.Cancelled):
                _cut_innermost(link)
            link = link.__context__


def _cut_innermost(error: BaseException) -> None:
    """Forget the frame that raised *error*, unless it is the only one known."""
    step = error.__traceback__
    while step is not None:
        if step.tb_next is not None and step.tb_next.tb_next is None:
            step.tb_next = None
        step = step.tb_next
