"""
One load per key, whoever asks.

Each load is done by the cache's own crew, so that it outlives the caller who happened to
ask first; callers sleep until it has landed and are counted. The last one to give up
unlinks the load and cancels it: from then on it is nobody's, and the next caller starts
another, even while the old one is still on its way out. `set` and `delete` unlink as well,
but let the load end for those who wait: what it read may be older than what they said, so
it is not kept. Hence the rule that the rest follows from: *only a load that is in
`Loads.linked` may write to the cache.* One that may not and that nobody waits for, such as
a refresh that they unlink, is cancelled.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from csjd._core.flights import Flight, aboard, depends
from csjd._core.observers import Observers
from csjd._core.replicas import replica
from csjd._model.caching import (
    CacheEvent,
    CacheLoadAbandoned,
    CacheLoadFailed,
    CacheLoadStarted,
    CacheLoadSucceeded,
)
from csjd._model.errors import CacheClosedError, WouldDeadlockError
from csjd._runtime.crew import Crew, Hand
from csjd._runtime.home import Home
from csjd._runtime.parking import Sleepers, sleep_among, wake_all

K = TypeVar("K")
V = TypeVar("V")

_log = logging.getLogger("csjd")


class Load(Flight, Generic[K, V]):
    """One call of a loader, and those who wait for it."""

    __slots__ = (
        "abandoned",
        "began",
        "error",
        "hand",
        "key",
        "loader",
        "loads",
        "sleepers",
        "value",
        "waiters",
    )

    hand: Hand
    value: V
    """What it returned; unset unless it has landed without an error."""

    def __init__(
        self, loads: "Loads[K, V]", key: K, loader: Callable[[K], Awaitable[V]], began: float
    ) -> None:
        super().__init__()
        self.loads = loads
        self.key = key
        self.loader = loader
        self.began = began
        self.sleepers: Sleepers = {}
        self.waiters = 0
        """Callers who have neither given up nor got the outcome."""
        self.abandoned = False
        self.error: BaseException | None = None

    @trio.lowlevel.disable_ki_protection
    async def perform(self) -> V:
        """Call the loader; all that it starts is aboard."""
        self.board()
        return await self.loader(self.key)

    def succeed(self, value: V) -> None:
        """Give *value* to the cache and to all who wait."""
        if not self.abandoned:
            self.loads.succeeded(self, value)

    def absorb(self, error: BaseException) -> bool:
        """Give *error* to all who wait; if there are none, log it, or return False."""
        heard = self.waiters > 0
        if not self.abandoned:
            self.loads.failed(self, error)
        if not heard and isinstance(error, Exception):
            _log.warning("a load of %r failed and nobody waits for it", self.key, exc_info=error)
            return True
        return heard

    def cut_off(self, cause: BaseException | None) -> None:
        """Tell all who wait that the cache is closed."""
        self.loads.cut_off(self, cause)

    def cancelled(self) -> None:
        """Hear that the load, abandoned before, has ended: nothing is left to do."""

    def land(self) -> None:
        """Wake all who wait, now that `value` or `error` is set."""
        self.landed = True
        wake_all(self.sleepers)

    def outcome(self) -> V:
        """Return the value or raise the error; to be called once by each who waited."""
        error = self.error
        if error is None:
            return self.value
        try:
            if self.waiters:
                raise replica(error)
            # The last may have the original. Letting go of it here leaves no cycle through
            # the traceback for the garbage collector.
            self.error = None
            raise error
        finally:
            del error


class Loads(Generic[K, V]):
    """
    The loads of one cache.

    Args:
        home: Where the cache belongs.
        now: Tells the time, in seconds.
        keep: Called with key, value and time when a load that is still linked has returned.
        postpone: Called with key and time when one has raised.
        observers: Those of the cache.
    """

    __slots__ = (
        "_closed",
        "_crew",
        "_home",
        "_keep",
        "_now",
        "_observers",
        "_postpone",
        "abandoned",
        "errors",
        "linked",
        "loading",
        "misses",
        "refreshes",
        "started",
    )

    _crew: Crew

    def __init__(
        self,
        *,
        home: Home,
        now: Callable[[], float],
        keep: Callable[[K, V, float], object],
        postpone: Callable[[K, float], object],
        observers: Observers[CacheEvent],
    ) -> None:
        self._home = home
        self._now = now
        self._keep = keep
        self._postpone = postpone
        self._observers = observers
        self._closed = False
        self.linked: dict[K, Load[K, V]] = {}
        """Loads that new callers join and whose value will be kept, one per key."""
        # Counted since the beginning, all but `loading`; see `CacheStatistics`.
        self.misses = 0
        self.started = 0
        self.refreshes = 0
        self.loading = 0
        self.errors = 0
        self.abandoned = 0

    def open(self, crew: Crew) -> None:
        """Have the loads done by *crew* from now on."""
        self._crew = crew

    # --- callers -----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def join(self, key: K, loader: Callable[[K], Awaitable[V]]) -> V:
        """Wait for the load of *key*, started if there is none; see `TTLCache.get_or_load`."""
        self._home.check()
        load = self.linked.get(key)
        asker = aboard()
        if asker is not None:
            self._refuse_deadlock(asker, key, load)
        first = load is None
        if load is None:
            load = self._start(key, loader)
        self.misses += 1
        load.waiters += 1
        if asker is not None:
            asker.begin_wait(load)
        try:
            # Not before the caller is counted: an observer may delete the key.
            if first and self._observers:
                self._observers.tell(CacheLoadStarted(key, refresh=False))
            await sleep_among(load.sleepers, trio.lowlevel.current_task())
        finally:
            load.waiters -= 1
            if asker is not None:
                asker.end_wait(load)
            if not load.landed and not load.waiters:
                self._abandon(load)
        return load.outcome()

    def _refuse_deadlock(self, asker: Flight, key: K, load: Load[K, V] | None) -> None:
        # Its own key is refused even when its load has been unlinked: the new load would
        # run the same code, and so on without end.
        own = isinstance(asker, Load) and asker.loads is self and asker.key == key
        if own or (load is not None and depends(load, on=asker)):
            raise WouldDeadlockError(f"key {key!r} is asked for from within its own load")

    # --- the life of a load ------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def refresh(self, key: K, loader: Callable[[K], Awaitable[V]]) -> None:
        """Start a load of *key*, of which there must be none, for nobody to wait for."""
        self._home.check()
        self._start(key, loader)
        self.refreshes += 1
        if self._observers:
            self._observers.tell(CacheLoadStarted(key, refresh=True))

    def _start(self, key: K, loader: Callable[[K], Awaitable[V]]) -> Load[K, V]:
        if self._closed:
            raise CacheClosedError
        load = Load(self, key, loader, self._now())
        self.linked[key] = load  # raises, if keys cannot be compared, before anything has changed
        self._crew.start(load)
        self.started += 1
        self.loading += 1
        return load

    def unlink(self, key: K) -> None:
        """Let nobody join the load of *key* any more, nor that load write to the cache."""
        load = self.linked.pop(key, None)
        # No code of a load's own is cancelled for what it says of its key.
        if load is not None and not load.waiters and aboard() is not load:
            self._abandon(load)

    def succeeded(self, load: Load[K, V], value: V) -> None:
        """Book that *load*, which is not abandoned, returned *value*."""
        # First of all: whatever breaks from here on, nobody is left waiting.
        load.value = value
        load.land()
        now = self._now()
        kept = self._is_over(load)
        if kept:
            self._keep(load.key, value, now)
        if self._observers:
            self._observers.tell(CacheLoadSucceeded(load.key, now - load.began, kept))

    def failed(self, load: Load[K, V], error: BaseException) -> None:
        """Book that *load*, which is not abandoned, raised *error*."""
        load.error = error if load.waiters else None
        load.land()
        self.errors += 1
        now = self._now()
        if self._is_over(load):
            self._postpone(load.key, now)
        if self._observers:
            self._observers.tell(CacheLoadFailed(load.key, now - load.began, error))

    def cut_off(self, load: Load[K, V], cause: BaseException | None) -> None:
        """Book that *load* ended with the cache, or because *cause* ends the whole program."""
        if load.abandoned:
            return
        load.error = CacheClosedError() if load.waiters else None
        if load.error is not None:
            load.error.__cause__ = cause
        load.land()
        self._abandon(load)

    def _abandon(self, load: Load[K, V]) -> None:
        load.abandoned = True
        self._is_over(load)
        self.abandoned += 1
        load.hand.cancel("nobody waits for this load any more")
        if self._observers:
            self._observers.tell(CacheLoadAbandoned(load.key))

    def _is_over(self, load: Load[K, V]) -> bool:
        """Count *load* as under way no more; say whether it was linked until now."""
        self.loading -= 1
        if self.linked.get(load.key) is not load:
            return False
        del self.linked[load.key]
        return True

    # --- the end -----------------------------------------------------------------------

    def close(self) -> None:
        """Refuse new loads from now on; what is under way will not be kept."""
        self._closed = True
        self.linked.clear()
