"""The cache against a plain model, under random sequences of everything that can happen."""

from collections import OrderedDict
from typing import Any

import attrs
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import csjd

TTL = 10.0
FORGOTTEN = "b"  # what an observer deletes whenever it hears that it is being loaded
KEYS = st.sampled_from("aaabcd")  # one of them often, so that much happens to it


@attrs.define(eq=False)
class Asked:
    """One caller: what it should get, and what it got."""

    expected: Any = "waits"
    got: Any = "waits"
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.define(eq=False)
class Load:
    key: str
    linked: bool = True
    waiters: list[Asked] = attrs.field(factory=list)


@attrs.define
class Entry:
    value: Any
    expires: float
    retry_at: float


@attrs.define(eq=False)
class Model:
    """What the cache promises, without a thought for cost."""

    maxsize: int | None
    ahead: float
    stale: float
    forgets: bool
    now: float = 0.0
    entries: OrderedDict[str, Entry] = attrs.field(factory=OrderedDict)
    loads: list[Load] = attrs.field(factory=list)
    hits: int = 0
    stale_hits: int = 0
    misses: int = 0
    started: int = 0
    errors: int = 0
    abandoned: int = 0

    def purge(self) -> None:
        for key, entry in list(self.entries.items()):
            if self.now >= entry.expires + self.stale:
                del self.entries[key]

    def linked(self, key: str) -> Load | None:
        return next((load for load in self.loads if load.linked and load.key == key), None)

    def put(self, key: str, value: Any) -> None:
        self.purge()
        self.entries.pop(key, None)
        expires = self.now + TTL
        self.entries[key] = Entry(value, expires, expires - self.ahead)
        if self.maxsize is not None and len(self.entries) > self.maxsize:
            self.entries.popitem(last=False)

    def unlink(self, key: str) -> None:
        load = self.linked(key)
        if load is not None:
            load.linked = False
            if not load.waiters:
                self.loads.remove(load)
                self.abandoned += 1

    def get(self, key: str) -> Any:
        entry = self.entries.get(key)
        if entry is None or self.now >= entry.expires:
            self.misses += 1
            return None
        self.hits += 1
        self.entries.move_to_end(key)
        return entry.value

    def ask(self, key: str, asked: Asked) -> None:
        self.purge()
        entry = self.entries.get(key)
        if entry is None:
            self.misses += 1
            load = self.linked(key)
            if load is not None:
                load.waiters.append(asked)
            else:
                self.start(key, asked)
            return
        self.hits += 1
        self.stale_hits += self.now >= entry.expires
        self.entries.move_to_end(key)
        asked.expected = entry.value
        if self.now >= entry.retry_at and self.linked(key) is None:
            self.start(key)

    def start(self, key: str, *waiters: Asked) -> None:
        self.loads.append(Load(key, waiters=list(waiters)))
        self.started += 1
        if self.forgets and key == FORGOTTEN:
            self.entries.pop(key, None)
            self.unlink(key)

    def end(self, load: Load, value: Any, *, failed: bool) -> None:
        self.loads.remove(load)
        for asked in load.waiters:
            asked.expected = value
        self.errors += failed
        if load.linked and not failed:
            self.put(load.key, value)
        elif load.linked and load.key in self.entries:
            pause = min(self.ahead + self.stale, TTL) * 0.1
            self.entries[load.key].retry_at = self.now + pause

    def give_up(self, asked: Asked) -> None:
        asked.expected = "gave up"
        for load in self.loads:
            if asked in load.waiters:
                load.waiters.remove(asked)
                if not load.waiters:
                    self.loads.remove(load)
                    self.abandoned += 1
                return

    def close(self, *, breaks: bool) -> None:
        for load in self.loads:
            for asked in load.waiters:
                asked.expected = "broke" if breaks else "closed"
        self.loads.clear()


class Real:
    """The cache under test, driven one step at a time; callers live in *nursery*."""

    cache: Any
    nursery: trio.Nursery

    def __init__(self, breaks: str) -> None:
        self.breaks = breaks
        self.ended = False
        self.running: dict[int, tuple[str, trio.Event, list[Any]]] = {}
        self.count = 0

    async def load(self, key: str) -> Any:
        self.count += 1
        number = self.count
        gate, outcome = trio.Event(), []  # type: ignore[var-annotated]
        self.running[number] = (key, gate, outcome)
        try:
            if self.breaks == "in a nursery":
                async with trio.open_nursery() as inner:
                    inner.start_soon(self.wait, gate)
                    await gate.wait()
            else:
                await self.wait(gate)
        finally:
            del self.running[number]
        (value,) = outcome
        if isinstance(value, Exception):
            raise value
        return value

    async def wait(self, gate: trio.Event) -> None:
        try:
            await gate.wait()
        finally:
            if self.breaks != "never" and not gate.is_set():
                raise OSError("on the way out")

    async def ask(self, key: str, asked: Asked) -> None:
        with asked.scope:
            try:
                asked.got = await self.cache.get_or_load(key, self.load)
            except LookupError as error:
                asked.got = error.args[0]
            except csjd.CacheClosedError:
                asked.got = "closed"
            except (OSError, ExceptionGroup):
                asked.got = "broke"
            return
        asked.got = "gave up"


OPERATION = st.one_of(
    st.tuples(st.just("set"), KEYS),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("ask"), KEYS),
    st.tuples(st.just("ask"), KEYS),
    st.tuples(st.just("jump"), st.sampled_from([0.3, 1.0, 4.0, 9.0])),
    st.tuples(st.just("age"), KEYS),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.just("fail"), st.integers(0, 5)),
    st.tuples(st.just("give up"), st.integers(0, 9)),
    st.tuples(st.just("clean"), st.none()),
)


@settings(max_examples=250, deadline=None)
@given(
    operations=st.lists(OPERATION, min_size=20, max_size=60),
    maxsize=st.sampled_from([None, 1, 2, 3]),
    ahead=st.sampled_from([0.0, 4.0]),
    stale=st.sampled_from([0.0, 5.0]),
    forgets=st.booleans(),
    breaks=st.sampled_from(["never", "bare", "in a nursery"]),
    end=st.sampled_from(["callers give up", "the block is left", "the nursery is cancelled"]),
)
def test_the_cache_does_what_the_model_does(
    operations: list[tuple[str, Any]],
    maxsize: int | None,
    ahead: float,
    stale: float,
    forgets: bool,
    breaks: str,
    end: str,
) -> None:
    clock = MockClock()

    def forget(event: csjd.CacheEvent) -> None:
        if forgets and event.key == FORGOTTEN and isinstance(event, csjd.CacheLoadStarted):
            real.cache.delete(FORGOTTEN)

    async def main() -> None:
        async with trio.open_nursery() as real.nursery:
            async with (
                trio.open_nursery() as nursery,
                csjd.open_cache(
                    nursery,
                    ttl=TTL,
                    maxsize=maxsize,
                    refresh_ahead=ahead,
                    serve_stale=stale,
                    observers=[forget],
                ) as real.cache,
            ):
                for number, (kind, argument) in enumerate(operations):
                    await step(model, real, clock, callers, kind, argument, number)
                    check(model, real, callers)
                if end == "callers give up":
                    for caller in callers:
                        caller.scope.cancel()
                        if caller.expected == "waits":
                            model.give_up(caller)
                    await wait_all_tasks_blocked()
                    check(model, real, callers)
                elif end == "the nursery is cancelled":
                    nursery.cancel_scope.cancel()
            model.close(breaks=breaks != "never")
            await wait_all_tasks_blocked()
            assert [asked.got for asked in callers] == [asked.expected for asked in callers]
            assert real.cache.statistics().loading == 0
            assert not real.running
            real.ended = True

    model, real = Model(maxsize, ahead, stale, forgets), Real(breaks)
    callers: list[Asked] = []
    trio.run(main, clock=clock)
    assert real.ended  # and no Cancelled out of nowhere has cancelled all that in silence


async def step(
    model: Model,
    real: Real,
    clock: MockClock,
    callers: list[Asked],
    kind: str,
    argument: Any,
    number: int,
) -> None:
    """Do one thing to both."""
    match kind:
        case "set":
            real.cache.set(argument, number)
            model.unlink(argument)
            model.put(argument, number)
        case "get":
            assert real.cache.get(argument) == model.get(argument)
        case "delete":
            entry = model.entries.pop(argument, None)
            model.unlink(argument)
            fresh = entry is not None and model.now < entry.expires
            assert real.cache.delete(argument) == fresh
        case "ask":
            asked = Asked()
            callers.append(asked)
            real.nursery.start_soon(real.ask, argument, asked)
            model.ask(argument, asked)
        case "jump":
            clock.jump(argument)
            model.now = trio.current_time()
        case "age" if argument in model.entries:  # till it is due for a refresh
            clock.jump(max(0.0, model.entries[argument].retry_at - model.now))
            model.now = trio.current_time()
        case "end" | "fail" if model.loads:
            position = argument % len(model.loads)
            load = model.loads[position]
            # Loads start one step apart, so both lists are in the same order.
            key, gate, outcome = list(real.running.values())[position]
            assert key == load.key
            outcome.append(LookupError(number) if kind == "fail" else number)
            gate.set()
            model.end(load, number, failed=kind == "fail")
        case "give up" if callers:
            asked = callers[argument % len(callers)]
            if asked.expected == "waits":
                asked.scope.cancel()
                model.give_up(asked)
        case "clean":
            real.cache.cleanup()
            model.purge()
            assert len(real.cache) == len(model.entries)
    await wait_all_tasks_blocked()


def check(model: Model, real: Real, callers: list[Asked]) -> None:
    """Compare what can be seen without disturbing anything."""
    # Nothing is loaded in vain; the real loads are the model's, as is compared below.
    assert all(load.linked or load.waiters for load in model.loads)
    assert [asked.got for asked in callers] == [asked.expected for asked in callers]
    assert [key for key, _, _ in real.running.values()] == [load.key for load in model.loads]
    cache = real.cache
    assert model.maxsize is None or len(cache._held) <= model.maxsize
    assert {key for shelf in cache._shelves._shelves for key in shelf} == cache._held.keys()
    loads = cache._loads
    assert (cache._hits, cache._stale_hits) == (model.hits, model.stale_hits)
    assert cache._misses + loads.misses == model.misses
    assert (loads.started, loads.errors) == (model.started, model.errors)
    assert (loads.abandoned, loads.loading) == (model.abandoned, len(model.loads))
    assert len(loads.linked) == sum(load.linked for load in model.loads)
