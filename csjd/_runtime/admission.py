"""The door: what a job must pass to be accepted."""

import functools
import itertools
from collections.abc import Iterable
from datetime import UTC, datetime

import attrs
import trio

from csjd._core.entry import Entry
from csjd._model.errors import (
    CsjdError,
    DeadLetterNotFoundError,
    DispatcherClosedError,
    DispatcherNotStartedError,
    DuplicateJobError,
    HandlerNotFoundError,
    InvalidJobError,
    QueueFullError,
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


@attrs.define(eq=False)
class Admission:
    """Takes jobs in."""

    scheduler: Scheduler
    specs: dict[str, HandlerSpec] = attrs.field(factory=dict)
    """Handlers by type, ready to be called."""
    _line: WaitingLine = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._line = WaitingLine(self.scheduler.backlog.lacks_room)

    def register(self, spec: HandlerSpec) -> None:
        """Let jobs of a type in, and have them run as *spec* says."""
        if spec.type in self.specs:
            raise ValueError(f"type {spec.type!r} already has a handler: register each type once")
        scheduler = self.scheduler
        self.specs[spec.type] = prepare_handler(spec, scheduler.config, scheduler.limiter)

    async def submit(self, job: Job, *, wait: bool, delay: float) -> Receipt:
        """See `Dispatcher.submit`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_open()
        now = self.scheduler.clock.current_time()
        self.scheduler.backlog.ids.forget(now, 2)
        try:
            if wait:
                entry = await self._accept_waiting(job, delay)
            else:
                entry = self._take_in(self._look_at(job, delay, now), now)
        except CsjdError as error:
            self._note_refusal(job, error)
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
        entries: list[Entry | None] = []
        errors: dict[int, Exception] = {}
        while len(entries) < len(batch):
            if not scheduler.observers:
                rest = itertools.islice(batch, len(entries), None)
                entries += scheduler.backlog.admit_plain(rest, self.specs, now)
            if len(entries) == len(batch):
                break
            job = batch[len(entries)]
            try:
                if wait:
                    entries.append(await self._accept_waiting(job, 0.0))
                else:
                    entries.append(self._take_in(self._look_at(job, 0.0, now), now))
            except CsjdError as error:
                self._note_refusal(job, error)
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

    def _look_at(self, job: Job, delay: float, now: float) -> "_Offer":
        """Check all that can be checked of *job* by itself, and make it ours."""
        if not isinstance(job, Job):
            raise InvalidJobError("job", f"must be a csjd.Job, got {type(job).__name__}")
        spec = self.specs.get(job.type)
        if spec is None:
            raise HandlerNotFoundError(job.type)
        due = 0.0 if delay == 0 and job.run_at is None else _due(job, delay, now)
        own_job, copies = own(job, spec, self.scheduler.config.max_payload)
        return _Offer(own_job, spec, due, copies)

    def _take_in(self, offer: "_Offer", now: float) -> Entry:
        """Take in what `_look_at` found in order, or raise and change nothing."""
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
        offer = self._look_at(job, delay, now)
        try:
            return self._take_in(offer, now)
        except QueueFullError as full:
            limit = full
        scheduler.send_calls()  # what the same batch brought before can start meanwhile
        with scheduler.waiting_for(self._obstacle(limit)):
            waiter = self._line.join(offer.job, limit, functools.partial(self._take_in, offer))
            if self._let_in not in scheduler.watchers:
                scheduler.watchers.append(self._let_in)
            try:
                await waiter.event.wait()
            except BaseException:
                self._line.leave(waiter)
                raise
        if waiter.refusal is not None:
            raise waiter.refusal
        assert waiter.entry is not None, "who waits is let in or refused"
        return waiter.entry

    def _obstacle(self, full: QueueFullError) -> Entry | None:
        """Return the job whose end makes the room that is missing; None: any job's."""
        if full.limit_name != "max_pending_per_session" or full.session is None:
            return None
        session = self.scheduler.backlog.sessions.find(
            full.session, self.scheduler.clock.current_time()
        )
        return session.head if session is not None else None

    def _let_in(self, entry: Entry, now: float) -> None:
        """Let in who waits for the room that the end of *entry* made."""
        self._line.let_in(entry.job.session, now)
        # An observer of what was let in may have cancelled it, and so been here before us.
        if not self._line and self._let_in in self.scheduler.watchers:
            self.scheduler.watchers.remove(self._let_in)
        self.scheduler.send_calls()

    def close_door(self) -> None:
        """Send away who waits, because nothing more is accepted."""
        self._line.refuse_all(self.scheduler.state.value)

    # --- dead letters ------------------------------------------------------------------

    async def requeue(self, job_id: str) -> Receipt:
        """See `Dispatcher.requeue`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_open()
        scheduler = self.scheduler
        now = scheduler.clock.current_time()
        if job_id not in scheduler.backlog.dead_letters:
            raise DeadLetterNotFoundError(job_id)
        entry = scheduler.backlog.requeue(job_id, now)
        scheduler.tell(lambda at: DeadLetterRequeued(at=at, job=entry.job))
        scheduler.send_calls()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return Receipt(entry, scheduler)

    async def discard(self, job_id: str) -> None:
        """See `Dispatcher.discard`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        scheduler = self.scheduler
        if job_id not in scheduler.backlog.dead_letters:
            raise DeadLetterNotFoundError(job_id)
        letter = scheduler.backlog.dead_letters.pop(job_id)[2]
        scheduler.tell(lambda at: DeadLetterDiscarded(at=at, job=letter.job))
        await trio.lowlevel.cancel_shielded_checkpoint()

    # --- refusing ----------------------------------------------------------------------

    def _note_refusal(self, job: Job, error: CsjdError) -> None:
        scheduler = self.scheduler
        ledger = scheduler.backlog.ledger
        match error:
            case DuplicateJobError():
                ledger.duplicates += 1
            case QueueFullError():
                ledger.rejected += 1
            case InvalidJobError() | HandlerNotFoundError():
                ledger.invalid += 1
        if isinstance(job, Job):
            scheduler.tell(lambda at: JobRefused(at=at, job=job, error=error))


@attrs.frozen
class _Offer:
    """A job that is in order by itself; whether there is room for it is another matter."""

    job: Job
    spec: HandlerSpec
    due: float
    copies: bool


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
