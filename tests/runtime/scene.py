"""A dispatcher on virtual time, with handlers that do what their job's payload says."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

import csjd
from csjd import Dispatcher, Job, Receipt

PATIENCE = 100_000
"""Virtual seconds after which a test fails instead of waiting for ever."""

NO_WAIT = csjd.Retry(max_attempts=3, min_delay=0, jitter=0)
ONCE = csjd.Retry(max_attempts=1)


@asynccontextmanager
async def opened(
    registry: csjd.Registry | None = None,
    *,
    observers: tuple[csjd.Observer, ...] = (),
    **settings: Any,
) -> AsyncIterator[Dispatcher]:
    """Open a dispatcher in a nursery of its own; *settings* are those of `Config`."""
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, csjd.Config(**settings), registry=registry, observers=observers
        ) as dispatcher,
    ):
        with trio.fail_after(PATIENCE):  # noqa: ASYNC100
            yield dispatcher


class Log:
    """A registry whose handlers note what they do."""

    def __init__(self) -> None:
        self.registry = csjd.Registry()
        self.started: list[str] = []
        self.ended: list[str] = []
        self.times: dict[str, list[float]] = {}
        """When each job's attempts began."""
        self.running = 0
        self.most_running = 0

    def handler(self, type: str, **settings: Any) -> Callable[[Any], Any]:
        """Register a handler that is logged."""

        def decorate(function: Any) -> Any:
            async def logged(job: Job, attempt: csjd.Attempt) -> Any:
                self.started.append(job.id)
                self.times.setdefault(job.id, []).append(trio.current_time())
                self.running += 1
                self.most_running = max(self.most_running, self.running)
                try:
                    return await function(job, attempt)
                finally:
                    self.running -= 1
                    self.ended.append(job.id)

            self.registry.register(type, logged, **settings)
            return function

        return decorate


def work() -> Log:
    """
    Return a log with the usual handlers.

    `sleep`: sleeps for its payload, a number. `stubborn`: the same, deaf to cancellation.
    `fail`: raises its payload, an exception. `nothing`: returns its payload at once.
    `script`: each attempt does the next of its payload's steps, and stays at the last.
    """
    log = Log()

    @log.handler("sleep")
    async def sleep(job: Job, attempt: csjd.Attempt) -> str:
        await trio.sleep(job.payload)
        return job.id

    @log.handler("stubborn")
    async def stubborn(job: Job, attempt: csjd.Attempt) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(job.payload)
        return job.id

    @log.handler("nothing")
    async def nothing(job: Job, attempt: csjd.Attempt) -> Any:  # noqa: ASYNC124
        return job.payload

    @log.handler("fail")
    async def fail(job: Job, attempt: csjd.Attempt) -> None:  # noqa: ASYNC124
        raise job.payload

    @log.handler("script")
    async def script(job: Job, attempt: csjd.Attempt) -> Any:
        begun = len(log.times[job.id])
        step = job.payload[min(begun, len(job.payload)) - 1]
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, (int, float)):
            await trio.sleep(step)
        return step

    return log


async def submit(dispatcher: Dispatcher, type: str, payload: Any = None, **fields: Any) -> Receipt:
    """Submit a job; `wait` and `delay` go to `submit`, the rest are fields of the job."""
    options = {name: fields.pop(name) for name in ("wait", "delay") if name in fields}
    return await dispatcher.submit(Job(type=type, payload=payload, **fields), **options)


def state(receipt: Receipt) -> csjd.JobState:
    """Return where the job is now; a call, because type checkers believe properties."""
    return receipt.state


async def at(time: float) -> None:
    """Wait until the clock shows *time* and everybody has settled."""
    await trio.sleep_until(time)
    await trio.testing.wait_all_tasks_blocked()


def balanced(metrics: csjd.MetricsSnapshot) -> bool:
    """Whether the books of a dispatcher add up."""
    ended = metrics.succeeded + metrics.failed + metrics.cancelled
    places = (metrics.ready, metrics.scheduled, metrics.waiting, metrics.parked)
    return (
        metrics.accepted == ended + metrics.live
        and metrics.live == sum(places) + metrics.running + metrics.detached
        and min(places) >= 0
        and metrics.timed_out <= metrics.failed
    )
