"""What a cache tells: events for its observers, and its statistics."""

from typing import TypeAlias

import attrs


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
    """
    The load is being cancelled: its last caller gave up, or the cache was closed, or nobody
    waited for it and a `set` or `delete` had made its value obsolete.
    """

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
    """Loads cancelled because nobody wanted them any more, or because the cache was closed."""
    evictions: int
    """Entries that made room for others."""
    expirations: int
    """Entries dropped because their time was over."""
