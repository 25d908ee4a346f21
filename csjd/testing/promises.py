"""
What a dispatcher with a store has promised, and whether a recovery keeps it.

Plain code, beside the plain model: the model says what is true in memory at the moment of
a death, the promises say how much of that must be on the disk. What was acknowledged
must; what has only just happened may be, or not; what never happened must not.
"""

import enum
from collections.abc import Iterable, Sequence

import attrs

from csjd import Config, Job
from csjd.stores import DueKind, LiveJob, Recovery
from csjd.testing.model import Model, ModelJob

_CLOSE = 1e-3
"""Seconds by which a moment may change that went through the wall clock."""


class Death(enum.Enum):
    """How a dispatcher came to its end."""

    CLEAN = "its block was left"
    KILL = "its process died"
    POWER = "its machine died"


@attrs.define(eq=False)
class DurableModel(Model):
    """The model of a dispatcher with a store: what waits for the disk has not happened yet."""

    # Declared again, because what is assigned here must have its type here.
    jobs: list[ModelJob] = attrs.field(factory=list)
    accepted: int = 0
    failed: int = 0
    held_sessions: set[str] = attrs.field(factory=set)
    reserved: dict[str, Job] = attrs.field(factory=dict)
    """By id: what is being written and counts against the limits."""

    def refusal(self, job: Job, now: float) -> str | None:
        """Return why *job* must be refused, None if it must be accepted."""
        accepted = self.jobs
        self.jobs = accepted + [ModelJob(each, 1 << 60) for each in self.reserved.values()]
        try:
            return super().refusal(job, now)
        finally:
            self.jobs = accepted

    def lacks_room(self, job: Job, now: float) -> bool:
        """Whether *job*, a dead letter's, must be refused although its window counts not."""
        window = self._windows.pop(job.id, None)
        try:
            return self.refusal(job, now) is not None
        finally:
            if window is not None:
                self._windows[job.id] = window

    def fall_due(self, now: float, *, draining: bool = False) -> None:
        """Let time come to *now*; a delayed job gets its place when the store knows: `place`."""
        for each in self.jobs:
            if each.placed and each.due is not None and each.due <= now:
                if draining and each.snoozed:
                    continue
                each.due, each.snoozed = None, False

    def accept_at(self, place: int, job: Job, now: float, due: float | None) -> None:
        """Take *job* in at a place of its own: the order that the store knows it by."""
        self.accept(job, now)
        each = self.jobs[-1]
        each.place, each.due, each.placed = place, due, due is None
        self.jobs.sort(key=_by_place)

    def place(self, job_id: str, place: int) -> None:
        """The store knows that a delayed job takes its place."""
        each = self.find(job_id)
        if each is None or each.placed:
            return  # cancelled meanwhile
        each.placed, each.due, each.place = True, None, place
        self.jobs.sort(key=_by_place)

    def adopt(self, recovery: Recovery, now: float, wall: float) -> list[ModelJob]:
        """Begin with what a store tells; return the jobs that must not run again."""
        given_up: list[ModelJob] = []
        for live in recovery.live:
            self.accepted += 1
            each = adopted(live, now, wall)
            if live.crashes >= self.config.max_crashes:
                self.failed += 1
                self._windows[each.job.id] = now + self.config.duplicate_window
                given_up.append(each)
                if each.job.type == "halting" and each.job.session is not None:
                    self.held_sessions.add(each.job.session)
            else:
                self.jobs.append(each)
        self.held_sessions |= recovery.halted
        for job_id, until in recovery.remembered.items():
            if all(each.job.id != job_id for each in given_up):
                self._windows[job_id] = now + min(until - wall, self.config.duplicate_window)
        return given_up


def adopted(live: LiveJob, now: float, wall: float) -> ModelJob:
    """Return the model's view of a job that a store tells of."""
    told = live.accepted
    job = Job(type=told.type, id=told.id, session=told.session, priority=told.priority)
    due = None if live.due is None else now + live.due - wall
    if due is not None and live.delay is not None:
        due = min(due, now + live.delay)  # if the clock was set back
    return ModelJob(
        job,
        live.order,
        due=due,
        placed=live.due is None or live.kind is not DueKind.DELAY,
        snoozed=live.due is not None and live.kind is DueKind.SNOOZE,
        attempts=live.attempts,
    )


def charged(each: ModelJob) -> int:
    """Return the attempts that count against a job; the one that runs does not yet."""
    return each.attempts - (each.running is not None)


@attrs.define(eq=False)
class Promises:
    """
    What must come back, what may, and what must not.

    Attributes in pairs: how things stand, and what of that has changed since everything
    was known to be written, so that it may have come back either way.
    """

    config: Config
    offered: set[str] = attrs.field(factory=set)
    """Ids handed in whose fate nobody was told; may exist."""
    ended: dict[str, ModelJob] = attrs.field(factory=dict)
    """Ended so lately that they may come back."""
    dead: set[str] = attrs.field(factory=set)
    dead_changed: set[str] = attrs.field(factory=set)
    halted: set[str] = attrs.field(factory=set)
    halted_changed: set[str] = attrs.field(factory=set)
    windows: dict[str, float] = attrs.field(factory=dict)
    """By id of a job whose end is written: the wall-clock moment its window ends."""
    windows_changed: dict[str, float] = attrs.field(factory=dict)
    attempts: dict[str, int] = attrs.field(factory=dict)
    """By id: the attempts that are known to be written."""
    dues: dict[str, float] = attrs.field(factory=dict)
    """By id: the due times, on the wall clock, that are known to be written."""
    brought_forward: dict[str, tuple[float, float]] = attrs.field(factory=dict)
    """
    By id: where the clock was set back, the due times in memory and in the store, which is
    not told that the wait is no longer than it was to be.
    """
    crashes: dict[str, int] = attrs.field(factory=dict)
    suspects: set[str] = attrs.field(factory=set)
    """Jobs whose starts the store must be told of; it may be told of others."""
    started: set[str] = attrs.field(factory=set)
    """Jobs that have begun an attempt whose end is not known to be written."""

    # --- what happens ------------------------------------------------------------------------

    def accept(self, job_id: str, due: float | None) -> None:
        """
        A job was taken in, by a commit that also has all that came before.

        Args:
            job_id: Its id.
            due: When it is due, on the wall clock; None: at once.
        """
        assert job_id in self.offered, f"{job_id} was accepted and nobody had submitted it"
        self.offered.discard(job_id)
        self.ended.pop(job_id, None)
        self.windows.pop(job_id, None)
        self.windows_changed.pop(job_id, None)
        self.attempts[job_id] = self.crashes[job_id] = 0
        self.suspects.discard(job_id)
        self.started.discard(job_id)
        self.dues.pop(job_id, None)
        if due is not None:
            self.dues[job_id] = due

    def start(self, job_id: str) -> None:
        """An attempt was begun."""
        self.dues.pop(job_id, None)
        self.started.add(job_id)

    def end(self, each: ModelJob, wall: float, *, failed: bool, halts: bool) -> None:
        """A job has ended."""
        job_id = each.job.id
        self.ended[job_id] = each
        self.windows.pop(job_id, None)
        if self.config.duplicate_window:
            self.windows_changed[job_id] = wall + self.config.duplicate_window
        if failed:
            self.bury(job_id, present=True)
        if halts and each.job.session is not None:
            self.halt(each.job.session, on=True)

    def bury(self, job_id: str, *, present: bool) -> None:
        """There is a dead letter of this id, or none any more."""
        (self.dead.add if present else self.dead.discard)(job_id)
        self.dead_changed.add(job_id)

    def halt(self, session: str, *, on: bool) -> None:
        """A session halts, or goes on."""
        if on is not (session in self.halted):
            (self.halted.add if on else self.halted.discard)(session)
            self.halted_changed.add(session)

    def gone(self, job_id: str) -> None:
        """The end of a job was acknowledged."""
        self.ended.pop(job_id, None)

    def settle(self, model: Model, to_wall: float) -> None:
        """
        Everything that has happened must have been written by now.

        Args:
            model: What has happened.
            to_wall: What the wall clock is ahead of the model's.
        """
        self.ended.clear()
        self.dead_changed.clear()
        self.halted_changed.clear()
        self.windows |= self.windows_changed
        self.windows_changed.clear()
        self.attempts = {each.job.id: charged(each) for each in model.jobs}
        self.dues = {
            each.job.id: self._told(each.job.id, each.due + to_wall)
            for each in model.jobs
            if each.due is not None
        }
        running = {each.job.id for each in model.jobs if each.running is not None}
        self.started &= running

    # --- held against it ---------------------------------------------------------------------

    def check(
        self, recovery: Recovery, model: Model, death: Death, running: set[str], at: float
    ) -> None:
        """
        Fail unless *recovery* tells what it must, and nothing that it must not.

        Args:
            recovery: What the store says after the death.
            model: How things stood at that moment; after a clean end without trouble,
                `settle` was told of it.
            death: How it came.
            running: Ids of the jobs whose handlers were at work.
            at: When it came, on the wall clock.
        """
        live = {each.accepted.id: each for each in recovery.live}
        assert len(live) == len(recovery.live), "an id is live twice"
        assert not recovery.quarantined, recovery.quarantined
        owed = {each.job.id: each for each in model.jobs}
        assert owed.keys() <= live.keys(), f"lost: {sorted(owed.keys() - live.keys())}"
        allowed = owed.keys() | self.ended.keys() | self.offered
        assert live.keys() <= allowed, f"back from the dead: {sorted(live.keys() - allowed)}"
        self._check_order(recovery.live, model)
        for job_id, each in live.items():
            model_job = owed.get(job_id) or self.ended.get(job_id)
            self._check_job(each, model_job, death, running)
            if model_job is not None and model_job.due is not None and job_id in self.dues:
                self._check_due(each, model_job, self.dues[job_id], at)
        self._check_rest(recovery)

    def _check_order(self, live: Sequence[LiveJob], model: Model) -> None:
        ended = [each for each in self.ended.values() if each.job.id not in self.offered]
        known = {each.job.id: each for each in (*model.jobs, *ended)}
        placed = sorted((each for each in known.values() if each.placed), key=_by_place)
        # An id that ended and was handed in again may be back as the one or the other.
        either = self.ended.keys() & self.offered
        back = [each.accepted.id for each in live if each.accepted.id not in either]
        expected = [each.job.id for each in placed if each.job.id in set(back)]
        found = [job_id for job_id in back if job_id in set(expected)]
        assert found == expected, f"the order was {expected}, and is {found}"
        new = set(back) - known.keys()
        # A delayed job may have got its place with them, and behind them.
        lined_up = [job_id for job_id in back if job_id in new or known[job_id].placed]
        assert lined_up[: len(lined_up) - len(new)] == expected, (
            f"{sorted(new)} came before what was acknowledged before them"
        )

    def _check_job(
        self, live: LiveJob, each: ModelJob | None, death: Death, running: set[str]
    ) -> None:
        job_id = live.accepted.id
        least = self.attempts.get(job_id, 0)
        most = 0 if each is None else max(least, charged(each))
        assert least <= live.attempts <= most, (
            f"{job_id} has used {least} to {most} attempts, not {live.attempts}"
        )
        before = self.crashes.get(job_id, 0)
        counted = live.crashes - before
        certain = death is Death.KILL and job_id in running and job_id in self.suspects
        possible = death is not Death.CLEAN and job_id in self.started
        assert certain <= counted <= possible, f"{job_id} has crashed {counted} times more"

    def _told(self, job_id: str, due: float) -> float:
        """Return the due time that the store was told, for the one in memory."""
        in_memory, in_store = self.brought_forward.get(job_id, (due, due))
        return in_store if abs(in_memory - due) < _CLOSE else due

    def _check_due(self, live: LiveJob, each: ModelJob, due: float, at: float) -> None:
        job_id = live.accepted.id
        if live.due is None:
            placed = not each.placed and due <= at + _CLOSE
            assert placed, f"{job_id} was due at {due}, and is now"
            return
        assert abs(live.due - due) < _CLOSE, f"{job_id} was due at {due}, and is at {live.due}"
        kind = DueKind.SNOOZE if each.snoozed else DueKind.BACKOFF
        if not each.placed:
            kind = DueKind.DELAY
        assert live.kind is kind, f"{job_id} waits for its {kind.name}, not its {live.kind!r}"

    def _check_rest(self, recovery: Recovery) -> None:
        dead = [each.accepted.id for each in recovery.dead_letters]
        assert len(set(dead)) == len(dead), "two dead letters of one id"
        _check_set("dead letters", self.dead, self.dead_changed, dead)
        _check_set("halted sessions", self.halted, self.halted_changed, recovery.halted)
        for job_id, until in self.windows.items():
            found = recovery.remembered.get(job_id, until)
            assert abs(found - until) < _CLOSE, f"{job_id} was remembered until {until}: {found}"

    def check_windows(self, recovery: Recovery, wall: float) -> None:
        """Fail if an id is forgotten before its time, seen at *wall*."""
        for job_id, until in self.windows.items():
            assert until <= wall + _CLOSE or job_id in recovery.remembered, (
                f"{job_id} is forgotten although its window ends in {until - wall} s"
            )

    def adopt(self, recovery: Recovery, given_up: Iterable[ModelJob], wall: float) -> None:
        """Begin again with what a store tells, at *wall*."""
        suspicious = not recovery.clean
        self.offered.clear()
        self.ended.clear()
        self.dead = {each.accepted.id for each in recovery.dead_letters}
        self.dead_changed.clear()
        self.halted = set(recovery.halted)
        self.halted_changed.clear()
        self.windows = dict(recovery.remembered)
        self.windows_changed.clear()
        self.attempts = {each.accepted.id: each.attempts for each in recovery.live}
        self.crashes = {each.accepted.id: each.crashes for each in recovery.live}
        self.dues = {each.accepted.id: each.due for each in recovery.live if each.due is not None}
        self.brought_forward = {
            each.accepted.id: (wall + each.delay, each.due)
            for each in recovery.live
            if each.due is not None and each.delay is not None and each.due - wall > each.delay
        }
        self.suspects = {each.accepted.id for each in recovery.live if suspicious or each.crashes}
        self.started.clear()
        for each in given_up:
            self.end(each, wall, failed=True, halts=each.job.type == "halting")


def _check_set(what: str, present: set[str], changed: Iterable[str], found: Iterable[str]) -> None:
    found, changed = set(found), set(changed)
    missing = present - changed - found
    assert not missing, f"{what} are lost: {sorted(missing)}"
    extra = found - present - changed
    assert not extra, f"{what} were not there before: {sorted(extra)}"


def _by_place(each: ModelJob) -> int:
    return each.place
