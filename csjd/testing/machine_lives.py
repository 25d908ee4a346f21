"""
The rule-based machine of `machine_store`, but for its jobs: lives, deaths and the world.

Needs hypothesis. A life begins with what the store tells, which is held against what was
promised; it ends by a rule or by the world's doing. After every step a life that is over
is followed by the next.
"""

import contextlib
import errno
from collections import Counter
from random import Random
from typing import ClassVar
from unittest.mock import patch

import trio
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from trio.testing import MockClock

from csjd import (
    Config,
    CsjdError,
    Dispatcher,
    DispatcherState,
    Job,
    JobState,
    JobStoreError,
    Registry,
    Retry,
    open_dispatcher,
)
from csjd._runtime.journal import FULL_RETRY
from csjd.stores import Recovery
from csjd.testing.crowding import crowded_configs
from csjd.testing.determinism import deterministic_schedule
from csjd.testing.guest import GuestStuckError, TrioGuest
from csjd.testing.leaks import csjd_tasks
from csjd.testing.life import Life
from csjd.testing.machine_dispatcher import (
    SESSIONS,
    TYPES,
    DispatcherMachine,
    Running,
)
from csjd.testing.promises import Death, DurableModel, Promises
from csjd.testing.simfs import SimFs
from csjd.testing.worlds import DiskWorld, SlowStore, World

QUIET = 5.0
"""Seconds without news after which all that happened must have been written."""
_EPOCH = 1_700_000_000.0
_INSTANT = 1e-6
_RETRIES = [
    Retry(max_attempts=3, min_delay=delay, max_delay=delay, jitter=0) for delay in (1.13, 9.13)
]
_FAULTS = (
    *("write", "write", "write", "sync", "sync"),
    *("allocate", "truncate", "create", "rename", "sync_directory"),
)


class LivesMachine(DispatcherMachine):
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
        config=crowded_configs(
            duplicate_window=st.sampled_from([0.0, 3.0, 30.0]),
            max_pending=st.sampled_from([None, None, 8]),
            max_pending_per_session=st.sampled_from([None, None, 3]),
            detach_budget=st.sampled_from([0, 1]),
            stop_grace=st.just(2.03),
            retry=st.sampled_from(_RETRIES),
            commit_grace=st.just(1.7),
            max_crashes=st.sampled_from([1, 2, 3]),
        ),
        least_age=st.sampled_from([0, 5, 5]),
        seed=st.integers(0, 1 << 16),
    )
    def begin(self, config: Config, least_age: int, seed: int) -> None:
        """Open the first dispatcher."""
        self.config = config
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
        try:
            self.guest.close()
        except GuestStuckError:
            raise
        except Exception:
            pass  # whatever a run of the dead ends with

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
        assert at_work == begun or self._waits_for_the_disk(), f"{begun - at_work} never begin"

    def _waits_for_the_disk(self) -> bool:
        """Whether the store is being told of something, or soon will be: it had no room."""
        return self.store.writing > 0 or self.now <= self.store.refused_at + FULL_RETRY + _INSTANT

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
        return self.shadow.draining and self._waits_for_the_disk()

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


async def _tasks_left() -> list[str]:
    await trio.lowlevel.checkpoint()
    return csjd_tasks()
