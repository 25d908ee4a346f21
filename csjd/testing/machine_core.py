"""
The rule-based machine over the core alone: no event loop, thousands of steps a second.

Needs hypothesis. Random calls go to a `Backlog` and to the plain `Model` alike; after
every step the two must agree. All that is known here of how the core is called stands in
`_Core`.
"""

import math
from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from csjd import Config, CsjdError, Job, JobState
from csjd._core.backlog import Backlog
from csjd._core.lanes import Lane
from csjd._core.statistics import metrics
from csjd._model.handler import HandlerSpec, OnFailure, describe
from csjd._model.lifecycle import DispatcherState
from csjd.testing.crowding import crowded_configs
from csjd.testing.model import Model

TYPES = ("plain", "halting")
SESSIONS = (None, "s0", "s1", "s2", "s3")
IDS = [f"j{number}" for number in range(30)]


async def _never_called(job: Job) -> None:  # noqa: ASYNC124  a handler that nobody calls
    raise AssertionError("the core calls no handlers")


_SPECS: dict[str, HandlerSpec] = {
    "plain": describe("plain", _never_called),
    "halting": describe("halting", _never_called, on_failure="halt"),
}


@attrs.define(eq=False)
class _Core:
    """A backlog with lanes, called as the runtime calls it."""

    backlog: Backlog
    lanes: list[Lane] = attrs.field(factory=list)
    calls: list[Any] = attrs.field(factory=list)

    def add_worker(self, lanes: int) -> None:
        worker = self.backlog.add_worker()
        for _ in range(lanes):
            self.lanes.append(self.backlog.add_lane(worker))

    def remove_worker(self, worker_id: int) -> None:
        self.backlog.remove_worker(self.backlog.workers[worker_id])
        self.forget_lanes()

    def forget_lanes(self) -> None:
        """A lane that has nothing to run, of a worker that leaves, ends."""
        self.lanes = [lane for lane in self.lanes if lane.entry or not self._is_over(lane)]

    def _is_over(self, lane: Lane) -> bool:
        return lane.worker.leaving or lane.detached

    def free(self) -> list[Lane]:
        return [lane for lane in self.lanes if lane.entry is None]

    def busy(self) -> list[Lane]:
        return [lane for lane in self.lanes if lane.entry is not None]

    def home(self, session: str, now: float) -> int:
        found = self.backlog.sessions.find(session, now)
        assert found is not None, f"{session} has jobs and is bound to no worker"
        return found.worker.id

    def succeed(self, lane: Lane, now: float) -> None:
        self.backlog.succeed(lane, lane.entry, None, now)  # type: ignore[arg-type]  # it is busy

    def release(self, lane: Lane, now: float) -> Any:
        entry = lane.entry
        assert entry is not None
        self.backlog.release(lane, entry, now)
        return entry

    def fail(self, lane: Lane, now: float) -> None:
        worker, entry = lane.worker, self.release(lane, now)
        self.backlog.fail(entry, worker, ValueError("no"), False, now)


class CoreMachine(RuleBasedStateMachine):
    """Drives a backlog and the model with the same steps."""

    config: Config
    now: float
    core: "_Core"
    model: Model

    @initialize(
        config=crowded_configs(
            max_pending=st.sampled_from([None, 6]),
            max_sessions=st.sampled_from([None, 2]),
            session_idle=st.sampled_from([0.0, 60.0]),
        )
    )
    def begin(self, config: Config) -> None:
        """Make an empty backlog."""
        self.config = config
        self.now = 0.0
        self.core = _Core(Backlog.empty(self.config))
        self.model = Model(self.config)
        self.bound: dict[str, int] = {}
        for _ in range(config.workers):
            self.core.add_worker(config.lanes)
        self.core.backlog.stopped = self.model.stopped = False

    # --- jobs ----------------------------------------------------------------------------------

    @rule(
        id=st.sampled_from(IDS),
        type=st.sampled_from(TYPES),
        session=st.sampled_from(SESSIONS),
        priority=st.integers(-1, 2),
        delay=st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.5]),
    )
    def submit(self, id: str, type: str, session: str | None, priority: int, delay: float) -> None:
        """Offer a job."""
        job = Job(type=type, id=id, session=session, priority=priority)
        expected = self.model.refusal(job, self.now)
        due = self.now + delay if delay else 0.0
        # Pausing a session binds it, too, and that may have been long ago.
        fresh = session and self.core.backlog.sessions.find(session, self.now) is None
        refusal: CsjdError | None = None
        try:
            self.core.backlog.admit(job, _SPECS[type], self.now, due)
        except CsjdError as error:
            refusal = error
        assert (refusal is None) is (expected is None), f"{id}: {refusal!r}, not {expected}"
        if refusal is not None:
            return
        self.model.accept(job, self.now, delay)
        if session and fresh:
            self._check_load(session)

    def _check_load(self, session: str) -> None:
        """Just bound, *session* must not have gone to a worker with too many."""
        table = self.core.backlog.sessions
        found = table.find(session, self.now)
        assert found is not None
        most = math.ceil(self.config.load_factor * len(table) / len(self.core.backlog.workers))
        assert found.worker.sessions <= most, f"{found.worker.sessions} sessions, {most} allowed"

    @rule(numbers=st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(SESSIONS)), max_size=8))
    def submit_batch(self, numbers: list[tuple[str, str | None]]) -> None:
        """Offer plain jobs all at once; the core takes in as many as it likes, from the first."""
        jobs = [Job(type="plain", id=name, session=session) for name, session in numbers]
        taken = self.core.backlog.admit_plain(jobs, _SPECS, self.now)
        for job, entry in zip(jobs, taken, strict=False):
            assert entry.job is job
            assert self.model.refusal(job, self.now) is None, f"{job.id} was accepted"
            self.model.accept(job, self.now)

    @precondition(lambda self: self.core.free())
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        """Let a free lane look for work."""
        lane = data.draw(st.sampled_from(self.core.free()))
        homes = {s: self.core.home(s, self.now) for s in SESSIONS if s and self._has_jobs(s)}
        entry = self.core.backlog.take(lane, self.now)
        picked = None if entry is None else entry.job.id
        wrong = self.model.wrong_pick(picked, lane.worker.id, lambda session: homes[session])
        assert wrong is None, wrong
        if picked is not None:
            self.model.start(picked, lane.worker.id)

    def _has_jobs(self, session: str) -> bool:
        return any(each.job.session == session for each in self.model.jobs)

    @precondition(lambda self: self.core.busy())
    @rule(
        data=st.data(),
        how=st.sampled_from(["succeed", "succeed", "fail", "retry", "snooze", "interrupt"]),
        wait=st.sampled_from([0.0, 0.5, 2.0]),
    )
    def end_attempt(self, data: st.DataObject, how: str, wait: float) -> None:
        """Let a busy lane's handler end."""
        lane = data.draw(st.sampled_from(self.core.busy()))
        entry = lane.entry
        assert entry is not None
        job, due, backlog = entry.job, self.now + wait, self.core.backlog
        match how:
            case "succeed":
                self.core.succeed(lane, self.now)
                self.model.end(job.id, "succeeded", self.now)
            case "fail":
                self.core.fail(lane, self.now)
                halts = _SPECS[job.type].on_failure is OnFailure.HALT
                self.model.end(job.id, "failed", self.now, halts=halts)
            case "retry":
                backlog.retry(self.core.release(lane, self.now), due)
                self.model.put_back(job.id, due, charged=True)
            case "snooze":
                backlog.snooze(self.core.release(lane, self.now), due)
                self.model.put_back(job.id, due, charged=False)
            case _:
                backlog.interrupt(self.core.release(lane, self.now))
                self.model.put_back(job.id, None, charged=False)
        self.core.forget_lanes()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a job that does not run."""
        waiting = [each for each in self.model.jobs if each.running is None]
        if waiting:
            each = data.draw(st.sampled_from(waiting))
            entry = self.core.backlog.ids.find(each.job.id)
            assert entry is not None, f"{each.job.id} was lost"
            self.core.backlog.cancel(entry, ValueError("cancelled"), self.now)
            self.model.end(each.job.id, "cancelled", self.now)

    # --- time ----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.4, 1.0, 5.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.core.backlog.fall_due(self.now, draining=False)
        self.model.fall_due(self.now)

    # --- being held ----------------------------------------------------------------------------

    @rule(on=st.booleans())
    def pause(self, on: bool) -> None:
        """Pause or resume everything."""
        self.core.backlog.paused = self.model.paused = on

    @rule(type=st.sampled_from(TYPES), on=st.booleans())
    def pause_type(self, type: str, on: bool) -> None:
        """Pause or resume a type."""
        if on:
            self.core.backlog.holds.pause_type(type)
            self.model.paused_types.add(type)
        else:
            self.core.backlog.holds.resume_type(type)
            self.model.paused_types.discard(type)

    @rule(session=st.sampled_from(SESSIONS[1:]), on=st.booleans())
    def pause_session(self, session: str, on: bool) -> None:
        """Pause or resume a session."""
        if on:
            self.core.backlog.holds.pause_session(session, self.now)
            self.model.held_sessions.add(session)
        else:
            self.core.backlog.holds.resume_session(session, self.now)
            self.model.held_sessions.discard(session)

    # --- workers -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.core.backlog.workers) < 5)
    @rule()
    def add_worker(self) -> None:
        """Add a worker."""
        self.core.add_worker(self.config.lanes)

    @precondition(lambda self: len(self.core.backlog.workers) > 1)
    @rule(data=st.data())
    def remove_worker(self, data: st.DataObject) -> None:
        """Remove a worker."""
        self.core.remove_worker(data.draw(st.sampled_from(sorted(self.core.backlog.workers))))

    # --- what holds after every step -----------------------------------------------------------

    @invariant()
    def agrees_with_the_model(self) -> None:
        """Nothing is lost, invented, in the wrong state or counted wrongly."""
        if not hasattr(self, "model"):
            return
        backlog, model = self.core.backlog, self.model
        states = {entry.job.id: entry.state for entry in backlog.ids.live()}
        assert states == {each.job.id: model.state(each) for each in model.jobs}
        attempts = {entry.job.id: entry.attempts for entry in backlog.ids.live()}
        assert attempts == {each.job.id: each.attempts for each in model.jobs}
        m = metrics(backlog, self.core.lanes, DispatcherState.RUNNING)
        counts = model.counts()
        assert (m.accepted, m.live) == (model.accepted, len(model.jobs))
        assert (m.succeeded, m.failed) == (model.succeeded, model.failed)
        assert m.cancelled == model.cancelled
        assert m.ready == counts[JobState.READY]
        assert m.waiting == counts[JobState.WAITING]
        assert m.scheduled == counts[JobState.SCHEDULED]
        assert m.running == counts[JobState.RUNNING]
        assert m.sessions == len({each.job.session for each in model.jobs} - {None})

    @invariant()
    def sessions_stay_with_their_worker(self) -> None:
        """A session with jobs keeps its worker as long as there is that worker."""
        if not hasattr(self, "model"):
            return
        bound = {s: self.core.home(s, self.now) for s in SESSIONS if s and self._has_jobs(s)}
        for session, worker in bound.items():
            before = self.bound.get(session, worker)
            assert before == worker or before not in self.core.backlog.workers
        self.bound = bound
