"""
A storm of everything that moves work or lanes, to see whether a wake-up gets lost in it.

    python -m csjd.testing.storm SEED

repeats one.
"""

import math
import sys
from random import Random

import attrs
import trio

from csjd import (
    Config,
    Dispatcher,
    DispatcherState,
    Job,
    Registry,
    Retry,
    StuckHandlersError,
    WorkerStats,
)
from csjd.testing.checker import PromiseBrokenError
from csjd.testing.idle import IdleWatch
from csjd.testing.virtual import open_test_dispatcher, run_virtual
from csjd.testing.wakeups import check_wakeups

_TYPES = ("a", "b")


def stress(seed: int) -> None:
    """
    Run a small storm of everything that moves work or lanes; look after every step.

    Raises:
        PromiseBrokenError: Naming the seed, and what was slept through.
    """
    storm = _Storm(seed)
    run_virtual(storm.run, seed=seed, instruments=[IdleWatch(storm.look)])


class _Storm:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.dispatcher: Dispatcher | None = None
        self.found: str | None = None
        self.submitted = 0
        self.sessions = [f"s{i}" for i in range(self.random.choice((1, 2, 6)))]

    async def run(self) -> None:
        random = self.random
        config = Config(
            workers=random.randint(1, 4),
            lanes=random.randint(1, 3),
            job_timeout=1.0,
            detach_budget=random.choice((0, 1, 2)),
            detach_grace=0.5,
            retry=Retry(max_attempts=2, min_delay=0.3),
            virtual_nodes=5,
            session_idle=random.choice((0.0, 60.0)),
            stop_grace=math.inf,
        )
        registry = Registry()
        for name in _TYPES:
            registry.register(name, self._handle)
        async with open_test_dispatcher(config, registry=registry, seed=self.seed) as dispatcher:
            self.dispatcher = dispatcher
            for _ in range(random.randint(10, 40)):
                await self._disturb(dispatcher)
                self._verify()
                if random.random() < 0.5:
                    await trio.sleep(random.choice((0.0, 0.1, random.uniform(0, 2))))
            await self._calm(dispatcher)
        self._verify()

    async def _handle(self, job: Job) -> None:
        random = Random(f"{self.seed}/{job.id}/{trio.current_time()}")
        match random.randrange(6):
            case 0 | 1:
                return
            case 2 | 3:
                await trio.sleep(random.choice((0.0, 0.1, 0.3)))
            case 4:
                await trio.sleep(0.2)
                raise ValueError("no")
            case _:
                with trio.CancelScope(shield=True):
                    await trio.sleep(random.uniform(0, 4))

    async def _disturb(self, dispatcher: Dispatcher) -> None:
        random = self.random
        match random.randrange(12):
            case 0 | 1 | 2:
                await dispatcher.submit_batch([self._job() for _ in range(random.randint(1, 8))])
            case 3:
                await dispatcher.submit(self._job(), delay=random.uniform(0, 2))
            case 4:
                await dispatcher.resize(random.randint(1, 4))
            case 5:
                dispatcher.add_worker()
                dispatcher.remove_worker(min(each.worker for each in self._staying(dispatcher)))
            case 6:
                dispatcher.pause(**self._part())
            case 7:
                dispatcher.resume(**self._part())
            case 8:
                dispatcher.cancel(f"j{random.randint(1, self.submitted + 1)}")
            case 9 | 10:
                await self._call_and_remove(dispatcher)
            case _ if random.random() < 0.5:
                await dispatcher.stop(grace=random.choice((0, 1.0)))
                await self._restart(dispatcher)
            case _:
                dispatcher.resume()

    async def _call_and_remove(self, dispatcher: Dispatcher) -> None:
        """Remove workers while calls to their lanes are under way."""
        dispatcher.pause()
        jobs = [attrs.evolve(self._job(), session=None) for _ in range(self.random.randint(1, 2))]
        await dispatcher.submit_batch(jobs)
        await trio.sleep(self.random.choice((0, 5, 5)))  # time for lanes to park
        dispatcher.resume()
        workers = [each.worker for each in self._staying(dispatcher)]
        for worker in workers[: self.random.randint(0, len(workers) - 1)]:
            dispatcher.remove_worker(worker)

    def _staying(self, dispatcher: Dispatcher) -> list[WorkerStats]:
        return [each for each in dispatcher.worker_stats() if not each.leaving]

    async def _restart(self, dispatcher: Dispatcher) -> None:
        while dispatcher.state is not DispatcherState.RUNNING:
            try:
                await dispatcher.start()
            except StuckHandlersError:
                await trio.sleep(1)

    async def _calm(self, dispatcher: Dispatcher) -> None:
        """Resume everything; then every job must end."""
        dispatcher.resume()
        for name in _TYPES:
            dispatcher.resume(type=name)
        for session in self.sessions:
            dispatcher.resume(session=session)
        for _ in range(500):
            if not dispatcher.metrics().live:
                return
            self._verify()
            await trio.sleep(5)
        self.found = f"{dispatcher.metrics().live} jobs never ended"

    def _job(self) -> Job:
        random = self.random
        self.submitted += 1
        return Job(
            type=random.choice(_TYPES),
            id=f"j{self.submitted}",
            session=random.choice((None, *self.sessions)),
            priority=random.choice((0, 0, 1)),
        )

    def _part(self) -> dict[str, str]:
        random = self.random
        return random.choice(
            ({}, {"type": random.choice(_TYPES)}, {"session": random.choice(self.sessions)})
        )

    def look(self) -> None:
        if self.dispatcher is not None and self.found is None:
            self.found = check_wakeups(self.dispatcher)

    def _verify(self) -> None:
        if self.found is not None:
            raise PromiseBrokenError(
                f"seed {self.seed}: {self.found}\n"
                f"repeat it with: python -m csjd.testing.storm {self.seed}"
            )


if __name__ == "__main__":
    stress(int(sys.argv[1]))
