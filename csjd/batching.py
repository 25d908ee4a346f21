"""
A loader for Trio that turns many `load(key)` into few fetches.

`csjd._batching.batches` has the whole of how that works; here are those who ask.
"""

import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio
from trio.lowlevel import current_task

from csjd._batching.batch import Batch
from csjd._batching.batches import Batches, Fetch as Fetch
from csjd._core.flights import aboard, boarded, depends
from csjd._core.observers import Observers
from csjd._model.batching import (
    BatchFetchAbandoned as BatchFetchAbandoned,
    BatchFetchFailed as BatchFetchFailed,
    BatchFetchStarted as BatchFetchStarted,
    BatchFetchSucceeded as BatchFetchSucceeded,
    BatchLoaderEvent as BatchLoaderEvent,
    BatchLoaderStatistics as BatchLoaderStatistics,
)
from csjd._model.checks import is_integer, is_number
from csjd._runtime.annex import Annex
from csjd._runtime.crew import Crew
from csjd._runtime.home import Home
from csjd._runtime.parking import may_sleep, sleep_among

K = TypeVar("K")
V = TypeVar("V")


class BatchLoader(Generic[K, V]):
    """
    Loads values by key, many callers' keys with one fetch; made by `open_batch_loader`.

    A batch loader belongs to its Trio run: from another thread, reach it by
    `trio.from_thread.run(loader.load, key)`. Called directly from there, or from another
    Trio run, it raises RuntimeError and nothing changed.
    """

    __slots__ = ("_annex", "_batches", "_home", "_run")

    def __init__(self, batches: Batches[K, V], annex: Annex) -> None:
        self._batches = batches
        self._annex = annex
        self._home = Home("batch loader")
        self._run = self._home.run

    @trio.lowlevel.enable_ki_protection
    async def load(self, key: K) -> V:
        """
        Return the value that the next fetch gives for *key*.

        It waits at most `max_wait` for company, and then for its batch's turn.

        Raises:
            MissingBatchResultError: If the fetch gave nothing for *key*.
            WouldDeadlockError: If asked from within a fetch that no other can overtake.
            BatchLoaderClosedError: If the loader is closed, or gets closed meanwhile.
            BaseException: What the fetch raised, or gave as the value of *key*; to each
                caller an exception of its own.
        """
        task = current_task()
        if not may_sleep(task, self._run):
            self._home.check()
            await trio.lowlevel.checkpoint()  # raises Cancelled
        asker = None if boarded() is None else aboard()  # nearly always the former
        batch = self._batches.ask(key, asker)
        try:
            await sleep_among(batch.sleepers, task)
            return batch.answer(key)
        finally:
            if asker is not None or batch.answers is None:
                self._batches.leave(batch, key, asker)

    async def load_many(self, keys: Iterable[K]) -> list[V]:
        """
        Return the values of *keys*, in their order; keys given twice are asked for once.

        Raises:
            MissingBatchResultError: As `load`, for the first key that has no value.
            WouldDeadlockError: As `load`.
            BatchLoaderClosedError: As `load`.
            BaseException: As `load`, for the first key that has an error. The others are
                given up.
        """
        self._home.check()
        keys = tuple(keys)
        if not keys:
            await trio.lowlevel.checkpoint()
            return []
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._load_many(keys)

    @trio.lowlevel.enable_ki_protection
    async def _load_many(self, keys: Sequence[K]) -> list[V]:
        asker = aboard()
        places: dict[K, Batch[K, V]] = {}
        values = []
        try:
            for key in keys:
                if key not in places:
                    places[key] = self._batches.ask(key, asker)
            for key in keys:
                batch = places[key]
                if not batch.landed:
                    await sleep_among(batch.sleepers, current_task())
                values.append(batch.answer(key))
        finally:
            for key, batch in places.items():
                self._batches.leave(batch, key, asker)
        return values

    async def aclose(self) -> None:
        """
        Close the loader: release everybody, cancel every fetch, refuse whoever comes later.

        Who waits gets `BatchLoaderClosedError` at once; this call returns when no fetch is
        left. Called from within a fetch, which cannot end before this call does, it returns
        at once. A second call does nothing but wait.
        """
        self._home.check()
        # Asked before closing, which lands every batch: what has landed needs nothing.
        batches = self._batches
        flight = boarded()
        inside = flight is not None and any(depends(batch, on=flight) for batch in batches.holding)
        self._annex.close("the batch loader was closed")
        if inside:
            await trio.lowlevel.checkpoint()
        else:
            await self._annex.wait_ended()

    def statistics(self) -> BatchLoaderStatistics:
        """Return the loader's numbers as of now."""
        self._home.check()
        batches = self._batches
        return BatchLoaderStatistics(
            waiting=sum(sum(batch.callers.values()) for batch in batches.flying),
            fetching=sum(batch.keys is not None for batch in batches.flying),
            asked=batches.asked,
            fetched=batches.fetched,
            fetches=batches.fetches,
            errors=batches.errors,
            abandoned=batches.abandoned,
        )


@asynccontextmanager
async def open_batch_loader(
    nursery: trio.Nursery,
    fetch: Fetch[K, V],
    *,
    max_batch: int = 64,
    max_wait: float = 0.005,
    max_concurrent: int = 1,
    observers: Iterable[Callable[[BatchLoaderEvent], object]] = (),
) -> AsyncIterator[BatchLoader[K, V]]:
    """
    Open a batch loader whose fetches run in *nursery*, for as long as the block is not left.

    Leaving closes it as `BatchLoader.aclose` does, and waits until no task of it is left.

    Args:
        nursery: Where its one task lives; an error that is not a fetch's own reaches it, and
            cancels it at once.
        fetch: Called with 1 to *max_batch* distinct keys, in the order they were asked for,
            as a task in a copy of the first caller's context. It returns a mapping from
            key to value. A key that it leaves out is `MissingBatchResultError` for those
            who asked for it; a value that is an exception is raised at them. What it
            raises itself reaches its batch and no other. It is cancelled when nobody
            waits for any of its keys.
        max_batch: Distinct keys per fetch; >= 1. A batch that has as many goes at once.
        max_wait: Seconds that the first key of a batch waits for others; >= 0. A batch
            that waits for its turn goes on taking keys meanwhile.
        max_concurrent: Fetches that may run at a time; >= 1.
        observers: Called with each `BatchLoaderEvent`, when the loader is in order again.
            They must not block; one that raises is dropped with one logged error.

    Raises:
        ValueError: Naming the argument and its range.
    """
    _check_settings(max_batch, max_wait, max_concurrent)
    batches: Batches[K, V] = Batches(
        fetch,
        max_batch=max_batch,
        max_wait=max_wait,
        max_concurrent=max_concurrent,
        observers=Observers(observers),
    )
    annex = await Annex.open(nursery, "csjd batch loader", batches.close)
    batches.open(Crew(annex.nursery, "csjd batch", "fetch", above=nursery))
    async with annex.closed_on_exit("the batch loader's block was left"):
        yield BatchLoader(batches, annex)


def _check_settings(max_batch: object, max_wait: object, max_concurrent: object) -> None:
    for name, value in (("max_batch", max_batch), ("max_concurrent", max_concurrent)):
        if not (is_integer(value) and value >= 1):  # type: ignore[operator]  # checked
            raise ValueError(f"{name} must be an int >= 1, got {value!r}")
    if not (is_number(max_wait) and 0 <= max_wait < math.inf):  # type: ignore[operator]
        raise ValueError(f"max_wait must be a finite number of seconds >= 0, got {max_wait!r}")
