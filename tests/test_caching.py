"""The cache, behaviour by behaviour; see test_caching_model.py for all of them at once."""

import gc
import logging
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

import csjd
from csjd._caching.loads import Load
from csjd._model.groups import leaves
from csjd._runtime.crew import Hand
from tests.breaking_down import break_down_when_cancelled

Cache = csjd.TTLCache[Any, Any]
Loader = Callable[[Any], Awaitable[Any]]


class Source:
    """A loader whose loads end when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.cancelled: list[Any] = []
        self.gates: list[trio.Event] = []
        self.error: BaseException | None = None

    async def __call__(self, key: Any) -> Any:
        number = len(self.calls)
        self.calls.append(key)
        self.gates.append(trio.Event())
        try:
            await self.gates[number].wait()
        except trio.Cancelled:
            self.cancelled.append(key)
            raise
        if self.error is not None:
            raise self.error
        return f"{key} {number}"

    def finish(self) -> None:
        for gate in self.gates:
            gate.set()


class Caller:
    """A task that asks once, can give up, and keeps what it got."""

    def __init__(self, cache: Cache, key: Any, loader: Loader) -> None:
        self.scope = trio.CancelScope()
        self.got: Any = None
        self.error: BaseException | None = None
        self._ask = partial(cache.get_or_load, key, loader)

    async def __call__(self) -> None:
        with self.scope:
            try:
                self.got = await self._ask()
            except Exception as error:
                self.error = error


async def _value(key: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return key


async def _never(key: Any) -> Any:
    await trio.lowlevel.checkpoint()
    raise AssertionError("a hit loads nothing")


# --- holding ---------------------------------------------------------------------------


async def test_a_value_is_held_for_exactly_its_ttl(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        cache.set("a", 1)
        mock_clock.jump(9.999)
        assert cache.get("a") == 1
        assert await cache.get_or_load("a", _never) == 1
        mock_clock.jump(0.001)
        assert cache.get("a") is None
        assert cache.get("a", "default") == "default"
        assert await cache.get_or_load("a", _value) == "a"


async def test_set_starts_the_ttl_anew(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        cache.set("a", 1)
        mock_clock.jump(9)
        cache.set("a", 2)
        mock_clock.jump(9)
        assert cache.get("a") == 2
        mock_clock.jump(1)
        assert cache.get("a") is None


async def test_none_is_a_value_like_any_other() -> None:
    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        cache.set("a", None)
        assert cache.get("a", "default") is None
        assert await cache.get_or_load("a", _never) is None


async def test_delete_says_whether_there_was_something_to_drop(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        assert cache.delete("a") is False
        cache.set("a", 1)
        assert cache.delete("a") is True
        assert cache.get("a") is None
        cache.set("a", 1)
        mock_clock.jump(10)
        assert cache.delete("a") is False


async def test_cleanup_and_len_count_what_is_over(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        for key in range(5):
            cache.set(key, key)
        mock_clock.jump(5)
        cache.set(5, 5)
        mock_clock.jump(5)
        assert cache.cleanup() == 5
        assert cache.cleanup() == 0
        assert len(cache) == 1
        mock_clock.jump(5)
        assert len(cache) == 0
        assert cache.statistics().expirations == 6


async def test_expired_entries_do_not_pile_up_though_nobody_cleans(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        for key in range(1000):
            cache.set(key, key)
            mock_clock.jump(1)
            assert len(cache._held) <= 11


async def test_the_least_recently_used_makes_room() -> None:
    evicted: list[object] = []
    async with (
        trio.open_nursery() as nursery,
        csjd.open_cache(nursery, ttl=10, maxsize=3, observers=[evicted.append]) as cache,
    ):
        for key in "abc":
            cache.set(key, key)
        cache.get("a")
        await cache.get_or_load("b", _never)
        cache.set("d", "d")
        assert [key for key in "abcd" if cache.get(key)] == ["a", "b", "d"]
        cache.set("a", "A")
        await cache.get_or_load("e", _value)
        assert [key for key in "abcde" if cache.get(key)] == ["a", "d", "e"]
        assert cache.statistics().evictions == 2
        assert len(cache) == 3
    assert [e for e in evicted if isinstance(e, csjd.CacheEntryEvicted)] == [
        csjd.CacheEntryEvicted("c"),
        csjd.CacheEntryEvicted("b"),
    ]


async def test_an_expired_entry_makes_room_before_a_fresh_one(mock_clock: MockClock) -> None:
    async with (
        trio.open_nursery() as nursery,
        csjd.open_cache(nursery, ttl=10, maxsize=2) as cache,
    ):
        cache.set("old", 1)
        mock_clock.jump(5)
        cache.set("young", 2)
        cache.get("old")  # the more recently used, and yet it goes
        mock_clock.jump(5)
        cache.set("new", 3)
        assert cache.get("young") == 2
        assert cache.statistics().evictions == 0


async def test_jitter_spreads_expiry_over_its_share_of_the_ttl(mock_clock: MockClock) -> None:
    async with (
        trio.open_nursery() as nursery,
        csjd.open_cache(nursery, ttl=100, jitter=0.5, random=Random(1)) as cache,
    ):
        for key in range(1000):
            cache.set(key, key)
        mock_clock.jump(50)
        assert len(cache) == 1000
        sizes = [len(cache)]
        for _ in range(10):
            mock_clock.jump(5)
            sizes.append(len(cache))
        assert sizes[-1] == 0
        # Evenly spread, so that no part of the range is left out.
        assert all(50 < before - after < 200 for before, after in pairwise(sizes))


async def test_a_value_may_be_held_for_ever(mock_clock: MockClock) -> None:
    async with (
        trio.open_nursery() as nursery,
        csjd.open_cache(nursery, ttl=math.inf, jitter=0.5) as cache,
    ):
        cache.set("a", 1)
        mock_clock.jump(1e12)
        assert cache.get("a") == 1


async def test_real_time_is_trios_too() -> None:
    async with (
        trio.open_nursery() as nursery,
        csjd.open_cache(nursery, ttl=1e-9) as brief,
        csjd.open_cache(nursery, ttl=1e9) as lasting,
    ):
        for cache in (brief, lasting):
            cache.set("a", 1)
        await trio.lowlevel.checkpoint()
        assert brief.get("a") is None
        assert lasting.get("a") == 1


async def test_trios_own_clock_is_read_without_detour() -> None:
    # When this fails, Trio has changed its clock: hits are slower, and as right as before.
    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=1) as cache:
        offset = trio.current_time() - cache._now()
        assert trio.current_time() - cache._now() == pytest.approx(offset, abs=0.5)
        assert cache._now.__name__ == "perf_counter"


# --- loading ---------------------------------------------------------------------------


async def test_a_thousand_callers_cause_one_load(nursery: trio.Nursery) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10) as cache:
        callers = [Caller(cache, "a", source) for _ in range(1000)]
        for caller in callers:
            nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        assert source.calls == ["a"]
        assert cache.statistics().loading == 1
        source.finish()
        await wait_all_tasks_blocked()
        assert {caller.got for caller in callers} == {"a 0"}
        assert cache.get("a") == "a 0"
        statistics = cache.statistics()
        assert (statistics.loads, statistics.misses, statistics.loading) == (1, 1000, 0)


async def test_keys_load_side_by_side(nursery: trio.Nursery) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10) as cache:
        for key in "abc":
            nursery.start_soon(Caller(cache, key, source))
        await wait_all_tasks_blocked()
        assert sorted(source.calls) == ["a", "b", "c"]
        source.finish()


async def test_a_caller_who_gives_up_hurts_nobody(nursery: trio.Nursery) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10) as cache:
        first, second = Caller(cache, "a", source), Caller(cache, "a", source)
        nursery.start_soon(first)
        await wait_all_tasks_blocked()
        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        first.scope.cancel()
        await wait_all_tasks_blocked()
        assert source.cancelled == []
        source.finish()
        await wait_all_tasks_blocked()
        assert second.got == "a 0"


async def test_the_load_ends_when_the_last_caller_has_given_up(nursery: trio.Nursery) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10) as cache:
        callers = [Caller(cache, "a", source) for _ in range(2)]
        for caller in callers:
            nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        for caller in callers:
            caller.scope.cancel()
        await wait_all_tasks_blocked()
        assert source.cancelled == ["a"]
        assert cache.get("a") is None
        assert (cache.statistics().abandoned, cache.statistics().loading) == (1, 0)


async def test_a_load_whose_only_caller_left_before_it_began_is_not_begun() -> None:
    source = Source()
    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        loads = cache._loads
        for _ in range(2):  # by a new task, and by one that has slept
            loads.refresh("a", source)
            cache.delete("a")
            await wait_all_tasks_blocked()
            assert source.calls == []
            assert await cache.get_or_load("b", _value) == "b"
            await wait_all_tasks_blocked()
        assert (cache.statistics().abandoned, cache.statistics().loading) == (2, 0)


async def test_a_caller_who_comes_while_an_abandoned_load_ends_starts_another(
    nursery: trio.Nursery,
) -> None:
    leave = trio.Event()
    calls = 0

    async def stubborn(key: str) -> str:
        nonlocal calls
        calls += 1
        if calls > 1:
            return "second"
        with trio.CancelScope(shield=True):
            await leave.wait()
        return "first"

    async with csjd.open_cache(nursery, ttl=10) as cache:
        first = Caller(cache, "a", stubborn)
        nursery.start_soon(first)
        await wait_all_tasks_blocked()
        first.scope.cancel()
        await wait_all_tasks_blocked()
        assert await cache.get_or_load("a", stubborn) == "second"
        leave.set()
        await wait_all_tasks_blocked()
        assert cache.get("a") == "second"  # the first, late, changes nothing
        assert cache.statistics().loading == 0


async def test_the_load_runs_in_a_copy_of_its_first_callers_context(nursery: trio.Nursery) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="outside")
    seen = []

    async def load(key: str) -> str:
        seen.append(variable.get())
        variable.set("changed by the load")
        await trio.lowlevel.checkpoint()
        return key

    async with csjd.open_cache(nursery, ttl=10) as cache:
        variable.set("first caller")
        await cache.get_or_load("a", load)
        assert seen == ["first caller"]
        assert variable.get() == "first caller"
        variable.set("second caller")
        await cache.get_or_load("b", load)  # perhaps by the same task
        assert seen == ["first caller", "second caller"]
        assert variable.get() == "second caller"


async def test_every_caller_gets_an_error_of_its_own_and_none_is_kept(
    nursery: trio.Nursery,
) -> None:
    source = Source()
    source.error = ValueError("no", 7)
    async with csjd.open_cache(nursery, ttl=10) as cache:
        callers = [Caller(cache, "a", source) for _ in range(3)]
        for caller in callers:
            nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        source.finish()
        await wait_all_tasks_blocked()
        errors = [caller.error for caller in callers]
        assert all(type(error) is ValueError and error.args == ("no", 7) for error in errors)
        assert len(set(map(id, errors))) == 3
        assert source.error in errors  # the last to leave may have the original
        depths = [_depth(error) for error in errors]
        assert len(set(depths)) <= 2, "tracebacks grow with each who raised before"
        assert max(depths) - min(depths) <= 1
        assert cache.statistics().errors == 1
        assert await cache.get_or_load("a", _value) == "a"


def _depth(error: BaseException | None) -> int:
    assert error is not None
    depth, step = 0, error.__traceback__
    while step is not None:
        depth, step = depth + 1, step.tb_next
    return depth


async def test_a_failed_load_leaves_no_garbage_behind() -> None:
    async def fail(key: str) -> str:
        await trio.lowlevel.checkpoint()
        raise LookupError(key)

    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        gc.collect()
        gc.disable()
        try:
            with pytest.raises(LookupError):
                await cache.get_or_load("a", fail)
            await wait_all_tasks_blocked()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kinds = {type(thing) for thing in gc.garbage}
            assert not kinds & {LookupError, Load, Hand}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, BaseException])
async def test_whatever_a_load_raises_reaches_who_waits_and_nobody_else(
    kind: type[BaseException], nursery: trio.Nursery
) -> None:
    source = Source()
    source.error = kind("no")
    raised: list[BaseException] = []

    async def ask(key: str) -> None:
        try:
            await cache.get_or_load(key, source)
        except kind as error:
            raised.append(error)

    async with csjd.open_cache(nursery, ttl=10) as cache:
        for _ in range(2):
            nursery.start_soon(ask, "a")
        other = Caller(cache, "b", source)
        nursery.start_soon(other)
        await wait_all_tasks_blocked()
        source.gates[source.calls.index("a")].set()
        await wait_all_tasks_blocked()
        assert [(type(error), error.args) for error in raised] == [(kind, ("no",))] * 2
        assert raised[0] is not raised[1]
        source.error = None
        source.finish()
        await wait_all_tasks_blocked()
        assert other.got == f"b {source.calls.index('b')}"
        assert await cache.get_or_load("a", _value) == "a"


@pytest.mark.parametrize("left", ["scope", "nursery", "nursery with a child"])
@pytest.mark.parametrize("raises", [False, True])
async def test_a_load_that_leaves_something_open_fails_and_spoils_no_other(
    left: str, raises: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    error = ValueError("no") if raises else None
    cancelled: list[str] = []

    async def child(key: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(key)

    async def leak(key: str) -> str:
        if left == "scope":
            trio.CancelScope().__enter__()
        else:
            inner = await trio.open_nursery().__aenter__()
            if left == "nursery with a child":
                inner.start_soon(child, key)
        await trio.lowlevel.checkpoint()
        if error is not None:
            raise error
        return key

    source = Source()
    async with csjd.open_cache(nursery, ttl=10) as cache:
        other = Caller(cache, "other", source)
        nursery.start_soon(other)
        await wait_all_tasks_blocked()
        for _ in range(2):
            assert await cache.get_or_load("held", _value) == "held"
            with pytest.raises(RuntimeError, match=r"the loader .* still open") as caught:
                await cache.get_or_load("a", leak)
            assert caught.value.__cause__ is error
            cache.delete("held")
        assert cancelled == ["a", "a"] * (left == "nursery with a child")
        assert cache.get("a") is None
        assert cache.statistics().errors == 2
        source.finish()
        await wait_all_tasks_blocked()
        assert other.got == "other 0"


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_a_load_that_drops_a_generator_with_a_nursery_fails_alone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def generate() -> AsyncIterator[str]:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            yield "first"  # noqa: ASYNC101, ASYNC119  the mistake under test

    async def leak(key: str) -> str:
        async for value in generate():
            return value
        raise AssertionError

    async with csjd.open_cache(nursery, ttl=10) as cache:
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"the loader .* still open"):
                await cache.get_or_load("a", leak)
            await wait_all_tasks_blocked()  # Trio closes the generator meanwhile
        assert await cache.get_or_load("a", _value) == "a"


async def test_an_abandoned_load_that_leaves_a_nursery_open_ends_alone(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    async def leak(key: str) -> None:
        await trio.open_nursery().__aenter__()
        await trio.sleep_forever()

    async with csjd.open_cache(nursery, ttl=10) as cache:
        caller = Caller(cache, "a", leak)
        nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        caller.scope.cancel()
        await wait_all_tasks_blocked()
        assert await cache.get_or_load("a", _value) == "a"
    assert "nobody waits" in caplog.text
    assert "still open" in caplog.text


@pytest.mark.parametrize("kind", [ExceptionGroup, BaseExceptionGroup])
async def test_a_group_reaches_the_caller_whole(kind: Any) -> None:
    inner = ValueError(1) if kind is ExceptionGroup else SystemExit(1)

    async def fail(key: str) -> str:
        await trio.lowlevel.checkpoint()
        raise kind("several", [inner])

    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        with pytest.raises(kind) as caught:
            await cache.get_or_load("a", fail)
        assert caught.value.exceptions == (inner,)
        assert await cache.get_or_load("a", _value) == "a"


async def test_a_cancelled_out_of_nowhere_is_an_error_like_any_other() -> None:
    stray: trio.Cancelled | None = None
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            stray = error
            raise
    assert stray is not None

    async def fail(key: str) -> str:
        await trio.lowlevel.checkpoint()
        assert stray is not None
        raise stray

    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        with pytest.raises(RuntimeError, match="nothing was cancelled") as caught:
            await cache.get_or_load("a", fail)
        assert caught.value.__cause__ is stray
        assert await cache.get_or_load("a", _value) == "a"


async def test_a_load_that_breaks_while_nobody_waits_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def break_down(key: str) -> str:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    async def break_down_inside(key: str) -> str:
        async with trio.open_nursery() as inner:  # noqa: ASYNC112
            inner.start_soon(break_down, key)
        return key

    async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
        for loader in (break_down, break_down_inside):
            with trio.move_on_after(0):
                await cache.get_or_load("a", loader)
            caller = Caller(cache, "a", loader)
            nursery.start_soon(caller)
            await wait_all_tasks_blocked()
            caller.scope.cancel()
            await wait_all_tasks_blocked()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "nobody waits" in caplog.text
    assert "on the way out" in caplog.text


# --- set and delete during a load ------------------------------------------------------


async def test_set_during_a_load_wins(nursery: trio.Nursery) -> None:
    events: list[object] = []
    source = Source()
    async with csjd.open_cache(nursery, ttl=10, observers=[events.append]) as cache:
        caller = Caller(cache, "a", source)
        nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        cache.set("a", "newer")
        assert await cache.get_or_load("a", _never) == "newer"
        source.finish()
        await wait_all_tasks_blocked()
        assert caller.got == "a 0"
        assert cache.get("a") == "newer"
    assert isinstance(events[-1], csjd.CacheLoadSucceeded)
    assert events[-1].kept is False


async def test_delete_during_a_load_wins(nursery: trio.Nursery) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10) as cache:
        early = Caller(cache, "a", source)
        nursery.start_soon(early)
        await wait_all_tasks_blocked()
        assert cache.delete("a") is False
        late = Caller(cache, "a", source)
        nursery.start_soon(late)
        await wait_all_tasks_blocked()
        assert source.calls == ["a", "a"]  # what the first read may be gone
        source.gates[1].set()
        await wait_all_tasks_blocked()
        assert cache.get("a") == "a 1"
        source.gates[0].set()
        await wait_all_tasks_blocked()
        assert (early.got, late.got) == ("a 0", "a 1")
        assert cache.get("a") == "a 1"


async def test_giving_up_a_load_that_delete_unlinked_leaves_its_successor_alone(
    nursery: trio.Nursery,
) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10) as cache:
        early, late = Caller(cache, "a", source), Caller(cache, "a", source)
        nursery.start_soon(early)
        await wait_all_tasks_blocked()
        cache.delete("a")
        nursery.start_soon(late)
        await wait_all_tasks_blocked()
        early.scope.cancel()
        await wait_all_tasks_blocked()
        third = Caller(cache, "a", source)
        nursery.start_soon(third)
        await wait_all_tasks_blocked()
        assert len(source.calls) == 2
        source.finish()
        await wait_all_tasks_blocked()
        assert late.got == third.got == "a 1"


@pytest.mark.parametrize("change", ["set", "delete"])
async def test_a_refresh_that_would_not_be_kept_is_cancelled(
    change: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    events: list[object] = []
    source = Source()
    async with csjd.open_cache(
        nursery, ttl=10, refresh_ahead=5, observers=[events.append]
    ) as cache:
        for _ in range(3):
            cache.set("a", "old")
            mock_clock.jump(6)
            assert await cache.get_or_load("a", source) == "old"
            await wait_all_tasks_blocked()
            if change == "set":
                cache.set("a", "new")
            else:
                cache.delete("a")
            await wait_all_tasks_blocked()
            assert cache.statistics().loading == 0
        assert source.cancelled == source.calls == ["a"] * 3
        assert cache.statistics().abandoned == 3
        assert cache.get("a") == ("new" if change == "set" else None)
    assert events == [csjd.CacheLoadStarted("a", refresh=True), csjd.CacheLoadAbandoned("a")] * 3


async def test_a_refresh_that_got_callers_goes_on_for_them(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10, serve_stale=5) as cache:
        cache.set("a", "old")
        mock_clock.jump(10)
        assert await cache.get_or_load("a", source) == "old"
        mock_clock.jump(5)
        caller = Caller(cache, "a", source)
        nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        cache.delete("a")
        source.finish()
        await wait_all_tasks_blocked()
        assert caller.got == "a 0"


async def test_a_refresh_that_sets_its_own_key_is_not_cancelled_for_that(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    ended: list[str] = []

    async def load(key: str) -> str:
        cache.set(key, "by itself")
        await trio.lowlevel.checkpoint()
        ended.append(key)
        return "too late"

    async with csjd.open_cache(nursery, ttl=10, refresh_ahead=5) as cache:
        cache.set("a", "old")
        mock_clock.jump(6)
        assert await cache.get_or_load("a", load) == "old"
        await wait_all_tasks_blocked()
        assert ended == ["a"]
        assert cache.get("a") == "by itself"
        assert (cache.statistics().loading, cache.statistics().abandoned) == (0, 0)


@pytest.mark.parametrize("refresh", [False, True])
async def test_an_observer_may_delete_what_it_hears_is_being_loaded(
    refresh: bool, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    def forget(event: csjd.CacheEvent) -> None:
        if isinstance(event, csjd.CacheLoadStarted):
            cache.delete("a")

    async with csjd.open_cache(nursery, ttl=10, refresh_ahead=5, observers=[forget]) as cache:
        if refresh:
            cache.set("a", "old")
            mock_clock.jump(6)
        assert await cache.get_or_load("a", _value) == ("old" if refresh else "a")
        await wait_all_tasks_blocked()
        assert cache.get("a") is None
        statistics = cache.statistics()
        assert (statistics.loading, statistics.abandoned) == (0, int(refresh))


async def test_a_load_whose_start_breaks_an_observer_is_given_up(nursery: trio.Nursery) -> None:
    def leave(event: csjd.CacheEvent) -> None:
        raise SystemExit(3)

    source = Source()
    async with csjd.open_cache(nursery, ttl=10, observers=[leave]) as cache:
        with pytest.raises(SystemExit):
            await cache.get_or_load("a", source)
        await wait_all_tasks_blocked()
        assert source.calls == source.cancelled
        assert cache.statistics().loading == 0


# --- waits that could never end --------------------------------------------------------


async def test_asking_for_ones_own_key_would_deadlock(nursery: trio.Nursery) -> None:
    async with csjd.open_cache(nursery, ttl=10) as cache:

        async def directly(key: str) -> Any:
            return await cache.get_or_load(key, directly)

        async def from_a_child(key: str) -> Any:
            async with trio.open_nursery() as inner:  # noqa: ASYNC112
                inner.start_soon(cache.get_or_load, key, from_a_child)

        async def from_a_thread(key: str) -> Any:
            return await trio.to_thread.run_sync(
                trio.from_thread.run, cache.get_or_load, key, from_a_thread
            )

        async def after_a_delete(key: str) -> Any:
            cache.delete(key)
            return await cache.get_or_load(key, after_a_delete)

        for loader in (directly, from_a_child, from_a_thread, after_a_delete):
            with pytest.raises((csjd.WouldDeadlockError, ExceptionGroup)) as caught:  # noqa: ASYNC401
                await cache.get_or_load("a", loader)
            error: BaseException = caught.value
            while isinstance(error, ExceptionGroup):
                (error,) = error.exceptions
            assert isinstance(error, csjd.WouldDeadlockError)
            assert "'a'" in str(error)
        assert await cache.get_or_load("a", _value) == "a"


async def test_loads_that_ask_each_other_would_deadlock(nursery: trio.Nursery) -> None:
    async with (
        csjd.open_cache(nursery, ttl=10) as first,
        csjd.open_cache(nursery, ttl=10) as second,
    ):
        for other in (first, second):

            async def ask_b(key: str, other: Cache = other) -> Any:
                return await other.get_or_load("b", ask_c)

            async def ask_c(key: str) -> Any:
                return await first.get_or_load("c", ask_a)

            async def ask_a(key: str, ask: Loader = ask_b) -> Any:
                return await first.get_or_load("a", ask)

            with pytest.raises(csjd.WouldDeadlockError):
                await first.get_or_load("a", ask_b)
        assert first.statistics().loading == second.statistics().loading == 0


async def test_loads_may_share_what_they_need(nursery: trio.Nursery) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10) as cache:

        async def ask_base(key: str) -> Any:
            return await cache.get_or_load("base", source)

        loaders: dict[str, Loader] = {"a": ask_base, "b": ask_base, "base": source}
        callers = [Caller(cache, key, loader) for key, loader in loaders.items()]
        for caller in callers:
            nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        source.finish()
        await wait_all_tasks_blocked()
        assert [caller.got for caller in callers] == ["base 0"] * 3


async def test_a_task_that_outlives_the_load_it_came_from_may_ask(nursery: trio.Nursery) -> None:
    async with csjd.open_cache(nursery, ttl=10) as cache:
        go = trio.Event()
        got = []

        async def straggle() -> None:
            await go.wait()
            cache.delete("a")
            got.append(await cache.get_or_load("a", _value))

        async def load(key: str) -> str:
            await trio.lowlevel.checkpoint()
            nursery.start_soon(straggle)
            return key

        await cache.get_or_load("a", load)
        go.set()
        await wait_all_tasks_blocked()
        assert got == ["a"]


async def test_a_wait_given_up_binds_no_more(nursery: trio.Nursery) -> None:
    async with csjd.open_cache(nursery, ttl=10) as cache:
        turned = trio.Event()

        async def a(key: str) -> str:
            async with trio.open_nursery() as inner:
                inner.start_soon(cache.get_or_load, "b", b)
                await wait_all_tasks_blocked()
                inner.cancel_scope.cancel()
            turned.set()
            await wait_all_tasks_blocked(0.01)  # now b waits for us
            return "a"

        async def b(key: str) -> Any:
            await turned.wait()
            return await cache.get_or_load("a", _never)

        keeper = Caller(cache, "b", b)
        asker = Caller(cache, "a", a)
        nursery.start_soon(keeper)
        await wait_all_tasks_blocked()
        nursery.start_soon(asker)
        await wait_all_tasks_blocked(0.05)
        assert (keeper.got, asker.got) == ("a", "a")


# --- refreshing ------------------------------------------------------------------------


async def test_a_refresh_runs_ahead_of_expiry_while_the_value_is_served(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    events: list[object] = []
    source = Source()
    async with csjd.open_cache(
        nursery, ttl=10, refresh_ahead=3, observers=[events.append]
    ) as cache:
        cache.set("a", "old")
        mock_clock.jump(6.999)
        assert await cache.get_or_load("a", _never) == "old"
        mock_clock.jump(0.001)
        for _ in range(3):
            assert await cache.get_or_load("a", source) == "old"
            await wait_all_tasks_blocked()
        assert source.calls == ["a"]
        assert events == [csjd.CacheLoadStarted("a", refresh=True)]
        source.finish()
        await wait_all_tasks_blocked()
        mock_clock.jump(5)
        assert cache.get("a") == "a 0"
        statistics = cache.statistics()
        assert (statistics.hits, statistics.stale_hits, statistics.refreshes) == (5, 0, 1)


async def test_get_starts_no_refresh_and_serves_nothing_stale(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with csjd.open_cache(nursery, ttl=10, refresh_ahead=3, serve_stale=5) as cache:
        cache.set("a", "old")
        mock_clock.jump(9)
        assert cache.get("a") == "old"
        mock_clock.jump(1)
        assert cache.get("a") is None
        assert cache.statistics().loads == 0


async def test_a_stale_value_is_served_while_a_refresh_runs(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10, serve_stale=5) as cache:
        cache.set("a", "old")
        mock_clock.jump(14.999)
        assert await cache.get_or_load("a", source) == "old"
        assert len(cache) == 1
        mock_clock.jump(0.001)
        assert len(cache) == 0
        caller = Caller(cache, "a", source)
        nursery.start_soon(caller)  # too late for that: it joins the refresh
        await wait_all_tasks_blocked()
        assert source.calls == ["a"]
        source.finish()
        await wait_all_tasks_blocked()
        assert caller.got == "a 0"
        assert cache.statistics().stale_hits == 1


async def test_a_refresh_that_got_callers_ends_when_they_give_up(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10, serve_stale=5) as cache:
        cache.set("a", "old")
        mock_clock.jump(10)
        assert await cache.get_or_load("a", source) == "old"
        mock_clock.jump(5)
        caller = Caller(cache, "a", source)
        nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        caller.scope.cancel()
        await wait_all_tasks_blocked()
        assert source.cancelled == ["a"]  # else a load that hangs would hold its key for ever


async def test_a_failed_refresh_is_logged_and_not_tried_again_at_once(
    nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    async def fail(key: str) -> str:
        await trio.lowlevel.checkpoint()
        nonlocal calls
        calls += 1
        raise ValueError("source is down")

    async with csjd.open_cache(nursery, ttl=10, refresh_ahead=5, serve_stale=3) as cache:
        cache.set("a", "old")
        mock_clock.jump(5)
        for attempts in (1, 2, 3):
            for _ in range(3):
                assert await cache.get_or_load("a", fail) == "old"
                await wait_all_tasks_blocked()
            assert calls == attempts
            mock_clock.jump(0.8)  # a tenth of the 8 s in which it can be refreshed
        assert cache.statistics().errors == 3
        assert caplog.text.count("source is down") >= 3


async def test_serving_stale_for_ever_retries_every_tenth_of_the_ttl(
    nursery: trio.Nursery, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(key: str) -> str:
        await trio.lowlevel.checkpoint()
        raise ValueError(key)

    async with csjd.open_cache(nursery, ttl=10, serve_stale=math.inf) as cache:
        cache.set("a", "old")
        mock_clock.jump(1000)
        for _ in range(10):
            assert await cache.get_or_load("a", fail) == "old"
            await wait_all_tasks_blocked()
            mock_clock.jump(0.5)
        assert cache.statistics().errors == 5
        assert len(caplog.records) == 5
        assert cache.statistics().stale_hits == 10


async def test_a_refresh_may_ask_for_the_value_it_renews(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async with csjd.open_cache(nursery, ttl=10, refresh_ahead=5) as cache:

        async def append(key: str) -> str:
            return f"{await cache.get_or_load(key, append)}+"

        cache.set("a", "old")
        mock_clock.jump(5)
        await cache.get_or_load("a", append)
        await wait_all_tasks_blocked()
        assert cache.get("a") == "old+"


# --- the end ---------------------------------------------------------------------------


async def test_leaving_releases_who_waits_and_leaves_no_task() -> None:
    source = Source()
    async with trio.open_nursery() as nursery:
        async with csjd.open_cache(nursery, ttl=10) as cache:
            assert [task.name for task in nursery.child_tasks] == ["csjd cache"]
            callers = [Caller(cache, "a", source) for _ in range(2)]
            for caller in callers:
                nursery.start_soon(caller)
            await wait_all_tasks_blocked()
        assert not [task for task in nursery.child_tasks if "csjd" in task.name]
        assert source.cancelled == ["a"]
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks
        errors = [caller.error for caller in callers]
        assert [type(error) for error in errors] == [csjd.CacheClosedError] * 2
        assert errors[0] is not errors[1]


async def test_a_closed_cache_is_empty_and_refuses() -> None:
    async with trio.open_nursery() as nursery:
        async with csjd.open_cache(nursery, ttl=10) as cache:
            cache.set("a", 1)
        assert cache.get("a") is None
        assert len(cache) == 0
        assert cache.delete("a") is False
        with pytest.raises(csjd.CacheClosedError, match="open a new one"):
            cache.set("a", 1)
        with pytest.raises(csjd.CacheClosedError):
            await cache.get_or_load("a", _value)
        assert len(cache) == 0
        assert cache.statistics().loads == 0


async def test_leaving_waits_for_loads_that_take_their_time(autojump_clock: MockClock) -> None:
    events: list[object] = []
    ended = False

    async def stubborn(key: str) -> str:
        nonlocal ended
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        ended = True
        return key

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            async with csjd.open_cache(nursery, ttl=10, observers=[events.append]) as cache:
                caller = Caller(cache, "a", stubborn)
                nursery.start_soon(caller)
                await trio.sleep_forever()
        assert ended
        assert trio.current_time() == 5
        await wait_all_tasks_blocked()
        assert caller.got == "a"  # it did get loaded
        assert cache.get("a") is None  # and came too late to be kept
        assert events[1:] == [csjd.CacheLoadSucceeded("a", 5, kept=False)]


async def test_cancelling_the_nursery_releases_callers_outside_of_it() -> None:
    source = Source()
    async with trio.open_nursery() as outside:
        async with trio.open_nursery() as nursery:
            cache = await outside.start(_keep_open, nursery)  # noqa: ASYNC111
            caller = Caller(cache, "a", source)
            outside.start_soon(caller)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert isinstance(caller.error, csjd.CacheClosedError)
        with pytest.raises(csjd.CacheClosedError):
            await cache.get_or_load("a", _value)
        outside.cancel_scope.cancel()


async def _keep_open(nursery: trio.Nursery, task_status: trio.TaskStatus[Cache]) -> None:  # noqa: ASYNC114
    async with csjd.open_cache(nursery, ttl=10) as cache:
        task_status.started(cache)
        await trio.sleep_forever()


@pytest.mark.parametrize("passes", range(5))
async def test_who_asks_while_the_nursery_ends_hears_that_the_cache_is_closed(passes: int) -> None:
    async def ask() -> None:
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
        caller = Caller(cache, "a", Source())
        await caller()
        heard.append(type(caller.error))

    heard: list[type] = []
    for _ in range(10):  # in whichever order tasks run
        async with trio.open_nursery() as outside:
            async with trio.open_nursery() as nursery:
                cache = await outside.start(_keep_open, nursery)  # noqa: ASYNC111
                outside.start_soon(ask)
                nursery.cancel_scope.cancel()
            await wait_all_tasks_blocked()
            assert cache.statistics().loading == 0
            outside.cancel_scope.cancel()
    assert heard == [csjd.CacheClosedError] * 10


async def test_a_cache_whose_nursery_is_cancelled_is_closed_before_its_last_load_ends(
    autojump_clock: MockClock,
) -> None:
    async def stubborn(key: str) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return key

    async with trio.open_nursery() as outside:
        async with trio.open_nursery() as nursery:
            cache = await outside.start(_keep_open, nursery)  # noqa: ASYNC111
            caller = Caller(cache, "a", stubborn)
            outside.start_soon(caller)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            with pytest.raises(csjd.CacheClosedError):
                cache.set("b", 1)
        await wait_all_tasks_blocked()
        assert (caller.got, trio.current_time()) == ("a", 5)
        outside.cancel_scope.cancel()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
async def test_what_ends_the_program_in_a_load_reaches_the_nursery(
    kind: type[BaseException],
) -> None:
    async def interrupt(key: str) -> str:
        await trio.lowlevel.checkpoint()
        raise kind

    callers = []
    async with trio.open_nursery() as outside:
        with pytest.RaisesGroup(pytest.RaisesGroup(kind)):
            async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
                callers.append(Caller(cache, "a", interrupt))
                outside.start_soon(callers[0])
                await trio.sleep_forever()
        await wait_all_tasks_blocked()
        assert isinstance(callers[0].error, csjd.CacheClosedError)
        assert isinstance(callers[0].error.__cause__, kind)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("wanted", ["a", "b"])
async def test_what_ends_the_program_in_a_load_is_all_that_the_nursery_raises(
    kind: type[BaseException], wanted: str
) -> None:
    source = Source()

    async def interrupt(key: str) -> str:
        await wait_all_tasks_blocked()
        raise kind

    loaders: dict[str, Loader] = {"a": interrupt, "b": source}
    for _ in range(5):  # in whichever order tasks run
        with pytest.RaisesGroup(pytest.RaisesGroup(kind)):
            async with trio.open_nursery() as nursery, csjd.open_cache(nursery, ttl=10) as cache:
                for key, load in loaders.items():
                    nursery.start_soon(cache.get_or_load, key, load)  # noqa: ASYNC111
                await cache.get_or_load(wanted, loaders[wanted])
    assert source.cancelled == ["b"] * 5


async def test_what_nobody_heard_and_no_log_takes_is_all_that_the_nursery_raises(
    mock_clock: MockClock,
) -> None:
    async def leave(key: str) -> str:
        await wait_all_tasks_blocked()
        raise SystemExit(3)

    with pytest.RaisesGroup(pytest.RaisesGroup(SystemExit)):
        async with (
            trio.open_nursery() as nursery,
            csjd.open_cache(nursery, ttl=10, refresh_ahead=5) as cache,
        ):
            cache.set("a", "old")
            mock_clock.jump(6)
            assert await cache.get_or_load("a", leave) == "old"
            await cache.get_or_load("b", Source())


@pytest.mark.parametrize("broken", ["observer", "random"])
async def test_what_breaks_while_a_load_is_booked_ends_the_nursery_and_no_caller(
    broken: str,
) -> None:
    class Broken(Random):
        def random(self) -> float:
            raise SystemExit(3)

    def observe(event: csjd.CacheEvent) -> None:
        if isinstance(event, csjd.CacheEntryEvicted):
            raise SystemExit(3)

    settings: dict[str, Any] = {"observers": [observe]}
    if broken == "random":
        settings = {"jitter": 0.5, "random": Broken()}
    async with trio.open_nursery() as outside:
        with pytest.RaisesGroup(pytest.RaisesGroup(SystemExit)):
            async with (
                trio.open_nursery() as nursery,
                csjd.open_cache(nursery, ttl=10, maxsize=1, **settings) as cache,
            ):
                if broken == "observer":
                    cache.set("in the way", 1)
                caller = Caller(cache, "a", _value)
                outside.start_soon(caller)
                await trio.sleep_forever()
        await wait_all_tasks_blocked()
        assert caller.got == "a"  # it did get loaded
        assert cache.statistics().loading == 0


@pytest.mark.parametrize("moment", ["looked up", "linked"])
async def test_a_key_that_cannot_be_compared_is_refused_alone(
    moment: str, nursery: trio.Nursery
) -> None:
    moments = iter(["looked up", "linked"])

    class Key:
        def __hash__(self) -> int:
            return hash("a")

        def __eq__(self, other: object) -> bool:
            if next(moments) == moment:
                raise LookupError("cannot be compared")
            return False

    source = Source()
    async with csjd.open_cache(nursery, ttl=10) as cache:
        caller = Caller(cache, "a", source)
        nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        with pytest.raises(LookupError):
            await cache.get_or_load(Key(), source)
        await wait_all_tasks_blocked()
        assert source.calls == ["a"]
        assert (cache.statistics().loads, cache.statistics().loading) == (1, 1)
        source.finish()
        await wait_all_tasks_blocked()
        assert caller.got == "a 0"


@pytest.mark.parametrize("end", ["the block is left", "the nursery is cancelled"])
@pytest.mark.parametrize("waits", [True, False])
async def test_what_a_load_raises_in_a_nursery_as_it_is_closed_is_its_own(
    end: str, waits: bool, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def load(key: str) -> str:
        await break_down_when_cancelled()

    async with (
        trio.open_nursery() as outside,
        trio.open_nursery() as nursery,
        csjd.open_cache(nursery, ttl=10, refresh_ahead=5) as cache,
    ):
        if not waits:
            cache.set("a", "old")
            mock_clock.jump(6)
        caller = Caller(cache, "a", load)
        outside.start_soon(caller)
        await wait_all_tasks_blocked()
        if end == "the nursery is cancelled":
            nursery.cancel_scope.cancel()
    if waits:
        assert isinstance(caller.error, ExceptionGroup)
        assert [repr(error) for error in leaves(caller.error)] == ["ValueError('on the way out')"]
        assert not caplog.records
    else:
        assert caller.got == "old"
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "on the way out" in caplog.text
    assert cache.statistics().errors == 1


async def test_a_load_whose_nursery_is_cancelled_with_it_leaves_no_cause(
    nursery: trio.Nursery,
) -> None:
    async def load(key: str) -> str:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            inner.start_soon(trio.sleep_forever)
        raise AssertionError

    async with csjd.open_cache(nursery, ttl=10) as cache:
        caller = Caller(cache, "a", load)
        nursery.start_soon(caller)
        await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    assert isinstance(caller.error, csjd.CacheClosedError)
    assert caller.error.__cause__ is None


async def test_a_load_given_up_before_the_end_is_counted_once() -> None:
    ended = trio.Event()

    async def stubborn(key: str) -> None:
        with trio.CancelScope(shield=True):
            await ended.wait()
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        async with csjd.open_cache(nursery, ttl=10) as cache:
            caller = Caller(cache, "a", stubborn)
            nursery.start_soon(caller)
            await wait_all_tasks_blocked()
            caller.scope.cancel()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            ended.set()
        assert (cache.statistics().abandoned, cache.statistics().loading) == (1, 0)


async def test_a_nursery_that_is_closed_already_is_refused() -> None:
    async with trio.open_nursery() as nursery:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        async with csjd.open_cache(nursery, ttl=10):
            raise AssertionError


async def test_closing_ends_loads_that_a_delete_has_unlinked_too() -> None:
    source = Source()
    async with trio.open_nursery() as nursery:
        async with csjd.open_cache(nursery, ttl=10) as cache:
            callers = [Caller(cache, "a", source) for _ in range(2)]
            for caller in callers:
                nursery.start_soon(caller)
                await wait_all_tasks_blocked()
                cache.delete("a")
        await wait_all_tasks_blocked()
        assert [type(caller.error) for caller in callers] == [csjd.CacheClosedError] * 2
        assert source.cancelled == ["a", "a"]
        assert (cache.statistics().abandoned, cache.statistics().loading) == (2, 0)


def test_ctrl_c_reaches_loaders_and_spares_the_caches_own_books() -> None:
    protected = []

    async def load(key: str) -> str:
        await trio.lowlevel.checkpoint()
        protected.append(trio.lowlevel.currently_ki_protected())
        return key

    def observe(event: csjd.CacheEvent) -> None:
        protected.append(trio.lowlevel.currently_ki_protected())

    async def main() -> None:
        async with (
            trio.open_nursery() as nursery,
            csjd.open_cache(nursery, ttl=10, maxsize=1, observers=[observe]) as cache,
        ):
            await cache.get_or_load("a", load)
            cache.set("b", 1)

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    trio.run(main)
    # Load started, the load, load succeeded, entry evicted.
    assert protected == [True, False, True, True]


# --- the manners of the house ----------------------------------------------------------


async def test_get_or_load_checkpoints_on_hit_and_miss(nursery: trio.Nursery) -> None:
    async def at_once(key: str) -> str:  # noqa: ASYNC124
        return key

    async with csjd.open_cache(nursery, ttl=10) as cache:
        with assert_checkpoints():
            await cache.get_or_load("a", at_once)
        with assert_checkpoints():
            await cache.get_or_load("a", _never)


async def test_a_cancelled_call_did_nothing(nursery: trio.Nursery) -> None:
    async with csjd.open_cache(nursery, ttl=10) as cache:
        cache.set("held", 1)
        before = cache.statistics()
        for key in ("held", "missing"):
            with trio.CancelScope() as scope:
                scope.cancel()
                await cache.get_or_load(key, _never)
            assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert cache.statistics() == before


async def test_observers_hear_what_happens_when_it_is_whole(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    heard: list[tuple[object, object]] = []
    source = Source()

    error = ValueError("no")

    def observe(event: csjd.CacheEvent) -> None:
        statistics = cache.statistics()
        heard.append((event, (statistics.loads, statistics.loading, cache.get("a"))))

    async with csjd.open_cache(nursery, ttl=10, observers=[observe]) as cache:
        for step in ("abandon", "fail", "succeed"):
            caller = Caller(cache, "a", source)
            source.error = error if step == "fail" else None
            nursery.start_soon(caller)
            await wait_all_tasks_blocked()
            mock_clock.jump(2)
            if step == "abandon":
                caller.scope.cancel()
            else:
                source.finish()
            await wait_all_tasks_blocked()
    started = csjd.CacheLoadStarted("a", refresh=False)
    assert heard == [
        (started, (1, 1, None)),
        (csjd.CacheLoadAbandoned("a"), (1, 0, None)),
        (started, (2, 1, None)),
        (csjd.CacheLoadFailed("a", 2, error), (2, 0, None)),
        (started, (3, 1, None)),
        (csjd.CacheLoadSucceeded("a", 2, kept=True), (3, 0, "a 2")),
    ]


async def test_an_observer_that_raises_is_dropped_with_one_logged_error(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []

    def broken(event: object) -> None:
        raise ValueError("observer is broken")

    async with csjd.open_cache(nursery, ttl=10, observers=[broken, heard.append]) as cache:
        await cache.get_or_load("a", _value)
    assert len(heard) == 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_an_observer_may_change_the_cache(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    def forget(event: csjd.CacheEvent) -> None:
        cache.delete("a")

    async with csjd.open_cache(
        nursery, ttl=10, maxsize=2, refresh_ahead=5, observers=[forget]
    ) as cache:
        cache.set("a", 1)
        mock_clock.jump(6)
        assert await cache.get_or_load("a", _value) == 1
        await wait_all_tasks_blocked()
        assert len(cache) == 0


async def test_another_thread_is_refused_before_anything_changes(nursery: trio.Nursery) -> None:
    async with csjd.open_cache(nursery, ttl=10) as cache:
        cache.set("a", 1)
        for call in (lambda: cache.set("b", 1), lambda: cache.delete("a"), cache.cleanup):
            with pytest.raises(RuntimeError):
                await trio.to_thread.run_sync(call)
        assert (cache.get("a"), len(cache)) == (1, 1)
        await trio.to_thread.run_sync(trio.from_thread.run_sync, cache.set, "b", 2)
        assert cache.get("b") == 2


async def test_another_trio_run_is_refused_before_anything_changes(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    source = Source()
    async with csjd.open_cache(nursery, ttl=10, refresh_ahead=5) as cache:
        cache.set("a", 1)
        mock_clock.jump(6)
        nursery.start_soon(Caller(cache, "b", source))  # under way, so that one might join
        await cache.get_or_load("c", _value)  # and a task sleeps, so that one might wake it
        await wait_all_tasks_blocked()
        before = cache.statistics()

        async def elsewhere() -> None:
            for call in (
                lambda: cache.set("b", 1),
                lambda: cache.delete("a"),
                cache.cleanup,
                cache.statistics,
            ):
                with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run"):
                    call()
            for key in "abd":  # due for a refresh, under way, missing
                with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run"):
                    await cache.get_or_load(key, _never)

        await trio.to_thread.run_sync(trio.run, elsewhere)
        await wait_all_tasks_blocked()
        assert (cache.statistics(), source.calls) == (before, ["b"])
        source.finish()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"ttl": 0}, "ttl"),
        ({"ttl": math.nan}, "ttl"),
        ({"ttl": "10"}, "ttl"),
        ({"maxsize": 0}, "maxsize"),
        ({"maxsize": True}, "maxsize"),
        ({"maxsize": 1.5}, "maxsize"),
        ({"jitter": 1}, "jitter"),
        ({"jitter": -0.1}, "jitter"),
        ({"serve_stale": -1}, "serve_stale"),
        ({"serve_stale": math.nan}, "serve_stale"),
        ({"refresh_ahead": 10}, "refresh_ahead"),
        ({"refresh_ahead": 6, "jitter": 0.5}, "refresh_ahead"),
        ({"refresh_ahead": -1}, "refresh_ahead"),
        ({"observers": [1]}, "observer"),
    ],
)
async def test_a_wrong_setting_is_named(settings: dict[str, Any], name: str) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(ValueError, match=name):
            async with csjd.open_cache(nursery, **({"ttl": 10} | settings)):
                raise AssertionError
        assert not nursery.child_tasks
