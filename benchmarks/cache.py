"""
What the cache costs: `python -m benchmarks cache`.

Hits are compared with what they are made of, a dict look-up and a bare Trio checkpoint;
whole pieces of work with async-lru and cashews, which do them under asyncio: a miss is one
load by a task of the cache's own, which yields once, and is then held with a time to live
and a maximum of entries; a stampede is many tasks that are started and ask for one key. Their
hits do not yield to the event loop, so they are compared with `get`, which does not either.
One row gives each hit of theirs an `asyncio.sleep(0)`, which is what `get_or_load` does;
nothing is promised there, as a bare Trio checkpoint alone costs about as much.

Rows that begin with "by hand" are no measure of the cache: they show what the same costs if
written down with nothing around it, so that it can be judged how much of the rest is ours.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from random import Random
from time import perf_counter
from typing import Any

import trio

import csjd
from benchmarks._kit.interleaved import interleave, peer, row, skipped
from benchmarks._kit.rows import Row

TITLE = "The cache, against what it is made of and its peers: time of ours / time of theirs"

_async_lru_library = peer("async_lru")
_cashews_library = peer("cashews")

_ENTRIES = 10_000
_LOOK_UPS = 100_000
_HITS = 20_000
_CALLERS = 1_000
_MISSES = 2_000
_TTL = 3600.0

Contender = Callable[[], float]


def _keys() -> list[str]:
    return [f"user-{number}" for number in range(_ENTRIES)]


def _asked(keys: list[str]) -> list[str]:
    """Keys as they come from outside: in any order, and made anew each time."""
    random = Random(7)
    return [f"user-{random.randrange(len(keys))}" for _ in range(_LOOK_UPS)]


async def _echo(key: str) -> str:
    await trio.lowlevel.checkpoint()
    return key


# --- hits by get -----------------------------------------------------------------------


def _dict_look_up(keys: list[str], asked: Callable[[], list[str]]) -> Contender:
    def measure() -> float:
        held = {key: key for key in keys}
        wanted = asked()
        began = perf_counter()
        for key in wanted:
            held.get(key)
        return (perf_counter() - began) / len(wanted)

    return measure


def _look_up_by_hand(keys: list[str], asked: Callable[[], list[str]]) -> Contender:
    """What a hit by `get` in a cache with a maximum cannot do without, and no call around it."""

    def measure() -> float:
        held = OrderedDict((key, (perf_counter() + _TTL, key)) for key in keys)
        touch, clock = held.move_to_end, perf_counter
        wanted = asked()
        began = perf_counter()
        for key in wanted:
            expires, _ = held[key]
            if clock() < expires:
                touch(key)
        return (perf_counter() - began) / len(wanted)

    return measure


def _get(keys: list[str], asked: Callable[[], list[str]], maxsize: int | None) -> Contender:
    async def measure() -> float:
        async with (
            trio.open_nursery() as nursery,
            csjd.open_cache(nursery, ttl=_TTL, maxsize=maxsize) as cache,
        ):
            for key in keys:
                cache.set(key, key)
            wanted = asked()
            began = perf_counter()
            for key in wanted:
                cache.get(key)
            taken = perf_counter() - began
        return taken / len(wanted)

    return lambda: trio.run(measure)


# --- hits by get_or_load ---------------------------------------------------------------


async def _checkpoints() -> float:
    began = perf_counter()
    for _ in range(_HITS):
        await trio.lowlevel.checkpoint()
    return (perf_counter() - began) / _HITS


async def _hits_by_get_or_load() -> float:
    async with (
        trio.open_nursery() as nursery,
        csjd.open_cache(nursery, ttl=_TTL, maxsize=_ENTRIES) as cache,
    ):
        cache.set("key", "value")
        began = perf_counter()
        for _ in range(_HITS):
            await cache.get_or_load("key", _echo)
        taken = perf_counter() - began
    return taken / _HITS


# --- whole pieces of work, under Trio --------------------------------------------------


async def _trio_stampede() -> float:
    loads = 0

    async def load(key: str) -> str:
        nonlocal loads
        loads += 1
        await trio.lowlevel.checkpoint()
        return key

    async with (
        trio.open_nursery() as nursery,
        csjd.open_cache(nursery, ttl=_TTL, maxsize=_ENTRIES) as cache,
    ):
        began = perf_counter()
        async with trio.open_nursery() as callers:
            for _ in range(_CALLERS):
                callers.start_soon(cache.get_or_load, "key", load)
        taken = perf_counter() - began
    assert loads == 1, f"{_CALLERS} callers caused {loads} loads"
    return taken / _CALLERS


async def _trio_misses() -> float:
    async with (
        trio.open_nursery() as nursery,
        csjd.open_cache(nursery, ttl=_TTL, maxsize=_ENTRIES) as cache,
    ):
        began = perf_counter()
        for number in range(_MISSES):
            await cache.get_or_load(number, _echo)
        taken = perf_counter() - began
    return taken / _MISSES


async def _misses_by_hand() -> float:
    """A task and an event for each load: no limits, no expiry, no errors, no giving up."""
    held: dict[int, int] = {}

    async def load(key: int, done: trio.Event) -> None:
        await trio.lowlevel.checkpoint()
        held[key] = key
        done.set()

    async with trio.open_nursery() as nursery:
        began = perf_counter()
        for number in range(_MISSES):
            done = trio.Event()
            nursery.start_soon(load, number, done)
            await done.wait()
            assert held[number] == number
        taken = perf_counter() - began
    return taken / _MISSES


# --- the same under asyncio ------------------------------------------------------------

CachedCall = Callable[[Any], Awaitable[Any]]


async def _yield_and_echo(key: Any) -> Any:
    await asyncio.sleep(0)
    return key


def _async_lru(load: CachedCall) -> CachedCall:
    return _async_lru_library.alru_cache(maxsize=_ENTRIES, ttl=_TTL)(load)  # type: ignore[no-any-return]


def _cashews(load: CachedCall) -> CachedCall:
    cache = _cashews_library.Cache()
    cache.setup(f"mem://?size={_ENTRIES}")

    # `lock=True` is its single flight; without it a stampede is one load per caller.
    decorate: Callable[[CachedCall], CachedCall] = cache(ttl=_TTL, key="{key}", lock=True)

    async def cached(key: Any) -> Any:
        return await load(key)

    return decorate(cached)


def _asyncio_hits(decorate: Callable[[CachedCall], CachedCall], *, yielding: bool) -> Contender:
    async def measure() -> float:
        cached = decorate(_yield_and_echo)
        await cached("key")
        began = perf_counter()
        for _ in range(_HITS):
            await cached("key")
            if yielding:
                await asyncio.sleep(0)
        return (perf_counter() - began) / _HITS

    return lambda: asyncio.run(measure())


def _asyncio_stampede(decorate: Callable[[CachedCall], CachedCall]) -> Contender:
    async def measure() -> float:
        loads = 0

        async def load(key: Any) -> Any:
            nonlocal loads
            loads += 1
            await asyncio.sleep(0)
            return key

        cached = decorate(load)
        began = perf_counter()
        async with asyncio.TaskGroup() as callers:
            for _ in range(_CALLERS):
                callers.create_task(cached("key"))  # type: ignore[arg-type]
        taken = perf_counter() - began
        assert loads == 1, f"{_CALLERS} callers caused {loads} loads"
        return taken / _CALLERS

    return lambda: asyncio.run(measure())


def _asyncio_misses(decorate: Callable[[CachedCall], CachedCall]) -> Contender:
    async def measure() -> float:
        cached = decorate(_yield_and_echo)
        began = perf_counter()
        for number in range(_MISSES):
            await cached(number)
        return (perf_counter() - began) / _MISSES

    return lambda: asyncio.run(measure())


# --- the report ------------------------------------------------------------------------


def run(rounds: int = 9) -> list[Row]:
    """Measure everything in *rounds* interleaved rounds and return the report's rows."""
    keys = _keys()
    hot = keys[:1000] * (_LOOK_UPS // 1000)
    contenders: dict[str, Contender] = {
        "dict": _dict_look_up(keys, lambda: _asked(keys)),
        "get": _get(keys, lambda: _asked(keys), None),
        "get, maxsize": _get(keys, lambda: _asked(keys), _ENTRIES),
        "dict, hot": _dict_look_up(keys, lambda: hot),
        "get, hot": _get(keys, lambda: hot, None),
        "get, maxsize, hot": _get(keys, lambda: hot, _ENTRIES),
        "by hand, hot": _look_up_by_hand(keys, lambda: hot),
        "miss by hand": lambda: trio.run(_misses_by_hand),
        "checkpoint": lambda: trio.run(_checkpoints),
        "get_or_load": lambda: trio.run(_hits_by_get_or_load),
        "stampede": lambda: trio.run(_trio_stampede),
        "miss": lambda: trio.run(_trio_misses),
    }
    peers = {
        name: decorate
        for name, module, decorate in (
            ("async-lru", _async_lru_library, _async_lru),
            ("cashews", _cashews_library, _cashews),
        )
        if module is not None
    }
    for name, decorate in peers.items():
        contenders[f"{name} hit"] = _asyncio_hits(decorate, yielding=False)
        contenders[f"{name} hit, yielding"] = _asyncio_hits(decorate, yielding=True)
        contenders[f"{name} stampede"] = _asyncio_stampede(decorate)
        contenders[f"{name} miss"] = _asyncio_misses(decorate)
    figures = interleave(contenders, rounds)

    def compare(name: str, of: str, against: str, unit: str, limit: float | None) -> Row:
        scale = {"ns": 1e9, "us": 1e6}[unit]
        return row(name, figures[of], figures[against], unit=unit, scale=scale, limit=limit)

    rows = [
        compare("get, a hit / dict look-up", "get", "dict", "ns", 5),
        compare("get with maxsize, a hit / dict look-up", "get, maxsize", "dict", "ns", 5),
        compare("get, a hit of the same few keys / dict look-up", "get, hot", "dict, hot", "ns", 5),
        compare(
            "get with maxsize, a hit of the same few keys / dict look-up",
            "get, maxsize, hot",
            "dict, hot",
            "ns",
            5,
        ),
        compare(
            "by hand: look-up, clock, move_to_end / dict look-up",
            "by hand, hot",
            "dict, hot",
            "ns",
            None,
        ),
        compare("get_or_load, a hit / checkpoint", "get_or_load", "checkpoint", "us", 1.5),
    ]
    for name in ("async-lru", "cashews"):
        if name not in peers:
            rows.append(skipped(name, "not installed: make bench installs it"))
            continue
        rows += [
            compare(
                f"get with maxsize, a hit / {name}", "get, maxsize, hot", f"{name} hit", "us", 1
            ),
            compare(
                f"get_or_load, a hit / {name} and a sleep(0)",
                "get_or_load",
                f"{name} hit, yielding",
                "us",
                None,
            ),
            compare(
                f"get_or_load, {_CALLERS} new tasks for one load, each / {name}",
                "stampede",
                f"{name} stampede",
                "us",
                1,
            ),
            compare(f"get_or_load, a miss / {name}", "miss", f"{name} miss", "us", 1),
            compare(f"by hand: a miss / {name}", "miss by hand", f"{name} miss", "us", None),
        ]
    return rows
