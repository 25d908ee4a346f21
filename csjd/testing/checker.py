"""
The judge: what csjd promises, checked against what observers and handlers have seen.

One `Checker` watches one dispatcher. It hears every event and is told by handlers when
they begin and end; it knows nothing of csjd's inside. Each broken promise is written down
where it is seen, since an observer must not raise; `verify` raises the first.

Acceptance order is known without asking the dispatcher: a job takes its place when it is
accepted, a delayed one when it falls due. Jobs tell of themselves what events do not: when
they fall due, and whether their handlers extend their deadlines, are in
their metadata.
"""

import math
from collections import Counter

import attrs
import trio

from csjd import (
    AttemptCancelled,
    AttemptStarted,
    Cancelled,
    DeadLetterDiscarded,
    DeadLetterRequeued,
    DispatcherStarted,
    DispatcherStopped,
    DispatcherStopping,
    Event,
    Failed,
    HandlerDetached,
    HandlerStuck,
    Job,
    JobAccepted,
    JobEnded,
    JobInterrupted,
    JobRetried,
    JobSnoozed,
    MetricsSnapshot,
    Paused,
    PermanentError,
    Resumed,
    SessionHalted,
    StopReport,
    Succeeded,
    TimedOut,
)
from csjd._model.groups import leaves

_ROUNDING = 1e-9  # seconds; sums of floats differ in their last bits


class PromiseBrokenError(AssertionError):
    """csjd did something it promises never to do."""


@attrs.define(eq=False)
class Seen:
    """All that was seen of one accepted job."""

    job: Job
    number: int
    """Counts acceptances, from 0."""
    accepted: float
    due: float
    """When it takes its place: at acceptance, or when its delay is over."""
    not_before: float
    """When its next attempt may start."""
    later: bool = False
    """Whether that time is one it asked for, by a delay or a snooze; a drain leaves it."""
    attempts: int = 0
    """Attempts used or running."""
    started: float | None = None
    """When the attempt began that runs now."""
    worker: int = -1
    cancelled: str | None = None
    """Why that attempt was cancelled, if it was."""
    cancelled_at: float = math.inf
    detached: bool = False
    ended: str | None = None

    @property
    def place(self) -> tuple[float, int]:
        """Where it stands in the order of acceptance."""
        return self.due, self.number


@attrs.define(eq=False)
class Checker:
    """Judges one dispatcher; pass it as an observer."""

    lanes: int
    """`Config.lanes`."""
    detach_budget: int
    detach_grace: float
    duplicate_window: float
    max_attempts: int
    """Of the dispatcher's retry policy."""
    final_types: frozenset[str] = frozenset()
    """Types with `retry_on_timeout=False`."""
    dead_letters: int = 1000
    """`Config.history`."""
    may_interrupt_from: float = math.inf
    """When a stop may begin to interrupt; whoever asks for a stop says so, see `stop_asked`."""
    broken: list[str] = attrs.field(factory=list)
    """The promises broken so far, the first first."""
    live: dict[str, Seen] = attrs.field(factory=dict)
    """Accepted jobs that have not ended, by id."""
    ended: Counter[str] = attrs.field(factory=Counter)
    """Ends so far, by kind."""
    events: list[str] = attrs.field(factory=list)
    """One line per event."""
    _line: dict[str, list[Seen]] = attrs.field(factory=dict)
    """Live jobs by session."""
    _ended_at: dict[str, float] = attrs.field(factory=dict)
    _returned: set[str] = attrs.field(factory=set)
    """Running jobs whose handler has returned normally."""
    _letters: dict[str, None] = attrs.field(factory=dict)
    """Ids of dead letters, oldest first."""
    _inside: dict[str, int] = attrs.field(factory=dict)
    """Handlers running user code now, by job id: also after their attempt was booked."""
    _accepted: int = 0
    _paused: set[tuple[str | None, str | None]] = attrs.field(factory=set)
    _succeeding: bool = False
    """True while a success is being looked at."""
    _left: int = 0
    """Handlers that the last stop left behind; they take nothing from the budget."""
    _running: bool = False
    _stopping: bool = False
    _stopping_since: float = math.inf

    # --- what callers and handlers report ------------------------------------------------

    def enter(self, job: Job, attempt: int) -> None:
        """A handler was called."""
        seen = self.live.get(job.id)
        if seen is None or seen.started is None or seen.attempts != attempt:
            self.complain(f"handler called for {job.id} attempt {attempt}, but none is running")
        for other in self._inside:
            if other == job.id or (
                job.session is not None and self._session_of(other) == job.session
            ):
                self.complain(f"{job.id} runs while the handler of {other} still does")
        self._inside[job.id] = self._inside.get(job.id, 0) + 1

    def stay(self, job: Job) -> None:
        """A handler has started a child, which calls `leave` when it ends."""
        self._inside[job.id] = self._inside.get(job.id, 0) + 1

    def leave(self, job: Job, *, returned: bool = False) -> None:
        """A handler, or a child of it, has ended; *returned* means it returned normally."""
        if returned:
            self._returned.add(job.id)
        self._inside[job.id] -= 1
        if not self._inside[job.id]:
            del self._inside[job.id]

    def stop_asked(self, grace: float) -> None:
        """Somebody is about to call `stop(grace=grace)`."""
        self.may_interrupt_from = min(self.may_interrupt_from, trio.current_time() + grace)

    def hit_by_cancel(self, job: Job) -> None:
        """A handler saw a cancellation that it had not asked for."""
        seen = self.live.get(job.id)
        if seen is None or seen.cancelled is None:
            self.complain(f"{job.id} was hit by a cancellation that was not for it")

    def complain(self, what: str) -> None:
        """Note a promise that a handler or a caller has found broken."""
        self.broken.append(what)

    # --- what observers hear --------------------------------------------------------------

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        self.events.append(_line_of(event))
        match event:
            case DeadLetterDiscarded(job=job):
                self._letters.pop(job.id, None)
            case JobAccepted() | DeadLetterRequeued():
                if isinstance(event, DeadLetterRequeued):
                    self._letters.pop(event.job.id, None)
                self._job_accepted(event.job, event.at, anew=isinstance(event, DeadLetterRequeued))
            case AttemptStarted():
                self._attempt_started(event)
            case AttemptCancelled():
                self._attempt_cancelled(event)
            case JobRetried() | JobSnoozed():
                self._put_off(event)
            case JobInterrupted():
                self._interrupted(event)
            case JobEnded():
                self._job_ended(event)
            case HandlerDetached() | HandlerStuck():
                self._deaf(event)
            case Paused(type=type, session=session):
                self._paused.add((type, session))
            case Resumed(type=type, session=session):
                self._paused.discard((type, session))
            case SessionHalted(session=session):
                self._paused.add((None, session))
            case DispatcherStarted():
                self._running, self._stopping = True, False
            case DispatcherStopping(at=at):
                self._stopping, self._stopping_since = True, at
            case DispatcherStopped():
                self._stopped(event.report)

    def _job_accepted(self, job: Job, at: float, *, anew: bool) -> None:
        if job.id in self.live:
            self.complain(f"{job.id} accepted while it lives")
        if self._stopping or not self._running:
            self.complain(f"{job.id} accepted although the dispatcher stops or has stopped")
        window_ends = self._ended_at.get(job.id, -math.inf) + self.duplicate_window
        if window_ends > at + _ROUNDING and not anew:
            self.complain(f"{job.id} accepted within its duplicate window")
        due = at if anew else max(at, job.metadata.get("due", at))
        seen = Seen(job, self._accepted, at, due, due, later=due > at)
        self._accepted += 1
        self.live[job.id] = seen
        if job.session is not None:
            self._line.setdefault(job.session, []).append(seen)

    def _attempt_started(self, event: AttemptStarted) -> None:
        job, at = event.job, event.at
        seen = self.live.get(job.id)
        if seen is None:
            self.complain(f"{job.id} started, but it was never accepted or has ended")
            return
        if seen.started is not None or job.id in self._inside:
            self.complain(f"{job.id} started while it runs")
        if at < seen.not_before - _ROUNDING:
            self.complain(f"{job.id} started at {at}, not due before {seen.not_before}")
        if not self._running:
            self.complain(f"{job.id} started while the dispatcher is stopped")
        if self._stopping and seen.later and seen.not_before > self._stopping_since:
            self.complain(f"{job.id} fell due during a drain that should have left it")
        holds = {(None, None), (job.type, None)} | ({(None, job.session)} if job.session else set())
        if holds & self._paused:
            self.complain(f"{job.id} started although it is paused or halted")
        self._check_turn(seen)
        seen.attempts += 1
        if event.attempt != seen.attempts:
            self.complain(f"{job.id} started attempt {event.attempt}, not {seen.attempts}")
        seen.started, seen.worker = at, event.worker
        seen.cancelled, seen.cancelled_at, seen.detached = None, math.inf, False
        self._returned.discard(job.id)
        busy = sum(
            each.worker == event.worker and each.started is not None and not each.detached
            for each in self.live.values()
        )
        if busy > self.lanes:
            self.complain(f"worker {event.worker} runs {busy} handlers in {self.lanes} lanes")

    def _check_turn(self, seen: Seen) -> None:
        if seen.job.session is None:
            return
        for other in self._line[seen.job.session]:
            if other is seen:
                continue
            if other.started is not None:
                self.complain(f"{seen.job.id} overlaps {other.job.id} of its session")
            if other.place < seen.place:
                self.complain(f"{seen.job.id} overtook {other.job.id} of its session")

    def _attempt_cancelled(self, event: AttemptCancelled) -> None:
        seen = self._of(event.job, "cancelled")
        if seen is None:
            return
        if seen.cancelled is not None:
            self.complain(f"{event.job.id} was cancelled twice")
        seen.cancelled, seen.cancelled_at = event.reason, event.at
        assert seen.started is not None
        timeout = seen.job.timeout or 0.0
        if event.reason == "timed out" and event.at < seen.started + timeout - _ROUNDING:
            self.complain(f"{event.job.id} timed out before its time")
        early = event.at < self.may_interrupt_from - _ROUNDING
        if event.reason == "stopped to shut down" and early:
            self.complain(f"{event.job.id} was interrupted while the stop's grace lasted")

    def _put_off(self, event: JobRetried | JobSnoozed) -> None:
        seen = self._attempt_over(event.job, event.at)
        if seen is not None:
            seen.not_before = event.at + event.delay
            seen.later = isinstance(event, JobSnoozed)
            seen.attempts -= isinstance(event, JobSnoozed)

    def _interrupted(self, event: JobInterrupted) -> None:
        seen = self._attempt_over(event.job, event.at)
        if seen is not None:
            seen.attempts -= 1
            if seen.cancelled != "stopped to shut down":
                self.complain(f"{event.job.id} was interrupted without a stop")

    def _job_ended(self, event: JobEnded) -> None:
        job, outcome = event.job, event.outcome
        seen = self.live.get(job.id)
        if seen is None:
            self.complain(f"{job.id} ended, but it was not live")
            return
        self._succeeding = isinstance(outcome, Succeeded)
        if seen.started is not None:
            self._attempt_over(job, event.at)
        elif not isinstance(outcome, Cancelled):
            self.complain(f"{job.id} ended as {type(outcome).__name__} without an attempt")
        if outcome.attempts != seen.attempts:
            self.complain(f"{job.id} ended after {outcome.attempts} attempts, not {seen.attempts}")
        self._succeeding = False
        if isinstance(outcome, TimedOut) and seen.cancelled != "timed out":
            self.complain(f"{job.id} timed out without having been cancelled for it")
        if isinstance(outcome, (Failed, TimedOut)):
            self._failed(seen, outcome)
        seen.ended = type(outcome).__name__
        self.ended[seen.ended] += 1
        self._ended_at[job.id] = event.at
        del self.live[job.id]
        if job.session is not None:
            self._line[job.session].remove(seen)

    def _failed(self, seen: Seen, outcome: Failed | TimedOut) -> None:
        job = seen.job
        self._letters.pop(job.id, None)
        self._letters[job.id] = None
        while len(self._letters) > self.dead_letters:
            del self._letters[next(iter(self._letters))]
        causes = [*leaves(outcome.error), *leaves(outcome.error.__cause__ or outcome.error)]
        permanent = any(isinstance(each, PermanentError) for each in causes) or (
            not all(isinstance(each, Exception) for each in leaves(outcome.error))
        )
        final = isinstance(outcome, TimedOut) and job.type in self.final_types
        allowed = job.max_attempts or self.max_attempts
        if outcome.attempts < allowed and not permanent and not final:
            self.complain(f"{job.id} failed after {outcome.attempts} of {allowed} attempts")

    def _deaf(self, event: HandlerDetached | HandlerStuck) -> None:
        seen = self._of(event.job, "given up on")
        if seen is None:
            return
        if event.at < seen.cancelled_at + self.detach_grace - _ROUNDING and not self._stopping:
            self.complain(f"{event.job.id} was given up on within its grace")
        if isinstance(event, HandlerDetached):
            seen.detached = True
            if not self._stopping and self._count(detached=True) > self.detach_budget + self._left:
                self.complain(f"{event.job.id} was detached beyond the budget")

    def _attempt_over(self, job: Job, at: float) -> Seen | None:
        seen = self._of(job, "over")
        if seen is not None:
            if job.id in self._inside:
                self.complain(f"an attempt of {job.id} was booked while its handler runs")
            if job.id in self._returned and not self._succeeding:
                self.complain(f"the handler of {job.id} returned, and it did not succeed")
            seen.started = None
            seen.detached = False
        return seen

    def _of(self, job: Job, what: str) -> Seen | None:
        seen = self.live.get(job.id)
        if seen is None or seen.started is None:
            self.complain(f"an attempt of {job.id} is {what}, but none was running")
            return None
        return seen

    def _stopped(self, report: StopReport) -> None:
        self._running = self._stopping = False
        self.may_interrupt_from = math.inf
        self._left = self._count(detached=True)
        listed = [job.id for job in report.unfinished]
        if sorted(listed) != sorted(self.live):
            lost, extra = set(self.live) - set(listed), set(listed) - set(self.live)
            self.complain(f"the stop report has lost {sorted(lost)} and invented {sorted(extra)}")
        for line in self._line.values():
            places = sorted(
                (seen for seen in line if seen.due <= seen.accepted), key=lambda s: s.place
            )
            if [i for i in listed if i in {s.job.id for s in places}] != [s.job.id for s in places]:
                self.complain("the stop report is out of order")

    # --- asked between steps --------------------------------------------------------------

    def verify(self) -> None:
        """
        Raise what was found broken so far.

        Raises:
            PromiseBrokenError: Naming the first promises that were broken.
        """
        if self.broken:
            raise PromiseBrokenError("; ".join(self.broken[:3]))

    def compare(self, m: MetricsSnapshot) -> None:
        """Compare the dispatcher's numbers with our own; ask only when every task waits."""
        ours = {
            "accepted": self._accepted,
            "live": len(self.live),
            "succeeded": self.ended["Succeeded"],
            "failed": self.ended["Failed"] + self.ended["TimedOut"],
            "timed_out": self.ended["TimedOut"],
            "cancelled": self.ended["Cancelled"],
            "dead_letters": len(self._letters),
            "running": self._count(detached=False),
            "detached": self._count(detached=True),
        }
        for name, count in ours.items():
            if getattr(m, name) != count:
                self.complain(f"metrics().{name} is {getattr(m, name)}, events say {count}")
        if m.accepted != m.succeeded + m.failed + m.cancelled + m.live:
            self.complain("accepted is not succeeded + failed + cancelled + live")
        parts = (m.ready, m.scheduled, m.waiting, m.parked, m.running, m.detached)
        if sum(parts) != m.live or min(parts) < 0:
            self.complain(f"live {m.live} is not the sum of {parts}")

    def _count(self, *, detached: bool) -> int:
        return sum(s.started is not None and s.detached is detached for s in self.live.values())

    def check_deadlines(self) -> None:
        """Look for attempts past their deadline; ask only when every task waits."""
        now = trio.current_time()
        for seen in self.live.values():
            deadline = seen.job.timeout
            if seen.started is None or deadline is None or seen.cancelled is not None:
                continue
            if seen.job.metadata.get("extends"):
                continue
            if now > seen.started + deadline + _ROUNDING:
                self.complain(f"{seen.job.id} runs past its deadline and was not cancelled")

    def _session_of(self, job_id: str) -> str | None:
        seen = self.live.get(job_id)
        return seen.job.session if seen is not None else None


def _line_of(event: Event) -> str:
    """Return *event* as a line that is the same in every process."""
    parts = [type(event).__name__, repr(event.at)]
    facts = ("attempt", "worker", "reason", "delay", "type", "session")
    parts += [f"{name}={getattr(event, name)!r}" for name in facts if hasattr(event, name)]
    if hasattr(event, "job"):
        parts.append(event.job.id)
    if isinstance(event, JobEnded):
        parts.append(type(event.outcome).__name__)
    return " ".join(parts)
