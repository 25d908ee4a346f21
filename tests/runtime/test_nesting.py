"""A dispatcher inside a handler of another: its handlers are part of that one's attempt."""

import math
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

import csjd
from csjd import Dispatcher, Job
from tests.runtime.scene import opened, submit, work

Inner = Callable[[Dispatcher], Awaitable[object]]


async def run_inside(outer: Dispatcher, inner: Inner, *, threaded: bool = False) -> csjd.Outcome:
    """Have *inner* called by a handler of a dispatcher which a handler of *outer* opens."""

    async def within(job: Job) -> None:
        await inner(outer)

    def within_thread(job: Job) -> None:
        trio.from_thread.run(inner, outer)

    async def opening(job: Job) -> csjd.Outcome:
        async with opened(workers=1, job_timeout=math.inf) as dispatcher:
            dispatcher.register("within", within_thread if threaded else within)
            return await (await submit(dispatcher, "within")).outcome()

    outer.register("opening", opening, timeout=math.inf)
    outcome: csjd.Outcome = await (await submit(outer, "opening")).result()
    return outcome


@pytest.mark.parametrize("threaded", [False, True])
def test_stop_from_inside_does_not_wait_for_the_handler_around(threaded: bool) -> None:
    async def stop(outer: Dispatcher) -> None:
        await outer.stop(grace=math.inf)

    async def main() -> None:
        async with opened(workers=2) as outer:
            assert isinstance(await run_inside(outer, stop, threaded=threaded), csjd.Succeeded)

    trio.run(main)


async def test_wait_from_inside_for_what_only_the_lane_around_could_run_is_refused(
    autojump_clock: MockClock,
) -> None:
    async def wait(outer: Dispatcher) -> None:
        await (await submit(outer, "nothing")).outcome()

    async with opened(work().registry, workers=1) as outer:
        outcome = await run_inside(outer, wait)
        assert isinstance(outcome, csjd.Failed)
        assert isinstance(outcome.error, csjd.WouldDeadlockError)


async def test_wait_from_inside_for_what_another_lane_runs_goes_on(
    autojump_clock: MockClock,
) -> None:
    async def wait(outer: Dispatcher) -> None:
        await (await submit(outer, "sleep", 5)).outcome()

    async with opened(work().registry, workers=2) as outer:
        assert isinstance(await run_inside(outer, wait), csjd.Succeeded)
        assert trio.current_time() == 5
