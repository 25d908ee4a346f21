"""
One whole run of a real dispatcher per seed, in virtual time, with everything going wrong.

The seed decides the settings, what each attempt of each job does, what the clients do and
when, and the order in which Trio runs the tasks. A `Checker` judges every event. First
comes a phase with faults; then the faults end, everything is resumed, and each job that
is still owed must reach its end: a dispatcher that does nothing at all is safe, too.

    python -m csjd.testing.simulation SEED [SEEDS]

replays one run, or SEEDS of them from SEED on.
"""

import contextlib
import hashlib
import math
import sys
from random import Random

import attrs
import trio

from csjd import (
    Config,
    CsjdError,
    Dispatcher,
    DispatcherState,
    DuplicateJobError,
    Event,
    Job,
    QueueFullError,
    Registry,
    Retry,
)
from csjd.testing.behaviour import Misbehaviour, register_all
from csjd.testing.checker import Checker, PromiseBrokenError
from csjd.testing.idle import IdleWatch
from csjd.testing.leaks import assert_no_leaks
from csjd.testing.virtual import open_test_dispatcher, run_virtual
from csjd.testing.wakeups import check_wakeups

_FAULTS = 25.0  # virtual seconds that the first phase lasts
_OWED = 3000.0  # virtual seconds in which everything must have ended after it


@attrs.frozen
class Report:
    """What a run was like."""

    seed: int
    events: int
    accepted: int
    succeeded: int
    trace: str
    """A hash of all events: the same seed gives the same."""


class SimulationFailedError(AssertionError):
    """A run broke a promise; the message says how to repeat it."""


def simulate(seed: int) -> Report:
    """
    Run one seed.

    Raises:
        SimulationFailedError: From what went wrong.
    """
    try:
        simulation = _Simulation(seed)
        return run_virtual(simulation.run, seed=seed, instruments=[IdleWatch(simulation.look)])
    except Exception as error:
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise SimulationFailedError(
            f"seed {seed}: {type(first).__name__}: {first}\n"
            f"repeat it with: python -m csjd.testing.simulation {seed}"
        ) from error


class _Simulation:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        retry = Retry(max_attempts=random.choice((1, 2, 3, 5)), max_delay=8.0)
        self.config = Config(
            workers=random.choice((1, 1, 2, 3, 5)),
            lanes=random.choice((1, 1, 2, 3)),
            max_pending=random.choice((None, None, 5, 20)),
            max_pending_per_session=random.choice((None, None, 3)),
            max_sessions=random.choice((None, None, 2, 4)),
            retry=retry,
            job_timeout=random.choice((1.0, 4.0)),
            duplicate_window=random.choice((0.0, 2.0, 15.0)),
            detach_budget=random.choice((0, 0, 1, 3)),
            detach_grace=random.choice((0.5, 1.0, 2.0)),
            stop_grace=random.choice((0.0, 3.0, 30.0)),
            virtual_nodes=random.choice((1, 10)),
            session_idle=random.choice((0.0, 5.0, 60.0)),
            history=random.choice((3, 1000)),
        )
        self.checker = Checker(
            lanes=self.config.lanes,
            detach_budget=self.config.detach_budget,
            detach_grace=self.config.detach_grace,
            duplicate_window=self.config.duplicate_window,
            max_attempts=retry.max_attempts,
            final_types=frozenset({"final"}),
            dead_letters=self.config.history,
        )
        self.sessions = [f"s{i}" for i in range(random.choice((1, 3, 8)))]
        self.misbehaviour = Misbehaviour(seed, self.checker, random.choice((0.05, 0.3, 0.7)))
        self.jobs = 0
        self.looks = 0
        self.meddling = random.choice((0.0, 0.0, 0.05))
        """The share of events at which an observer changes something."""

    async def run(self) -> Report:
        registry = Registry()
        register_all(registry, self.misbehaviour)
        with trio.fail_after(_FAULTS + 10 * _OWED):
            async with open_test_dispatcher(
                self.config,
                registry=registry,
                observers=[self.checker, self._meddle],
                seed=self.seed,
            ) as dispatcher:
                self.misbehaviour.dispatcher = dispatcher
                await self._with_faults(dispatcher)
                await self._without_faults(dispatcher)
                self.checker.stop_asked(self.config.stop_grace)
        self.checker.verify()
        assert_no_leaks()
        checker = self.checker
        return Report(
            seed=self.seed,
            events=len(checker.events),
            accepted=sum(checker.ended.values()),
            succeeded=checker.ended["Succeeded"],
            trace=hashlib.sha256("\n".join(checker.events).encode()).hexdigest()[:16],
        )

    # --- the phases ------------------------------------------------------------------------

    async def _with_faults(self, dispatcher: Dispatcher) -> None:
        with trio.move_on_after(_FAULTS):
            async with trio.open_nursery() as nursery:
                for number in range(self.random.choice((1, 2, 3))):
                    nursery.start_soon(self._client, dispatcher, Random(f"{self.seed}/{number}"))

    async def _without_faults(self, dispatcher: Dispatcher) -> None:
        """Everything owed must come to its end, once nobody disturbs it."""
        self.misbehaviour.ended = True
        await self._settle_and_start(dispatcher)
        for kind in (None, *self.misbehaviour.types):
            dispatcher.resume(type=kind)
        for session in self.sessions:
            dispatcher.resume(session=session)
        give_up = trio.current_time() + _OWED
        while self.checker.live:
            await trio.sleep(20)
            self.checker.verify()
            for session in self.sessions:  # a type may halt its session again
                dispatcher.resume(session=session)
            if trio.current_time() > give_up:
                owed = sorted(self.checker.live)
                raise PromiseBrokenError(f"still owed without any faults: {owed}")

    async def _settle_and_start(self, dispatcher: Dispatcher) -> None:
        for _ in range(100):
            if dispatcher.state is DispatcherState.RUNNING:
                return
            try:
                await dispatcher.start()
            except CsjdError:  # too many handlers are stuck; they will end
                await trio.sleep(10)
        raise PromiseBrokenError("the dispatcher does not start again")

    def look(self) -> None:
        """Judge the present state; called whenever every task waits."""
        dispatcher = self.misbehaviour.dispatcher
        if dispatcher is None or self.checker.broken or dispatcher.state is DispatcherState.CLOSED:
            return
        self.checker.check_deadlines()
        self.looks += 1
        if self.looks % 8 == 0:  # metrics are the dearest part of a look
            self.checker.compare(dispatcher.metrics())
        if (found := check_wakeups(dispatcher)) is not None:
            self.checker.complain(found)

    # --- the clients -----------------------------------------------------------------------

    async def _client(self, dispatcher: Dispatcher, random: Random) -> None:
        actions = {
            self._submit: 30,
            self._submit_batch: 8,
            self._submit_again: 4,
            self._stop_and_start: 2,
            self._cancel: 5,
            self._resize: 3,
            self._pause: 4,
            self._resume: 8,
            self._dead_letters: 3,
            self._look: 2,
        }
        patience = random.choice((0.05, 0.5, 2.0))
        while True:
            [action] = random.choices(list(actions), list(actions.values()))
            self.checker.verify()
            # What is refused changed nothing: the checker would notice if it had.
            with contextlib.suppress(CsjdError):
                await action(dispatcher, random)
            if random.random() < 0.5:
                await trio.sleep(random.expovariate(1 / patience))

    def _job(self, random: Random) -> Job:
        self.jobs += 1
        return self.misbehaviour.job(f"j{self.jobs}", random, self.sessions)

    async def _submit(self, dispatcher: Dispatcher, random: Random) -> None:
        job = self._job(random)
        delay = random.choice((0, 0, 0, random.uniform(0, 10)))
        if delay:
            due = trio.current_time() + delay
            job = attrs.evolve(job, metadata={**job.metadata, "due": due})
        wait = random.random() < 0.2
        with trio.move_on_after(random.uniform(0, 5) if wait else math.inf):
            await dispatcher.submit(job, wait=wait, delay=delay)

    async def _submit_batch(self, dispatcher: Dispatcher, random: Random) -> None:
        jobs = [self._job(random) for _ in range(random.randint(1, 12))]
        wait = random.random() < 0.2
        with trio.move_on_after(random.uniform(0, 5) if wait else math.inf):
            try:
                report = await dispatcher.submit_batch(jobs, wait=wait)
            except (DuplicateJobError, QueueFullError) as error:
                self.checker.complain(f"a batch raised for one bad job: {error}")
                return
            taken = sum(receipt is not None for receipt in report.receipts)
            if taken != report.accepted or len(report.errors) != len(jobs) - taken:
                self.checker.complain(f"a batch report contradicts itself: {report}")

    async def _submit_again(self, dispatcher: Dispatcher, random: Random) -> None:
        """Offer an id that lives or has lived."""
        if self.jobs:
            number = random.randint(max(1, self.jobs - 30), self.jobs)
            await dispatcher.submit(self.misbehaviour.job(f"j{number}", random, self.sessions))

    async def _stop_and_start(self, dispatcher: Dispatcher, random: Random) -> None:
        grace = random.choice((None, 0, random.uniform(0, 10)))
        self.checker.stop_asked(self.config.stop_grace if grace is None else grace)
        with trio.move_on_after(random.choice((0.5, math.inf))):
            await dispatcher.stop(grace=grace)
        await trio.sleep(random.choice((0, random.uniform(0, 5))))
        await dispatcher.start()

    async def _cancel(self, dispatcher: Dispatcher, random: Random) -> None:
        if self.checker.live:
            dispatcher.cancel(random.choice(list(self.checker.live)))

    async def _resize(self, dispatcher: Dispatcher, random: Random) -> None:
        match random.randrange(3):
            case 0:
                await dispatcher.resize(random.randint(1, 5))
            case 1:
                dispatcher.add_worker()
            case _:
                workers = [each.worker for each in dispatcher.worker_stats() if not each.leaving]
                if len(workers) > 1:
                    dispatcher.remove_worker(random.choice(workers))

    async def _pause(self, dispatcher: Dispatcher, random: Random) -> None:
        match random.randrange(3):
            case 0:
                dispatcher.pause()
            case 1:
                dispatcher.pause(type=random.choice(self.misbehaviour.types))
            case _:
                dispatcher.pause(session=random.choice(self.sessions))

    async def _resume(self, dispatcher: Dispatcher, random: Random) -> None:
        match random.randrange(3):
            case 0:
                dispatcher.resume()
            case 1:
                dispatcher.resume(type=random.choice(self.misbehaviour.types))
            case _:
                dispatcher.resume(session=random.choice(self.sessions))

    def _meddle(self, event: Event) -> None:
        """Do, as an observer, what observers may do: call plain methods."""
        dispatcher, random = self.misbehaviour.dispatcher, self.random
        if dispatcher is None or self.misbehaviour.ended or random.random() >= self.meddling:
            return
        if dispatcher.state in (DispatcherState.NEW, DispatcherState.CLOSED):
            return
        match random.randrange(5):
            case 0 if self.checker.live:
                dispatcher.cancel(random.choice(list(self.checker.live)))
            case 1:
                dispatcher.pause(session=random.choice(self.sessions))
            case 2:
                dispatcher.resume(session=random.choice(self.sessions))
            case 3:
                dispatcher.add_worker()
            case _:
                workers = [each.worker for each in dispatcher.worker_stats() if not each.leaving]
                if len(workers) > 1:
                    dispatcher.remove_worker(random.choice(workers))

    async def _dead_letters(self, dispatcher: Dispatcher, random: Random) -> None:
        letters = await dispatcher.dead_letters()
        if letters:
            job_id = random.choice(letters).job.id
            if random.random() < 0.7:
                await dispatcher.requeue(job_id)
            else:
                await dispatcher.discard(job_id)

    async def _look(self, dispatcher: Dispatcher, random: Random) -> None:
        dispatcher.metrics()
        dispatcher.worker_stats()
        dispatcher.session_distribution()
        dispatcher.session_info(random.choice(self.sessions))


def main(arguments: list[str]) -> None:
    """Replay what the command line asks for."""
    first = int(arguments[0]) if arguments else 0
    for seed in range(first, first + (int(arguments[1]) if len(arguments) > 1 else 1)):
        print(simulate(seed))


if __name__ == "__main__":
    main(sys.argv[1:])
