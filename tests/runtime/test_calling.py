"""From where, and how, the methods may be called; and what a cancelled call has done."""

import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock, assert_checkpoints

import csjd
from csjd import Dispatcher, Job
from tests.runtime.scene import at, opened, submit, work

Call = Callable[[Dispatcher, csjd.Receipt], Any]

PLAIN: dict[str, Call] = {
    "cancel": lambda d, r: d.cancel("a"),
    "pause": lambda d, r: d.pause(),
    "resume": lambda d, r: d.resume(),
    "add_worker": lambda d, r: d.add_worker(),
    "remove_worker": lambda d, r: d.remove_worker(0),
    "metrics": lambda d, r: d.metrics(),
    "worker_stats": lambda d, r: d.worker_stats(),
    "session_info": lambda d, r: d.session_info("s"),
    "session_distribution": lambda d, r: d.session_distribution(),
    "history": lambda d, r: d.history(),
    "register": lambda d, r: d.register("new", print),
    "handler": lambda d, r: d.handler("newer")(print),
    "Receipt.cancel": lambda d, r: r.cancel(),
}

ASYNC: dict[str, Call] = {
    "start": lambda d, r: d.start(),
    "stop": lambda d, r: d.stop(),
    "submit": lambda d, r: submit(d, "nothing"),
    "submit_batch": lambda d, r: d.submit_batch([Job(type="nothing")]),
    "resize": lambda d, r: d.resize(2),
    "dead_letters": lambda d, r: d.dead_letters(),
    "requeue": lambda d, r: d.requeue("dead"),
    "discard": lambda d, r: d.discard("dead"),
    "Receipt.outcome": lambda d, r: r.outcome(),
    "Receipt.result": lambda d, r: r.result(),
}


def test_every_method_is_tried_here() -> None:
    for cls, prefix in ((Dispatcher, ""), (csjd.Receipt, "Receipt.")):
        for name, member in vars(cls).items():
            if name.startswith("_") or not inspect.isfunction(member):
                continue
            table = ASYNC if inspect.iscoroutinefunction(member) else PLAIN
            assert prefix + name in table


@pytest.mark.parametrize("name", PLAIN)
async def test_plain_method_refuses_another_thread(name: str) -> None:
    async with opened(work().registry) as dispatcher:
        receipt = await submit(dispatcher, "nothing", delay=0.5, id="a")
        before = dispatcher.metrics()
        with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run.* with trio_token="):
            await trio.to_thread.run_sync(PLAIN[name], dispatcher, receipt)
        assert dispatcher.metrics() == before
        receipt.cancel()


@pytest.mark.parametrize("name", [*PLAIN, *ASYNC])
async def test_every_method_refuses_another_trio_run(name: str) -> None:
    async with opened(work().registry) as dispatcher:
        receipt = await submit(dispatcher, "nothing", delay=0.5, id="a")
        before = dispatcher.metrics()

        async def elsewhere() -> None:
            with trio.fail_after(1):
                if name in ASYNC:
                    await ASYNC[name](dispatcher, receipt)
                else:
                    PLAIN[name](dispatcher, receipt)

        with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run"):
            await trio.to_thread.run_sync(trio.run, elsewhere)
        assert dispatcher.metrics() == before
        receipt.cancel()


async def test_attempt_refuses_another_trio_run() -> None:
    async with opened() as dispatcher:

        def plain(job: Job, attempt: csjd.Attempt) -> str:
            async def elsewhere() -> str:
                for call in (lambda: attempt.extend(1), lambda: attempt.progress(1)):
                    with pytest.raises(RuntimeError, match="another Trio run"):
                        call()
                assert await trio.to_thread.run_sync(attempt.extend, 1)
                return "refused"

            return trio.run(elsewhere)

        dispatcher.register("t", plain)
        assert await (await submit(dispatcher, "t")).result() == "refused"


async def test_from_thread_is_the_way() -> None:
    async with opened(work().registry) as dispatcher:

        def thread() -> Any:
            receipt = trio.from_thread.run(submit, dispatcher, "nothing", 5)
            trio.from_thread.run_sync(dispatcher.metrics)
            return trio.from_thread.run(receipt.result)

        assert await trio.to_thread.run_sync(thread) == 5


async def _scene(dispatcher: Dispatcher) -> csjd.Receipt:
    """Make a dead letter called `dead`, and return the receipt of a job that has ended."""
    await (await submit(dispatcher, "fail", csjd.PermanentError(), id="dead")).outcome()
    receipt = await submit(dispatcher, "nothing")
    await receipt.outcome()
    return receipt


@pytest.mark.parametrize("name", ASYNC)
async def test_every_async_method_checkpoints(name: str) -> None:
    async with opened(work().registry) as dispatcher:
        receipt = await _scene(dispatcher)
        with assert_checkpoints():
            await ASYNC[name](dispatcher, receipt)
        if name == "stop":
            for again in ("stop", "start"):
                with assert_checkpoints():
                    await ASYNC[again](dispatcher, receipt)


async def test_opening_and_leaving_checkpoint() -> None:
    async with trio.open_nursery() as nursery:
        opening = csjd.open_dispatcher(nursery)
        with assert_checkpoints():
            dispatcher = await opening.__aenter__()
        await dispatcher.stop()
        with assert_checkpoints():
            await opening.__aexit__(None, None, None)


def _face(dispatcher: Dispatcher) -> Any:
    return (
        attrs.evolve(dispatcher.metrics(), rejected=0),
        dispatcher.state,
        [each.worker for each in dispatcher.worker_stats()],
        dispatcher.session_info("s"),
    )


async def _cancelled(call: Callable[[], Awaitable[Any]]) -> bool:
    """Whether *call* ended by a cancellation that was there before it."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await call()
    return scope.cancelled_caught


@pytest.mark.parametrize("name", ASYNC)
async def test_cancelled_call_did_nothing(name: str) -> None:
    async with opened(work().registry, workers=4) as dispatcher:
        receipt = await _scene(dispatcher)
        if name == "start":
            await dispatcher.stop()
        await trio.testing.wait_all_tasks_blocked()
        before = _face(dispatcher)
        assert await _cancelled(lambda: ASYNC[name](dispatcher, receipt))
        await trio.testing.wait_all_tasks_blocked()
        assert _face(dispatcher) == before
        assert len(await dispatcher.dead_letters()) == 1


@pytest.mark.parametrize("checkpoint", range(1, 6))
@pytest.mark.parametrize("name", [each for each in ASYNC if each != "stop"])
async def test_call_cancelled_at_any_checkpoint_did_nothing_or_returned(
    name: str, checkpoint: int
) -> None:
    async with opened(work().registry, workers=4) as dispatcher:
        receipt = await _scene(dispatcher)
        if name == "start":
            await dispatcher.stop()
        await trio.testing.wait_all_tasks_blocked()
        before = _face(dispatcher)
        returned: list[Any] = []
        scope = trio.CancelScope()
        target: list[trio.lowlevel.Task] = []

        class Canceller(trio.abc.Instrument):
            """Cancels the call as its task is about to run for the n-th time."""

            seen = 0

            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                if target and task is target[0]:
                    self.seen += 1
                    if self.seen == checkpoint:
                        scope.cancel()

        async def call() -> None:
            target.append(trio.lowlevel.current_task())
            with scope:
                await ASYNC[name](dispatcher, receipt)
                returned.append(True)

        canceller = Canceller()
        trio.lowlevel.add_instrument(canceller)
        try:
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112
                nursery.start_soon(call)
        finally:
            trio.lowlevel.remove_instrument(canceller)
        await trio.testing.wait_all_tasks_blocked()
        if not returned:
            assert _face(dispatcher) == before
            assert len(await dispatcher.dead_letters()) == 1


async def test_opening_can_be_cancelled_at_any_checkpoint() -> None:
    for checkpoints in range(8):
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def cancel(after: int, scope: trio.CancelScope) -> None:
                for _ in range(after):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(cancel, checkpoints, scope)
            with scope:
                async with csjd.open_dispatcher(nursery, csjd.Config(workers=2)):
                    await trio.sleep_forever()
            assert len(nursery.child_tasks) <= 1  # the canceller, if it still runs


@pytest.mark.parametrize("limit", ["max_pending", "max_sessions", "max_pending_per_session"])
async def test_waiting_submit_can_be_cancelled_and_leaves_nothing(
    limit: str, autojump_clock: MockClock
) -> None:
    settings: dict[str, Any] = {limit: 1}
    async with opened(work().registry, **settings, job_timeout=math.inf) as dispatcher:
        await submit(dispatcher, "sleep", 10, session="s")
        await at(1)
        session = "s" if limit == "max_pending_per_session" else "t"
        before = _face(dispatcher)
        with trio.move_on_after(2) as scope, assert_checkpoints():
            await submit(dispatcher, "nothing", session=session, wait=True)
        assert scope.cancelled_caught
        assert _face(dispatcher) == before
        assert dispatcher.session_info("t") is None
        await at(12)
        assert dispatcher.metrics().live == 0
        receipt = await submit(dispatcher, "nothing", session=session)
        await receipt.outcome()
