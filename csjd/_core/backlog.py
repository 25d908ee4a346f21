"""
All accepted jobs: where each stands, which is next, and what its end sets free.

The backlog owns the structures of this floor; nothing but it, `picking`, `holds`,
`reserving` and `readmission` moves a job from one to another. A READY job is in exactly
one ready queue, or kept back by a hold; a SCHEDULED one is in one of three heaps, or in
`unplaced` while the store is told of its place; a WAITING one is linked behind its
session's head; a RUNNING one hangs on its lane. The head of a session keeps its place at
the head until it has ended.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

import attrs

from csjd._core.calls import Switchboard
from csjd._core.dead_letters import DeadLetters, Displaced
from csjd._core.duplicates import KnownIds
from csjd._core.entry import Entry
from csjd._core.holds import Holds
from csjd._core.lanes import Lane, Worker
from csjd._core.ledger import EndedTuple, Ledger
from csjd._core.limits import Limits
from csjd._core.picking import OLDEST_EVERY, SetAside, first_free, pick_from
from csjd._core.ready import ReadyQueue
from csjd._core.ring import HashRing
from csjd._core.sessions import SessionTable
from csjd._core.timers import DueTimes
from csjd._model.config import Config
from csjd._model.errors import DuplicateJobError
from csjd._model.handler import HandlerSpec, OnFailure
from csjd._model.job import NO_METADATA, Job
from csjd._model.lifecycle import LIFECYCLE, JobState, JobStep

_PLACE = LIFECYCLE[JobStep.PLACE]
_POSTPONE = LIFECYCLE[JobStep.POSTPONE]
_FALL_DUE = LIFECYCLE[JobStep.FALL_DUE]
_QUEUE = LIFECYCLE[JobStep.QUEUE]
_START = LIFECYCLE[JobStep.START]
_INTERRUPT = LIFECYCLE[JobStep.INTERRUPT]
_SUCCEED = LIFECYCLE[JobStep.SUCCEED]
_FAIL = LIFECYCLE[JobStep.FAIL]
_CANCEL = LIFECYCLE[JobStep.CANCEL]
_DETACH = LIFECYCLE[JobStep.DETACH]
_PARK = LIFECYCLE[JobStep.PARK]


@attrs.define(eq=False)
class Backlog:
    """The jobs of one dispatcher."""

    config: Config
    ids: KnownIds
    sessions: SessionTable
    ledger: Ledger
    dead_letters: DeadLetters
    workers: dict[int, Worker]
    """Those that take work, by id."""
    calls: Switchboard = attrs.field(factory=Switchboard)
    shared: ReadyQueue = attrs.field(factory=ReadyQueue)
    """Ready jobs without a session."""
    backoffs: DueTimes = attrs.field(factory=DueTimes)
    """Jobs that failed and wait for their next attempt; they keep their place."""
    snoozes: DueTimes = attrs.field(factory=DueTimes)
    """Jobs that asked to wait; they keep their place."""
    delays: DueTimes = attrs.field(factory=DueTimes)
    """Jobs accepted with a delay; they take their place when they fall due."""
    idle: bool = True
    """Nothing may be taken: the dispatcher is `stopped`, or `paused`, or about to end."""
    _stopped: bool = True
    _paused: bool = False
    _ending: bool = False
    unready: set[Entry] = attrs.field(factory=set)
    """Jobs out of a store that nobody can run: no handler, or a payload it cannot take."""
    unplaced: set[Entry] = attrs.field(factory=set)
    """Delayed jobs that fell due and wait for the store to know of their places."""
    placing: list[tuple[int, Entry]] | None = None
    """
    With a store: delayed jobs that fell due, each with the order it had. They get their
    place from `place`, when the store knows of it. None: they get it at once.
    """
    leaving: dict[int, Worker] = attrs.field(factory=dict)
    """Workers that were removed and still run something, by id."""
    last_order: int = 0
    """The order given to a job last."""
    _next_worker: int = 0
    holds: Holds = attrs.field(init=False)
    set_aside: SetAside = attrs.field(init=False)
    """The holds' own, a step nearer."""
    limits: Limits = attrs.field(init=False)
    limited: bool = attrs.field(init=False)
    """Whether there are any limits; as they say, a step nearer."""
    note_wait: Callable[[float], None] = attrs.field(init=False)
    """Notes how long a job has waited. The ledger's, a step nearer; likewise the others."""
    note_history: Callable[[EndedTuple], None] = attrs.field(init=False)
    note_id: Callable[[str], None] | None = attrs.field(init=False)
    """None if ids are not remembered."""

    def __attrs_post_init__(self) -> None:
        self.holds = Holds(self.sessions, self._offer)
        self.set_aside = self.holds.set_aside
        self.limits = Limits(self.config, self.ledger, self.sessions)
        self.limited = self.limits.are_set
        self.note_wait = self.ledger.waits.fresh.append
        self.note_history = self.ledger.history.append
        self.note_id = self.ids.ended.append if self.ids.window else None

    @classmethod
    def empty(cls, config: Config) -> "Backlog":
        """Return the backlog of a new dispatcher, without workers."""
        workers: dict[int, Worker] = {}
        return cls(
            config=config,
            ids=KnownIds(config.duplicate_window),
            sessions=SessionTable(
                HashRing(config.virtual_nodes), config.load_factor, config.session_idle, workers
            ),
            ledger=Ledger(deque(maxlen=config.history)),
            dead_letters=DeadLetters(config.history),
            workers=workers,
        )

    # --- coming in ---------------------------------------------------------------------

    def admit(
        self, job: Job, spec: HandlerSpec, now: float, due: float = 0.0, copies: bool = False
    ) -> Entry:
        """
        Take in a job, or refuse it and change nothing.

        Args:
            job: The job.
            spec: How jobs of its type are run.
            now: The time.
            due: When it may start; anything up to *now* means at once.
            copies: Whether each attempt needs its own copy of payload or metadata.

        Raises:
            DuplicateJobError: The id is live, or ended within the window.
            QueueFullError: A limit is reached.
        """
        self.refuse(job, now)
        self.last_order = order = self.last_order + 1
        self.ids.known[job.id] = entry = Entry(job, spec, order, now, copies)
        self.ledger.accepted += 1
        if job.session is not None:
            entry.session = self.sessions.enter(job.session, now)
        if due > now:
            entry.state = _POSTPONE[entry.state]
            self.delays.add(entry, due)
        else:
            self.line_up(entry)
        return entry

    def refuse(self, job: Job, now: float) -> None:
        """
        Raise what keeps *job* out, if anything does; see `admit`.

        Raises:
            DuplicateJobError: The id is live, or ended within the window.
            QueueFullError: A limit is reached.
        """
        if job.id in self.ids.known and self.ids.refuses(job.id, now):
            raise DuplicateJobError(job.id, live=self.ids.lives(job.id))
        if self.limited and (full := self.limits.lacks_room(job, now)) is not None:
            raise full

    def admit_plain(
        self, jobs: Iterable[Job], specs: Mapping[str, HandlerSpec], now: float
    ) -> list[Entry]:
        """
        Take in *jobs* up to the first that is not plain, and return the entries of those.

        Does to each what `admit` does, at half the price, because what is the same for all
        is done once: most jobs come in batches, carry bytes, are due at once and know
        neither priorities nor limits. What is not plain is left to `admit`, and so is
        every refusal.
        """
        if self.limited:
            return []
        known, most = self.ids.known, self.config.max_payload
        order = self.last_order
        entries: list[Entry] = []
        sessionless: list[Entry] = []
        spec: HandlerSpec | None = None
        spec_type: str | None = None
        for job in jobs:
            if type(job) is not Job:
                break
            job_id = job.id
            if job_id in known:
                break
            if job.type != spec_type:
                spec_type = job.type
                spec = specs.get(spec_type)
                if spec is None or spec.payload is not None:
                    break
            payload = job.payload
            if (
                (payload is not None and (type(payload) is not bytes or len(payload) > most))
                or job.metadata is not NO_METADATA
                or job.run_at is not None
                or job.priority
            ):
                break
            order += 1
            known[job_id] = entry = Entry(job, spec, order, now)  # type: ignore[arg-type]  # set
            entries.append(entry)
            if job.session is None:
                sessionless.append(entry)
        self.last_order = order
        self.ledger.accepted += len(entries)
        if sessionless:
            self.offer_shared(sessionless)
            if len(sessionless) < len(entries):
                self._join([each for each in entries if each.job.session is not None], now)
        elif entries:
            self._join(entries, now)
        return entries

    def _join(self, entries: list[Entry], now: float) -> None:
        """Line jobs up, each of a session, as `line_up` does; all are new, and plain."""
        heads, waiting = self.sessions.join(entries, now)
        for entry in waiting:
            entry.state = _QUEUE[entry.state]
        for worker, arrivals in heads.items():
            if worker.blocked:  # their sessions move
                for entry in arrivals:
                    self._offer(entry)
                continue
            worker.ready.extend(arrivals)
            if worker.parked and not self.idle:
                self.calls.call_worker(worker)

    # --- lining up ---------------------------------------------------------------------

    def line_up(self, entry: Entry) -> None:
        """Give a READY entry its place: at the end of its session, or of the shared queue."""
        session = entry.session
        if session is None or session.append(entry):
            self._offer(entry)
        else:
            entry.state = _QUEUE[entry.state]

    def offer_shared(self, entries: list[Entry]) -> None:
        """Let new READY entries, without session and of priority 0, be taken."""
        self.shared.extend(entries)
        if self.calls.parked and not self.idle:
            self.calls.call_any()

    def _offer(self, entry: Entry) -> None:
        """Let a READY entry, head of its session if it has one, be taken."""
        if self.unready and entry in self.unready:
            entry.state = _PARK[entry.state]
            return
        session = entry.session
        if session is None:
            self.shared.push(entry)
            calls = self.calls
            if calls.parked and not calls.coming and not self.idle:
                calls.call_any()
        elif not session.held:
            worker = session.worker
            if worker.blocked:
                worker = self.sessions.move(session)
            worker.ready.push(entry)
            if worker.parked and not self.idle:
                self.calls.call_worker(worker)

    def make_ready(self, entry: Entry) -> None:
        """Let a job be run for which there is a handler now."""
        self.unready.discard(entry)
        if entry.state is JobState.PARKED:
            entry.state = _PLACE[entry.state]
            self._offer(entry)

    # --- being taken -------------------------------------------------------------------

    def take(self, lane: Lane, now: float) -> Entry | None:
        """Let *lane* start the job that is first for it; None if there is none it may take."""
        worker = lane.worker
        queue, shared = worker.ready, self.shared
        if queue.size:
            both = shared.size
        else:
            queue, both = shared, 0
            if not shared.size:
                return None
        if self.idle or worker.leaving:
            return None
        if both or queue.mixed or self.set_aside:
            entry = self._pick(worker, None if both else queue)
        elif run := queue.run:  # nearly always; as `pop`, which there is no time to call
            entry = run.popleft()
            if entry.holder is queue:
                queue.size -= 1
            else:
                entry = queue.pop_past_dead()
        else:
            entry = queue.pop()
        if entry is None:
            return None
        entry.state = _START[entry.state]
        entry.attempts += 1
        entry.holder = lane
        lane.entry = entry
        lane.started = now
        note_wait = self.note_wait  # called in place, what a slot holds takes longer to find
        note_wait(now - entry.since)
        calls = self.calls
        if not calls.coming and calls.parked:
            if calls.eager:
                calls.call_eager()
            if shared.size:
                calls.call_any()
        return entry

    def _pick(self, worker: Worker, only: ReadyQueue | None) -> Entry | None:
        """
        Take out and return the job that is first where there is a choice; None: all are paused.

        Args:
            worker: Whose lane takes it.
            only: Its own or the shared queue, if the other is empty.
        """
        picks = worker.picks + 1
        oldest = picks % OLDEST_EVERY == 0
        if oldest or only is None or self.set_aside:
            entry = pick_from(worker.ready, self.shared, self.set_aside, oldest=oldest)
        else:
            entry = only.pop()
        if entry is not None:
            worker.picks = picks
        return entry

    def take_over(self, lane: Lane) -> Lane | None:
        """
        Return a parked lane that can take a job, in exchange for *lane*, which can not.

        *lane* is parked in its place. None if there is no such lane.
        """
        if self.idle or lane.worker.leaving or not self.calls.eager:
            return None
        worker = self.calls.first_eager()
        return None if worker is None else self.calls.take_over(worker, lane)

    # --- ending ------------------------------------------------------------------------

    def succeed(self, lane: Lane, entry: Entry, result: object, now: float) -> None:
        """Book the return of the handler that *lane* ran for *entry*."""
        entry.state = _SUCCEED[entry.state]
        entry.result = result
        entry.spec = None  # type: ignore[assignment]  # see `Entry.spec`
        if now > lane.deadline:
            entry.late = True
            self.ledger.late += 1
        # From here on as in `release` and `_end`, which the fast path has no time to call.
        entry.duration = duration = now - lane.started
        note_run, note_id, note_history = lane.note_run, self.note_id, self.note_history
        note_run(duration)
        lane.entry = entry.holder = None
        if lane.reason is not None:
            self._calm(lane)
        job = entry.job
        job_id = job.id
        self.ledger.succeeded += 1
        if note_id is not None:
            self.ids.known[job_id] = now
            note_id(job_id)
        else:
            del self.ids.known[job_id]
        note_history((job_id, job.type, job.session, entry.state, entry.attempts, duration, now))
        session = entry.session
        if session is not None:
            session.succeeded += 1
            # As in `SessionTable.leave`, likewise.
            entry.session = None
            session.pending = pending = session.pending - 1
            if pending:
                head = session.remove(entry)
                if head is not None:
                    self._promote(head)
                return
            session.head = session.tail = None
            session.idle_since = now
            self.sessions.active -= 1
            if session.queued_at is None:
                self.sessions.wait_idle(session, now)

    def release(self, lane: Lane, entry: Entry, now: float) -> None:
        """Note that the attempt at *entry* has ended, and not in success; its fate comes next."""
        lane.worker.unsuccessful += 1
        entry.duration = duration = now - lane.started
        lane.note_run(duration)
        lane.entry = entry.holder = None
        if lane.reason is not None:
            self._calm(lane)

    def _calm(self, lane: Lane) -> None:
        """Note that an attempt has ended that was cancelled; it may have been deaf to that."""
        lane.reason = None
        if lane.detached:
            lane.worker.detached -= 1
        elif lane.stuck:
            lane.stuck = False
            self._unblock(lane.worker)

    def fail(
        self, entry: Entry, worker: Worker, error: BaseException, timed_out: bool, now: float
    ) -> Displaced:
        """Book a failure for good; return the dead letters that had to go for its own."""
        entry.state = _FAIL[entry.state]
        entry.result = error
        entry.timed_out = timed_out
        self.ledger.failed += 1
        self.ledger.timed_out += timed_out
        worker.failed += 1
        session = entry.session
        if session is not None:
            session.failed += 1
            if entry.spec.on_failure is OnFailure.HALT:
                self.holds.halt_session(session)
        self._end(entry, now)
        return self.dead_letters.bury(entry, error, timed_out=timed_out, now=now)

    def cancel(self, entry: Entry, error: BaseException, now: float) -> None:
        """Book a cancellation, wherever in its life the job is."""
        if isinstance(entry.holder, (ReadyQueue, DueTimes)):
            entry.holder.discard(entry)
        else:
            self.holds.forget(entry)
        self.unready.discard(entry)
        self.unplaced.discard(entry)
        entry.state = _CANCEL[entry.state]
        entry.result = error
        self.ledger.cancelled += 1
        if entry.session is not None:
            entry.session.cancelled += 1
        self._end(entry, now)

    def _end(self, entry: Entry, now: float) -> None:
        """Forget a job that has reached its terminal state, and let its session go on."""
        job = entry.job
        self.ids.end(job.id, now)
        self.ledger.history.append(
            (job.id, job.type, job.session, entry.state, entry.attempts, entry.duration, now)
        )
        if entry.session is not None:
            head = self.sessions.leave(entry.session, entry, now)
            if head is not None:
                self._promote(head)

    def _promote(self, head: Entry) -> None:
        """Let a WAITING entry start that is the head of its session now."""
        head.state = _PLACE[head.state]
        self._offer(head)

    def retry(self, entry: Entry, due: float) -> None:
        """Put a failed attempt's job back, to be tried again at *due*."""
        self.ledger.retries += 1
        entry.state = _POSTPONE[entry.state]
        self.backoffs.add(entry, due)

    def snooze(self, entry: Entry, due: float) -> None:
        """Put a job back that asked to run again at *due*."""
        self.ledger.snoozed += 1
        entry.attempts -= 1
        entry.state = _POSTPONE[entry.state]
        self.snoozes.add(entry, due)

    def interrupt(self, entry: Entry) -> None:
        """Put a job back that was stopped part-way: its place, its attempts unchanged."""
        self.ledger.interrupted += 1
        entry.attempts -= 1
        entry.state = _INTERRUPT[entry.state]
        self._offer(entry)

    def detach(self, lane: Lane) -> None:
        """Give up *lane*, whose handler does not end."""
        entry = lane.entry
        assert entry is not None, "only a busy lane can be detached"
        entry.state = _DETACH[entry.state]
        lane.detached = True
        lane.stuck = False
        worker = lane.worker
        worker.lanes.remove(lane)
        worker.detached += 1
        self.ledger.detachments += 1

    def live(self) -> list[Entry]:
        """Return the entries of all live jobs, in order of acceptance."""
        if not self.ledger.live:  # as after most drains: spare us all ids that have ended
            return []
        return sorted(self.ids.live(), key=lambda entry: entry.order)

    def dissolve(self) -> None:
        """Cut all links between live entries, after the end; see `entry` for why."""
        for entry in self.live():
            if entry.session is not None:
                entry.session.head = entry.session.tail = None
            entry.session = entry.ahead = entry.behind = entry.holder = None
            entry.spec = None  # type: ignore[assignment]  # nothing of it will run

    # --- time --------------------------------------------------------------------------

    def next_due(self, *, draining: bool) -> float | None:
        """Return when the next job falls due, None if none will; while draining: backoffs only."""
        heaps = (self.backoffs,) if draining else (self.backoffs, self.snoozes, self.delays)
        return min((due for heap in heaps if (due := heap.next_due()) is not None), default=None)

    def fall_due(self, now: float, *, draining: bool) -> None:
        """Make ready what is due at *now*; while draining: backoffs only."""
        while (entry := self.backoffs.pop_due(now)) is not None:
            self._fell_due(entry)
            self._offer(entry)
        if draining:
            return
        while (entry := self.snoozes.pop_due(now)) is not None:
            self._fell_due(entry)
            self._offer(entry)
        while (entry := self.delays.pop_due(now)) is not None:
            old_order = entry.order
            self.last_order = entry.order = self.last_order + 1
            if self.placing is None:
                self.place(entry)
            else:
                self.unplaced.add(entry)
                self.placing.append((old_order, entry))

    def place(self, entry: Entry) -> None:
        """Give a delayed job that fell due its place at the end, unless it was cancelled."""
        self.unplaced.discard(entry)
        if entry.state is JobState.SCHEDULED:
            self._fell_due(entry)
            self.line_up(entry)

    def _fell_due(self, entry: Entry) -> None:
        entry.state = _FALL_DUE[entry.state]
        entry.since = entry.due

    def workable(self, until: float, lanes: Iterable[Lane]) -> bool:
        """Whether, in a drain that lasts *until*, one of *lanes* could begin another attempt."""
        workers = {lane.worker for lane in lanes if not (lane.detached or lane.worker.leaving)}
        if self.idle or not workers:
            return False
        return self._backoff_ends(until, workers) or any(
            first_free(queue, self.set_aside, oldest=False) is not None
            for queue in (self.shared, *(worker.ready for worker in workers))
        )

    def _backoff_ends(self, until: float, workers: set[Worker]) -> bool:
        """Whether a job falls due up to *until* that *workers* may then try again."""
        due = self.backoffs.next_due()
        if due is None or due > until:
            return False
        if not self.holds.any and len(workers) == len(self.workers):
            return True
        return any(
            entry.due <= until and not self.holds.holds(entry) and _may_go_to(workers, entry)
            for entry in self.backoffs.entries()
        )

    # --- stopped and paused ------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether the dispatcher does not run."""
        return self._stopped

    @stopped.setter
    def stopped(self, stopped: bool) -> None:
        self._stopped = stopped
        self.idle = stopped or self._paused or self._ending

    @property
    def paused(self) -> bool:
        """Whether somebody has paused the whole dispatcher."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused
        self.idle = paused or self._stopped or self._ending

    def end(self) -> None:
        """Let nothing be taken any more, whatever happens: the dispatcher is about to end."""
        self.idle = self._ending = True

    def call_all(self) -> None:
        """Have lanes called for all that can be taken, after `stopped` or `paused` has ended."""
        if self.idle:
            return
        for worker in self.workers.values():
            if worker.ready.size:
                self.calls.call_worker(worker)
        if self.shared.size:
            self.calls.call_any()

    # --- workers -----------------------------------------------------------------------

    def add_worker(self) -> Worker:
        """Add a worker, without lanes yet; its id was never used before."""
        worker = Worker(self._next_worker)
        self._next_worker += 1
        self.workers[worker.id] = worker
        self.sessions.ring.add(worker.id)
        return worker

    def add_lane(self, worker: Worker) -> Lane:
        """Add a free lane to *worker*."""
        lane = Lane(worker)
        worker.lanes.append(lane)
        self._unblock(worker)
        return lane

    def _unblock(self, worker: Worker) -> None:
        """A lane of *worker* is free again: sessions that found all workers blocked come here."""
        if worker.blocked and not worker.leaving:
            worker.blocked = False
            for other in self.workers.values():
                if other.blocked:
                    self._move_sessions(other)

    def remove_worker(self, worker: Worker) -> list[Lane]:
        """
        Let *worker* take nothing more; its sessions move as soon as nothing of theirs runs.

        Returns:
            Its parked lanes, to which nobody will ever call.
        """
        worker.leaving = worker.blocked = True
        parked = self.calls.retire(worker)
        del self.workers[worker.id]
        self.leaving[worker.id] = worker
        self.sessions.ring.remove(worker.id)
        self._move_sessions(worker)
        return parked

    def retire(self, worker: Worker) -> None:
        """Forget a removed worker of which nothing runs any more; keep its numbers."""
        worker.settle(self.ledger.runs)
        del self.leaving[worker.id]

    def block(self, worker: Worker) -> None:
        """Note that all lanes of *worker* are stuck: its sessions with nothing running move."""
        worker.blocked = True
        self._move_sessions(worker)

    def _move_sessions(self, worker: Worker) -> None:
        # A session's next job asks for the session's home, so only those that were offered
        # here already have to be offered anew.
        for entry in worker.ready.drain():
            self._offer(entry)


def _may_go_to(workers: set[Worker], entry: Entry) -> bool:
    """Whether the job may be offered to one of *workers* when it falls due."""
    session = entry.session
    # A session whose worker is blocked is bound anew then, nobody knows yet where to.
    return session is None or session.worker in workers or session.worker.blocked
