"""What a batch loader tells: events for its observers, and its statistics."""

from typing import TypeAlias

import attrs


@attrs.frozen
class BatchFetchStarted:
    """A fetch began."""

    keys: tuple[object, ...]


@attrs.frozen
class BatchFetchSucceeded:
    """A fetch returned; its callers have their values, or errors of their own."""

    keys: tuple[object, ...]
    duration: float
    """Seconds."""


@attrs.frozen
class BatchFetchFailed:
    """A fetch raised; its callers have its error."""

    keys: tuple[object, ...]
    duration: float
    """Seconds."""
    error: BaseException


@attrs.frozen
class BatchFetchAbandoned:
    """A running fetch is being cancelled: nobody waits any more, or the loader was closed."""

    keys: tuple[object, ...]


BatchLoaderEvent: TypeAlias = (
    BatchFetchStarted | BatchFetchSucceeded | BatchFetchFailed | BatchFetchAbandoned
)


@attrs.frozen(kw_only=True)
class BatchLoaderStatistics:
    """
    A batch loader's numbers: the first two of this moment, the rest counted since it opened.

    `fetches` that are in none of `errors`, `abandoned` and `fetching` have succeeded.
    """

    waiting: int
    """Keys that callers wait for; one that several callers asked for counts for each."""
    fetching: int
    """Fetches under way that somebody waits for."""
    asked: int
    """Keys asked for, each by each caller."""
    fetched: int
    """Keys handed to fetches."""
    fetches: int
    """Fetches started."""
    errors: int
    """Fetches that raised."""
    abandoned: int
    """Fetches cancelled because nobody waited any more, or because the loader was closed."""
