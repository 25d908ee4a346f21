"""
The rule-based machine over the real dispatcher, on virtual time, in lock-step with the model.

Needs hypothesis. Handlers do nothing until a rule tells them to; every event is given to
the model as it happens, so each start is judged at its own moment, and after every rule
the two must agree.
"""

import contextlib
import math
from typing import Any, cast

import attrs
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from csjd import (
    Attempt,
    AttemptStarted,
    Cancelled,
    Config,
    Dispatcher,
    DispatcherStarted,
    DispatcherState,
    DispatcherStopped,
    DispatcherStopping,
    DuplicateJobError,
    Event,
    HandlerDetached,
    Job,
    JobAccepted,
    JobEnded,
    JobInterrupted,
    JobRetried,
    JobSnoozed,
    JobState,
    Paused,
    PermanentError,
    QueueFullError,
    Registry,
    Resumed,
    Retry,
    SessionHalted,
    Snooze,
    StuckHandlersError,
    Succeeded,
)
from csjd.testing.crowding import crowded_configs
from csjd.testing.guest import TrioGuest
from csjd.testing.leaks import csjd_tasks
from csjd.testing.model import Model, ModelJob
from csjd.testing.virtual import open_test_dispatcher
from csjd.testing.wakeups import check_wakeups

TYPES = ("plain", "halting")
SESSIONS = (None, "s0", "s1", "s2")
IDS = [f"j{number}" for number in range(20)]
_EARLIER = 1e-9


@attrs.define(eq=False)
class Running:
    """An attempt that waits to be told what to do."""

    job: Job
    told: trio.Event = attrs.field(factory=trio.Event)
    deed: str = "return"
    seconds: float = 1.41
    """How long it snoozes, if told to."""
    deaf: bool = False
    """Whether it ignores its cancellation, until it is told what to do."""


@attrs.define(eq=False)
class Shadow:
    """An observer that gives every event to the model, and judges it by the model."""

    model: Model
    wrong: str | None = None
    draining: bool = False
    until: float = math.inf
    """When the grace of the stop that is under way is over."""
    dispatcher: Dispatcher | None = None

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        try:
            self._hear(event)
        except Exception as error:
            self.wrong = self.wrong or f"{type(error).__name__} at {event}: {error}"

    def _hear(self, event: Event) -> None:
        model = self.model
        match event:
            case JobAccepted(at=at, job=job):
                model.accept(job, at, job.metadata.get("delay", 0.0))
            case AttemptStarted(at=at, job=job, worker=worker):
                self._started(at, job, worker)
            case JobRetried(at=at, job=job, delay=delay):
                model.put_back(job.id, at + delay, charged=True)
            case JobSnoozed(at=at, job=job, delay=delay):
                model.put_back(job.id, at + delay, charged=False)
            case JobInterrupted(job=job):
                model.put_back(job.id, None, charged=False)
            case JobEnded(at=at, job=job, outcome=outcome):
                how = "failed"
                if isinstance(outcome, Succeeded):
                    how = "succeeded"
                elif isinstance(outcome, Cancelled):
                    how = "cancelled"
                model.end(job.id, how, at, halts=how == "failed" and job.type == "halting")
            case HandlerDetached(job=job):
                each = model.find(job.id)
                assert each is not None
                each.detached = True
            case SessionHalted(session=session):
                assert session in model.held_sessions
            case Paused() | Resumed():
                self._held(event.type, event.session, on=isinstance(event, Paused))
            case DispatcherStarted(at=at):
                self.until = math.inf
                model.stopped = self.draining = False
                model.fall_due(at)
            case DispatcherStopping(at=at, grace=grace):
                self.draining = True
                self.until = at + grace
            case DispatcherStopped(at=at, report=report):
                model.fall_due(at - _EARLIER, draining=True)
                model.stopped, self.draining = True, False
                listed = [job.id for job in report.unfinished]
                assert listed == model.unfinished(), f"{listed} reported, not {model.unfinished()}"

    def _started(self, at: float, job: Job, worker: int) -> None:
        # What is due this very moment may have fallen due before this start, or not yet.
        self.model.fall_due(at - _EARLIER, draining=self.draining)
        wrong = self.model.wrong_pick(job.id, worker, self.home)
        if wrong is not None:
            self.model.fall_due(at, draining=self.draining)
            wrong = self.model.wrong_pick(job.id, worker, self.home)
        self.wrong = self.wrong or wrong
        self.model.start(job.id, worker)

    def _held(self, type: str | None, session: str | None, *, on: bool) -> None:
        model = self.model
        if type is not None:
            (model.paused_types.add if on else model.paused_types.discard)(type)
        elif session is not None:
            (model.held_sessions.add if on else model.held_sessions.discard)(session)
        else:
            model.paused = on

    def home(self, session: str) -> int:
        """Return the worker that *session* is bound to."""
        assert self.dispatcher is not None
        info = self.dispatcher.session_info(session)
        assert info is not None, f"{session} has jobs and is bound to no worker"
        return info.worker


class DispatcherMachine(RuleBasedStateMachine):
    """Drives a dispatcher, and has the model follow its events."""

    guest: TrioGuest
    model: Model
    shadow: "Shadow"
    over: trio.Event
    obedient: bool
    dispatcher: Dispatcher

    @initialize(
        config=crowded_configs(
            session_idle=st.sampled_from([0.0, 60.0]),
            detach_budget=st.sampled_from([0, 1]),
            retry=st.just(Retry(max_attempts=2, min_delay=1.13, max_delay=1.13, jitter=0)),
        )
    )
    def begin(self, config: Config) -> None:
        """Open a dispatcher."""
        self.guest = TrioGuest()
        self.model = Model(config)
        self.shadow = Shadow(self.model)
        self.running: dict[str, Running] = {}
        self.over = trio.Event()
        self.obedient = False
        self.bound: dict[str, int] = {}
        self.guest.spawn(self._live, config)
        self.guest.settle()
        assert self.shadow.dispatcher is not None
        self.dispatcher = self.shadow.dispatcher

    async def _live(self, config: Config) -> None:
        registry = Registry()
        registry.register("plain", self._handle)
        registry.register("halting", self._handle, on_failure="halt")
        async with open_test_dispatcher(
            config, registry=registry, observers=[self.shadow]
        ) as dispatcher:
            self.shadow.dispatcher = dispatcher
            await self.over.wait()

    async def _handle(self, job: Job, attempt: Attempt) -> str:
        assert job.id not in self.running, f"{job.id} overlaps itself"
        others = [each.job.session for each in self.running.values()]
        assert job.session is None or job.session not in others, f"{job.session} overlaps itself"
        self.running[job.id] = running = Running(job)
        try:
            if not self.obedient:
                await self._wait_to_be_told(running)
        finally:
            del self.running[job.id]
        match running.deed:
            case "fail":
                raise ValueError("told to fail")
            case "fail for good":
                raise PermanentError("told to fail")
            case "snooze":
                raise Snooze(running.seconds)
        return "done"

    async def _wait_to_be_told(self, running: Running) -> None:
        try:
            await running.told.wait()
        except trio.Cancelled:  # noqa: ASYNC103  deaf on purpose
            if not running.deaf:
                raise
            with trio.CancelScope(shield=True):
                await running.told.wait()

    # --- jobs --------------------------------------------------------------------------------

    @rule(
        id=st.sampled_from(IDS),
        type=st.sampled_from(TYPES),
        session=st.sampled_from(SESSIONS),
        priority=st.integers(-1, 2),
        delay=st.sampled_from([0.0, 0.0, 0.0, 1.03, 2.53]),
    )
    def submit(self, id: str, type: str, session: str | None, priority: int, delay: float) -> None:
        """Submit a job."""
        job = Job(
            type=type,
            id=id,
            session=session,
            priority=priority,
            metadata={"delay": delay} if delay else {},
        )
        if self.dispatcher.state is not DispatcherState.RUNNING:
            return
        expected = self.model.refusal(job, self.now)
        refusal: Exception | None = None
        try:
            self.guest.call(lambda: self.dispatcher.submit(job, delay=delay))
        except (DuplicateJobError, QueueFullError) as error:
            refusal = error
        assert (refusal is None) is (expected is None), f"{id}: {refusal!r}, not {expected}"

    @rule(numbers=st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(SESSIONS)), max_size=8))
    def submit_batch(self, numbers: list[tuple[str, str | None]]) -> None:
        """Submit jobs together."""
        if self.dispatcher.state is DispatcherState.RUNNING:
            jobs = [Job(type="plain", id=name, session=session) for name, session in numbers]
            before = self.model.accepted
            report = self.guest.call(self.dispatcher.submit_batch, jobs)
            assert report.accepted == self.model.accepted - before
            assert report.accepted + len(report.errors) == len(jobs)

    @rule(id=st.sampled_from(IDS))
    def cancel(self, id: str) -> None:
        """Cancel a job, wherever it is."""
        lives = self.model.find(id) is not None
        assert self._plain(lambda: self.dispatcher.cancel(id)) is lives

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        deed=st.sampled_from(["return", "return", "fail", "fail for good", "snooze"]),
    )
    def tell(self, data: st.DataObject, deed: str) -> None:
        """Tell a handler what to do."""
        running = self.running[data.draw(st.sampled_from(sorted(self.running)))]
        running.deed = deed
        running.told.set()
        self.guest.settle()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def deafen(self, data: st.DataObject) -> None:
        """Let a handler ignore its cancellation from now on."""
        self.running[data.draw(st.sampled_from(sorted(self.running)))].deaf = True

    # --- time, stopping, size ------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.25, 1.0, 2.5, 70.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.guest.pass_time(seconds)

    @rule(grace=st.sampled_from([0.0, 1.19, 5.0]))
    def stop(self, grace: float) -> None:
        """Begin to stop, or hurry a stop up."""
        self.shadow.until = min(self.shadow.until, self.now + grace)
        self.guest.spawn(lambda: self.dispatcher.stop(grace=grace))
        self.guest.settle()

    @precondition(lambda self: self.dispatcher.state is DispatcherState.STOPPED)
    @rule()
    def start(self) -> None:
        """Go on after a stop."""
        with contextlib.suppress(StuckHandlersError):
            self.guest.call(self.dispatcher.start)

    @rule(workers=st.integers(1, 4))
    def resize(self, workers: int) -> None:
        """Change the number of workers."""
        self.guest.call(self.dispatcher.resize, workers)

    @rule(data=st.data())
    def remove_worker(self, data: st.DataObject) -> None:
        """Remove any worker but the last."""
        workers = [each.worker for each in self.stats() if not each.leaving]
        if len(workers) > 1:
            worker = data.draw(st.sampled_from(workers))
            self._plain(lambda: self.dispatcher.remove_worker(worker))

    # --- being held ----------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(
            [{}, {"type": "plain"}, {"type": "halting"}, {"session": "s0"}, {"session": "s1"}]
        ),
        on=st.booleans(),
    )
    def hold(self, what: dict[str, str], on: bool) -> None:
        """Pause or resume everything, a type or a session."""
        self._plain(lambda: self.dispatcher.pause(**what) if on else self.dispatcher.resume(**what))

    # --- what holds after every step -----------------------------------------------------------

    @invariant()
    def agrees_with_the_model(self) -> None:
        """Nothing is lost, invented, in the wrong state or counted wrongly."""
        if not hasattr(self, "dispatcher"):
            return
        self.guest.settle()
        assert self.shadow.wrong is None, self.shadow.wrong
        model, shadow = self.model, self.shadow
        if not model.stopped:
            model.fall_due(self.now, draining=shadow.draining)
        m = self._plain(self.dispatcher.metrics)
        counts = model.counts()
        assert (m.accepted, m.live) == (model.accepted, len(model.jobs))
        assert (m.succeeded, m.failed) == (model.succeeded, model.failed)
        assert m.cancelled == model.cancelled
        seen = (m.ready, m.waiting, m.scheduled, m.running, m.detached)
        expected = (
            counts[JobState.READY],
            counts[JobState.WAITING],
            counts[JobState.SCHEDULED],
            counts[JobState.RUNNING],
            counts[JobState.DETACHED],
        )
        assert seen == expected, (
            f"ready, waiting, scheduled, running, detached: {seen}, not {expected}"
        )
        assert sorted(self.running) == sorted(
            each.job.id for each in model.jobs if each.running is not None
        )

    @invariant()
    def nothing_is_slept_through(self) -> None:
        """No lane idles that could take a job."""
        if not hasattr(self, "dispatcher") or self._grace_is_over():
            return
        assert (found := self._plain(lambda: check_wakeups(self.dispatcher))) is None, found
        for each in self.stats():
            if each.lanes_busy < each.lanes and not each.leaving:
                left = self._takeable(each.worker)
                assert not left, f"worker {each.worker} is free and does not take {left[0].job.id}"

    @invariant()
    def no_stop_dawdles(self) -> None:
        """A drain that has nothing to wait for is over."""
        if not hasattr(self, "dispatcher") or not self.shadow.draining or self._grace_is_over():
            return
        until, jobs = self.shadow.until, self.model.jobs
        backoffs = [each.due for each in jobs if each.placed and not each.snoozed and each.due]
        busy = any(each.running is not None for each in jobs)
        ready = any(self._takeable(each.worker) for each in self.stats())
        assert busy or ready or any(due <= until for due in backoffs), "the drain waits for nothing"

    def _takeable(self, worker: int) -> list[ModelJob]:
        return cast(
            "list[ModelJob]", self._plain(lambda: self.model.takeable(worker, self.shadow.home))
        )

    def _grace_is_over(self) -> bool:
        return self.shadow.draining and self.now >= self.shadow.until

    @invariant()
    def no_lane_is_lost(self) -> None:
        """Every worker has its lanes."""
        if hasattr(self, "dispatcher"):
            lanes = {each.lanes for each in self.stats() if not each.leaving}
            assert lanes == {self.model.config.lanes}

    # --- the end ---------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Let everything go well from now on: then all must end, and nothing be left."""
        if not hasattr(self, "guest"):
            return
        try:
            if hasattr(self, "dispatcher") and self.shadow.wrong is None:
                self._come_to_an_end()
                self.over.set()
                self.guest.pass_time(100)
                left = self.guest.call(_tasks_left)
                assert not left, f"left behind: {left}"
        finally:
            self.guest.close()

    def _come_to_an_end(self) -> None:
        self.obedient = True
        for _ in range(20):
            for running in self.running.values():
                running.deed = "return"
                running.told.set()
            self.guest.pass_time(100)
            if self.dispatcher.state is DispatcherState.STOPPED:
                self.guest.call(self.dispatcher.start)
            for what in ({}, {"type": "plain"}, {"type": "halting"}):
                self._plain(lambda what=what: self.dispatcher.resume(**what))
            for session in SESSIONS[1:]:
                self._plain(lambda session=session: self.dispatcher.resume(session=session))
            if not self._plain(self.dispatcher.metrics).live:
                break
        assert self.shadow.wrong is None, self.shadow.wrong
        assert not self.model.jobs, f"never ended: {self.model.unfinished()}"

    @property
    def now(self) -> float:
        """The virtual time."""
        return cast("float", self._plain(trio.current_time))

    def stats(self) -> Any:
        """Return the workers' numbers."""
        return self._plain(self.dispatcher.worker_stats)

    def _plain(self, function: Any) -> Any:
        async def call() -> Any:
            await trio.lowlevel.checkpoint()
            return function()

        return self.guest.call(call)


async def _tasks_left() -> list[str]:
    await trio.lowlevel.checkpoint()
    return csjd_tasks()
