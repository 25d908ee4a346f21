"""
The rule-based machine over the real dispatcher with a store, which dies again and again.

Needs hypothesis. It is the machine of `machine_dispatcher` with one life after another:
the process is killed or the machine loses its power between two steps, or in the midst of
a commit; the block is left; the disk fails. What the store tells afterwards is held
against what was promised, and the next dispatcher goes on with it.

    class MyMachine(StoreMachine):
        def make_world(self) -> World:
            return MyWorld()
"""

import contextlib
import errno
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import ClassVar
from unittest.mock import patch

import trio
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from trio.testing import MockClock

from csjd import (
    AttemptStarted,
    Cancelled,
    Config,
    CsjdError,
    DeadLetterDiscarded,
    DeadLetterRequeued,
    Dispatcher,
    DispatcherState,
    DispatcherStopped,
    DuplicateJobError,
    Event,
    Job,
    JobAccepted,
    JobEnded,
    JobState,
    JobStoreClosedError,
    JobStoreError,
    JobStoreFailed,
    JobStoreFullError,
    QueueFullError,
    Receipt,
    Registry,
    Resumed,
    Retry,
    Succeeded,
    open_dispatcher,
)
from csjd.stores import Accepted, Operation, Placed, Recovery, Requeued
from csjd.testing.determinism import deterministic_schedule
from csjd.testing.guest import TrioGuest
from csjd.testing.leaks import csjd_tasks
from csjd.testing.machine_dispatcher import (
    IDS,
    SESSIONS,
    TYPES,
    DispatcherMachine,
    Running,
    Shadow,
)
from csjd.testing.promises import Death, DurableModel, Promises
from csjd.testing.simfs import SimFs
from csjd.testing.worlds import DiskWorld, MemoryWorld, SlowStore, World

QUIET = 5.0
"""Seconds without news after which all that happened must have been written."""
_INSTANT = 1e-6
_EPOCH = 1_700_000_000.0
_FAULTS = (
    *("write", "write", "write", "sync", "sync"),
    *("allocate", "truncate", "create", "rename", "sync_directory"),
)
_DEEDS = ("return", "return", "return", "fail", "fail", "fail for good", "snooze")


class Life(Shadow):
    """One dispatcher's life: hears its events until it dies, and judges them."""

    model: DurableModel
    wrong: str | None
    draining: bool
    failed: bool
    last: float

    def __init__(self, model: DurableModel, promises: Promises, to_wall: float) -> None:
        super().__init__(model)
        self.promises = promises
        self.to_wall = to_wall
        """What the wall clock is ahead of this life's clock."""
        self.dead = False
        """Whatever happens from now on has never happened."""
        self.failed = False
        """The store has failed."""
        self.ended: list[BaseException] | None = None
        """Once the dispatcher's block is left: what it raised."""
        self.last = 0.0
        """When something happened last that has to be written."""
        self.dues: dict[str, float] = {}
        """By id of a job handed in with a delay: when it is due."""
        self.ids: dict[int, str] = {}
        """Ids by the order that the store knows them by."""
        self.orders: dict[str, int] = {}
        """The other way round, for what was told last."""
        self.limbo: set[str] = set()
        """Handed in by callers who gave up waiting; still counted, for how long nobody knows."""

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if not self.dead:
            self.last = max(self.last, event.at)
            super().__call__(event)

    def complain(self, what: str) -> None:
        """Note what is wrong, unless it is too late for that."""
        if not self.dead:
            self.wrong = self.wrong or what

    def _hear(self, event: Event) -> None:
        promises, model = self.promises, self.model
        match event:
            case JobAccepted(at=at, job=job):
                due = self.dues.pop(job.id, None)
                promises.accept(job.id, None if due is None else due + self.to_wall)
                self.limbo.discard(job.id)
                model.reserved.pop(job.id, None)
                model.accept_at(self.orders[job.id], job, at, due)
            case AttemptStarted(job=job):
                assert not self.failed, f"{job.id} begins although the store has failed"
                super()._hear(event)
                promises.start(job.id)
            case JobEnded(at=at, job=job, outcome=outcome):
                each = model.find(job.id)
                assert each is not None, f"{job.id} ends and is not live"
                failed = not isinstance(outcome, (Succeeded, Cancelled))
                halts = failed and job.type == "halting"
                super()._hear(event)
                promises.end(each, at + self.to_wall, failed=failed, halts=halts)
            case DeadLetterRequeued(job=job):
                promises.bury(job.id, present=False)
            case DeadLetterDiscarded(job=job):
                promises.bury(job.id, present=False)
            case Resumed(session=str(session)):
                super()._hear(event)
                promises.halt(session, on=False)
            case JobStoreFailed():
                self.failed = model.stopped = True
            case DispatcherStopped(at=at, report=report):
                self._stopped(at, [job.id for job in report.unfinished])
            case _:
                super()._hear(event)

    def _started(self, at: float, job: Job, worker: int) -> None:
        if self.dispatcher is not None or self.model.config.workers == 1:
            super()._started(at, job, worker)
            return
        # Recovered jobs begin before the block does: nobody can say yet where sessions are
        # bound, so all that can be judged is whether this one's turn has come.
        self.model.fall_due(at, draining=self.draining)
        able = [each.job.id for each in self.model.takeable(worker, lambda session: worker)]
        assert job.id in able, f"{job.id} must not be taken"
        self.model.start(job.id, worker)

    def home(self, session: str) -> int:
        """Return the worker that *session* is bound to."""
        return 0 if self.dispatcher is None else super().home(session)

    def _stopped(self, at: float, listed: list[str]) -> None:
        # Which back-off still fell due is for the machine without a store to say: how long
        # it took to write what had ended is nothing that the model knows.
        model = self.model
        model.stopped, self.draining = True, False
        expected = model.unfinished()
        if any(not each.placed and (each.due or 0) <= at for each in model.jobs):
            listed, expected = sorted(listed), sorted(expected)  # places are under way
        assert listed == expected, f"{listed} reported, not {expected}"

    def recovered(self, recovery: Recovery) -> None:
        """Take in what the store tells at the beginning."""
        self.ids = {each.order: each.accepted.id for each in recovery.live}
        self.ids |= {each.order: each.accepted.id for each in recovery.dead_letters}
        given_up = self.model.adopt(recovery, 0.0, self.to_wall)
        self.promises.adopt(recovery, given_up, self.to_wall)

    def committed(self, operations: Sequence[Operation]) -> None:
        """Hear what the store knows of now; it is about to happen."""
        if self.dead:
            return
        for operation in operations:
            match operation:
                case Accepted(order=order, id=id):
                    self.ids[order] = id
                    self.orders[id] = order
                case Requeued(order=order, new_order=new) | Placed(order=order, new_order=new):
                    job_id = self.ids[new] = self.ids[order]
                    self.orders[job_id] = new
                    if isinstance(operation, Placed):
                        self.model.place(job_id, new)


class StoreMachine(DispatcherMachine):
    """Drives one dispatcher after another over what the one before has left."""

    shadow: Life
    model: DurableModel
    clock: MockClock | None = None
    dispatcher: Dispatcher
    guest: TrioGuest
    running: dict[str, Running]
    over: trio.Event
    obedient: bool
    config: Config
    rng: Random
    promises: Promises
    to_wall: float
    world: World
    store: SlowStore
    lives: int
    age: int
    adopted: bool
    before: DurableModel
    death: Death
    died: float
    in_trouble: bool
    troubles: int = 0
    tally: ClassVar[Counter[str]] = Counter()
    """How often what has happened, over all runs; so that a test can see that it does."""

    def make_world(self) -> World:
        """Return an empty world; here: a file store on a simulated disk."""
        return DiskWorld(disk=SimFs(seed=self.rng.randrange(1 << 30)))

    @initialize(
        workers=st.integers(1, 3),
        lanes=st.integers(1, 2),
        window=st.sampled_from([0.0, 3.0, 30.0]),
        max_pending=st.sampled_from([None, None, 8]),
        per_session=st.sampled_from([None, None, 3]),
        budget=st.sampled_from([0, 1]),
        max_crashes=st.sampled_from([1, 2, 3]),
        backoff=st.sampled_from([1.13, 9.13]),
        least_age=st.sampled_from([0, 5, 5]),
        seed=st.integers(0, 1 << 16),
    )
    def begin(
        self,
        workers: int,
        lanes: int,
        window: float,
        max_pending: int | None,
        per_session: int | None,
        budget: int,
        max_crashes: int,
        backoff: float,
        least_age: int,
        seed: int,
    ) -> None:
        """Open the first dispatcher."""
        self.config = Config(
            workers=workers,
            lanes=lanes,
            duplicate_window=window,
            max_pending=max_pending,
            max_pending_per_session=per_session,
            detach_budget=budget,
            detach_grace=0.61,
            job_timeout=3.07,
            stop_grace=2.03,
            retry=Retry(max_attempts=3, min_delay=backoff, max_delay=backoff, jitter=0),
            virtual_nodes=3,
            commit_grace=1.7,
            max_crashes=max_crashes,
        )
        self.rng = Random(seed)
        self.least_age = least_age  # steps, so that something happens in most lives
        self.world = self.make_world()
        self.promises = Promises(self.config)
        self.to_wall = _EPOCH
        self.lives = 0
        self.death, self.died = Death.CLEAN, self.to_wall
        self.at_work: set[str] = set()
        self.in_trouble = False
        self.before = DurableModel(self.config)
        self._wall_clock = patch("time.time", self.wall)
        self._wall_clock.start()
        self._schedule = deterministic_schedule(seed)
        self._schedule.__enter__()
        self._live_on()

    def wall(self) -> float:
        """Return what the wall clock shows."""
        return self.to_wall + (0.0 if self.clock is None else self.clock.current_time())

    @property
    def now(self) -> float:
        """The virtual time."""
        assert self.clock is not None
        return self.clock.current_time()

    # --- one life ------------------------------------------------------------------------------

    def _live_on(self) -> None:
        """Begin another life."""
        for _ in range(10):
            self._try_to_live()
            if not self.shadow.dead and self.shadow.dispatcher is not None:
                self.dispatcher = self.shadow.dispatcher
                return
            if not self.shadow.dead:
                assert self.world.troubles(), f"not opened: {self.shadow.ended}"
                self.world.heal()
                self._die(Death.KILL)
            self._bury()
        raise AssertionError("the dispatcher never opens again")

    def _try_to_live(self) -> None:
        self.lives += 1
        self.model = DurableModel(self.config)
        self.shadow = Life(self.model, self.promises, self.to_wall)
        self.running = {}
        self.age = 0
        self.over = trio.Event()
        self.obedient = False
        self.adopted = False
        self.store = SlowStore(
            self.world.store(self.wall()),
            seconds=self.rng.choice([0.0, 0.0, 0.137, 0.571, 0.571, 3.9]),
            on_recovered=self._recovered,
            on_committed=self.shadow.committed,
        )
        self.guest = TrioGuest()
        self.guest.spawn(self._live, self.config)
        self.guest.settle()

    async def _live(self, config: Config) -> None:
        life = self.shadow
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        self.clock = clock
        registry = Registry()
        registry.register("plain", self._handle)
        registry.register("halting", self._handle, on_failure="halt")
        over = self.over
        life.ended = None
        ended: list[BaseException] = []
        try:
            async with (
                trio.open_nursery() as nursery,
                open_dispatcher(
                    nursery, config, registry=registry, store=self.store, observers=[life]
                ) as dispatcher,
            ):
                dispatcher._scheduler.random = Random(0)
                life.dispatcher = dispatcher
                await over.wait()
        except* JobStoreError as errors:
            ended.extend(errors.exceptions)
        except* Exception:
            if not life.dead:
                raise
        life.ended = ended

    def _recovered(self, recovery: Recovery) -> None:
        """Hold what the store tells against the promises, and go on with it."""
        if self.shadow.dead:
            return
        life = self.shadow
        try:
            if self.lives > 1:
                self.promises.check(recovery, self.before, self.death, self.at_work, self.died)
                self.promises.check_windows(recovery, self.wall())
        except AssertionError as error:
            life.complain(f"after {self.death.value}: {error}")
        life.recovered(recovery)
        self.adopted = True
        self.tally["jobs recovered"] += len(recovery.live)
        self.tally["crashes counted"] += sum(each.crashes > 0 for each in recovery.live)
        self.tally["dead letters recovered"] += len(recovery.dead_letters)

    def _die(self, death: Death) -> None:
        """Let this moment be the last; what still runs only seems to."""
        life = self.shadow
        if life.dead:
            return
        life.dead = True
        self.tally[death.value] += 1
        self.tally["while a commit was being written"] += self.store.writing > 0
        if self.adopted:
            self.before, self.death, self.died = self.model, death, self.wall()
            # What a full disk did not take, of starts too, is told to it later.
            self.in_trouble = self.world.troubles() > 0
            self.at_work = set() if self.in_trouble else set(self.running)
        elif death is Death.POWER and self.death is Death.KILL:
            self.death = death  # before the last death was even looked at
        if death is Death.POWER:
            self.world.lose_power(self.rng)
        else:
            self.world.kill()

    def _bury(self) -> None:
        """Get rid of what only seems to run, and let some time pass until the next life."""
        self._put_down()
        downtime = self.rng.choice([0.0, 0.2, 2.0, 40.0, -7.0])
        self.to_wall = self.wall() + downtime
        self.clock = None

    def _put_down(self) -> None:
        """End the Trio run, whatever stands in its way."""

        async def hurry() -> None:
            assert self.clock is not None
            self.clock.autojump_threshold = 0
            await trio.sleep_forever()

        with contextlib.suppress(Exception):
            self.guest.spawn(hurry)
        self.obedient = True
        for running in self.running.values():
            running.told.set()
        with contextlib.suppress(Exception):
            self.guest.close()

    def _catch_up(self) -> None:
        """After a step: live on if it was the last one's, and see what has been written."""
        while True:
            self.guest.settle()
            life = self.shadow
            assert life.wrong is None, life.wrong
            if life.failed and not life.dead:
                self._outlive_a_failure()
            if not life.dead:
                break
            self._bury()
            self._live_on()
        if self.world.troubles() != self.troubles:
            self.troubles = self.world.troubles()
            life.last = self.now
        if not self.store.writing and self.now - life.last >= QUIET:
            unanswered = sorted(self.model.reserved.keys() - life.limbo)
            assert not unanswered, f"nobody answers those who submitted {unanswered}"
            self.promises.settle(self.model, life.to_wall)

    def _outlive_a_failure(self) -> None:
        """A store that has failed acknowledges nothing, and is opened again."""
        self.tally["the store failed"] += 1
        before = self.model.accepted
        refused: list[bool] = []

        async def submit() -> None:
            try:
                await self.dispatcher.submit(Job(type="plain", id="too late"))
            except CsjdError:
                refused.append(True)

        self.guest.spawn(submit)
        for running in self.running.values():
            running.told.set()
        self.guest.pass_time(8.0)
        life = self.shadow
        assert life.wrong is None, life.wrong
        assert refused or life.dead, "a store that has failed took a job"
        assert self.model.accepted == before or life.dead, "a store that has failed took jobs"
        if self.rng.random() < 0.7:
            self.world.heal()
        self._die(self.rng.choice([Death.KILL, Death.POWER]))

    # --- dying ---------------------------------------------------------------------------------

    @precondition(lambda self: self.age >= self.least_age)
    @rule(power=st.booleans())
    def crash(self, power: bool) -> None:
        """Die at once."""
        self._die(Death.POWER if power else Death.KILL)

    @precondition(lambda self: self.age >= self.least_age)
    @rule(power=st.booleans(), number=st.integers(1, 12))
    def crash_in_a_commit(self, power: bool, number: int) -> None:
        """Die in the midst of some commit to come, or of a compaction."""
        death = Death.POWER if power else Death.KILL
        self.world.at_change(number, lambda: self._die(death))

    @precondition(lambda self: self.age >= 5)
    @rule()
    def leave(self) -> None:
        """Leave the block as programs do, when no handler keeps it open."""
        life = self.shadow
        self.obedient = True
        self.over.set()
        for _ in range(3):
            for running in self.running.values():
                running.told.set()
            self.guest.pass_time(30)
        assert life.wrong is None, life.wrong
        if life.dead:
            return
        assert life.ended is not None, "the block is not left"
        failed = bool(life.ended)
        assert not failed or self.world.troubles(), f"left with {life.ended}"
        left = self.guest.call(_tasks_left)
        assert not left, f"left behind: {left}"
        if not self.world.troubles():
            self.promises.settle(self.model, life.to_wall)
        self.running = {}
        self._die(Death.KILL if failed else Death.CLEAN)

    @rule()
    def maintain(self) -> None:
        """Have the store look after itself, as the dispatcher does now and then."""
        with contextlib.suppress(JobStoreError):
            self.store.maintain()

    @rule(
        kind=st.sampled_from(_FAULTS),
        code=st.sampled_from([errno.EIO, errno.ENOSPC, errno.ENOSPC]),
        times=st.integers(1, 3),
    )
    def fail(self, kind: str, code: int, times: int) -> None:
        """Let the disk fail, or be full."""
        self.world.fail(kind, code, times)

    @rule(times=st.integers(2, 8))
    def fill_the_disk(self, times: int) -> None:
        """Have the disk be full for a while, and jobs end meanwhile."""
        self.world.fail("write", errno.ENOSPC, times)
        for running in self.running.values():
            running.told.set()
        self.guest.pass_time(12.0)

    # --- jobs ----------------------------------------------------------------------------------

    @rule(
        id=st.sampled_from(IDS),
        type=st.sampled_from(TYPES),
        session=st.sampled_from(SESSIONS),
        priority=st.integers(-1, 2),
        delay=st.sampled_from([0.0, 0.0, 0.0, 1.03, 2.53, 33.03]),
        patience=st.sampled_from([None, None, None, 0.05, 0.4, 2.27]),
    )
    def submit(
        self,
        id: str,
        type: str,
        session: str | None,
        priority: int,
        delay: float,
        patience: float | None,
    ) -> None:
        """Submit a job, perhaps not waiting for the answer."""
        if self.dispatcher.state is not DispatcherState.RUNNING:
            return
        job = Job(type=type, id=id, session=session, priority=priority)
        expected = self.model.refusal(job, self.now)
        if expected is not None and not self.shadow.limbo:
            self._expect_refusal(job, expected)
            return
        if expected is None:
            self._offer(job)
            if delay:
                self.shadow.dues[id] = self.now + delay
            self.guest.spawn(self._submit, job, delay, patience)
            self.guest.settle()

    def _expect_refusal(self, job: Job, expected: str) -> None:
        async def submit() -> None:
            try:
                await self.dispatcher.submit(job)
            except (DuplicateJobError, QueueFullError):
                return
            except CsjdError as error:
                life.complain(f"{job.id} was refused by {error!r}, and should be: {expected}")
            else:
                life.complain(f"{job.id} was accepted, and should not be: {expected}")

        life = self.shadow
        self.guest.spawn(submit)
        self.guest.settle()

    def _offer(self, job: Job) -> None:
        self.promises.offered.add(job.id)
        self.model.reserved[job.id] = job

    def _take_back(self, life: Life, job_id: str) -> None:
        """Nothing has come of what was handed in."""
        life.promises.offered.discard(job_id)
        life.model.reserved.pop(job_id, None)
        life.dues.pop(job_id, None)

    async def _submit(self, job: Job, delay: float, patience: float | None) -> None:
        life = self.shadow
        receipt = None
        try:
            with trio.move_on_after(float("inf") if patience is None else patience) as scope:
                receipt = await self.dispatcher.submit(job, delay=delay)
        except (DuplicateJobError, QueueFullError) as error:
            life.complain(f"{job.id}: {error!r}, and there is no reason for it")
        except JobStoreError as error:
            self._refused_by_the_store(life, job.id, error)
        else:
            if receipt is not None:
                self._acknowledged(life, receipt)
                if self.now - scope.deadline > self.config.commit_grace + _INSTANT:
                    life.complain(f"{job.id} kept its caller beyond the grace")
            elif not life.dead:
                self._given_up(life, job.id, scope.deadline)

    def _refused_by_the_store(self, life: Life, job_id: str, error: JobStoreError) -> None:
        if life.dead:
            return
        self.tally["the store was full"] += isinstance(error, JobStoreFullError)
        if isinstance(error, (JobStoreFullError, JobStoreClosedError)):
            self._take_back(life, job_id)
        elif not life.failed:
            life.complain(f"{job_id}: {error!r}, and the store goes on")

    def _acknowledged(self, life: Life, receipt: Receipt) -> None:
        job_id = receipt.job.id
        if job_id in life.promises.offered:
            life.complain(f"{job_id} was acknowledged and not accepted")

    def _given_up(self, life: Life, job_id: str, deadline: float) -> None:
        """Whoever submitted it was cancelled: nothing has happened, unless it took very long."""
        if job_id not in life.promises.offered:
            life.complain(f"{job_id} was accepted, and the caller cancelled")
        elif self.now - deadline < self.config.commit_grace - _INSTANT:
            self._take_back(life, job_id)
            self.tally["a submit was withdrawn"] += 1
        else:
            life.limbo.add(job_id)
            self.tally["a submit outlasted its grace"] += 1

    @rule(
        numbers=st.lists(
            st.tuples(st.sampled_from(IDS), st.sampled_from(SESSIONS)), min_size=2, max_size=5
        ),
        patience=st.sampled_from([None, 0.05, 0.3]),
    )
    def rush(self, numbers: list[tuple[str, str | None]], patience: float | None) -> None:
        """Submit jobs at the same time, the first patiently."""
        if self.dispatcher.state is not DispatcherState.RUNNING or self.shadow.limbo:
            return
        wait: float | None = None
        for name, session in numbers:
            job = Job(type="plain", id=name, session=session)
            if self.model.refusal(job, self.now) is None:
                self._offer(job)
                self.guest.spawn(self._submit, job, 0.0, wait)
                if wait is None:
                    self.guest.settle()
                wait = patience
        self.guest.settle()

    @precondition(lambda self: self.running)
    @rule(deeds=st.lists(st.sampled_from(_DEEDS), min_size=2, max_size=8))
    def work(self, deeds: list[str]) -> None:
        """Let handlers get on, one after the other."""
        for deed in deeds:
            if self.running:
                running = self.running[min(self.running)]
                running.deed = deed
                running.seconds = 11.41
                running.told.set()
                self.guest.settle()

    @rule(numbers=st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(SESSIONS)), max_size=8))
    def submit_batch(self, numbers: list[tuple[str, str | None]]) -> None:
        """Submit jobs together."""
        if self.dispatcher.state is not DispatcherState.RUNNING or self.shadow.limbo:
            return
        jobs = [Job(type="plain", id=name, session=session) for name, session in numbers]
        expected: list[str | None] = []
        for job in jobs:
            expected.append(self.model.refusal(job, self.now))
            if expected[-1] is None:
                self._offer(job)
        self.guest.spawn(self._submit_batch, jobs, expected)
        self.guest.settle()

    async def _submit_batch(self, jobs: list[Job], expected: list[str | None]) -> None:
        life = self.shadow
        report = await self.dispatcher.submit_batch(jobs)
        if life.dead:
            return
        if report.accepted + len(report.errors) != len(jobs):
            life.complain(f"a batch report contradicts itself: {report}")
        for position, job in enumerate(jobs):
            receipt, error = report.receipts[position], report.errors.get(position)
            if expected[position] is not None:
                if receipt is not None or isinstance(error, JobStoreError):
                    life.complain(f"{job.id}: {error!r}, not {expected[position]}")
            elif receipt is not None:
                self._acknowledged(life, receipt)
            elif isinstance(error, JobStoreError):
                self._refused_by_the_store(life, job.id, error)
            else:
                life.complain(f"{job.id}: {error!r}, and there is no reason for it")

    @rule(id=st.sampled_from(IDS))
    def cancel(self, id: str) -> None:
        """Cancel a job, wherever it is; without a receipt nobody is told when that is durable."""
        lives = self.model.find(id) is not None
        assert self._plain(lambda: self.dispatcher.cancel(id)) is lives or self.shadow.dead

    @rule(id=st.sampled_from(IDS), session=st.sampled_from(SESSIONS))
    def submit_and_cancel(self, id: str, session: str | None) -> None:
        """Submit a job, cancel it, and wait until that is durable."""
        job = Job(type="plain", id=id, session=session)
        if self.dispatcher.state is not DispatcherState.RUNNING or self.shadow.limbo:
            return
        if self.model.refusal(job, self.now) is None:
            self._offer(job)
            self.guest.spawn(self._submit_and_cancel, job)
            self.guest.settle()

    async def _submit_and_cancel(self, job: Job) -> None:
        life = self.shadow
        try:
            receipt = await self.dispatcher.submit(job)
        except JobStoreError as error:
            self._refused_by_the_store(life, job.id, error)
            return
        self._acknowledged(life, receipt)
        receipt.cancel()
        with contextlib.suppress(CsjdError):
            outcome = await receipt.outcome()
            again = life.model.find(job.id) is not None or job.id in life.promises.offered
            if isinstance(outcome, Cancelled) and not life.dead and not again:
                life.promises.gone(job.id)

    @precondition(lambda self: self.promises.dead)
    @rule(data=st.data(), again=st.booleans())
    def open_a_dead_letter(self, data: st.DataObject, again: bool) -> None:
        """Requeue a dead letter, or throw it away."""
        job_id = data.draw(st.sampled_from(sorted(self.promises.dead)))
        life = self.shadow
        if self.dispatcher.state is not DispatcherState.RUNNING or life.limbo:
            return
        if job_id in self.model.reserved:  # perhaps it is being requeued just now
            return
        if not again:
            self.guest.spawn(self._discard, job_id)
        elif self.model.find(job_id) is None:
            self.guest.spawn(self._requeue, job_id)
        self.guest.settle()

    async def _requeue(self, job_id: str) -> None:
        life = self.shadow
        letters = await self.dispatcher.dead_letters()
        if life.dead:
            return
        [letter] = [each for each in letters if each.job.id == job_id]
        full = life.model.lacks_room(letter.job, self.now)
        if not full:
            self._offer(letter.job)
            life.promises.dead_changed.add(job_id)
        try:
            await self.dispatcher.requeue(job_id)
        except QueueFullError as error:
            if not full:
                life.complain(f"{job_id} cannot be requeued: {error!r}")
        except JobStoreError as error:
            self._refused_by_the_store(life, job_id, error)
        else:
            if not life.dead and (full or job_id in life.promises.offered):
                life.complain(f"{job_id} was requeued and not accepted, or there was no room")

    async def _discard(self, job_id: str) -> None:
        life = self.shadow
        with contextlib.suppress(JobStoreError):
            await self.dispatcher.discard(job_id)
            if not life.dead and job_id not in life.promises.dead:
                life.promises.dead_changed.discard(job_id)

    @rule(seconds=st.sampled_from([0.06, 0.25, 1.0, 2.5, 6.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.guest.pass_time(seconds)

    @rule(workers=st.integers(1, 4))
    def resize(self, workers: int) -> None:
        """Change the number of workers."""
        self.guest.call(self.dispatcher.resize, workers)

    # --- what holds after every step -----------------------------------------------------------

    @invariant()
    def agrees_with_the_model(self) -> None:
        """Nothing is lost, invented, in the wrong state or counted wrongly."""
        if not hasattr(self, "dispatcher"):
            return
        self.age += 1
        self._catch_up()
        model, m = self.model, self._plain(self.dispatcher.metrics)
        assert (m.accepted, m.live) == (model.accepted, len(model.jobs))
        assert (m.succeeded, m.failed) == (model.succeeded, model.failed)
        assert m.cancelled == model.cancelled
        if not model.stopped:
            model.fall_due(self.now, draining=self.shadow.draining)
        counts = model.counts()
        seen = [m.running, m.detached, m.ready, m.waiting, m.scheduled]
        states = (JobState.READY, JobState.WAITING, JobState.SCHEDULED)
        expected = [counts[JobState.RUNNING], counts[JobState.DETACHED]]
        expected += [counts[each] for each in states]
        if self.dispatcher.state is not DispatcherState.RUNNING:
            seen[2:], expected[2:] = [sum(seen[2:])], [sum(expected[2:])]
        elif any(not each.placed and (each.due or 0) <= self.now for each in model.jobs):
            # The store is being told of their places: neither here nor there.
            seen[3:], expected[3:] = [sum(seen[3:])], [sum(expected[3:])]
        assert seen == expected, f"running, detached, ready, waiting, scheduled: {seen}: {expected}"
        begun = {each.job.id for each in model.jobs if each.running is not None}
        at_work = set(self.running)
        assert at_work <= begun, f"{at_work} at work, {begun} begun"
        assert at_work == begun or self.store.writing, f"{begun - at_work} never begin"

    @invariant()
    def nothing_is_slept_through(self) -> None:
        """No lane idles that could take a job."""
        if not self._is_writing_the_end():
            super().nothing_is_slept_through()

    @invariant()
    def no_stop_dawdles(self) -> None:
        """A drain that has nothing to wait for is over."""
        if not self._is_writing_the_end():
            super().no_stop_dawdles()

    def _is_writing_the_end(self) -> bool:
        if not hasattr(self, "dispatcher"):
            return True
        return self.shadow.draining and self.store.writing > 0

    # --- the end -------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Let everything go well from now on: then all must end, on the disk too."""
        if not hasattr(self, "guest"):
            return
        try:
            if hasattr(self, "dispatcher") and self.shadow.wrong is None:
                self._see_it_end()
        finally:
            self._put_down()
            self._schedule.__exit__(None, None, None)
            self._wall_clock.stop()

    def _see_it_end(self) -> None:
        self.world.heal()
        self.world.at_change(1 << 60, lambda: None)
        for _ in range(3):  # what failed before may show only now
            self._work_all_off()
            self.leave()
            self._bury()
            if self.death is Death.CLEAN and not self.in_trouble:
                break
            self._live_on()
        recovery = self.world.store(self.wall()).recover()
        self.promises.check(recovery, self.before, self.death, set(), self.died)
        assert not recovery.live, f"still in the store, and nothing is owed: {recovery.live}"

    def _work_all_off(self) -> None:
        for _ in range(30):
            self._catch_up()
            self.obedient = True
            for running in self.running.values():
                running.deed = "return"
                running.told.set()
            self.guest.pass_time(100)
            if self.shadow.failed:
                continue
            if self.dispatcher.state is DispatcherState.STOPPED:
                self.guest.call(self.dispatcher.start)
            for what in ({}, *({"type": each} for each in TYPES)):
                self._plain(lambda what=what: self.dispatcher.resume(**what))
            for session in SESSIONS[1:]:
                self._plain(lambda session=session: self.dispatcher.resume(session=session))
            if not self._plain(self.dispatcher.metrics).live:
                break
        assert self.shadow.wrong is None, self.shadow.wrong
        assert not self.model.jobs, f"never ended: {self.model.unfinished()}"


class MemoryMachine(StoreMachine):
    """The same over a store that keeps every commit: what it finds is the dispatcher's."""

    def make_world(self) -> World:
        """Return an empty memory."""
        return MemoryWorld()


async def _tasks_left() -> list[str]:
    await trio.lowlevel.checkpoint()
    return csjd_tasks()
