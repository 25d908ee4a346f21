"""Tasks asleep until what they all wait for has happened."""

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from csjd._runtime.parking import Sleepers, may_sleep, run_of, sleep_among, wake_all


async def _sleep(sleepers: Sleepers, woken: list[int], number: int) -> None:
    await sleep_among(sleepers, trio.lowlevel.current_task())
    woken.append(number)


async def test_one_call_wakes_everybody(nursery: trio.Nursery) -> None:
    sleepers: Sleepers = {}
    woken: list[int] = []
    for number in range(5):
        nursery.start_soon(_sleep, sleepers, woken, number)
    await wait_all_tasks_blocked()
    assert (len(sleepers), woken) == (5, [])
    wake_all(sleepers)
    assert not sleepers
    await wait_all_tasks_blocked()
    assert sorted(woken) == [0, 1, 2, 3, 4]
    wake_all(sleepers)  # nobody is left


async def test_sleeping_is_a_checkpoint(nursery: trio.Nursery) -> None:
    sleepers: Sleepers = {}

    async def wake() -> None:
        await wait_all_tasks_blocked()
        wake_all(sleepers)

    nursery.start_soon(wake)
    with assert_checkpoints():
        await sleep_among(sleepers, trio.lowlevel.current_task())


async def test_who_is_cancelled_sleeps_no_more(nursery: trio.Nursery) -> None:
    sleepers: Sleepers = {}
    woken: list[int] = []
    scope = trio.CancelScope()

    async def sleep() -> None:
        with scope:
            await _sleep(sleepers, woken, 0)

    nursery.start_soon(sleep)
    nursery.start_soon(_sleep, sleepers, woken, 1)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    assert scope.cancelled_caught
    assert len(sleepers) == 1
    wake_all(sleepers)
    await wait_all_tasks_blocked()
    assert woken == [1]


async def test_a_cancellation_and_a_wake_up_in_one_pass_wake_once(nursery: trio.Nursery) -> None:
    for cancel_first in (True, False):
        sleepers: Sleepers = {}
        woken: list[int] = []
        scope = trio.CancelScope()

        async def sleep(
            scope: trio.CancelScope = scope,
            sleepers: Sleepers = sleepers,
            woken: list[int] = woken,
        ) -> None:
            with scope:
                await _sleep(sleepers, woken, 0)

        nursery.start_soon(sleep)
        await wait_all_tasks_blocked()
        if cancel_first:
            scope.cancel()
        wake_all(sleepers)
        scope.cancel()
        await wait_all_tasks_blocked()
        assert (woken, scope.cancelled_caught) == ([] if cancel_first else [0], cancel_first)


async def test_a_sleeper_can_sleep_again_at_once() -> None:
    sleepers: Sleepers = {}
    naps = 0

    async def nap() -> None:
        nonlocal naps
        for _ in range(3):
            await sleep_among(sleepers, trio.lowlevel.current_task())
            naps += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(nap)
        for done in range(3):
            await wait_all_tasks_blocked()
            assert naps == done
            wake_all(sleepers)
    assert naps == 3


@pytest.mark.parametrize("shielded", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_may_sleep_is_not_cancelled(cancelled: bool, shielded: bool) -> None:
    # When this fails, Trio has renamed what may_sleep looks at.
    task = trio.lowlevel.current_task()
    raised = False
    with trio.CancelScope() as outer:
        if cancelled:
            outer.cancel()
        with trio.CancelScope(shield=shielded):
            said = not may_sleep(task, run_of(task))
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                raised = True
                raise
    assert said == raised == (cancelled and not shielded)


async def test_who_may_sleep_is_part_of_the_run() -> None:
    async def elsewhere() -> None:
        await trio.lowlevel.checkpoint()
        there = trio.lowlevel.current_task()
        assert may_sleep(there, run_of(there))
        assert not may_sleep(there, run_of(here))
        assert not may_sleep(here, run_of(there))

    here = trio.lowlevel.current_task()
    await trio.to_thread.run_sync(trio.run, elsewhere)
