"""The door: what a job must pass to be accepted."""

import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs
import trio

from csjd._core.deadlock import Room, Wait
from csjd._core.entry import Entry
from csjd._core.reserving import Reservations
from csjd._model.errors import (
    CsjdError,
    DeadLetterNotFoundError,
    DispatcherClosedError,
    DispatcherNotStartedError,
    DuplicateJobError,
    HandlerNotFoundError,
    InvalidJobError,
    JobStoreError,
    QueueFullError,
    WouldDeadlockError,
)
from csjd._model.events import (
    DeadLetterDiscarded,
    DeadLetterRequeued,
    JobAccepted,
    JobRefused,
)
from csjd._model.handler import HandlerSpec
from csjd._model.job import Job, check_delay
from csjd._model.lifecycle import DispatcherState
from csjd._runtime.handlers import prepare_handler
from csjd._runtime.payloads import own
from csjd._runtime.receipts import BatchReport, Receipt, report_batch
from csjd._runtime.room import WaitingLine
from csjd._runtime.scheduler import Scheduler

if TYPE_CHECKING:
    from csjd._runtime.keeping import Keeping
    from csjd._runtime.recovering import Recovering


@attrs.define(eq=False)
class Admission:
    """Takes jobs in."""

    scheduler: Scheduler
    specs: dict[str, HandlerSpec] = attrs.field(factory=dict)
    """Handlers by type, ready to be called."""
    recovering: "Recovering | None" = None
    """With a store: what came out of it and waits for a handler."""
    keeping: "Keeping | None" = None
    """With a store: what has it know of jobs before they are taken in."""
    _line: WaitingLine = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._line = WaitingLine(self.scheduler.backlog.limits.lacks_room)

    def register(self, spec: HandlerSpec) -> None:
        """Let jobs of a type in, and have them run as *spec* says."""
        if spec.type in self.specs:
            raise ValueError(f"type {spec.type!r} already has a handler: register each type once")
        scheduler = self.scheduler
        self.specs[spec.type] = prepare_handler(spec, scheduler.config, scheduler.limiter)
        if self.recovering is not None:
            self.recovering.handler_came(self.specs[spec.type])

    async def submit(self, job: Job, *, wait: bool, delay: float) -> Receipt:
        """See `Dispatcher.submit`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_open()
        now = self.scheduler.clock.current_time()
        self.scheduler.backlog.ids.forget(now, 2)
        try:
            if self.keeping is not None:
                return await self.keeping.submit(job, wait=wait, delay=delay)
            if wait:
                entry = await self._accept_waiting(job, delay)
            else:
                entry = self._take_in(self.look_at(job, delay, now), now)
        except CsjdError as error:
            self.note_refusal(job, error)
            raise
        self.scheduler.send_calls()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return Receipt(entry, self.scheduler)

    async def submit_batch(self, jobs: Iterable[Job], *, wait: bool) -> BatchReport:
        """See `Dispatcher.submit_batch`."""
        batch = list(jobs)  # whatever their source raises, it does so before anything changed
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_open()
        scheduler = self.scheduler
        now = scheduler.clock.current_time()
        scheduler.backlog.ids.forget(now, 2 * len(batch))
        if self.keeping is not None:
            return await self.keeping.submit_batch(batch, wait=wait)
        entries: list[Entry | None] = []
        errors: dict[int, Exception] = {}
        while len(entries) < len(batch):
            if not scheduler.observers:
                rest = rest_of(batch, len(entries))
                entries += scheduler.backlog.admit_plain(rest, self.specs, now)
            if len(entries) == len(batch):
                break
            job = batch[len(entries)]
            try:
                if wait:
                    entries.append(await self._accept_waiting(job, 0.0))
                else:
                    entries.append(self._take_in(self.look_at(job, 0.0, now), now))
            except CsjdError as error:
                self.note_refusal(job, error)
                errors[len(entries)] = error
                entries.append(None)
        self.scheduler.send_calls()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return report_batch(entries, errors, self.scheduler)

    # --- the checks, in order ----------------------------------------------------------

    def check_open(self) -> None:
        """
        Refuse whoever comes while nothing is accepted.

        Raises:
            DispatcherNotStartedError: Before the first start.
            DispatcherClosedError: While stopping, and after.
        """
        match self.scheduler.state:
            case DispatcherState.RUNNING:
                return
            case DispatcherState.NEW:
                raise DispatcherNotStartedError
            case state:
                raise DispatcherClosedError(state.value)

    def look_at(self, job: Job, delay: float, now: float) -> "Offer":
        """Check all that can be checked of *job* by itself, and make it ours."""
        if not isinstance(job, Job):
            raise InvalidJobError("job", f"must be a csjd.Job, got {type(job).__name__}")
        spec = self.specs.get(job.type)
        if spec is None:
            raise HandlerNotFoundError(job.type)
        due = 0.0 if delay == 0 and job.run_at is None else _due(job, delay, now)
        own_job, copies = own(job, spec, self.scheduler.config.max_payload)
        return Offer(own_job, spec, due, copies)

    def _take_in(self, offer: "Offer", now: float) -> Entry:
        """Take in what `look_at` found in order, or raise and change nothing."""
        scheduler = self.scheduler
        entry = scheduler.backlog.admit(offer.job, offer.spec, now, offer.due, offer.copies)
        if offer.due > now:
            scheduler.hasten(offer.due)
        if scheduler.observers:
            scheduler.observers.tell(JobAccepted(at=now, job=offer.job))
        return entry

    # --- waiting for room --------------------------------------------------------------

    async def _accept_waiting(self, job: Job, delay: float) -> Entry:
        """Take *job* in as soon as there is room for it."""
        self.check_open()  # for each job of a batch: the door may close while it waits
        scheduler = self.scheduler
        now = scheduler.clock.current_time()
        offer = self.look_at(job, delay, now)
        try:
            return self._take_in(offer, now)
        except QueueFullError as full:
            limit = full
        scheduler.send_calls()  # what the same batch brought before can start meanwhile
        return await self.wait_for_room(offer.job, limit, functools.partial(self._take_in, offer))

    async def wait_for_room(
        self, job: Job, limit: QueueFullError, admit: Callable[[float], Entry]
    ) -> Entry:
        """Return what *admit* returns as soon as there is room for *job*."""
        scheduler = self.scheduler
        with scheduler.waiting_for(self._obstacle(limit)):
            waiter = self._line.join(job, limit, admit)
            if self._let_in not in scheduler.watchers:
                scheduler.watchers.append(self._let_in)
            try:
                await waiter.event.wait()
            except BaseException as error:  # noqa: ASYNC103  as said here
                # Let in before we could leave: the cancellation came too late, and the next
                # checkpoint raises it.
                if waiter.entry is None or not isinstance(error, trio.Cancelled):
                    self._line.leave(waiter)
                    raise
        if waiter.refusal is not None:
            raise waiter.refusal
        assert waiter.entry is not None, "who waits is let in or refused"
        return waiter.entry

    def _obstacle(self, full: QueueFullError) -> Wait:
        """Return what has to end for the room that is missing."""
        if full.limit_name == "max_sessions":
            return Room.SESSION
        if full.limit_name == "max_pending" or full.session is None:
            return Room.JOB
        session = self.scheduler.backlog.sessions.find(
            full.session, self.scheduler.clock.current_time()
        )
        return Room.JOB if session is None or session.head is None else session.head

    def _let_in(self, entry: Entry, now: float) -> None:
        """Let in who waits for the room that the end of *entry* made."""
        self._line.let_in(entry.job.session, now)
        # An observer of what was let in may have cancelled it, and so been here before us.
        if not self._line and self._let_in in self.scheduler.watchers:
            self.scheduler.watchers.remove(self._let_in)
        self.scheduler.send_calls()

    def make_room(self, entry: Entry, now: float) -> None:
        """Let in who waits for the room that *entry* had reserved."""
        if self._line:
            self._let_in(entry, now)

    def close_door(self) -> None:
        """Send away who waits, because nothing more is accepted."""
        state = self.scheduler.state.value
        self.turn_away(lambda: DispatcherClosedError(state))

    def turn_away(self, refusal: Callable[[], CsjdError]) -> None:
        """Send away who waits for room, each with an error of their own from *refusal*."""
        self._line.refuse_all(refusal)

    # --- dead letters ------------------------------------------------------------------

    async def requeue(self, job_id: str) -> Receipt:
        """See `Dispatcher.requeue`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_open()
        scheduler = self.scheduler
        buried = scheduler.backlog.dead_letters.find(job_id)
        if buried is None:
            raise DeadLetterNotFoundError(job_id)
        spec = self.specs.get(buried.letter.job.type) or buried.spec
        if spec is None:
            raise HandlerNotFoundError(buried.letter.job.type)
        if self.keeping is not None:
            return await self.keeping.requeue(buried, spec)
        now = scheduler.clock.current_time()
        entry = Reservations(scheduler.backlog).requeue(buried, spec, now)
        scheduler.tell(lambda at: DeadLetterRequeued(at=at, job=entry.job))
        scheduler.send_calls()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return Receipt(entry, scheduler)

    async def discard(self, job_id: str) -> None:
        """See `Dispatcher.discard`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        scheduler = self.scheduler
        buried = scheduler.backlog.dead_letters.find(job_id)
        if buried is None:
            raise DeadLetterNotFoundError(job_id)
        if self.keeping is not None:
            await self.keeping.discard(buried)
            return
        scheduler.backlog.dead_letters.take_out(job_id)
        scheduler.tell(lambda at: DeadLetterDiscarded(at=at, job=buried.letter.job))
        await trio.lowlevel.cancel_shielded_checkpoint()

    # --- refusing ----------------------------------------------------------------------

    def note_refusal(self, job: Job, error: CsjdError) -> None:
        """Count a refusal, and tell of it."""
        scheduler = self.scheduler
        ledger = scheduler.backlog.ledger
        match error:
            case DuplicateJobError():
                ledger.duplicates += 1
            case QueueFullError() | WouldDeadlockError():
                ledger.rejected += 1
            case InvalidJobError() | HandlerNotFoundError():
                ledger.invalid += 1
            case JobStoreError():
                ledger.rejected += 1
        if isinstance(job, Job):
            scheduler.tell(lambda at: JobRefused(at=at, job=job, error=error))


@attrs.frozen
class Offer:
    """A job that is in order by itself; whether there is room for it is another matter."""

    job: Job
    spec: HandlerSpec
    due: float
    copies: bool
    """Whether each attempt needs its own copy of payload or metadata."""


def rest_of(jobs: Sequence[Job], position: int) -> Iterable[Job]:
    """Iterate over *jobs* from *position* on, without passing by those before, as islice would."""
    return map(jobs.__getitem__, range(position, len(jobs))) if position else jobs


def _due(job: Job, delay: float, now: float) -> float:
    """Return when *job* is due on Trio's clock."""
    if job.run_at is None:
        check_delay(delay)
        return now + delay
    if delay != 0:
        raise InvalidJobError("delay", "must not be given for a job that has a run_at")
    # The one place where wall-clock time comes in; from here on Trio's clock counts, so a
    # step of the wall clock moves no job.
    return now + (job.run_at - datetime.now(UTC)).total_seconds()
