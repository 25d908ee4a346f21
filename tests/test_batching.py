"""The batch loader, behaviour by behaviour; see test_batching_model.py for them all at once."""

import gc
import logging
import math
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

import csjd
from csjd._batching.batch import Batch
from csjd._model.groups import leaves
from csjd._runtime.crew import Hand
from tests.breaking_down import break_down_when_cancelled

Loader = csjd.BatchLoader[Any, Any]


class Source:
    """A fetch that notes its calls, and ends when the test says so."""

    def __init__(self, *, held: bool = False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.times: list[float] = []
        self.cancelled: list[tuple[Any, ...]] = []
        self.gates: list[trio.Event] = []
        self.held = held
        self.answer: Callable[[Sequence[Any]], Any] = lambda keys: {key: key * 2 for key in keys}

    async def __call__(self, keys: Sequence[Any]) -> Mapping[Any, Any]:
        number = len(self.calls)
        self.calls.append(tuple(keys))
        self.times.append(trio.current_time())
        self.gates.append(trio.Event())
        try:
            if self.held:
                await self.gates[number].wait()
            else:
                await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            self.cancelled.append(tuple(keys))
            raise
        answer: Mapping[Any, Any] = self.answer(keys)
        return answer


class Caller:
    """A task that asks once, can give up, and keeps what it got."""

    def __init__(self, ask: Callable[[Any], Awaitable[Any]], what: Any) -> None:
        self.scope = trio.CancelScope()
        self.got: Any = None
        self.error: BaseException | None = None
        self._ask, self._what = ask, what

    async def __call__(self) -> None:
        with self.scope:
            try:
                self.got = await self._ask(self._what)
            except Exception as error:
                self.error = error


async def _start(nursery: trio.Nursery, ask: Callable[[Any], Awaitable[Any]], *what: Any) -> Any:
    """Start a caller for each of *what*, in that order."""
    callers = [Caller(ask, each) for each in what]
    for caller in callers:
        nursery.start_soon(caller)
        await wait_all_tasks_blocked()
    return callers


# --- batches ---------------------------------------------------------------------------


async def test_keys_are_fetched_together_and_each_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_batch_loader(nursery, source) as loader:
        async with trio.open_nursery() as asking:
            callers = [Caller(loader.load, key) for key in (3, 1, 3, 2, 1)]
            for caller in callers:
                asking.start_soon(caller)
        assert [caller.got for caller in callers] == [6, 2, 6, 4, 2]
        assert sorted(source.calls[0]) == [1, 2, 3]
        assert len(source.calls) == 1
        statistics = loader.statistics()
        assert (statistics.asked, statistics.fetched, statistics.fetches) == (5, 3, 1)
        assert (statistics.waiting, statistics.fetching) == (0, 0)


async def test_the_first_key_waits_max_wait_for_company(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_batch_loader(nursery, source, max_wait=3) as loader:
        nursery.start_soon(loader.load, 1)
        await trio.sleep(2)
        nursery.start_soon(loader.load, 2)
        await trio.sleep(5)
        assert (source.calls, source.times) == ([(1, 2)], [3])


async def test_a_full_batch_goes_without_waiting(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_batch_loader(nursery, source, max_batch=2, max_wait=3) as loader:
        callers = await _start(nursery, loader.load, 1, 1, 2, 3)
        assert source.calls == [(1, 2)]
        assert [caller.got for caller in callers] == [2, 2, 4, None]
        assert loader.statistics().waiting == 1


async def test_a_key_asked_for_while_it_is_fetched_is_fetched_again(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source(held=True)
    async with csjd.open_batch_loader(nursery, source, max_batch=1, max_concurrent=2) as loader:
        await _start(nursery, loader.load, 1, 1)
        assert source.calls == [(1,), (1,)]
        assert loader.statistics().fetching == 2


async def test_a_batch_that_waits_for_its_turn_takes_more_keys(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source(held=True)
    async with csjd.open_batch_loader(nursery, source, max_batch=3, max_wait=1) as loader:
        await _start(nursery, loader.load, 1)
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        await _start(nursery, loader.load, 2)
        mock_clock.jump(5)
        await _start(nursery, loader.load, 3, 4, 5, 6)
        assert source.calls == [(1,)]
        for call in ((2, 3, 4), (5, 6)):
            source.gates[-1].set()
            await wait_all_tasks_blocked()
            if call == (5, 6):
                mock_clock.jump(1)
                await wait_all_tasks_blocked()
            assert source.calls[-1] == call


async def test_without_max_wait_what_is_asked_at_once_goes_together(
    nursery: trio.Nursery,
) -> None:
    source = Source()
    async with csjd.open_batch_loader(nursery, source, max_wait=0) as loader:
        async with trio.open_nursery() as asking:
            for key in range(50):
                asking.start_soon(loader.load, key)
        assert len(source.calls) == 1


@pytest.mark.parametrize("past", ["a caller gave up", "a batch got full", "a batch was due"])
async def test_an_idle_loader_has_no_timer(past: str, mock_clock: MockClock) -> None:
    source = Source()
    async with (
        trio.open_nursery() as nursery,
        csjd.open_batch_loader(nursery, source, max_batch=2, max_wait=5) as loader,
    ):
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        caller, *_ = await _start(nursery, loader.load, 1)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == 5
        match past:
            case "a caller gave up":
                caller.scope.cancel()
            case "a batch got full":
                await loader.load(2)
            case "a batch was due":
                mock_clock.jump(5)
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        assert len(source.calls) == (past != "a caller gave up")
        assert len(nursery.child_tasks) == 1


async def test_load_many_keeps_the_order_and_spans_batches(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_batch_loader(nursery, source, max_batch=2) as loader:
        assert await loader.load_many([5, 1, 5, 3, 2, 4]) == [10, 2, 10, 6, 4, 8]
        assert source.calls == [(5, 1), (3, 2), (4,)]
        assert await loader.load_many(iter([7])) == [14]
        assert await loader.load_many([]) == []


async def test_the_fetch_runs_in_a_copy_of_its_first_callers_context(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="outside")
    seen = []

    async def fetch(keys: Sequence[int]) -> dict[int, int]:
        seen.append(variable.get())
        variable.set("changed")
        await trio.lowlevel.checkpoint()
        return {key: key for key in keys}

    async with csjd.open_batch_loader(nursery, fetch) as loader:
        variable.set("caller")
        await loader.load(1)
        assert (seen, variable.get()) == (["caller"], "caller")
        variable.set("another")
        await loader.load(1)  # perhaps fetched by the same task
        assert (seen, variable.get()) == (["caller", "another"], "another")


# --- errors ----------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [{1: "one"}, defaultdict(str, {1: "one"})])
async def test_a_missing_key_concerns_its_callers_alone(
    answers: Any, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    source = Source()
    source.answer = lambda keys: answers
    async with csjd.open_batch_loader(nursery, source) as loader:
        async with trio.open_nursery() as asking:
            callers = [Caller(loader.load, key) for key in (1, 2, 2)]
            for caller in callers:
                asking.start_soon(caller)
        assert [type(caller.error) for caller in callers] == [
            type(None),
            csjd.MissingBatchResultError,
            csjd.MissingBatchResultError,
        ]
        assert callers[1].error is not callers[2].error
        assert isinstance(callers[1].error, csjd.MissingBatchResultError)
        assert callers[1].error.key == 2
        assert loader.statistics().errors == 0
        with pytest.raises(csjd.MissingBatchResultError):
            await loader.load_many([1, 2])


async def test_a_value_that_is_an_exception_is_raised_for_its_key_alone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    error = ValueError("no two")
    source = Source()
    source.answer = lambda keys: {1: "one", 2: error}
    async with csjd.open_batch_loader(nursery, source) as loader:
        async with trio.open_nursery() as asking:
            callers = [Caller(loader.load, key) for key in (1, 2, 2)]
            for caller in callers:
                asking.start_soon(caller)
        assert callers[0].got == "one"
        for caller in callers[1:]:
            assert isinstance(caller.error, ValueError)
            assert caller.error.args == ("no two",)
        assert len({id(error), *(id(caller.error) for caller in callers[1:])}) == 3


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_value_that_is_a_cancelled_is_an_error_like_any_other(
    grouped: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def fetch(keys: Sequence[int]) -> dict[int, Any]:
        answers: dict[int, Any] = {}
        for key in keys:
            with trio.move_on_after(1):
                try:
                    await trio.sleep_forever()
                except BaseException as error:  # noqa: ASYNC103  the mistake under test
                    answers[key] = BaseExceptionGroup("two", [error, error]) if grouped else error
        return answers

    async with csjd.open_batch_loader(nursery, fetch) as loader:
        for call in (loader.load(1), loader.load_many([1])):
            with pytest.raises(RuntimeError, match="nothing was cancelled") as caught:
                await call
            assert caught.value.__cause__ is not None
            assert {type(leaf) for leaf in leaves(caught.value.__cause__)} == {trio.Cancelled}


@pytest.mark.parametrize("kind", [ValueError, SystemExit, BaseException])
async def test_a_failing_fetch_reaches_exactly_its_batch(
    kind: type[BaseException], nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source(held=True)
    async with csjd.open_batch_loader(nursery, source, max_batch=2, max_concurrent=2) as loader:
        errors: list[BaseException] = []

        async def ask(key: int) -> None:
            try:
                await loader.load(key)
            except kind as error:
                errors.append(error)

        def fail(keys: Sequence[int]) -> Any:
            raise kind("down")

        nursery.start_soon(ask, 1)
        nursery.start_soon(ask, 2)
        await wait_all_tasks_blocked()
        (other, _) = await _start(nursery, loader.load, 3, 4)
        source.answer = fail
        source.gates[0].set()
        await wait_all_tasks_blocked()
        assert [(type(error), error.args) for error in errors] == [(kind, ("down",))] * 2
        assert errors[0] is not errors[1]
        source.answer = lambda keys: {key: key for key in keys}
        source.gates[1].set()
        await wait_all_tasks_blocked()
        assert other.got == 3
        source.held = False
        assert await loader.load_many([1, 2]) == [1, 2]
        assert loader.statistics().errors == 1


@pytest.mark.parametrize("left", ["scope", "nursery", "nursery with a child"])
async def test_a_fetch_that_leaves_something_open_fails_and_spoils_no_other(
    left: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    cancelled: list[str] = []
    gate = trio.Event()

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append("child")

    async def fetch(keys: Sequence[str]) -> dict[str, str]:
        if "leak" not in keys:
            await gate.wait()
        elif left == "scope":
            trio.CancelScope().__enter__()
        else:
            inner = await trio.open_nursery().__aenter__()
            if left == "nursery with a child":
                inner.start_soon(child)
        await trio.lowlevel.checkpoint()
        return {key: key for key in keys}

    async with csjd.open_batch_loader(nursery, fetch, max_batch=1, max_concurrent=2) as loader:
        (other,) = await _start(nursery, loader.load, "other")
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"the fetch .* still open"):
                await loader.load("leak")
        assert cancelled == ["child"] * 2 * (left == "nursery with a child")
        assert loader.statistics().errors == 2
        gate.set()
        await wait_all_tasks_blocked()
        assert other.got == "other"


@pytest.mark.parametrize("end", ["fails", "is cut off"])
async def test_a_batch_without_answers_leaves_no_garbage_behind(
    end: str, autojump_clock: MockClock
) -> None:
    async def fetch(keys: Sequence[int]) -> dict[int, int]:
        if end == "is cut off":
            await loader.aclose()
        await trio.lowlevel.checkpoint()
        raise LookupError

    async def ask(ask: Callable[[Any], Awaitable[Any]], what: Any) -> None:
        try:
            await ask(what)
        except (LookupError, csjd.BatchLoaderClosedError):
            errors.append(1)

    errors: list[int] = []
    async with (
        trio.open_nursery() as nursery,
        csjd.open_batch_loader(nursery, fetch, max_batch=2, max_concurrent=3) as loader,
    ):
        gc.collect()
        gc.disable()
        try:
            async with trio.open_nursery() as asking:
                asking.start_soon(ask, loader.load, 1)
                asking.start_soon(ask, loader.load_many, [1, 2, 3, 4, 3, 5])
            await wait_all_tasks_blocked()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kinds = {type(thing) for thing in gc.garbage}
            assert not kinds & {LookupError, csjd.BatchLoaderClosedError, Batch, Hand}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert errors == [1, 1]


async def test_a_fetch_that_returns_no_mapping_fails(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    source = Source()
    source.answer = list
    async with csjd.open_batch_loader(nursery, source) as loader:
        with pytest.raises(TypeError, match="mapping, got list"):
            await loader.load(1)


async def test_load_many_fails_with_its_first_keys_error_and_gives_up_the_rest(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source(held=True)
    source.answer = lambda keys: {}
    async with csjd.open_batch_loader(nursery, source, max_batch=1, max_concurrent=2) as loader:
        (caller,) = await _start(nursery, loader.load_many, [1, 2, 3])
        assert sorted(source.calls) == [(1,), (2,)]
        source.gates[source.calls.index((1,))].set()
        await wait_all_tasks_blocked()
        assert isinstance(caller.error, csjd.MissingBatchResultError)
        assert caller.error.key == 1
        # The third may have begun in the pass in which the error got here.
        assert {(2,)} <= set(source.cancelled) <= {(2,), (3,)}
        assert loader.statistics().waiting == 0


async def test_a_key_that_cannot_be_hashed_is_refused_alone(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with csjd.open_batch_loader(nursery, Source()) as loader:
        for call in (loader.load([]), loader.load_many([1, []])):
            with pytest.raises(TypeError, match="unhashable"):
                await call
        await wait_all_tasks_blocked()
        assert loader.statistics().waiting == 0
        assert not loader._batches.flying


# --- giving up -------------------------------------------------------------------------


async def test_a_caller_who_gives_up_drops_out(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_batch_loader(nursery, source, max_wait=1) as loader:
        one, _, also_two, two = await _start(nursery, loader.load, 1, 3, 2, 2)
        for caller in (one, also_two):
            caller.scope.cancel()
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert source.calls == [(3, 2)]
        assert two.got == 4


async def test_a_batch_nobody_waits_for_is_not_fetched(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source(held=True)
    async with csjd.open_batch_loader(nursery, source, max_batch=1) as loader:
        _, queued = await _start(nursery, loader.load, 1, 2)
        (collecting,) = await _start(nursery, loader.load_many, [3])
        for caller in (queued, collecting):
            caller.scope.cancel()
        await wait_all_tasks_blocked()
        source.gates[0].set()
        await wait_all_tasks_blocked()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert source.calls == [(1,)]
        assert loader.statistics().abandoned == 0


async def test_a_caller_who_leaves_as_the_slot_comes_takes_the_batch_along(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source(held=True)
    leaving: list[Caller] = []

    def observe(event: csjd.BatchLoaderEvent) -> None:
        # Just now the slot was given on: the one to go and its batch run in the same pass.
        if isinstance(event, csjd.BatchFetchSucceeded) and leaving:
            leaving.pop().scope.cancel()

    async with csjd.open_batch_loader(nursery, source, max_batch=1, observers=[observe]) as loader:
        for _ in range(20):  # whichever of the two comes first
            _, queued = await _start(nursery, loader.load, 1, 2)
            leaving.append(queued)
            source.gates[-1].set()
            await wait_all_tasks_blocked()
            assert queued.scope.cancelled_caught
            assert loader.statistics().waiting == 0
            assert not loader._batches.holding
        fetched = source.calls.count((2,))
        assert source.calls.count((1,)) == 20
        assert len(source.calls) == 20 + fetched  # and none of no keys at all
        assert source.cancelled == [(2,)] * fetched


async def test_a_batch_that_is_full_at_once_sets_no_timer() -> None:
    deadlines: list[float] = []

    class Watch(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            deadlines.append(trio.lowlevel.current_statistics().seconds_to_next_deadline)

    async with (
        trio.open_nursery() as nursery,
        csjd.open_batch_loader(nursery, Source(), max_batch=2) as loader,
    ):
        watch = Watch()
        trio.lowlevel.add_instrument(watch)
        async with trio.open_nursery() as asking:
            asking.start_soon(loader.load, 1)
            asking.start_soon(loader.load, 2)
        trio.lowlevel.remove_instrument(watch)
    assert len(deadlines) > 2
    assert set(deadlines) == {math.inf}


async def test_a_fetch_nobody_waits_for_any_more_is_cancelled(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source(held=True)
    async with csjd.open_batch_loader(nursery, source, max_batch=2) as loader:
        callers = await _start(nursery, loader.load, 1, 2)
        callers[0].scope.cancel()
        await wait_all_tasks_blocked()
        assert source.cancelled == []
        callers[1].scope.cancel()
        await wait_all_tasks_blocked()
        assert source.cancelled == [(1, 2)]
        assert (loader.statistics().abandoned, loader.statistics().fetching) == (1, 0)
        source.held = False
        assert await loader.load_many([1, 2]) == [2, 4]


async def test_callers_who_give_up_do_not_pile_up_while_a_batch_waits(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source(held=True)
    async with csjd.open_batch_loader(nursery, source, max_batch=2, max_wait=1) as loader:
        await _start(nursery, loader.load_many, [1, 2])  # holds the slot
        await _start(nursery, loader.load, 3)
        for key in [3, 4] * 50:
            with trio.move_on_after(0):
                await loader.load(key)
            impatient = Caller(loader.load, 3)
            nursery.start_soon(impatient)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            impatient.scope.cancel()
        await wait_all_tasks_blocked()
        (batch,) = loader._batches.flying - set(loader._batches.holding)
        assert batch.callers == {3: 1}
        assert len(batch.sleepers) == 1
        assert loader.statistics().waiting == 3


async def test_an_abandoned_fetch_that_breaks_is_logged(
    nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch(keys: Sequence[int]) -> dict[int, int]:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    async with csjd.open_batch_loader(nursery, fetch, max_batch=1) as loader:
        (caller,) = await _start(nursery, loader.load, 1)
        caller.scope.cancel()
        await wait_all_tasks_blocked()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("end", ["aclose", "the nursery is cancelled"])
async def test_what_a_fetch_raises_in_a_nursery_as_it_is_closed_is_its_own(
    end: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch(keys: Sequence[int]) -> dict[int, int]:
        await break_down_when_cancelled()

    async with (
        trio.open_nursery() as outside,
        trio.open_nursery() as nursery,
        csjd.open_batch_loader(nursery, fetch, max_batch=1) as loader,
    ):
        (caller,) = await _start(outside, loader.load, 1)
        if end == "aclose":
            await loader.aclose()
        else:
            nursery.cancel_scope.cancel()
    assert isinstance(caller.error, csjd.BatchLoaderClosedError)  # released before
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "on the way out" in caplog.text


# --- waits that could never end --------------------------------------------------------


async def test_a_fetch_that_holds_the_last_slot_cannot_ask_its_own_loader(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def fetch(keys: Sequence[int]) -> dict[int, Any]:
        return {key: 0 if key == 0 else await loader.load(key - 1) + 1 for key in keys}

    async with csjd.open_batch_loader(nursery, fetch, max_concurrent=3) as loader:
        assert await loader.load(2) == 2
        with pytest.raises(csjd.WouldDeadlockError, match="0"):
            await loader.load(3)
        assert await loader.load(2) == 2
        assert loader.statistics().waiting == 0


async def test_a_task_that_outlives_the_fetch_it_came_from_may_ask(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    got: list[Any] = []

    async def straggle() -> None:
        await trio.sleep(1)
        got.append(await loader.load(2))

    async def fetch(keys: Sequence[int]) -> dict[int, int]:
        await trio.lowlevel.checkpoint()
        if 1 in keys:
            nursery.start_soon(straggle)
        if 2 in keys:  # which does not wait for the first, long landed
            assert await loader.load_many([3]) == [3]
        return {key: key for key in keys}

    async with csjd.open_batch_loader(nursery, fetch, max_concurrent=2) as loader:
        assert await loader.load(1) == 1
        await trio.sleep(2)
        assert got == [2]


async def test_a_circle_through_a_cache_would_deadlock(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def fetch(keys: Sequence[int]) -> dict[int, Any]:
        return {key: await cache.get_or_load(key, load) for key in keys}

    async def load(key: int) -> Any:
        return await loader.load(key)

    async with (
        csjd.open_cache(nursery, ttl=10) as cache,
        csjd.open_batch_loader(nursery, fetch) as loader,
    ):
        with pytest.raises(csjd.WouldDeadlockError):
            await loader.load(1)
        with pytest.raises(csjd.WouldDeadlockError):
            await cache.get_or_load(1, load)


# --- the end ---------------------------------------------------------------------------


async def test_aclose_releases_everybody_at_once_and_refuses_later_loads(
    autojump_clock: MockClock,
) -> None:
    released: list[float] = []

    async def stubborn(keys: Sequence[int]) -> dict[int, int]:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return {key: key for key in keys}

    async def ask(loader: Loader, key: int) -> None:
        with pytest.raises(csjd.BatchLoaderClosedError):
            await loader.load(key)
        released.append(trio.current_time())

    async with (
        trio.open_nursery() as nursery,
        csjd.open_batch_loader(nursery, stubborn, max_batch=1) as loader,
    ):
        for key in range(3):  # one is being fetched, two are in the queue
            nursery.start_soon(ask, loader, key)  # noqa: ASYNC111
        await wait_all_tasks_blocked()
        await loader.aclose()
        assert released == [0, 0, 0]
        assert trio.current_time() == 5
        with pytest.raises(csjd.BatchLoaderClosedError, match="open a new one"):
            await loader.load(1)
        with pytest.raises(csjd.BatchLoaderClosedError):
            await loader.load_many([1])
        await loader.aclose()
        assert loader.statistics().abandoned == 1
        assert not loader._annex.nursery.child_tasks


async def test_aclose_from_within_a_fetch_does_not_wait_for_itself(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    ended = False

    async def fetch(keys: Sequence[int]) -> dict[int, int]:
        nonlocal ended
        with trio.CancelScope(shield=True):
            await loader.aclose()
            await loader.aclose()
        ended = True
        return {}

    async with csjd.open_batch_loader(nursery, fetch, max_batch=1) as loader:
        with pytest.raises(csjd.BatchLoaderClosedError):
            await loader.load(1)
        await wait_all_tasks_blocked()
        assert ended


async def test_leaving_closes_and_leaves_no_task() -> None:
    source = Source(held=True)
    async with trio.open_nursery() as nursery:
        async with csjd.open_batch_loader(nursery, source, max_batch=1) as loader:
            assert [task.name for task in nursery.child_tasks] == ["csjd batch loader"]
            callers = await _start(nursery, loader.load, 1, 2)
        assert not [task for task in nursery.child_tasks if "csjd" in task.name]
        await wait_all_tasks_blocked()
        errors = [caller.error for caller in callers]
        assert [type(error) for error in errors] == [csjd.BatchLoaderClosedError] * 2
        assert source.cancelled == [(1,)]


async def test_cancelling_the_nursery_releases_callers_outside_of_it() -> None:
    source = Source(held=True)
    loaders: list[Loader] = []

    async def keep_open(nursery: trio.Nursery) -> None:
        async with csjd.open_batch_loader(nursery, source, max_batch=1) as loader:
            loaders.append(loader)
            await trio.sleep_forever()

    async with trio.open_nursery() as outside:
        async with trio.open_nursery() as nursery:
            outside.start_soon(keep_open, nursery)  # noqa: ASYNC111
            await wait_all_tasks_blocked()
            (loader,) = loaders
            callers = await _start(outside, loader.load, 1, 2)
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        errors = [caller.error for caller in callers]
        assert [type(error) for error in errors] == [csjd.BatchLoaderClosedError] * 2
        assert source.cancelled == [(1,)]
        with pytest.raises(csjd.BatchLoaderClosedError):
            await loader.load(3)
        outside.cancel_scope.cancel()


@pytest.mark.parametrize("passes", range(5))
async def test_who_asks_while_the_nursery_ends_hears_that_the_loader_is_closed(
    passes: int,
) -> None:
    async def keep_open(  # noqa: ASYNC114
        nursery: trio.Nursery, task_status: trio.TaskStatus[Loader]
    ) -> None:
        async with csjd.open_batch_loader(nursery, Source(held=True), max_batch=2) as loader:
            task_status.started(loader)
            await trio.sleep_forever()

    async def ask(loader: Loader) -> None:
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
        caller = Caller(loader.load, 1)
        await caller()
        heard.append(type(caller.error))

    heard: list[type] = []
    for _ in range(10):  # in whichever order tasks run
        async with trio.open_nursery() as outside:
            async with trio.open_nursery() as nursery:
                loader = await outside.start(keep_open, nursery)  # noqa: ASYNC111
                outside.start_soon(ask, loader)
                nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()
            assert loader.statistics().waiting == 0
            assert loader._batches.collecting is None
            outside.cancel_scope.cancel()
    assert heard == [csjd.BatchLoaderClosedError] * 10


@pytest.mark.parametrize("how", ["leaving", "aclose"])
async def test_closing_releases_everybody_though_an_observer_breaks_it(
    how: str, mock_clock: MockClock
) -> None:
    def leave(event: csjd.BatchLoaderEvent) -> None:
        if isinstance(event, csjd.BatchFetchAbandoned) and broken:
            raise broken.pop()

    broken = [SystemExit(3)]
    callers = []
    async with trio.open_nursery() as outside:
        with pytest.RaisesGroup(SystemExit, flatten_subgroups=True):
            async with (
                trio.open_nursery() as nursery,
                csjd.open_batch_loader(
                    nursery, Source(held=True), max_batch=1, max_concurrent=2, observers=[leave]
                ) as loader,
            ):
                callers = await _start(outside, loader.load, 1, 2, 3)
                if how == "aclose":
                    await loader.aclose()
        await wait_all_tasks_blocked()
        errors = [type(caller.error) for caller in callers]
        assert errors == [csjd.BatchLoaderClosedError] * 3
        assert not nursery.child_tasks


async def test_a_nursery_that_is_closed_already_is_refused() -> None:
    async with trio.open_nursery() as nursery:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        async with csjd.open_batch_loader(nursery, Source()):
            raise AssertionError


def test_ctrl_c_reaches_fetches_and_spares_the_loaders_own_books() -> None:
    protected = []

    async def fetch(keys: Sequence[int]) -> dict[int, int]:
        await trio.lowlevel.checkpoint()
        protected.append(trio.lowlevel.currently_ki_protected())
        return {}

    def observe(event: csjd.BatchLoaderEvent) -> None:
        protected.append(trio.lowlevel.currently_ki_protected())

    async def main() -> None:
        async with (
            trio.open_nursery() as nursery,
            csjd.open_batch_loader(nursery, fetch, max_batch=1, observers=[observe]) as loader,
        ):
            with pytest.raises(csjd.MissingBatchResultError):
                await loader.load(1)

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    trio.run(main)
    assert protected == [True, False, True]  # fetch started, the fetch, fetch succeeded


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
async def test_what_ends_the_program_in_a_fetch_reaches_the_nursery(
    kind: type[BaseException],
) -> None:
    async def interrupt(keys: Sequence[int]) -> dict[int, int]:
        await trio.lowlevel.checkpoint()
        raise kind

    async with trio.open_nursery() as outside:
        with pytest.RaisesGroup(pytest.RaisesGroup(kind)):
            async with (
                trio.open_nursery() as nursery,
                csjd.open_batch_loader(nursery, interrupt, max_wait=0) as loader,
            ):
                caller = Caller(loader.load, 1)
                outside.start_soon(caller)
                await trio.sleep_forever()
        await wait_all_tasks_blocked()
        assert isinstance(caller.error, csjd.BatchLoaderClosedError)
        assert isinstance(caller.error.__cause__, kind)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("wanted", [1, 2])
async def test_what_ends_the_program_in_a_fetch_is_all_that_the_nursery_raises(
    kind: type[BaseException], wanted: int
) -> None:
    async def fetch(keys: Sequence[int]) -> dict[int, int]:
        if 1 not in keys:
            await trio.sleep_forever()
        await wait_all_tasks_blocked()
        raise kind

    for _ in range(5):  # in whichever order tasks run
        with pytest.RaisesGroup(pytest.RaisesGroup(kind)):
            async with (
                trio.open_nursery() as nursery,
                csjd.open_batch_loader(nursery, fetch, max_batch=1, max_concurrent=2) as loader,
            ):
                nursery.start_soon(loader.load, 3 - wanted)  # noqa: ASYNC111
                await loader.load(wanted)


# --- the manners of the house ----------------------------------------------------------


async def test_every_call_checkpoints(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async with csjd.open_batch_loader(nursery, Source()) as loader:
        for call in (loader.load(1), loader.load_many([1]), loader.load_many([])):
            with assert_checkpoints():
                await call
        for _ in range(2):
            with assert_checkpoints():
                await loader.aclose()


async def test_a_cancelled_call_did_nothing(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    async with csjd.open_batch_loader(nursery, Source(), max_batch=1) as loader:
        before = loader.statistics()
        for call in (loader.load(1), loader.load_many([1, 2])):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call
            assert scope.cancelled_caught
        assert loader.statistics() == before


async def test_observers_hear_what_happens(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    heard: list[object] = []
    source = Source(held=True)
    error = ValueError("down")

    def fail(keys: Sequence[int]) -> Any:
        raise error

    async with csjd.open_batch_loader(
        nursery, source, max_batch=1, observers=[heard.append]
    ) as loader:
        for step in ("abandon", "succeed", "fail"):
            (caller,) = await _start(nursery, loader.load, 1)
            mock_clock.jump(2)
            if step == "abandon":
                caller.scope.cancel()
                await wait_all_tasks_blocked()
            if step == "fail":
                source.answer = fail
            source.gates[-1].set()
            await wait_all_tasks_blocked()
    started = csjd.BatchFetchStarted((1,))
    assert heard == [
        started,
        csjd.BatchFetchAbandoned((1,)),
        started,
        csjd.BatchFetchSucceeded((1,), 2),
        started,
        csjd.BatchFetchFailed((1,), 2, error),
    ]


async def test_an_observer_that_raises_is_dropped_with_one_logged_error(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []

    def broken(event: object) -> None:
        raise ValueError("observer is broken")

    async with csjd.open_batch_loader(
        nursery, Source(), max_batch=1, observers=[broken, heard.append]
    ) as loader:
        assert await loader.load(1) == 2
        assert await loader.load(2) == 4
    assert len(heard) == 4
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_cancelled_caller_neither_fills_a_batch_nor_is_counted(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_batch_loader(nursery, source, max_batch=2) as loader:
        await _start(nursery, loader.load, 1)
        before = loader.statistics()
        with trio.CancelScope() as scope:
            scope.cancel()
            await loader.load(2)
        assert loader.statistics() == before
        await wait_all_tasks_blocked()
        assert source.calls == []


async def test_another_trio_run_is_refused_before_anything_changes(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_batch_loader(nursery, source, max_batch=2) as loader:

        async def elsewhere() -> None:
            for call in (
                lambda: loader.load(2),
                lambda: loader.load_many([2]),
                lambda: loader.load_many([]),
                loader.aclose,
            ):
                with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run"):
                    await call()
            with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run"):
                loader.statistics()

        for asked in ([], [1]):  # nothing is under way, and a batch that one might join
            (caller,) = await _start(nursery, loader.load_many, asked)
            before = loader.statistics()
            await trio.to_thread.run_sync(trio.run, elsewhere)
            await wait_all_tasks_blocked()
            assert (loader.statistics(), source.calls) == (before, [])
        assert await loader.load(2) == 4
        await wait_all_tasks_blocked()
        assert caller.got == [2]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"max_batch": 0}, "max_batch"),
        ({"max_batch": 1.5}, "max_batch"),
        ({"max_concurrent": 0}, "max_concurrent"),
        ({"max_concurrent": True}, "max_concurrent"),
        ({"max_wait": -1}, "max_wait"),
        ({"max_wait": math.inf}, "max_wait"),
        ({"max_wait": math.nan}, "max_wait"),
    ],
)
async def test_a_wrong_setting_is_named(settings: dict[str, Any], name: str) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(ValueError, match=name):
            async with csjd.open_batch_loader(nursery, Source(), **settings):
                raise AssertionError
        assert not nursery.child_tasks
