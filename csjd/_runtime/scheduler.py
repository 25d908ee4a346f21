"""
The dispatcher's one task and all that lives in it: the lanes, and the keeper of the time.

The scheduler sleeps until the earliest of due jobs, attempt deadlines and detach graces.
It has no timer while nothing is due, and attempts that end in time never wake it: a
deadline later than its next waking costs one comparison, and when it wakes it looks at
all lanes and sleeps until the next.
"""

import functools
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from random import Random
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import enable_ki_protection

from csjd._core import statistics
from csjd._core.backlog import Backlog
from csjd._core.deadlock import Room, Wait, would_deadlock
from csjd._core.entry import Entry
from csjd._core.lanes import CancelReason, Lane, Worker, due_for_check, next_check
from csjd._core.observers import Observers
from csjd._core.verdict import Kind, Verdict
from csjd._model.checks import check_name, is_integer
from csjd._model.config import Config
from csjd._model.errors import JobCancelledError, WouldDeadlockError
from csjd._model.events import (
    AttemptCancelled,
    AttemptStarted,
    DeadLetterDropped,
    Event,
    HandlerDetached,
    HandlerStuck,
    JobEnded,
    JobInterrupted,
    JobRetried,
    JobSnoozed,
    Paused,
    Resumed,
    SessionHalted,
    WorkerAdded,
    WorkerRemoved,
)
from csjd._model.groups import leaves
from csjd._model.handler import OnFailure
from csjd._model.job import Job
from csjd._model.lifecycle import (
    DISPATCHER_LIFECYCLE,
    TERMINAL,
    DispatcherState,
    DispatcherStep,
)
from csjd._model.metrics import DeadLetter, SessionInfo, StuckHandler
from csjd._model.storing import DueKind
from csjd._runtime.current import enclosing_lane
from csjd._runtime.home import require_run
from csjd._runtime.lane import LaneTask
from csjd._runtime.receipts import outcome_of
from csjd._runtime.stacks import stack_of

if TYPE_CHECKING:
    from csjd._runtime.journal import Journal
    from csjd._runtime.stopping import Drain


class Scheduler:
    """What runs in a dispatcher: started once, ended once, stopped and restarted between."""

    def __init__(self, config: Config, observers: Observers[Event], random: Random) -> None:
        self.config = config
        self.observers = observers
        self.random = random
        self.backlog = Backlog.empty(config)
        self.state = DispatcherState.NEW
        self.journal: Journal | None = None
        """What makes durable what happens here, if anything does."""
        self.lanes: dict[Lane, None] = {}
        """Every lane that has a task, detached ones included."""
        self.watchers: list[Callable[[Entry, float], None]] = []
        """Called for every job that ends; each only while there is something to watch for."""
        self.limiter = trio.CapacityLimiter(math.inf)
        """For handlers in threads: lanes bound them already, and Trio's own is the program's."""
        self.wakes_at = math.inf
        """When the scheduler looks at the clock next; never later than anything it must do."""
        self.drain: Drain | None = None
        """The stop that is under way."""
        self.token: trio.lowlevel.TrioToken | None = None
        """The Trio run it belongs to; None before it has one."""
        self.on_closed: Callable[[], None] = lambda: None
        """Called once, when the task is about to end and nothing runs any more."""
        self.crash: BaseException | None = None
        """What the task died of, if it did not end by `close`."""
        self.ended_event = trio.Event()
        self._sleep: trio.CancelScope | None = None
        if observers:
            self.watchers.append(self._tell_ended)

    # --- the task ----------------------------------------------------------------------

    @enable_ki_protection
    async def run(  # noqa: ASYNC114  started by `open_dispatcher` alone
        self,
        guard: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """
        Live, until `close` is called or something in here raises.

        Args:
            guard: The scope around the dispatcher's block, cancelled should this task die.
            task_status: Told when the workers exist.
        """
        self.token = trio.lowlevel.current_trio_token()
        self.clock = trio.lowlevel.current_clock()
        self._context = copy_context()
        try:
            async with trio.open_nursery() as self._nursery:
                for _ in range(self.config.workers):
                    self.add_worker()
                task_status.started()
                await self._keep_time()
        except BaseException as error:
            self.crash = _sole(error)
            guard.cancel("the dispatcher's task died")
            raise self.crash from None  # noqa: ASYNC104  the same, or its only part
        finally:
            self.advance(DispatcherStep.CLOSE)
            try:
                if self.journal is not None:
                    # It shields itself: what has ended must be written, however long it takes.
                    await self.journal.close()  # noqa: ASYNC102
            finally:
                self.on_closed()
                self.ended_event.set()

    def close(self) -> None:
        """End the task; whatever still runs is cancelled."""
        self._nursery.cancel_scope.cancel("the dispatcher's block was left")

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any, name: str) -> None:
        """Start a task in the dispatcher, with the context variables it was opened with."""
        self._context.copy().run(
            functools.partial(self._nursery.start_soon, function, *args, name=name)
        )

    def advance(self, step: DispatcherStep) -> None:
        """Take a step in the dispatcher's own life."""
        self.state = DISPATCHER_LIFECYCLE[step][self.state]

    # --- time --------------------------------------------------------------------------

    @enable_ki_protection
    async def _keep_time(self) -> None:
        while True:
            now = self.clock.current_time()
            self._do_what_is_due(now)
            self.wakes_at = min(self._next_due(), next_check(self.lanes, self.config.detach_grace))
            with trio.CancelScope(deadline=self.wakes_at) as self._sleep:
                await trio.sleep_forever()
            if not self.config.detach_grace:
                await trio.lowlevel.checkpoint()  # a turn to end for whom we have just cancelled

    def hasten(self, deadline: float) -> None:
        """Wake at *deadline*, if not before."""
        if deadline < self.wakes_at:
            self.wakes_at = deadline
            if self._sleep is not None:
                self._sleep.deadline = deadline

    def rest(self) -> None:
        """A lane has nothing to do; if that is true of all, put the timer off."""
        self._look_at_drain()
        if self.wakes_at < math.inf and self.backlog.calls.parked == len(self.lanes):
            due = self._next_due()
            if due > self.wakes_at and self._sleep is not None:
                self.wakes_at = self._sleep.deadline = due

    def _look_at_drain(self) -> None:
        """Something has changed that a drain may have waited for."""
        if self.drain is not None:
            self.drain.look()

    def _next_due(self) -> float:
        if self.backlog.stopped:
            return math.inf
        due = self.backlog.next_due(draining=self.drain is not None)
        return math.inf if due is None else due

    def _do_what_is_due(self, now: float) -> None:
        self.fall_due(now)
        for lane in due_for_check(self.lanes, self.config.detach_grace, now):
            if lane.reason is None:
                self.cancel_attempt(lane, CancelReason.TIMEOUT, now)
            else:
                self._give_up_on(lane, now)
        self.send_calls()
        self._look_at_drain()  # what fell due may have gone where no lane is left for it

    def fall_due(self, now: float) -> None:
        """Make ready what is due."""
        backlog = self.backlog
        if backlog.stopped:
            return
        backlog.fall_due(now, draining=self.drain is not None)
        if backlog.placing and self.journal is not None:
            due, backlog.placing = backlog.placing, []
            self.journal.place(due)

    def schedule(self, entry: Entry) -> None:
        """See to it that a job that was postponed falls due in time."""
        if not self.backlog.stopped:
            self.hasten(entry.due)

    # --- workers and lanes -------------------------------------------------------------

    def add_worker(self) -> Worker:
        """Add a worker with lanes that take jobs at once."""
        worker = self.backlog.add_worker()
        for _ in range(self.config.lanes):
            self._add_lane(worker)
        self.send_calls()
        self.tell(lambda now: WorkerAdded(at=now, worker=worker.id))
        return worker

    def remove_worker(self, worker: Worker) -> None:
        """
        Let *worker* take nothing more; its lanes end with what they run.

        Raises:
            ValueError: It is the last one.
        """
        if len(self.backlog.workers) == 1:
            raise ValueError("a dispatcher needs a worker, the last one cannot be removed")
        self.send_calls()  # to this worker, too, while it can hear: an observer may be removing it
        for lane in self.backlog.remove_worker(worker):
            lane.handle.dismiss()
        self.send_calls()
        self.tell(lambda now: WorkerRemoved(at=now, worker=worker.id))

    def resize(self, workers: int) -> None:
        """
        Add workers, or remove the newest, until there are *workers*.

        Raises:
            ValueError: If *workers* is not an int >= 1.
        """
        if not (is_integer(workers) and workers >= 1):
            raise ValueError(f"workers must be an int >= 1, got {workers!r}")
        while len(self.backlog.workers) < workers:
            self.add_worker()
        while len(self.backlog.workers) > workers:
            self.remove_worker(self.backlog.workers[max(self.backlog.workers)])

    def send_calls(self) -> None:
        """Wake the lanes that the core wants awake."""
        if self.backlog.calls.pending:
            for lane in self.backlog.calls.take_calls():
                lane.handle.wake()

    def _add_lane(self, worker: Worker) -> None:
        lane = self.backlog.add_lane(worker)
        self.lanes[lane] = None
        self._start_task(lane)

    def replace(self, lane: Lane) -> None:
        """Give *lane* a fresh task; the one that calls this is about to end."""
        if not lane.worker.leaving:
            self._start_task(lane)

    def _start_task(self, lane: Lane) -> None:
        self.start_soon(LaneTask(lane, self).run, name="csjd lane")

    def lane_ended(self, lane: Lane) -> None:
        """Forget *lane*, whose task ends."""
        self.lanes.pop(lane, None)
        worker = lane.worker
        if lane in worker.lanes:
            worker.lanes.remove(lane)
        if worker.gone and worker.id in self.backlog.leaving:
            self.backlog.retire(worker)
        for stuck in [each for each in self.lanes if each.stuck]:
            if self._has_budget():
                self._detach(stuck, self.clock.current_time())
        self.send_calls()
        self._look_at_drain()

    def cancel_attempt(self, lane: Lane, reason: CancelReason, now: float) -> None:
        """Cancel what *lane* runs, unless that was done before."""
        if lane.reason is not None:
            return
        lane.reason = reason
        lane.cancelled_at = now
        lane.handle.disturbed = True
        lane.handle.scope.cancel(reason.value)
        self.hasten(now + self.config.detach_grace)
        self.tell(lambda at: self._attempt_cancelled(lane, at))

    def _give_up_on(self, lane: Lane, now: float) -> None:
        """Deal with a handler that has not ended although its grace is over."""
        if self._has_budget():
            self._detach(lane, now)
            return
        lane.stuck = True
        self.tell(lambda at: HandlerStuck(at=at, job=_job(lane), handler=self.show_stuck(lane)))
        worker = lane.worker
        if all(each.stuck for each in worker.lanes) and not worker.leaving:
            self.backlog.block(worker)

    def _has_budget(self) -> bool:
        used = sum(lane.detached and not lane.left_behind for lane in self.lanes)
        return used < self.config.detach_budget

    def _detach(self, lane: Lane, now: float) -> None:
        """Hand the place of *lane*, whose handler does not end, to a fresh one."""
        self.backlog.detach(lane)
        if not lane.worker.leaving:
            self._add_lane(lane.worker)
        self.tell(lambda at: HandlerDetached(at=at, job=_job(lane), handler=self.show_stuck(lane)))

    def leave_behind(self, lane: Lane) -> None:
        """Detach *lane*, which outlived a stop; that takes nothing from the detach budget."""
        lane.left_behind = True
        if not lane.detached:
            self._detach(lane, self.clock.current_time())

    def show_stuck(self, lane: Lane) -> StuckHandler:
        """Return where the handler of *lane* is."""
        return StuckHandler(
            job=_job(lane),
            worker=lane.worker.id,
            running_for=self.clock.current_time() - lane.started,
            stack=stack_of(lane.handle.task, lane.handle.thread),
        )

    # --- ends --------------------------------------------------------------------------

    def book(self, lane: Lane, entry: Entry, verdict: Verdict, now: float) -> None:
        """Carry out what was decided about a job whose attempt raised."""
        backlog, attempt = self.backlog, entry.attempts
        backlog.release(lane, entry, now)
        backlog.ledger.panics += verdict.panic
        kind, error = verdict.kind, verdict.error
        if entry.unwanted and kind is not Kind.FAIL:
            kind, error = Kind.CANCEL, JobCancelledError(entry.job.id)
            error.__cause__ = verdict.error
        match kind:
            case Kind.RETRY:
                backlog.retry(entry, now + verdict.delay)
                self._note_postponed(entry, DueKind.BACKOFF, now)
                self.schedule(entry)
                self.tell(
                    lambda at: JobRetried(
                        at=at,
                        job=entry.job,
                        attempt=attempt,
                        error=error,
                        delay=verdict.delay,
                        timed_out=verdict.timed_out,
                    )
                )
            case Kind.SNOOZE:
                backlog.snooze(entry, now + verdict.delay)
                self._note_postponed(entry, DueKind.SNOOZE, now)
                self.schedule(entry)
                self.tell(
                    lambda at: JobSnoozed(
                        at=at, job=entry.job, attempt=attempt, delay=verdict.delay
                    )
                )
            case Kind.INTERRUPT:
                backlog.interrupt(entry)
                if self.journal is not None:
                    self.journal.notes.interrupted(entry)
                self.tell(lambda at: JobInterrupted(at=at, job=entry.job, attempt=attempt))
            case Kind.CANCEL:
                backlog.cancel(entry, error, now)
                self._ended_badly(entry, now)
            case Kind.FAIL:
                self._fail(entry, lane.worker, verdict, now)
        self.send_calls()

    def _note_postponed(self, entry: Entry, kind: DueKind, now: float) -> None:
        if self.journal is not None:
            self.journal.notes.postponed(entry, kind, now)

    def _fail(self, entry: Entry, worker: Worker, verdict: Verdict, now: float) -> None:
        halts = entry.spec.on_failure is OnFailure.HALT
        displaced = self.backlog.fail(entry, worker, verdict.error, verdict.timed_out, now)
        self._ended_badly(entry, now)
        if self.journal is not None:
            for buried in displaced.all:
                self.journal.notes.discarded(buried)
        session = entry.job.session
        if session is not None and halts:
            self.tell(lambda at: SessionHalted(at=at, session=session, job=entry.job))
        for buried in displaced.dropped:
            self.tell(functools.partial(_dropped, buried.letter))

    def cancel(self, entry: Entry) -> bool:
        """Cancel a job by request; return False if it has ended, or will never run here."""
        if entry.state in TERMINAL or self.state is DispatcherState.CLOSED:
            return False
        lane, now = entry.holder, self.clock.current_time()
        if not isinstance(lane, Lane):
            self.backlog.cancel(entry, JobCancelledError(entry.job.id), now)
            self._ended_badly(entry, now)
            self.send_calls()
        elif lane.reason is None:
            self.cancel_attempt(lane, CancelReason.REQUEST, now)
        else:
            entry.unwanted = True
        self._look_at_drain()
        return True

    def _ended_badly(self, entry: Entry, now: float) -> None:
        """Tell the journal and whoever wants to know that a job has failed or was cancelled."""
        if self.journal is not None:
            self.journal.note_end(entry)
        self.ended(entry, now)

    def ended(self, entry: Entry, now: float) -> None:
        """Tell whoever wants to know that a job has ended."""
        if entry.listener is not None:
            entry.listener.set()
        for watcher in tuple(self.watchers):
            watcher(entry, now)
        entry.spec = None  # type: ignore[assignment]  # see `Entry.spec`

    # --- pausing -----------------------------------------------------------------------

    def pause(self, type: str | None, session: str | None) -> None:
        """Let no job start, or none of the type or session given."""
        _check_one(type, session)
        if type is not None:
            self.backlog.holds.pause_type(type)
        elif session is not None:
            self.backlog.holds.pause_session(session, self.clock.current_time())
        else:
            self.backlog.paused = True
        self._look_at_drain()
        self.tell(lambda at: Paused(at=at, type=type, session=session))

    def resume(self, type: str | None, session: str | None) -> None:
        """Undo the same call of `pause`."""
        _check_one(type, session)
        if type is not None:
            self.backlog.holds.resume_type(type)
        elif session is not None:
            if self.backlog.holds.resume_session(session, self.clock.current_time()):
                self._note_resumed(session)
        else:
            self.backlog.paused = False
            self.backlog.call_all()
        self.send_calls()
        self._look_at_drain()
        self.tell(lambda at: Resumed(at=at, type=type, session=session))

    def _note_resumed(self, session: str) -> None:
        if self.journal is not None:
            self.journal.notes.resumed(session)

    def session_info(self, session: str) -> SessionInfo | None:
        """Return a session's numbers; None if it is not remembered."""
        return statistics.session_info(self.backlog, session, self.clock.current_time())

    # --- waiting -----------------------------------------------------------------------

    async def wait_for_end(self, entry: Entry) -> None:
        """
        Wait until the job of *entry* has ended or the dispatcher is closed.

        Raises:
            WouldDeadlockError: The wait would keep the job from ever ending.
        """
        if self.state is DispatcherState.CLOSED:
            await trio.lowlevel.checkpoint()
            return
        with self.waiting_for(entry):
            if entry.listener is None:
                entry.listener = trio.Event()
            await entry.listener.wait()

    @contextmanager
    def waiting_for(self, wait: Wait) -> Iterator[None]:
        """
        Note, while the block runs, that the enclosing attempt waits, if there is one.

        Raises:
            WouldDeadlockError: What it waits for could never come about.
        """
        lane = enclosing_lane(self)
        if lane is None:
            yield
            return
        live, sessions = self.backlog.limits.pending, self.backlog.sessions.active
        if would_deadlock(lane, wait, self.lanes, live, sessions):
            what = "room in the queue" if isinstance(wait, Room) else f"job {wait.job.id!r}"
            raise WouldDeadlockError(
                f"job {_job(lane).id!r} waits for {what}, which cannot come before it ends"
            )
        lane.waits.append(wait)
        try:
            yield
        finally:
            lane.waits.remove(wait)

    def check_home(self, method: str) -> None:
        """
        Refuse to be called from where the dispatcher's state must not be touched.

        Raises:
            RuntimeError: This is another thread, or another Trio run.
        """
        if self.token is not None:
            require_run(self.token, method, "the dispatcher's")

    # --- telling -----------------------------------------------------------------------

    def tell(self, make: Callable[[float], Event]) -> None:
        """Tell observers, if there are any, what *make* returns for the present time."""
        if self.observers:
            self.observers.tell(make(self.clock.current_time()))

    def tell_started(self, lane: Lane, entry: Entry, now: float) -> None:
        """Tell observers that *lane* calls a handler."""
        self.observers.tell(
            AttemptStarted(at=now, job=entry.job, attempt=entry.attempts, worker=lane.worker.id)
        )

    def _tell_ended(self, entry: Entry, now: float) -> None:
        self.observers.tell(JobEnded(at=now, job=entry.job, outcome=outcome_of(entry)))

    def _attempt_cancelled(self, lane: Lane, at: float) -> AttemptCancelled:
        entry, reason = lane.entry, lane.reason
        assert entry is not None
        assert reason is not None
        return AttemptCancelled(
            at=at,
            job=entry.job,
            attempt=entry.attempts,
            worker=lane.worker.id,
            reason=reason.value,
        )


def _job(lane: Lane) -> Job:
    assert lane.entry is not None, "only a busy lane has a job"
    return lane.entry.job


def _dropped(letter: DeadLetter, at: float) -> DeadLetterDropped:
    return DeadLetterDropped(at=at, letter=letter)


def _check_one(type: str | None, session: str | None) -> None:
    if type is not None and session is not None:
        raise ValueError("give a type or a session, not both")
    for field, name in (("type", type), ("session", session)):
        if name is not None:
            check_name(field, name)


def _sole(error: BaseException) -> BaseException:
    """Return the one exception in *error*, or *error* itself if there are more."""
    found = tuple(leaves(error))
    return found[0] if len(found) == 1 else error
