"""
Accepting with a store: jobs that must be on the disk before they count.

What could refuse a job does so at once, while everything it needs is reserved. Then its
caller waits for the commit; with it, the jobs are taken in, or given back. All jobs that
a caller hands in without a wait in between are one change: they happen together.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from csjd._core.dead_letters import Buried
from csjd._core.entry import Entry
from csjd._core.reserving import Reservations
from csjd._model.errors import CsjdError, QueueFullError
from csjd._model.events import DeadLetterDiscarded, DeadLetterRequeued, JobAccepted
from csjd._model.handler import HandlerSpec
from csjd._model.job import Job
from csjd._model.storing import Discarded, Operation, Requeued
from csjd._runtime.admission import rest_of
from csjd._runtime.commits import Change
from csjd._runtime.journal import Journal
from csjd._runtime.notes import wall_time
from csjd._runtime.payloads import stored
from csjd._runtime.receipts import BatchReport, Receipt, report_batch
from csjd._store.jobs import plain_accepted, to_accepted

if TYPE_CHECKING:
    from csjd._runtime.admission import Admission, Offer
    from csjd._runtime.scheduler import Scheduler


@attrs.define(eq=False)
class Keeping:
    """Takes jobs in once the store knows of them."""

    admission: "Admission"
    journal: Journal
    scheduler: "Scheduler" = attrs.field(init=False)
    reservations: Reservations = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.scheduler = self.admission.scheduler
        self.reservations = Reservations(self.scheduler.backlog)
        self.journal.turn_away = self.admission.turn_away

    async def submit(self, job: Job, *, wait: bool, delay: float) -> Receipt:
        """Take *job* in; as `Dispatcher.submit`, whose checks of the door were passed."""
        self.journal.check()
        changes: list[Admitting] = []
        entries = self._keep_plain((job,), changes) if delay == 0 else []
        entry = entries[0] if entries else await self._keep(job, wait, delay, changes)
        await self.journal.wait(changes)
        if changes[0].error is not None:
            raise changes[0].error
        return Receipt(entry, self.scheduler)

    async def submit_batch(self, batch: Sequence[Job], *, wait: bool) -> BatchReport:
        """Take in what can be of *batch*; as `Dispatcher.submit_batch`."""
        entries: list[Entry | None] = []
        errors: dict[int, Exception] = {}
        changes: list[Admitting] = []
        while len(entries) < len(batch):
            at = len(entries)
            try:
                self.admission.check_open()  # each time: the door may close while it waits
                self.journal.check()
                entries += self._keep_plain(rest_of(batch, at), changes)
                if len(entries) == at:
                    entries.append(await self._keep(batch[at], wait, 0.0, changes))
            except CsjdError as error:
                self.admission.note_refusal(batch[at], error)
                errors[at] = error
                entries.append(None)
        if changes:
            await self.journal.wait(changes)
        else:
            await trio.lowlevel.checkpoint()
        if any(change.error is not None for change in changes):
            self._tell_refused(batch, changes, entries, errors)
        return report_batch(entries, errors, self.scheduler)

    def _tell_refused(
        self,
        batch: Sequence[Job],
        changes: "Sequence[Admitting]",
        entries: list[Entry | None],
        errors: dict[int, Exception],
    ) -> None:
        """Move to *errors* the jobs among *entries* that the store has not taken."""
        refused = {entry: change.error for change in changes for entry in change.entries}
        for position, entry in enumerate(entries):
            error = None if entry is None else refused[entry]
            if error is not None:
                self.admission.note_refusal(batch[position], error)
                errors[position] = error
                entries[position] = None

    # --- reserving ---------------------------------------------------------------------

    def _keep_plain(self, jobs: Iterable[Job], changes: "list[Admitting]") -> list[Entry]:
        """Reserve for the plain ones that *jobs* begins with, and tell the journal of them."""
        now = self.scheduler.clock.current_time()
        entries = self.reservations.reserve_plain(jobs, self.admission.specs, now)
        if entries:
            self._tell(entries, plain_accepted(entries), changes)
        return entries

    async def _keep(self, job: Job, wait: bool, delay: float, changes: "list[Admitting]") -> Entry:
        """Reserve what *job* needs, if need be when there is room, and tell the journal."""
        now = self.scheduler.clock.current_time()
        offer = self.admission.look_at(job, delay, now)
        payload = stored(offer.job, offer.spec, self.scheduler.config.max_payload)
        try:
            return self._reserve(offer, payload, now, changes)
        except QueueFullError as full:
            if not wait:
                raise
            limit = full
        return await self.admission.wait_for_room(
            offer.job, limit, lambda now: self._reserve(offer, payload, now, changes)
        )

    def _reserve(
        self, offer: "Offer", payload: bytes, now: float, changes: "list[Admitting]"
    ) -> Entry:
        """Reserve what the job needs and tell the journal, or raise and change nothing."""
        self.journal.check()
        delay = offer.due - now if offer.due > now else None
        accepted = to_accepted(
            offer.job,
            self.scheduler.backlog.last_order + 1,
            payload=payload,
            due=None if delay is None else wall_time() + delay,
            delay=delay if offer.job.run_at is None else None,
        )
        entry = self.reservations.reserve(offer.job, offer.spec, now, offer.due, offer.copies)
        self._tell([entry], [accepted], changes)
        return entry

    def _tell(
        self, entries: list[Entry], accepted: Sequence[Operation], changes: "list[Admitting]"
    ) -> None:
        """Have *entries* taken in with the next commit: with the last change, if that can be."""
        if changes and self.journal.can_grow(changes[-1]):
            changes[-1].entries += entries
            changes[-1].operations += accepted
            return
        change = Admitting([*accepted], [*entries], self)
        self.journal.submit(change)
        changes.append(change)

    # --- what a commit brings ----------------------------------------------------------

    def admit(self, entries: Sequence[Entry], now: float) -> None:
        """Take in jobs that the store knows of now."""
        scheduler = self.scheduler
        self.reservations.admit(entries, now)
        for entry in entries:
            if entry.due:
                scheduler.schedule(entry)
        if scheduler.observers:
            for entry in entries:
                scheduler.observers.tell(JobAccepted(at=now, job=entry.job))

    def give_back(self, entries: Sequence[Entry], now: float) -> None:
        """Undo the reservations of jobs that the store will not have."""
        self.reservations.give_back(entries, now)
        for entry in entries:
            self.admission.make_room(entry, now)

    # --- dead letters ------------------------------------------------------------------

    async def requeue(self, buried: Buried, spec: HandlerSpec) -> Receipt:
        """Accept a dead letter's job anew; as `Dispatcher.requeue`."""
        self.journal.check()
        if self.admission.recovering is not None:
            buried = self.admission.recovering.letter_of(buried, spec)
        now = self.scheduler.clock.current_time()
        entry = self.reservations.reserve_requeue(buried, spec, now)
        change = Requeuing([Requeued(buried.order, entry.order)], [entry], self, buried)
        self.journal.submit(change)
        await self.journal.wait((change,))
        if change.error is not None:
            raise change.error
        return Receipt(entry, self.scheduler)

    async def discard(self, buried: Buried) -> None:
        """Throw a dead letter away once the store has forgotten it; as `Dispatcher.discard`."""
        change = Discarding([Discarded(buried.order)], self, buried)
        self.journal.submit(change)
        # Nobody else must discard or requeue it meanwhile.
        self.scheduler.backlog.dead_letters.take_out(buried.job_id)
        await self.journal.wait((change,))
        if change.error is not None:
            raise change.error


@attrs.define(eq=False)
class Admitting(Change):
    """Jobs are taken in."""

    entries: list[Entry]
    """In order of acceptance; `operations` has an `Accepted` for each."""
    keeping: Keeping

    def apply(self, now: float) -> None:
        """Take them in."""
        self.keeping.admit(self.entries, now)

    def refuse(self, now: float) -> None:
        """Give back what was reserved for them."""
        self.keeping.give_back(self.entries, now)


@attrs.define(eq=False)
class Discarding(Change):
    """A dead letter is thrown away."""

    keeping: Keeping
    buried: Buried
    grows = False

    def apply(self, now: float) -> None:
        """Tell that it is gone."""
        job = self.buried.letter.job
        self.keeping.scheduler.tell(lambda at: DeadLetterDiscarded(at=at, job=job))

    def refuse(self, now: float) -> None:
        """Keep it, unless a letter of the same id has come meanwhile, which replaces it."""
        letters = self.keeping.scheduler.backlog.dead_letters
        if letters.find(self.buried.job_id) is None:
            letters.put_back(self.buried)
        else:
            self.keeping.journal.notes.discarded(self.buried)


@attrs.define(eq=False)
class Requeuing(Admitting):
    """A dead letter's job is taken in anew."""

    buried: Buried

    def apply(self, now: float) -> None:
        """Take it in."""
        super().apply(now)
        job = self.entries[0].job
        self.keeping.scheduler.tell(lambda at: DeadLetterRequeued(at=at, job=job))

    def refuse(self, now: float) -> None:
        """Let it be the dead letter it was."""
        [entry] = self.entries
        self.keeping.reservations.rebury(entry, self.buried, now)
        self.keeping.admission.make_room(entry, now)
