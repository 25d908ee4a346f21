"""
Accepting in two steps, for jobs that a store has to know of first.

`reserve` keeps id, room and order, and does all the refusing there is. When the store has
the job, `admit` takes it in; when it will not have it, `give_back` undoes the reservation.
In between the job counts as pending and its id as live, and nothing else knows of it.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from csjd._core.backlog import Backlog
from csjd._core.dead_letters import Buried
from csjd._core.duplicates import RESERVED
from csjd._core.entry import Entry
from csjd._model.errors import QueueFullError
from csjd._model.handler import HandlerSpec
from csjd._model.job import NO_METADATA, Job
from csjd._model.lifecycle import LIFECYCLE, JobStep

_POSTPONE = LIFECYCLE[JobStep.POSTPONE]

_PLAIN_MOST: Final = 1 << 63
"""Numbers above this may be more than a store can write: a closer look decides."""


@attrs.define(eq=False)
class Reservations:
    """Jobs of a backlog that have an id, an order and room, and are not accepted yet."""

    backlog: Backlog

    def reserve(
        self, job: Job, spec: HandlerSpec, now: float, due: float = 0.0, copies: bool = False
    ) -> Entry:
        """
        Keep what *job* needs, or refuse it and change nothing.

        Arguments and errors as for `Backlog.admit`.
        """
        backlog = self.backlog
        backlog.refuse(job, now)
        backlog.last_order = order = backlog.last_order + 1
        backlog.ids.known[job.id] = RESERVED
        backlog.limits.reserved += 1
        entry = Entry(job, spec, order, now, copies, due=due if due > now else 0.0)
        if job.session is not None:
            entry.session = backlog.sessions.enter(job.session, now)
        return entry

    def reserve_plain(
        self, jobs: Iterable[Job], specs: Mapping[str, HandlerSpec], now: float
    ) -> list[Entry]:
        """
        Keep what *jobs* need up to the first that is not plain; return the entries of those.

        As `Backlog.admit_plain`, a step earlier: a plain job carries bytes, is due at once
        and has nothing that a store may not be able to write. Whatever is not plain is left
        to `reserve`, and so is every refusal.
        """
        backlog = self.backlog
        known, enter, most = backlog.ids.known, backlog.sessions.enter, backlog.config.max_payload
        room = backlog.limits.sure_room()
        order = backlog.last_order
        entries: list[Entry] = []
        for job in jobs:
            if not room or type(job) is not Job or job.id in known:
                break
            spec = specs.get(job.type)
            payload = job.payload
            if (
                spec is None
                or spec.payload is not None
                or type(payload) is not bytes
                or len(payload) > most
                or job.metadata is not NO_METADATA
                or job.run_at is not None
                or job.priority
                or (job.timeout is not None and job.timeout > _PLAIN_MOST)
                or (job.max_attempts is not None and job.max_attempts > _PLAIN_MOST)
            ):
                break
            order += 1
            known[job.id] = RESERVED
            entry = Entry(job, spec, order, now)
            if job.session is not None:
                entry.session = enter(job.session, now)
            entries.append(entry)
            room -= 1
        backlog.last_order = order
        backlog.limits.reserved += len(entries)
        return entries

    def admit(self, entries: Iterable[Entry], now: float) -> None:
        """Take in jobs for which everything was reserved, in the order they were."""
        backlog = self.backlog
        known = backlog.ids.known
        taken = 0
        shared: list[Entry] = []
        for entry in entries:
            job = entry.job
            known[job.id] = entry
            entry.since = now
            taken += 1
            if entry.due:  # even if it is over by now: the store knows it as one without place
                entry.state = _POSTPONE[entry.state]
                backlog.delays.add(entry, entry.due)
            elif job.session is None and not job.priority:
                shared.append(entry)
            else:
                backlog.line_up(entry)
        backlog.limits.reserved -= taken
        backlog.ledger.accepted += taken
        if shared:
            backlog.offer_shared(shared)

    def give_back(self, entries: Iterable[Entry], now: float) -> None:
        """Undo reservations: the jobs were not accepted."""
        backlog = self.backlog
        for entry in entries:
            backlog.limits.reserved -= 1
            del backlog.ids.known[entry.job.id]
            if entry.session is not None:
                backlog.sessions.leave(entry.session, entry, now)

    # --- dead letters ------------------------------------------------------------------

    def requeue(self, buried: Buried, spec: HandlerSpec, now: float) -> Entry:
        """
        Accept a dead letter anew, at the end of its session, with no attempts used.

        Raises:
            DuplicateJobError: A live job has it.
            QueueFullError: A limit is reached.
        """
        entry = self.reserve_requeue(buried, spec, now)
        self.admit((entry,), now)
        return entry

    def reserve_requeue(self, buried: Buried, spec: HandlerSpec, now: float) -> Entry:
        """Take a dead letter out and reserve what its job needs; see `requeue`."""
        ids, job_id = self.backlog.ids, buried.job_id
        window = None
        if not ids.lives(job_id):  # its window, if still open, is not for itself
            window = ids.known.pop(job_id, None)
        try:
            entry = self.reserve(buried.letter.job, spec, now, copies=buried.copies)
        except QueueFullError:
            if window is not None:
                ids.known[job_id] = window
            raise
        self.backlog.dead_letters.take_out(job_id)
        return entry

    def rebury(self, entry: Entry, buried: Buried, now: float) -> None:
        """Undo `reserve_requeue`; the letter's id may be used again at once."""
        self.give_back((entry,), now)
        self.backlog.dead_letters.put_back(buried)
