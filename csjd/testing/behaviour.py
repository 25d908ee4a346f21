"""
Handlers at their worst: what each attempt of a simulated job does is drawn from the seed.

The draw depends on the seed, the job and the attempt alone, never on the order of events,
so that the same job does the same in every interleaving.
"""

import contextvars
import math
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import trio

from csjd import (
    Attempt,
    CsjdError,
    Dispatcher,
    Job,
    PermanentError,
    Registry,
    RetryAfter,
    Snooze,
)
from csjd.testing.checker import Checker
from csjd.testing.threads import blocking

_mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="clean")


class Rude(BaseException):
    """An exception that is no Exception."""


class Misbehaviour:
    """What the handlers of one simulation do."""

    types: tuple[str, ...] = ("plain", "thread", "halting", "final")

    def __init__(self, seed: int, checker: Checker, rate: float) -> None:
        self.seed = seed
        self.checker = checker
        self.rate = rate
        """The share of attempts that do anything but succeed."""
        self.ended = False
        """From now on every attempt succeeds."""
        self.dispatcher: Dispatcher | None = None
        self._children = 0

    def job(self, job_id: str, random: Random, sessions: list[str]) -> Job:
        """Return a job for this simulation."""
        extends = random.random() < 0.1
        return Job(
            type=random.choices(self.types, (6, 2, 1, 1))[0],
            id=job_id,
            payload=random.choice((None, b"x", {"list": [1]})),
            session=random.choice((None, *sessions)),
            priority=random.choice((0, 0, 0, 1, 5, -1)),
            max_attempts=random.choice((None, None, 1, 4)),
            timeout=random.choice((0.5, 2.0, 6.0)),
            metadata={"extends": True} if extends else {},
        )

    # --- handlers --------------------------------------------------------------------------

    async def run(self, job: Job, attempt: Attempt) -> Any:
        """Do one attempt of an async type."""
        self._enter(job, attempt)
        returned = False
        try:
            result = await self._do(job, attempt)
            returned = result != "leaked"
            return result
        except trio.Cancelled:
            self.checker.hit_by_cancel(job)
            raise
        finally:
            self.checker.leave(job, returned=returned)

    def run_in_thread(self, job: Job, attempt: Attempt) -> Any:
        """Do one attempt of a plain type, in a virtual thread."""
        self._enter(job, attempt)
        random = self._random(job, attempt)
        seconds = 0.0 if random.random() < 0.3 else random.expovariate(1.0)
        if random.random() < self.rate and not self.ended:
            seconds = random.choice((0.0, random.uniform(0, 20)))
        return blocking(seconds, lambda cancelled: self._end_thread(job, random, cancelled))

    def _end_thread(self, job: Job, random: Random, cancelled: bool) -> Any:
        if cancelled and random.random() < 0.3 and not self.ended:
            return blocking(random.uniform(0, 3), lambda _: self._end_thread(job, random, False))
        fails = random.random() < self.rate and not self.ended
        self.checker.leave(job, returned=not fails)
        if fails:
            raise ValueError("failed in a thread")
        return "done"

    def _enter(self, job: Job, attempt: Attempt) -> None:
        self.checker.enter(job, attempt.number)
        if _mark.get() != "clean":
            self.checker.complain(f"{job.id} sees a context variable that {_mark.get()} has set")

    def _random(self, job: Job, attempt: Attempt) -> Random:
        return Random(f"{self.seed}/{job.id}/{attempt.number}/{attempt.deadline}")

    async def _do(self, job: Job, attempt: Attempt) -> Any:
        random = self._random(job, attempt)
        if self.ended or random.random() >= self.rate:
            if random.random() < 0.5:
                await trio.sleep(random.uniform(0, 0.4))
            if job.payload == {"list": [1]}:
                job.payload["list"].append(2)
            elif isinstance(job.payload, dict):
                self.checker.complain(f"{job.id} got a payload that another attempt changed")
            return "done"
        deeds: tuple[Callable[[Job, Attempt, Random], Awaitable[Any]], ...] = (
            self._fail,
            self._steer,
            self._hang,
            self._ignore_cancel,
            self._swallow_cancel,
            self._translate_cancel,
            self._spawn,
            self._change_context,
            self._leak_scope,
            self._leak_nursery,
            self._submit_more,
            self._cancel_another,
            self._cancel_itself,
            self._be_rude,
            self._extend,
            self._stop,
            self._own_scope,
        )
        return await random.choice(deeds)(job, attempt, random)

    # --- deeds -----------------------------------------------------------------------------

    async def _fail(self, job: Job, attempt: Attempt, random: Random) -> None:
        await trio.sleep(random.choice((0, random.uniform(0, 3))))
        raise random.choice((ValueError("no"), TimeoutError("a client's"), PermanentError("never")))

    async def _steer(self, job: Job, attempt: Attempt, random: Random) -> None:
        await trio.lowlevel.checkpoint()
        signals = [Snooze(random.uniform(0, 5)), RetryAfter(random.uniform(0, 5))]
        match random.randrange(4):
            case 0:
                raise signals[0]
            case 1:
                raise signals[1]
            case 2:
                raise ExceptionGroup("both", [*signals, ValueError("and more")])
            case _:
                raise ExceptionGroup("nested", [ExceptionGroup("in", [signals[0]]), signals[0]])

    async def _hang(self, job: Job, attempt: Attempt, random: Random) -> None:
        await trio.sleep_forever()

    async def _ignore_cancel(self, job: Job, attempt: Attempt, random: Random) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(random.uniform(0, 15))
        if random.random() < 0.5:
            raise ValueError("deaf, and failed")
        return "deaf"

    async def _swallow_cancel(self, job: Job, attempt: Attempt, random: Random) -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:  # noqa: ASYNC103  a handler that swallows it is the point
            self.checker.hit_by_cancel(job)
        if random.random() < 0.5:
            with trio.CancelScope(shield=True):
                await trio.sleep(random.uniform(0, 4))
        return "swallowed"

    async def _translate_cancel(self, job: Job, attempt: Attempt, random: Random) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            self.checker.hit_by_cancel(job)
            raise ValueError("translated") from cancelled  # noqa: ASYNC104  translating it is the point

    async def _spawn(self, job: Job, attempt: Attempt, random: Random) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(random.randint(1, 3)):
                nursery.start_soon(self._child, job, random)

    async def _child(self, job: Job, random: Random) -> None:
        self.checker.stay(job)
        try:
            await trio.sleep(random.uniform(0, 3))
            if random.random() < 0.3:
                raise ValueError("a child failed")
        finally:
            self.checker.leave(job)

    async def _change_context(self, job: Job, attempt: Attempt, random: Random) -> None:
        _mark.set(job.id)
        await trio.sleep(random.uniform(0, 1))
        if random.random() < 0.3:
            raise ValueError("after a change of context")

    async def _leak_scope(self, job: Job, attempt: Attempt, random: Random) -> str:
        await trio.sleep(random.uniform(0, 1))
        trio.CancelScope(shield=random.random() < 0.5).__enter__()
        return "leaked"

    async def _leak_nursery(self, job: Job, attempt: Attempt, random: Random) -> str:
        nursery = await trio.open_nursery().__aenter__()
        nursery.start_soon(self._stubborn_child, job, random)
        await trio.sleep(random.uniform(0, 1))
        return "leaked"

    async def _stubborn_child(self, job: Job, random: Random) -> None:
        self.checker.stay(job)
        try:
            with trio.CancelScope(shield=True):
                await trio.sleep(random.uniform(0, 2))
        finally:
            self.checker.leave(job)

    async def _submit_more(self, job: Job, attempt: Attempt, random: Random) -> None:
        assert self.dispatcher is not None
        if job.id.count("+") > 2:
            return
        self._children += 1
        sessions = [job.session] if job.session is not None else ["s0"]
        child = self.job(f"{job.id}+{self._children}", random, sessions)
        wait = random.random() < 0.3
        try:
            receipt = await self.dispatcher.submit(child, wait=wait)
            if random.random() < 0.5:
                await receipt.outcome()
        except CsjdError:
            pass  # no room, closed, or the wait would never have ended

    async def _cancel_another(self, job: Job, attempt: Attempt, random: Random) -> None:
        assert self.dispatcher is not None
        self.dispatcher.cancel(random.choice(list(self.checker.live)))
        await trio.sleep(random.uniform(0, 1))

    async def _cancel_itself(self, job: Job, attempt: Attempt, random: Random) -> None:
        assert self.dispatcher is not None
        self.dispatcher.cancel(job.id)
        if random.random() < 0.5:
            await trio.sleep(1)

    async def _be_rude(self, job: Job, attempt: Attempt, random: Random) -> None:
        await trio.sleep(random.uniform(0, 1))
        raise random.choice((Rude(), SystemExit(3), GeneratorExit(), RecursionError()))

    async def _extend(self, job: Job, attempt: Attempt, random: Random) -> None:
        if job.metadata.get("extends"):
            deadline = attempt.deadline
            if attempt.extend(3.0) and not math.isclose(attempt.deadline, deadline + 3.0):
                self.checker.complain(f"{job.id} was not extended by what it asked for")
        attempt.progress("half")
        await trio.sleep(random.uniform(0, 8))

    async def _stop(self, job: Job, attempt: Attempt, random: Random) -> None:
        assert self.dispatcher is not None
        if random.random() < 0.2:
            grace = random.uniform(0, 3)
            self.checker.stop_asked(grace)
            await self.dispatcher.stop(grace=grace)

    async def _own_scope(self, job: Job, attempt: Attempt, random: Random) -> None:
        with trio.move_on_after(random.uniform(0, 1)):
            await trio.sleep(random.uniform(0, 2))


def register_all(registry: Registry, misbehaviour: Misbehaviour) -> None:
    """Register the types of *misbehaviour*."""
    registry.register("plain", misbehaviour.run)
    registry.register("thread", misbehaviour.run_in_thread)
    registry.register("halting", misbehaviour.run, on_failure="halt")
    registry.register("final", misbehaviour.run, retry_on_timeout=False)
