"""Threads for a store's methods."""

import threading

import pytest
import trio
import trio.testing

from csjd._runtime.threads import run_in_thread


async def test_function_runs_in_another_thread_and_its_result_comes_back() -> None:
    def add(a: int, b: int) -> tuple[int, int]:
        return a + b, threading.get_ident()

    result, thread = await run_in_thread(add, 2, 3)
    assert result == 5
    assert thread != threading.get_ident()


async def test_error_of_the_function_is_raised() -> None:
    def fail() -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await run_in_thread(fail)


async def test_cancellation_waits_for_the_function_to_end() -> None:
    cancelled, ended = threading.Event(), threading.Event()

    def work() -> str:
        assert cancelled.wait(10)
        ended.set()
        return "written"

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            results: list[str] = []

            @nursery.start_soon
            async def wait() -> None:
                results.append(await run_in_thread(work))

            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            assert not ended.is_set()
            cancelled.set()
    assert results == ["written"]


async def test_loop_goes_on_meanwhile() -> None:
    turns, enough = 0, threading.Event()

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            if turns == 100:
                enough.set()
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        assert await run_in_thread(enough.wait, 10)
        nursery.cancel_scope.cancel()
