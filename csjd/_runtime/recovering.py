"""What a store gives back when it is opened, made into the backlog it was."""

import math
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from csjd._core.dead_letters import Buried
from csjd._core.duplicates import RESERVED
from csjd._core.entry import Entry
from csjd._core.readmission import Readmission
from csjd._core.timers import DueTimes
from csjd._model.errors import InvalidJobError, RecordedError
from csjd._model.events import JobParked, JobStoreOpened
from csjd._model.handler import HandlerSpec
from csjd._model.job import Job
from csjd._model.metrics import DeadLetter
from csjd._model.retry import Retry
from csjd._model.storing import (
    Accepted,
    DeadLetter as StoredLetter,
    DeathReason,
    DueKind,
    LiveJob,
    Recovery,
)
from csjd._runtime.announcing import Announcing
from csjd._runtime.journal import Journal, logger
from csjd._runtime.notes import wall_time
from csjd._runtime.payloads import needs_copies
from csjd._runtime.scheduler import Scheduler
from csjd._store.jobs import to_job
from csjd._store.payloads import decode_payload, decode_typed

_SLICE = 256
"""Jobs taken in before other tasks get their turn."""


@attrs.define(eq=False)
class Recovering:
    """Takes in what an earlier run left, and runs what found no handler when one comes."""

    journal: Journal
    scheduler: Scheduler
    specs: Mapping[str, HandlerSpec]
    """Handlers by type, ready to be called."""
    _waiting: dict[str, list[tuple[Entry, LiveJob]]] = attrs.field(factory=dict)
    """Jobs of types without a handler."""
    _letters: dict[str, Accepted] = attrs.field(factory=dict)
    """By job id: what dead letters that no handler takes yet were made from."""
    _unclean: bool = False
    """The last owner of the store has not closed it."""
    _readmission: Readmission = attrs.field(init=False)
    _announcing: Announcing = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._readmission = Readmission(self.scheduler.backlog)
        self._announcing = Announcing(self.journal, self.scheduler)

    async def recover(self) -> None:
        """
        Open the store and take in what is in it.

        Raises:
            JobStoreError: It cannot be opened.
        """
        recovery = await self.journal.recover()
        self._unclean = not recovery.clean
        backlog = self.scheduler.backlog
        backlog.placing = []
        self._readmission.continue_from(recovery.next_order)
        now, wall = self.scheduler.clock.current_time(), wall_time()
        for session in recovery.halted:
            self._readmission.halt(session, now)
        for letter in recovery.dead_letters:
            self._bury(letter, now, wall)
        for number, live in enumerate(recovery.live):
            if number % _SLICE == 0:
                await trio.lowlevel.checkpoint()
            self._take_in(live, now, wall)
        self._remember(recovery.remembered, now, wall)
        self.journal.taken_in = True
        self._tell(recovery)

    def _take_in(self, live: LiveJob, now: float, wall: float) -> None:
        accepted, backlog = live.accepted, self.scheduler.backlog
        spec = self.specs.get(accepted.type)
        job: Job | None
        problem: ValueError | None = None
        try:
            job = _rebuilt(accepted, spec)
        except ValueError as error:
            job, problem = _as_it_is(accepted), error
        if job is None:
            self._set_apart(accepted, now, problem)
            return
        fitting = spec if problem is None else None
        known = spec or _unknown(accepted.type)
        entry = Entry(job, known, live.order, now, needs_copies(job), attempts=live.attempts)
        if live.crashes >= self.scheduler.config.max_crashes:
            self._give_up_on(entry, live.crashes, now)
            if fitting is None:
                self._leave_open(accepted)
            return
        if fitting is None:
            backlog.unready.add(entry)
            self._waiting.setdefault(accepted.type, []).append((entry, live))
            self._tell_parked(job, problem)
        else:
            entry.spec = self._suspecting(fitting, live)
        self._readmission.readmit(entry, now, self._heap(live), now + _still_to_wait(live, wall))

    def _suspecting(self, spec: HandlerSpec, live: LiveJob) -> HandlerSpec:
        """Return how a recovered job is run; if it may have killed its process, told first."""
        if not (self._unclean or live.crashes):
            return spec
        return self._announcing.announced(spec)

    def _heap(self, live: LiveJob) -> DueTimes | None:
        backlog = self.scheduler.backlog
        if live.due is None:
            return None
        return {
            DueKind.DELAY: backlog.delays,
            DueKind.BACKOFF: backlog.backoffs,
            DueKind.SNOOZE: backlog.snoozes,
        }[live.kind]

    def _give_up_on(self, entry: Entry, crashes: int, now: float) -> None:
        """Make a dead letter of a job that killed its process too often."""
        error = RecordedError(f"the process died {crashes} times while the job was known to run")
        self.journal.notes.crashed(entry, error)
        for buried in self._readmission.readmit_dead(entry, error, now).all:
            self.journal.notes.discarded(buried)

    def _leave_open(self, accepted: Accepted) -> None:
        """Let the dead letter just made of a job be run by whatever handler takes it later."""
        letters = self.scheduler.backlog.dead_letters
        if letters.find(accepted.id) is None:
            return  # so few are kept that it had to go at once
        letters.put_back(attrs.evolve(letters.take_out(accepted.id), spec=None))
        self._letters[accepted.id] = accepted

    def _set_apart(self, accepted: Accepted, now: float, problem: Exception | None) -> None:
        """Keep a job's id and hold its session, since nothing more can be done with it."""
        self.scheduler.backlog.ids.known[accepted.id] = RESERVED
        if accepted.session is not None:
            self._readmission.halt(accepted.session, now)
        logger.warning("job %r stays in the store, it cannot be read: %s", accepted.id, problem)

    def _bury(self, stored: StoredLetter, now: float, wall: float) -> None:
        accepted = stored.accepted
        spec = self.specs.get(accepted.type)
        try:
            job: Job | None = _rebuilt(accepted, spec)
        except ValueError:
            job, spec = _as_it_is(accepted), None
        if job is None:
            logger.warning("dead letter %r stays in the store, unreadable", accepted.id)
            return
        letter = DeadLetter(
            job=job,
            attempts=stored.attempts,
            error=RecordedError(stored.error),
            timed_out=stored.reason is DeathReason.TIMED_OUT,
            failed=now + stored.at - wall,
        )
        if spec is None:
            self._letters[job.id] = accepted
        buried = Buried(letter, spec, needs_copies(job), accepted.order)
        for gone in self.scheduler.backlog.dead_letters.keep(buried).all:
            self.journal.notes.discarded(gone)

    def _remember(self, remembered: Mapping[str, float], now: float, wall: float) -> None:
        ids = self.scheduler.backlog.ids
        for job_id, until in sorted(remembered.items(), key=lambda each: each[1]):
            if job_id not in ids.known and until > wall:
                # No longer than the window is now, should it have been longer, or the clock
                # have been set back: those that follow would be kept as long.
                ids.known[job_id] = now + min(until - wall, ids.window) - ids.window
                ids.ended.append(job_id)

    def _tell(self, recovery: Recovery) -> None:
        for notice in recovery.notices:
            logger.warning("the job store of the dispatcher: %s", notice)
        for quarantined in recovery.quarantined:
            logger.warning("a record of the job store is in quarantine: %s", quarantined.reason)
        backlog = self.scheduler.backlog
        self.scheduler.tell(
            lambda at: JobStoreOpened(
                at=at,
                recovered=backlog.ledger.recovered,
                unready=len(backlog.unready),
                dead_letters=len(backlog.dead_letters),
                quarantined=len(recovery.quarantined),
                clean=recovery.clean,
                notices=recovery.notices,
            )
        )

    def _tell_parked(self, job: Job, problem: Exception | None) -> None:
        reason = "no handler" if problem is None else f"unreadable payload: {problem}"
        if problem is not None:
            logger.warning("job %r is parked, its handler cannot take it: %s", job.id, problem)
        self.scheduler.tell(lambda at: JobParked(at=at, job=job, reason=reason))

    # --- later -------------------------------------------------------------------------

    def handler_came(self, spec: HandlerSpec) -> None:
        """Run the jobs that were waiting for a handler of this type."""
        for entry, live in self._waiting.pop(spec.type, ()):
            if entry not in self.scheduler.backlog.unready:
                continue  # cancelled meanwhile
            try:
                entry.job = _rebuilt(live.accepted, spec)
            except ValueError as problem:
                self._tell_parked(entry.job, problem)
                continue
            entry.copies = needs_copies(entry.job)
            entry.spec = self._suspecting(spec, live)
            self.scheduler.backlog.make_ready(entry)
        self.scheduler.send_calls()

    def letter_of(self, buried: Buried, spec: HandlerSpec) -> Buried:
        """
        Return a dead letter whose job can be run as *spec* says.

        Raises:
            InvalidJobError: Its payload is not what the handler takes.
        """
        accepted = self._letters.get(buried.letter.job.id)
        if buried.spec is not None or accepted is None or accepted.order != buried.order:
            return buried
        try:
            job = _rebuilt(accepted, spec)
        except InvalidJobError:
            raise
        except ValueError as error:
            raise InvalidJobError("payload", f"is not what its handler takes: {error}") from error
        letter = attrs.evolve(buried.letter, job=job)
        return Buried(letter, spec, needs_copies(job), buried.order)


def _rebuilt(accepted: Accepted, spec: HandlerSpec | None) -> Job:
    """
    Return the job, with a payload such as its handler takes.

    Raises:
        ValueError: That cannot be done.
    """
    payload: Any
    if spec is not None and spec.payload is not None:
        payload = decode_typed(accepted.payload, spec.payload)
    elif spec is not None:
        payload = decode_payload(accepted.payload)
    else:  # to be shown, until somebody knows its class
        try:
            payload = decode_payload(accepted.payload)
        except ValueError:
            payload = accepted.payload
    return to_job(accepted, payload)


def _still_to_wait(live: LiveJob, wall: float) -> float:
    """Return seconds until the job is due; no more than it was to wait, whatever the clock."""
    if live.due is None:
        return 0.0
    return min(live.due - wall, math.inf if live.delay is None else live.delay)


def _as_it_is(accepted: Accepted) -> Job | None:
    """Return the job with its payload as bytes, None if not even that can be done."""
    try:
        return to_job(accepted, accepted.payload)
    except ValueError:
        return None


def _unknown(type: str) -> HandlerSpec:
    return HandlerSpec(
        type=type,
        function=_never_called,
        threaded=False,
        takes_attempt=False,
        timeout=math.inf,
        retry=Retry(),
    )


async def _never_called(job: Job) -> None:  # noqa: ASYNC124  a handler
    raise AssertionError(f"job {job.id!r} has no handler")
