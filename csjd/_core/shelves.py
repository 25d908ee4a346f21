"""
Values that expire, in the two orders in which they have to go.

Entries are in two orders, each in a container that finds and drops in O(1): by last use,
if there is a `maxsize`, and by expiry, on *shelves*. All entries of one shelf get the same
lifetime, so the order they were put there is the order they expire in. Without jitter one
shelf does; jitter spreads the entries over several.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

# Entries set at one moment expire at this many moments, spread over the jitter's share of
# the ttl. More would look smoother and make `expire` look at more shelves.
_JITTER_STEPS = 32
# Expired entries that a new one takes along. More than one, so that they cannot pile up.
_SWEEP = 2


class Entry(Generic[V]):
    """One value. A plain class: making one is on the path of every `put`."""

    __slots__ = ("expires", "refresh_at", "retry_at", "shelf", "value")

    def __init__(self, value: V, expires: float, refresh_at: float, shelf: int) -> None:
        self.value = value
        self.expires = expires
        """From then on it is stale."""
        self.refresh_at = refresh_at
        """From then on it is due for a refresh; never past `expires`."""
        self.retry_at = refresh_at
        """The same, after a refresh that failed."""
        self.shelf = shelf


class Shelves(Generic[K, V]):
    """
    Entries by key.

    Args:
        ttl: Seconds for which a value is fresh, or longest is.
        maxsize: Entries held at most; None: any number.
        refresh_ahead: Seconds before an entry expires from which it is due for a refresh.
        serve_stale: Seconds for which an entry is kept after it has expired.
        jitter: Share of the ttl by which lifetimes differ.
    """

    __slots__ = (
        "_lifetimes",
        "_maxsize",
        "_refresh_ahead",
        "_serve_stale",
        "_shelves",
        "evictions",
        "expirations",
        "held",
        "touch",
    )

    def __init__(
        self,
        *,
        ttl: float,
        maxsize: int | None,
        refresh_ahead: float,
        serve_stale: float,
        jitter: float,
    ) -> None:
        self._maxsize = maxsize
        self._refresh_ahead = refresh_ahead
        self._serve_stale = serve_stale
        # Invariant: the same keys are in `held` and on the shelves, each on the one that its
        # entry names.
        self.held: dict[K, Entry[V]] = {}
        """The entries; with a `maxsize`, least recently used first."""
        self.touch: Callable[[K], None] | None = None
        """Tells that the entry of a key, which must be held, is used; None if none cares."""
        if maxsize is not None:
            by_use: OrderedDict[K, Entry[V]] = OrderedDict()
            self.held, self.touch = by_use, by_use.move_to_end
        self._lifetimes = [ttl]
        if jitter and ttl < math.inf:
            step = ttl * jitter / _JITTER_STEPS
            self._lifetimes = [ttl - step * number for number in range(_JITTER_STEPS)]
        self._shelves: list[OrderedDict[K, None]] = [OrderedDict() for _ in self._lifetimes]
        self.evictions = 0
        """Entries that made room for others, so far."""
        self.expirations = 0
        """Entries dropped because their time was over, so far."""

    @property
    def spreads(self) -> bool:
        """Whether `put` makes use of its sample."""
        return len(self._shelves) > 1

    def put(self, key: K, value: V, now: float, sample: float) -> bool:
        """
        Hold *value* for *key*, as the most recently used.

        Args:
            key: A key, held already or not.
            value: Its value.
            now: The present time, in seconds.
            sample: A uniform draw from [0, 1), made by the caller.

        Returns:
            Whether that is one entry too many, so that `evict` has to be called.
        """
        old = self.held.get(key)
        if old is not None:
            self.drop(key, old)
        number = int(sample * len(self._shelves))
        expires = now + self._lifetimes[number]
        self.held[key] = Entry(value, expires, expires - self._refresh_ahead, number)
        shelf = self._shelves[number]
        shelf[key] = None
        self._sweep(shelf, now, _SWEEP)
        return self._maxsize is not None and len(self.held) > self._maxsize

    def evict(self) -> K:
        """Drop the entry that has gone unused for longest, and return its key."""
        key = next(iter(self.held))
        self.drop(key, self.held[key])
        self.evictions += 1
        return key

    def drop(self, key: K, entry: Entry[V]) -> None:
        """Hold *entry*, which is that of *key*, no more."""
        del self.held[key]
        del self._shelves[entry.shelf][key]

    def postpone(self, key: K, pause: float, now: float) -> None:
        """Let the entry of *key*, if there is one, be due for a refresh *pause* s from now."""
        entry = self.held.get(key)
        if entry is not None:
            entry.retry_at = now + pause

    def expire(self, now: float) -> int:
        """Drop every entry whose time is over, and return how many that were."""
        return sum(self._sweep(shelf, now, len(shelf)) for shelf in self._shelves)

    def clear(self) -> None:
        """Hold nothing any more."""
        self.held.clear()
        for shelf in self._shelves:
            shelf.clear()

    def _sweep(self, shelf: OrderedDict[K, None], now: float, limit: int) -> int:
        """Drop up to *limit* entries of *shelf* whose time is over; return how many there were."""
        dropped = 0
        while shelf and dropped < limit:
            key = next(iter(shelf))
            entry = self.held[key]
            if now < entry.expires + self._serve_stale:
                break
            self.drop(key, entry)
            dropped += 1
        self.expirations += dropped
        return dropped
