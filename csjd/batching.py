"""
A loader for Trio that turns many `load(key)` into few fetches.

How it works. The first key opens a *batch*, whose task starts at once and waits: until the
batch is full, or `max_wait` is over, and then for one of `max_concurrent` slots. All the
while further keys get in; when a slot is got, or the batch is full, it is closed to them
and the next key opens another. So there is at most one batch collecting, and without
callers there is neither task nor timer. Callers wait for their batch's `done` event and
take their answers from it themselves. They are counted per key: a key that nobody waits
for any more is taken out, and a batch that has no callers left is cancelled, wherever it
is.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Generic, TypeAlias, TypeVar

import attrs
import trio

from csjd._core.flights import Flight, aboard, boarded, depends
from csjd._core.observers import Observers
from csjd._core.replicas import replica
from csjd._model.checks import is_integer, is_number
from csjd._model.errors import BatchLoaderClosedError, MissingBatchResultError, WouldDeadlockError
from csjd._runtime.annex import Annex, shareable

K = TypeVar("K")
V = TypeVar("V")

Fetch: TypeAlias = Callable[[Sequence[K]], Awaitable[Mapping[K, V | BaseException]]]

_log = logging.getLogger("csjd")

_NOTHING = object()


# --- what observers hear ---------------------------------------------------------------


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


# --- the loader ------------------------------------------------------------------------


class _Batch(Flight, Generic[K, V]):
    """Keys that are fetched together, and those who wait for them."""

    __slots__ = (
        "answers",
        "callers",
        "done",
        "due",
        "error",
        "go",
        "keys",
        "loader",
        "scope",
        "waiting",
    )

    def __init__(self, loader: "BatchLoader[K, V]", due: float) -> None:
        super().__init__()
        self.loader = loader
        self.due = due
        self.callers: dict[K, int] = {}
        """How many wait for each key; in the order they were first asked for."""
        self.waiting = 0
        """The sum of it, before the batch has landed."""
        self.keys: tuple[K, ...] | None = None
        """What the fetch was called with; None before."""
        self.go = trio.Event()
        """Set when it has a slot."""
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.answers: Mapping[K, V | BaseException] | None = None
        self.error: BaseException | None = None

    def needs_one_of(self) -> Collection[Flight]:
        return () if self.go.is_set() else self.loader._ahead()

    @trio.lowlevel.enable_ki_protection
    def land(
        self, answers: Mapping[K, V | BaseException] | None, error: BaseException | None
    ) -> None:
        """Give the outcome to all who wait."""
        self.answers, self.error, self.landed = answers, error, True
        self.done.set()

    def answer(self, key: K) -> V:
        """Return the value of *key*, or raise its error, or the batch's."""
        if self.answers is None:
            assert self.error is not None
            raise replica(self.error)
        value = self.answers.get(key, _NOTHING)  # no `[key]`: a defaultdict makes things up
        if value is _NOTHING:
            raise MissingBatchResultError(key)
        if isinstance(value, BaseException):
            raise replica(value)
        return value  # type: ignore[return-value]  # not _NOTHING, hence a V


class BatchLoader(Generic[K, V]):
    """
    Loads values by key, many callers' keys with one fetch; made by `open_batch_loader`.

    A batch loader belongs to its Trio run: from another thread, reach it by
    `trio.from_thread.run(loader.load, key)`.
    """

    __slots__ = (
        "_abandoned",
        "_annex",
        "_asked",
        "_batches",
        "_closed",
        "_collecting",
        "_errors",
        "_fetch",
        "_fetched",
        "_fetches",
        "_holding",
        "_max_batch",
        "_max_concurrent",
        "_max_wait",
        "_observers",
        "_queue",
    )

    _annex: Annex

    def __init__(
        self,
        fetch: Fetch[K, V],
        *,
        max_batch: int,
        max_wait: float,
        max_concurrent: int,
        observers: Iterable[Callable[[BatchLoaderEvent], object]],
    ) -> None:
        self._fetch = fetch
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._max_concurrent = max_concurrent
        self._observers: Observers[BatchLoaderEvent] = Observers(observers)
        self._closed = False
        self._queue: OrderedDict[_Batch[K, V], None] = OrderedDict()
        """Batches that are full or due and wait for a slot, first come, first served."""
        self._collecting: _Batch[K, V] | None = None
        """The batch that new keys go to; None until somebody asks."""
        self._batches: set[_Batch[K, V]] = set()
        """Every batch that has neither landed nor been abandoned."""
        self._holding: dict[_Batch[K, V], None] = {}
        """Every batch that has a slot, abandoned ones on their way out included."""
        self._asked = 0
        self._fetched = 0
        self._fetches = 0
        self._errors = 0
        self._abandoned = 0

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
        await trio.lowlevel.checkpoint_if_cancelled()
        asker = aboard()
        batch = self._ask(key, asker)
        try:
            await batch.done.wait()
        finally:
            if asker is not None or not batch.landed:
                self._leave(batch, key, asker)
        return batch.answer(key)

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
        keys = tuple(keys)
        if not keys:
            await trio.lowlevel.checkpoint()
            return []
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._load_many(keys)

    @trio.lowlevel.enable_ki_protection
    async def _load_many(self, keys: Sequence[K]) -> list[V]:
        asker = aboard()
        places: dict[K, _Batch[K, V]] = {}
        values = []
        try:
            for key in keys:
                if key not in places:
                    places[key] = self._ask(key, asker)
            for key in keys:
                batch = places[key]
                if not batch.landed:
                    await batch.done.wait()
                values.append(batch.answer(key))
        finally:
            for key, batch in places.items():
                self._leave(batch, key, asker)
        return values

    async def aclose(self) -> None:
        """
        Close the loader: release everybody, cancel every fetch, refuse whoever comes later.

        Who waits gets `BatchLoaderClosedError` at once; this call returns when no fetch is
        left. Called from within a fetch, which cannot end before this call does, it returns
        at once. A second call does nothing but wait.
        """
        # Asked before closing, which lands every batch: what has landed needs nothing.
        flight = boarded()
        inside = flight is not None and any(depends(batch, on=flight) for batch in self._holding)
        self._close()
        self._annex.cancel("the batch loader was closed")
        if inside:
            await trio.lowlevel.checkpoint()
        else:
            await self._annex.wait_ended()

    def statistics(self) -> BatchLoaderStatistics:
        """Return the loader's numbers as of now."""
        return BatchLoaderStatistics(
            waiting=sum(batch.waiting for batch in self._batches),
            fetching=sum(batch.keys is not None for batch in self._batches),
            asked=self._asked,
            fetched=self._fetched,
            fetches=self._fetches,
            errors=self._errors,
            abandoned=self._abandoned,
        )

    # --- callers -----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def _ask(self, key: K, asker: Flight | None) -> _Batch[K, V]:
        """Put *key* into the collecting batch; each call needs one of `_leave`."""
        if self._closed:
            raise BatchLoaderClosedError
        batch = self._collecting
        new = batch is None
        if batch is None:
            batch = _Batch(self, trio.current_time() + self._max_wait)
        if asker is not None and depends(batch, on=asker):
            raise WouldDeadlockError(f"key {key!r} is asked for from within a fetch it waits for")
        batch.callers[key] = batch.callers.get(key, 0) + 1
        batch.waiting += 1
        self._asked += 1
        if asker is not None:
            asker.begin_wait(batch)
        if new:
            self._collecting = batch
            self._batches.add(batch)
            self._annex.nursery.start_soon(self._run, batch, name="csjd batch")
        if len(batch.callers) == self._max_batch:
            self._collecting = None
            if not batch.go.is_set():  # as it may be already, if it was due
                self._line_up(batch)
        return batch

    @trio.lowlevel.enable_ki_protection
    def _leave(self, batch: _Batch[K, V], key: K, asker: Flight | None) -> None:
        if asker is not None:
            asker.end_wait(batch)
        if batch.landed:
            return
        batch.waiting -= 1
        batch.callers[key] -= 1
        if not batch.callers[key]:
            del batch.callers[key]
        if not batch.waiting:
            self._abandon(batch)

    # --- batches -----------------------------------------------------------------------

    def _ahead(self) -> Collection[_Batch[K, V]]:
        """Return those of whom one has to end before another batch can start, if so."""
        return self._holding if len(self._holding) == self._max_concurrent else ()

    def _line_up(self, batch: _Batch[K, V]) -> None:
        self._queue[batch] = None
        self._give_slots()

    def _give_slots(self) -> None:
        # Given away here, and not taken by the batches' tasks, which Trio runs in any order.
        while self._queue and len(self._holding) < self._max_concurrent:
            batch, _ = self._queue.popitem(last=False)
            self._holding[batch] = None
            batch.go.set()

    @trio.lowlevel.enable_ki_protection
    def _give_back(self, batch: _Batch[K, V]) -> None:
        self._queue.pop(batch, None)
        if batch in self._holding:
            del self._holding[batch]
            self._give_slots()

    async def _run(self, batch: _Batch[K, V]) -> None:
        """See one batch from its first key to its outcome, in the loader's own nursery."""
        batch.board()
        began = batch.due  # replaced as soon as there is a fetch
        answers: Mapping[K, V | BaseException] = {}
        try:
            with batch.scope:
                await self._get_slot(batch)
                # The last caller may have left in the very pass that gave us the slot.
                if batch in self._batches:
                    began = trio.current_time()
                    answers = await self._call_fetch(batch)
        except BaseException as error:  # noqa: ASYNC103  # reaches those who wait
            if not self._absorb(batch, error, began):
                raise
        else:
            if batch in self._batches:
                self._succeed(batch, answers, began)
        finally:
            self._give_back(batch)

    async def _get_slot(self, batch: _Batch[K, V]) -> None:
        with trio.move_on_at(batch.due):
            await batch.go.wait()
        if not batch.go.is_set():
            self._line_up(batch)  # keeps its place if it got full before
            await batch.go.wait()

    async def _call_fetch(self, batch: _Batch[K, V]) -> Mapping[K, V | BaseException]:
        batch.keys = keys = tuple(batch.callers)
        if self._collecting is batch:
            self._collecting = None
        self._fetches += 1
        self._fetched += len(keys)
        if self._observers:
            self._observers.tell(BatchFetchStarted(keys))
        answers: object = await self._fetch(keys)
        if not isinstance(answers, Mapping):
            raise TypeError(f"fetch must return a mapping, got {type(answers).__name__}")
        return answers

    def _absorb(self, batch: _Batch[K, V], error: BaseException, began: float) -> bool:
        """Give *error* to those who wait for *batch*; False if it has to go on instead."""
        shared = shareable(error)
        if shared is None:
            self._cut_off(batch, error)
            return False
        if batch in self._batches:
            self._fail(batch, shared, began)
            return True
        if isinstance(shared, Exception):
            _log.warning("a fetch failed and nobody waits for it", exc_info=shared)
            return True
        return False

    @trio.lowlevel.enable_ki_protection
    def _succeed(
        self, batch: _Batch[K, V], answers: Mapping[K, V | BaseException], began: float
    ) -> None:
        self._batches.discard(batch)
        batch.land(answers, None)
        if self._observers:
            duration = trio.current_time() - began
            self._observers.tell(BatchFetchSucceeded(batch.keys or (), duration))

    @trio.lowlevel.enable_ki_protection
    def _fail(self, batch: _Batch[K, V], error: BaseException, began: float) -> None:
        self._batches.discard(batch)
        self._errors += 1
        batch.land(None, error)
        if self._observers:
            duration = trio.current_time() - began
            self._observers.tell(BatchFetchFailed(batch.keys or (), duration, error))

    @trio.lowlevel.enable_ki_protection
    def _abandon(self, batch: _Batch[K, V]) -> None:
        self._batches.discard(batch)
        if self._collecting is batch:
            self._collecting = None
        batch.scope.cancel("everybody who waited for this batch gave up")
        if batch.keys is not None:
            self._abandoned += 1
            if self._observers:
                self._observers.tell(BatchFetchAbandoned(batch.keys))

    @trio.lowlevel.enable_ki_protection
    def _cut_off(self, batch: _Batch[K, V], error: BaseException | None) -> None:
        """End a batch that ends with the loader, or with the whole program."""
        if batch not in self._batches:
            return
        closed = BatchLoaderClosedError()
        if error is not None and not isinstance(error, trio.Cancelled):
            closed.__cause__ = error
        batch.land(None, closed)
        self._abandon(batch)

    @trio.lowlevel.enable_ki_protection
    def _close(self) -> None:
        self._closed = True
        for batch in tuple(self._batches):
            self._cut_off(batch, None)


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
        nursery: Where its one task lives; an error that is not a fetch's own reaches it.
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
    loader = BatchLoader(
        fetch,
        max_batch=max_batch,
        max_wait=max_wait,
        max_concurrent=max_concurrent,
        observers=observers,
    )
    loader._annex = annex = await Annex.open(nursery, "csjd batch loader", loader._close)
    async with annex.ended_on_exit(loader._close, "the batch loader's block was left"):
        yield loader


def _check_settings(max_batch: object, max_wait: object, max_concurrent: object) -> None:
    for name, value in (("max_batch", max_batch), ("max_concurrent", max_concurrent)):
        if not (is_integer(value) and value >= 1):  # type: ignore[operator]  # checked
            raise ValueError(f"{name} must be an int >= 1, got {value!r}")
    if not (is_number(max_wait) and 0 <= max_wait < math.inf):  # type: ignore[operator]
        raise ValueError(f"max_wait must be a finite number of seconds >= 0, got {max_wait!r}")
