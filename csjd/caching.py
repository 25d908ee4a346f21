"""
A cache for Trio whose entries expire, and where one load serves all who ask.

`TTLCache` decides what a look-up finds and hands on the rest: `csjd._core.shelves` holds
the entries in the orders in which they expire and make room, `csjd._caching.loads` sees to
it that a key is loaded once for all who ask.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import repeat, starmap
from operator import length_hint
from random import Random
from typing import Any, Generic, TypeVar, overload

import trio

from csjd._caching.loads import Loads
from csjd._core.observers import Observers
from csjd._core.shelves import Entry, Shelves
from csjd._model.caching import (
    CacheEntryEvicted as CacheEntryEvicted,
    CacheEvent as CacheEvent,
    CacheLoadAbandoned as CacheLoadAbandoned,
    CacheLoadFailed as CacheLoadFailed,
    CacheLoadStarted as CacheLoadStarted,
    CacheLoadSucceeded as CacheLoadSucceeded,
    CacheStatistics as CacheStatistics,
)
from csjd._model.checks import is_integer, is_number
from csjd._model.errors import CacheClosedError
from csjd._runtime.annex import Annex
from csjd._runtime.clock import split_clock
from csjd._runtime.crew import Crew
from csjd._runtime.home import Home

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

# A refresh that failed is not tried again before this share of the time there is for one.
_RETRY_PAUSE = 0.1
# More look-ups than there will ever be.
_MANY = 2**62


class TTLCache(Generic[K, V]):
    """
    Values by key, each held for a while; made by `open_cache`.

    Everything but `get_or_load` is plain and takes effect at once. A cache belongs to its
    Trio run: from another thread, reach it by `trio.from_thread.run_sync(cache.set, ...)`
    and `trio.from_thread.run(cache.get_or_load, ...)`. Called directly from there, or from
    another Trio run, it raises RuntimeError and nothing changed; what is held is found
    without that check.
    """

    __slots__ = (
        "_closed",
        "_found_expired",
        "_held",
        "_hits_by_load",
        "_home",
        "_loads",
        "_misses",
        "_now",
        "_observers",
        "_random",
        "_readings",
        "_readings_left",
        "_retry_pause",
        "_serve_stale",
        "_shelves",
        "_stale_hits",
        "_touch",
    )

    def __init__(
        self,
        *,
        ttl: float,
        maxsize: int | None,
        refresh_ahead: float,
        serve_stale: float,
        jitter: float,
        random: Random,
        observers: Iterable[Callable[[CacheEvent], object]],
    ) -> None:
        self._serve_stale = serve_stale
        self._retry_pause = min(refresh_ahead + serve_stale, ttl) * _RETRY_PAUSE
        self._random = random
        self._observers: Observers[CacheEvent] = Observers(observers)
        self._home = Home("cache")
        _, self._now = split_clock()
        self._closed = False
        self._shelves: Shelves[K, V] = Shelves(
            ttl=ttl,
            maxsize=maxsize,
            refresh_ahead=refresh_ahead,
            serve_stale=serve_stale,
            jitter=jitter,
        )
        self._held = self._shelves.held
        self._touch = self._shelves.touch
        self._loads: Loads[K, V] = Loads(
            home=self._home,
            now=self._now,
            keep=self._put,
            postpone=self._postpone,
            observers=self._observers,
        )
        self._readings_left: repeat[tuple[()]] = repeat((), _MANY)
        """One is taken by each of `_readings`, which is how they are counted."""
        self._readings = starmap(self._now, self._readings_left)
        """The time, whenever `get` found an entry: a hit, unless that had expired."""
        self._found_expired = 0
        self._hits_by_load = 0
        """Those of `get_or_load`."""
        self._stale_hits = 0
        self._misses = 0
        """Those of `get`; `_loads` counts the others."""

    # --- plain operations --------------------------------------------------------------

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: D) -> V | D: ...

    def get(self, key: K, default: object = None) -> object:
        """Return the value of *key*, never an expired one; *default* if there is none."""
        # The fast path, as CPython 3.11 likes it: `[key]` is cheaper than `.get` unless it
        # raises, calling what was in a slot is cheaper than calling it there, and one step
        # of an iterator that reads the clock and counts is cheaper than a call and a sum.
        try:
            entry = self._held[key]
        except KeyError:
            self._misses += 1
            return default
        for now in self._readings:
            if now >= entry.expires:
                break
            touch = self._touch
            if touch is not None:
                touch(key)
            return entry.value
        self._found_expired += 1
        self._misses += 1
        return default

    @trio.lowlevel.enable_ki_protection
    def set(self, key: K, value: V) -> None:
        """
        Hold *value* for *key* from now on; a load of *key* under way will not replace it.

        It ends for those who already wait; a refresh that nobody waits for is cancelled.

        Raises:
            CacheClosedError: If the cache is closed; nothing changed.
        """
        self._home.check()
        if self._closed:
            raise CacheClosedError
        self._loads.unlink(key)
        self._put(key, value, self._now())

    @trio.lowlevel.enable_ki_protection
    def delete(self, key: K) -> bool:
        """
        Drop what is held for *key*; say whether that was a value `get` would have returned.

        A load of *key* under way ends for those who already wait, and is not kept; a refresh
        that nobody waits for is cancelled.
        """
        self._home.check()
        self._loads.unlink(key)
        entry = self._held.get(key)
        if entry is None:
            return False
        self._shelves.drop(key, entry)
        return self._now() < entry.expires

    @trio.lowlevel.enable_ki_protection
    def cleanup(self) -> int:
        """
        Drop every entry whose time is over, and return how many that were.

        Seldom needed, since every new entry takes up to two such along.
        """
        self._home.check()
        return self._shelves.expire(self._now())

    def __len__(self) -> int:
        """Return how many values are held: fresh ones, and stale ones that may be served."""
        self.cleanup()  # paid for by the entries it drops: O(1) amortised
        return len(self._held)

    def statistics(self) -> CacheStatistics:
        """Return the cache's numbers as of now."""
        loads, shelves = self._loads, self._shelves
        return CacheStatistics(
            size=len(self),
            loading=loads.loading,
            hits=self._hits,
            stale_hits=self._stale_hits,
            misses=self._misses + loads.misses,
            loads=loads.started,
            refreshes=loads.refreshes,
            errors=loads.errors,
            abandoned=loads.abandoned,
            evictions=shelves.evictions,
            expirations=shelves.expirations,
        )

    @property
    def _hits(self) -> int:
        found = _MANY - length_hint(self._readings_left)
        return found - self._found_expired + self._hits_by_load

    # --- loading -----------------------------------------------------------------------

    async def get_or_load(self, key: K, loader: Callable[[K], Awaitable[V]]) -> V:
        """
        Return the value of *key*; if none is held, the one that ``await loader(key)`` returns.

        However many ask, one load of a key runs at a time, as a task of the cache's in a
        copy of its first caller's context. A caller who gives up hurts nobody; when the
        last one has, the load is cancelled. After a `set` or `delete` a new load may begin
        while an older one still ends for those who asked before.

        With `serve_stale` the value may have expired, with `refresh_ahead` or `serve_stale`
        a hit may start a load that this call does not wait for.

        Raises:
            WouldDeadlockError: If asked from within the load of *key* itself (its child
                tasks and threads included), or from within one that it waits for.
            CacheClosedError: If the cache is closed, or gets closed meanwhile.
            BaseException: Whatever *loader* raised, to each who waits an exception of its
                own; nothing is kept of it, so the next to ask starts a new load.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        entry = self._held.get(key)
        if entry is None:
            return await self._loads.join(key, loader)
        now = self._now()
        # One comparison tells the ordinary hit, as `refresh_at` is never past `expires`.
        if now >= entry.refresh_at and not self._serve_ageing(entry, now, key, loader):
            return await self._loads.join(key, loader)
        self._hits_by_load += 1
        if self._touch is not None and key in self._held:  # an observer may delete
            self._touch(key)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return entry.value

    def _serve_ageing(
        self, entry: Entry[V], now: float, key: K, loader: Callable[[K], Awaitable[V]]
    ) -> bool:
        """Say whether *entry*, due for a refresh, still serves; see that it gets one."""
        if now >= entry.expires + self._serve_stale:
            return False
        if now >= entry.retry_at and key not in self._loads.linked:
            self._loads.refresh(key, loader)
        self._stale_hits += now >= entry.expires
        return True

    def _put(self, key: K, value: V, now: float) -> None:
        sample = self._random.random() if self._shelves.spreads else 0.0
        if self._shelves.put(key, value, now, sample):
            evicted = self._shelves.evict()
            if self._observers:
                self._observers.tell(CacheEntryEvicted(evicted))

    def _postpone(self, key: K, now: float) -> None:
        self._shelves.postpone(key, self._retry_pause, now)

    # --- the end -----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def _close(self) -> None:
        """Forget everything, and refuse what comes."""
        self._closed = True
        self._loads.close()
        self._shelves.clear()


@asynccontextmanager
async def open_cache(
    nursery: trio.Nursery,
    *,
    ttl: float,
    maxsize: int | None = None,
    refresh_ahead: float = 0.0,
    serve_stale: float = 0.0,
    jitter: float = 0.0,
    random: Random | None = None,
    observers: Iterable[Callable[[CacheEvent], object]] = (),
) -> AsyncIterator[TTLCache[Any, Any]]:
    """
    Open a cache whose loads run in *nursery*, for as long as the block is not left.

    Declare the variable to have its types checked::

        users: csjd.TTLCache[int, User]
        async with csjd.open_cache(nursery, ttl=60) as users: ...

    Leaving cancels the loads under way (who still waits gets `CacheClosedError`), empties
    the cache, and waits until no task of it is left.

    Args:
        nursery: Where its one task lives; an error that is not a load's own reaches it, and
            cancels it at once.
        ttl: Seconds for which a value is fresh; > 0, `math.inf` for ever.
        maxsize: Entries held at most, the one unused for longest making room; None: any
            number.
        refresh_ahead: Seconds before a value expires from which a `get_or_load` that hits
            starts a load ahead; less than the shortest lifetime.
        serve_stale: Seconds after a value has expired during which `get_or_load` still
            returns it, while a load is under way. `get` never does.
        jitter: Share of the ttl, 0 to below 1, by which lifetimes are shortened at random,
            so that what was set together does not expire together.
        random: Draws the jitter; bring a seeded one to repeat a run.
        observers: Called with each `CacheEvent`, when the cache is in order again. They
            must not block; one that raises is dropped with one logged error.

    Raises:
        ValueError: Naming the argument and its range.
    """
    _check_settings(ttl, maxsize, refresh_ahead, serve_stale, jitter)
    cache: TTLCache[Any, Any] = TTLCache(
        ttl=ttl,
        maxsize=maxsize,
        refresh_ahead=refresh_ahead,
        serve_stale=serve_stale,
        jitter=jitter,
        random=Random() if random is None else random,
        observers=observers,
    )
    annex = await Annex.open(nursery, "csjd cache", cache._close)
    cache._loads.open(Crew(annex.nursery, "csjd cache load", "loader", above=nursery))
    async with annex.closed_on_exit("the cache's block was left"):
        yield cache


def _check_settings(
    ttl: object, maxsize: object, refresh_ahead: object, serve_stale: object, jitter: object
) -> None:
    if not (is_number(ttl) and ttl > 0):  # type: ignore[operator]  # checked
        raise ValueError(f"ttl must be a number of seconds > 0, got {ttl!r}")
    if maxsize is not None and not (is_integer(maxsize) and maxsize >= 1):  # type: ignore[operator]
        raise ValueError(f"maxsize must be an int >= 1 or None, got {maxsize!r}")
    if not (is_number(jitter) and 0 <= jitter < 1):  # type: ignore[operator]
        raise ValueError(f"jitter must be a number >= 0 and < 1, got {jitter!r}")
    if not (is_number(serve_stale) and serve_stale >= 0):  # type: ignore[operator]
        raise ValueError(f"serve_stale must be a number of seconds >= 0, got {serve_stale!r}")
    shortest = ttl * (1 - jitter)  # type: ignore[operator]
    if not (is_number(refresh_ahead) and 0 <= refresh_ahead < shortest):  # type: ignore[operator]
        raise ValueError(
            "refresh_ahead must be a number of seconds >= 0 and less than the shortest "
            f"lifetime ({shortest}), got {refresh_ahead!r}"
        )
