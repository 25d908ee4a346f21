"""
A cache for Trio whose entries expire, and where one load serves all who ask.

How it works. Each load is a task of the cache's own, so that it outlives the caller who
happened to ask first; callers wait for its `done` event and are counted. The last one to
give up unlinks the load and cancels it: from then on it is nobody's, and the next caller
starts another, even while the old one is still on its way out. `set` and `delete` unlink
as well, but let the load end for those who wait: what it read may be older than what they
said, so it is not kept. Hence the rule that the rest follows from: *only a load that is
in `_loads` may write to the cache.*

Entries are in two orders, each in a container that finds and drops in O(1): by last use,
if there is a `maxsize`, and by expiry, on *shelves*. All entries of one
shelf get the same lifetime, so the order they were put there is the order they expire in.
Without jitter one shelf does; jitter picks among several at random.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from random import Random
from time import perf_counter
from typing import Any, Generic, TypeAlias, TypeVar, overload

import attrs
import trio

from csjd._core.flights import Flight, aboard, depends
from csjd._core.observers import Observers
from csjd._core.replicas import replica
from csjd._model.checks import is_integer, is_number
from csjd._model.errors import CacheClosedError, WouldDeadlockError
from csjd._runtime.annex import Annex, shareable

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

_log = logging.getLogger("csjd")

# Entries set at one moment expire at this many moments, spread over the jitter's share of
# the ttl. More would look smoother and make `cleanup()` look at more shelves.
_JITTER_STEPS = 32
# Expired entries that a new one takes along. More than one, so that they cannot pile up.
_SWEEP = 2
# A refresh that failed is not tried again before this share of the time there is for one.
_RETRY_PAUSE = 0.1


# --- what observers hear ---------------------------------------------------------------


@attrs.frozen
class CacheLoadStarted:
    """A load began."""

    key: object
    refresh: bool
    """Whether it renews a value that is being served, and nobody waits for it."""


@attrs.frozen
class CacheLoadSucceeded:
    """A load returned; those who wait have its value."""

    key: object
    duration: float
    """Seconds."""
    kept: bool
    """Whether the cache holds the value; not if `set` or `delete` came in between."""


@attrs.frozen
class CacheLoadFailed:
    """A load raised; those who wait have its error, and the cache is as it was."""

    key: object
    duration: float
    """Seconds."""
    error: BaseException


@attrs.frozen
class CacheLoadAbandoned:
    """The last caller gave up (or the cache was closed), so the load is being cancelled."""

    key: object


@attrs.frozen
class CacheEntryEvicted:
    """An entry made room for another, as the one that had gone unused for longest."""

    key: object


CacheEvent: TypeAlias = (
    CacheLoadStarted | CacheLoadSucceeded | CacheLoadFailed | CacheLoadAbandoned | CacheEntryEvicted
)


@attrs.frozen(kw_only=True)
class CacheStatistics:
    """
    A cache's numbers: two of this moment, the rest counted since it was opened.

    `loads` that are in none of `errors`, `abandoned` and `loading` have succeeded.
    """

    size: int
    """Entries held; see `TTLCache.__len__`."""
    loading: int
    """Loads under way that somebody waits for, or that refresh."""
    hits: int
    """Look-ups answered with what was held."""
    stale_hits: int
    """Those among `hits` that `get_or_load` answered with an expired value."""
    misses: int
    """Look-ups that found nothing, or had to wait for a load."""
    loads: int
    """Loads started."""
    refreshes: int
    """Those among `loads` that nobody waited for when they started."""
    errors: int
    """Loads that raised."""
    abandoned: int
    """Loads cancelled because nobody waited any more, or because the cache was closed."""
    evictions: int
    """Entries that made room for others."""
    expirations: int
    """Entries dropped because their time was over."""


# --- the cache -------------------------------------------------------------------------


class _Entry(Generic[V]):
    """One value. A plain class: making one is on the path of every `set`."""

    __slots__ = ("expires", "refresh_at", "retry_at", "shelf", "value")

    def __init__(self, value: V, expires: float, refresh_at: float, shelf: int) -> None:
        self.value = value
        self.expires = expires
        """From then on (Trio's clock) it is stale."""
        self.refresh_at = refresh_at
        """From then on `get_or_load` starts a refresh; never past `expires`."""
        self.retry_at = refresh_at
        """The same, after a refresh that failed."""
        self.shelf = shelf


class _Load(Flight, Generic[K, V]):
    """One call of a loader, and those who wait for it."""

    __slots__ = ("abandoned", "cache", "done", "error", "key", "scope", "value", "waiters")

    def __init__(self, cache: "TTLCache[K, V]", key: K) -> None:
        super().__init__()
        self.cache = cache
        self.key = key
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.waiters = 0
        self.abandoned = False
        self.value: V | None = None
        self.error: BaseException | None = None

    @trio.lowlevel.enable_ki_protection
    def land(self, value: V | None, error: BaseException | None) -> None:
        """Give the outcome to all who wait."""
        self.value, self.error, self.landed = value, error, True
        self.done.set()

    def outcome(self) -> V:
        """Return the value or raise the error; to be called once by each who waited."""
        error = self.error
        if error is None:
            return self.value  # type: ignore[return-value]  # landed, hence a V
        try:
            if self.waiters:
                raise replica(error)
            # The last may have the original. Letting go of it here leaves no cycle through
            # the traceback for the garbage collector.
            self.error = None
            raise error
        finally:
            del error


class TTLCache(Generic[K, V]):
    """
    Values by key, each held for a while; made by `open_cache`.

    Everything but `get_or_load` is plain and takes effect at once. A cache belongs to its
    Trio run: from another thread, reach it by `trio.from_thread.run_sync(cache.set, ...)`
    and `trio.from_thread.run(cache.get_or_load, ...)`.
    """

    __slots__ = (
        "_abandoned",
        "_annex",
        "_closed",
        "_entries",
        "_errors",
        "_evictions",
        "_expirations",
        "_hits",
        "_lifetimes",
        "_loading",
        "_loads",
        "_maxsize",
        "_misses",
        "_now",
        "_observers",
        "_random",
        "_recency",
        "_refresh_ahead",
        "_refreshes",
        "_serve_stale",
        "_shelves",
        "_stale_hits",
        "_started",
    )

    _annex: Annex

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
        self._maxsize = maxsize
        self._refresh_ahead = refresh_ahead
        self._serve_stale = serve_stale
        self._random = random
        self._observers: Observers[CacheEvent] = Observers(observers)
        self._now = _swift_clock()
        self._closed = False
        self._loads: dict[K, _Load[K, V]] = {}
        """Loads that new callers join and whose value will be kept, one per key."""

        # Invariant: the same keys are in _entries and on the shelves, each on the one that
        # its entry names.
        self._recency: OrderedDict[K, _Entry[V]] | None = None if maxsize is None else OrderedDict()
        """The entries, least recently used first; None if there is no limit to their number."""
        self._entries: dict[K, _Entry[V]] = {} if self._recency is None else self._recency
        self._lifetimes = [ttl]
        if jitter and ttl < math.inf:
            step = ttl * jitter / _JITTER_STEPS
            self._lifetimes = [ttl - step * number for number in range(_JITTER_STEPS)]
        self._shelves: list[OrderedDict[K, None]] = [OrderedDict() for _ in self._lifetimes]

        self._hits = 0
        self._stale_hits = 0
        self._misses = 0
        self._started = 0
        self._refreshes = 0
        self._loading = 0
        self._errors = 0
        self._abandoned = 0
        self._evictions = 0
        self._expirations = 0

    # --- plain operations --------------------------------------------------------------

    @overload
    def get(self, key: K) -> V | None: ...

    @overload
    def get(self, key: K, default: D) -> V | D: ...

    def get(self, key: K, default: object = None) -> object:
        """Return the value of *key*, never an expired one; *default* if there is none."""
        # The fast path, as CPython 3.11 likes it: `[key]` is cheaper than `.get` unless it
        # raises, and so is calling what was in a slot than calling it there.
        try:
            entry = self._entries[key]
        except KeyError:
            self._misses += 1
            return default
        now = self._now
        if now() < entry.expires:
            self._hits += 1
            recency = self._recency
            if recency is not None:
                recency.move_to_end(key)
            return entry.value
        self._misses += 1
        return default

    @trio.lowlevel.enable_ki_protection
    def set(self, key: K, value: V) -> None:
        """
        Hold *value* for *key* from now on; a load of *key* under way will not replace it.

        Raises:
            CacheClosedError: If the cache is closed; nothing changed.
        """
        _check_thread()
        if self._closed:
            raise CacheClosedError
        self._loads.pop(key, None)
        self._put(key, value, self._now())

    @trio.lowlevel.enable_ki_protection
    def delete(self, key: K) -> bool:
        """
        Drop what is held for *key*; say whether that was a value `get` would have returned.

        A load of *key* under way ends for those who already wait, and is not kept.
        """
        _check_thread()
        self._loads.pop(key, None)
        entry = self._entries.get(key)
        if entry is None:
            return False
        self._drop(key, entry)
        return self._now() < entry.expires

    @trio.lowlevel.enable_ki_protection
    def cleanup(self) -> int:
        """
        Drop every entry whose time is over, and return how many that were.

        Seldom needed, since every new entry takes up to two such along.
        """
        _check_thread()
        now = self._now()
        return sum(self._sweep(shelf, now, len(shelf)) for shelf in self._shelves)

    def __len__(self) -> int:
        """Return how many values are held: fresh ones, and stale ones that may be served."""
        self.cleanup()  # paid for by the entries it drops: O(1) amortised
        return len(self._entries)

    def statistics(self) -> CacheStatistics:
        """Return the cache's numbers as of now."""
        return CacheStatistics(
            size=len(self),
            loading=self._loading,
            hits=self._hits,
            stale_hits=self._stale_hits,
            misses=self._misses,
            loads=self._started,
            refreshes=self._refreshes,
            errors=self._errors,
            abandoned=self._abandoned,
            evictions=self._evictions,
            expirations=self._expirations,
        )

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
        entry = self._entries.get(key)
        if entry is None:
            return await self._wait_for_load(key, loader)
        now = self._now()
        # One comparison tells the ordinary hit, as `refresh_at` is never past `expires`.
        if now >= entry.refresh_at and not self._serve_ageing(entry, now, key, loader):
            return await self._wait_for_load(key, loader)
        self._hits += 1
        if self._recency is not None and key in self._recency:  # an observer may delete
            self._recency.move_to_end(key)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return entry.value

    @trio.lowlevel.enable_ki_protection
    async def _wait_for_load(self, key: K, loader: Callable[[K], Awaitable[V]]) -> V:
        load = self._loads.get(key)
        asker = aboard()
        if asker is not None:
            self._refuse_deadlock(asker, key, load)
        if load is None:
            load = self._start(key, loader, refresh=False)
        self._misses += 1
        load.waiters += 1
        if asker is not None:
            asker.begin_wait(load)
        try:
            await load.done.wait()
        finally:
            load.waiters -= 1
            if asker is not None:
                asker.end_wait(load)
            if not load.waiters and not load.landed:
                self._abandon(load)
        return load.outcome()

    def _refuse_deadlock(self, asker: Flight, key: K, load: _Load[K, V] | None) -> None:
        # Its own key is refused even when its load has been unlinked: the new load would
        # run the same code, and so on without end.
        own = isinstance(asker, _Load) and asker.cache is self and asker.key == key
        if own or (load is not None and depends(load, on=asker)):
            raise WouldDeadlockError(f"key {key!r} is asked for from within its own load")

    def _serve_ageing(
        self, entry: _Entry[V], now: float, key: K, loader: Callable[[K], Awaitable[V]]
    ) -> bool:
        """Say whether *entry*, due for a refresh, still serves; see that it gets one."""
        if now >= entry.expires + self._serve_stale:
            return False
        self._stale_hits += now >= entry.expires
        if now >= entry.retry_at and key not in self._loads:
            self._start(key, loader, refresh=True)
        return True

    @trio.lowlevel.enable_ki_protection
    def _start(self, key: K, loader: Callable[[K], Awaitable[V]], *, refresh: bool) -> _Load[K, V]:
        if self._closed:
            raise CacheClosedError
        load = _Load(self, key)
        self._annex.nursery.start_soon(self._run, load, loader, name="csjd cache load")
        self._loads[key] = load
        self._started += 1
        self._refreshes += refresh
        self._loading += 1
        if self._observers:
            self._observers.tell(CacheLoadStarted(key, refresh))
        return load

    async def _run(self, load: _Load[K, V], loader: Callable[[K], Awaitable[V]]) -> None:
        """Run one load, from its first step to its outcome, in the cache's own nursery."""
        load.board()
        began = self._now()
        value: Any = None  # and stays so only when the scope was cancelled
        try:
            if not load.abandoned:  # as it is if the only caller left before our first step
                with load.scope:
                    value = await loader(load.key)
        except BaseException as error:  # noqa: ASYNC103  # reaches those who wait
            if not self._absorb(load, error, began):
                raise
        else:
            if not load.abandoned:
                self._succeed(load, value, began)

    def _absorb(self, load: _Load[K, V], error: BaseException, began: float) -> bool:
        """Give *error* to those who wait for *load*; False if it has to go on instead."""
        # A frame of its own: a name for the error in `_run`, which is in its traceback,
        # would make a cycle.
        shared = shareable(error)
        if shared is None:
            self._cut_off(load, error)
            return False
        heard = load.waiters > 0
        if not load.abandoned:
            self._fail(load, shared, began)
        if not heard and isinstance(shared, Exception):
            _log.warning("a load of %r failed and nobody waits for it", load.key, exc_info=shared)
            return True
        return heard

    @trio.lowlevel.enable_ki_protection
    def _succeed(self, load: _Load[K, V], value: V, began: float) -> None:
        now = self._now()
        kept = self._unlink(load)
        if kept:
            self._put(load.key, value, now)
        self._loading -= 1
        load.land(value, None)
        if self._observers:
            self._observers.tell(CacheLoadSucceeded(load.key, now - began, kept))

    @trio.lowlevel.enable_ki_protection
    def _fail(self, load: _Load[K, V], error: BaseException, began: float) -> None:
        now = self._now()
        entry = self._entries.get(load.key) if self._unlink(load) else None
        if entry is not None:
            window = min(self._refresh_ahead + self._serve_stale, self._lifetimes[0])
            entry.retry_at = now + window * _RETRY_PAUSE
        self._errors += 1
        self._loading -= 1
        load.land(None, error)
        if self._observers:
            self._observers.tell(CacheLoadFailed(load.key, now - began, error))

    @trio.lowlevel.enable_ki_protection
    def _abandon(self, load: _Load[K, V]) -> None:
        load.abandoned = True
        self._unlink(load)
        self._abandoned += 1
        self._loading -= 1
        load.scope.cancel("everybody who waited for this load gave up")
        if self._observers:
            self._observers.tell(CacheLoadAbandoned(load.key))

    @trio.lowlevel.enable_ki_protection
    def _cut_off(self, load: _Load[K, V], error: BaseException) -> None:
        """End a load that ends with the cache, or with the whole program."""
        if load.abandoned:
            return
        closed = CacheClosedError()
        if not isinstance(error, trio.Cancelled):
            closed.__cause__ = error
        load.land(None, closed)
        self._abandon(load)

    def _unlink(self, load: _Load[K, V]) -> bool:
        """Let nobody join *load* from now on; say whether it might still write here."""
        if self._loads.get(load.key) is not load:
            return False
        del self._loads[load.key]
        return True

    # --- entries -----------------------------------------------------------------------

    def _put(self, key: K, value: V, now: float) -> None:
        old = self._entries.get(key)
        if old is not None:
            self._drop(key, old)
        shelf = 0 if len(self._shelves) == 1 else self._random.randrange(len(self._shelves))
        expires = now + self._lifetimes[shelf]
        self._entries[key] = _Entry(value, expires, expires - self._refresh_ahead, shelf)
        self._shelves[shelf][key] = None
        self._sweep(self._shelves[shelf], now, _SWEEP)
        if self._maxsize is not None and len(self._entries) > self._maxsize:
            self._evict()

    def _drop(self, key: K, entry: _Entry[V]) -> None:
        del self._entries[key]
        del self._shelves[entry.shelf][key]

    def _sweep(self, shelf: OrderedDict[K, None], now: float, limit: int) -> int:
        """Drop up to *limit* entries of *shelf* whose time is over; return how many there were."""
        dropped = 0
        while shelf and dropped < limit:
            key = next(iter(shelf))
            entry = self._entries[key]
            if now < entry.expires + self._serve_stale:
                break
            self._drop(key, entry)
            dropped += 1
        self._expirations += dropped
        return dropped

    def _evict(self) -> None:
        assert self._recency is not None
        key = next(iter(self._recency))
        self._drop(key, self._entries[key])
        self._evictions += 1
        if self._observers:
            self._observers.tell(CacheEntryEvicted(key))

    # --- the end -----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def _close(self) -> None:
        self._closed = True
        self._loads.clear()
        self._entries.clear()
        for shelf in self._shelves:
            shelf.clear()


def _swift_clock() -> Callable[[], float]:
    """
    Return a function that tells Trio's time in seconds, up to a constant.

    Asking `trio.current_time()` would be half of what a hit costs. Trio's own clock is
    `perf_counter` plus a constant, so if it is found to be that, two calls can be spared.
    """
    clock = trio.lowlevel.current_clock()
    offset = getattr(clock, "offset", None)
    if type(clock).__module__.startswith("trio.") and isinstance(offset, float):
        before = perf_counter()
        told = clock.current_time() - offset
        rounding = 1e-9
        if before - rounding <= told <= perf_counter() + rounding:
            return perf_counter
    return clock.current_time


def _check_thread() -> None:
    trio.lowlevel.current_trio_token()  # raises RuntimeError outside of Trio's thread


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
        nursery: Where its one task lives; an error that is not a load's own reaches it.
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
    cache._annex = annex = await Annex.open(nursery, "csjd cache", cache._close)
    async with annex.ended_on_exit(cache._close, "the cache's block was left"):
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
