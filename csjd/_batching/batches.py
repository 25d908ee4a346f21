"""
Keys gathered into batches, and each batch fetched once.

The first key opens a *batch*, whose work starts at once and waits: until the batch is full,
or its first key has waited long enough, and then for one of `max_concurrent` slots. All the
while further keys get in; when a slot is got, or the batch is full, it is closed to them
and the next key opens another. So there is at most one batch collecting, and without
callers nothing runs and no timer is set. Callers sleep until their batch has landed and
take their answers from it themselves. They are counted per key: a key that nobody waits
for any more is taken out, and a batch that has no callers left is cancelled, wherever it
is.
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import trio

from csjd._batching.batch import Batch
from csjd._core.flights import Flight, depends
from csjd._core.observers import Observers
from csjd._model.batching import (
    BatchFetchAbandoned,
    BatchFetchFailed,
    BatchFetchStarted,
    BatchFetchSucceeded,
    BatchLoaderEvent,
)
from csjd._model.errors import BatchLoaderClosedError, WouldDeadlockError
from csjd._runtime.crew import Crew

K = TypeVar("K")
V = TypeVar("V")

Fetch: TypeAlias = Callable[[Sequence[K]], Awaitable[Mapping[K, V | BaseException]]]

_log = logging.getLogger("csjd")


class Batches(Generic[K, V]):
    """The batches of one loader."""

    __slots__ = (
        "_crew",
        "_fetch",
        "_max_batch",
        "_max_concurrent",
        "_max_wait",
        "_observers",
        "_queue",
        "abandoned",
        "asked",
        "closed",
        "collecting",
        "errors",
        "fetched",
        "fetches",
        "flying",
        "holding",
    )

    _crew: Crew

    def __init__(
        self,
        fetch: Fetch[K, V],
        *,
        max_batch: int,
        max_wait: float,
        max_concurrent: int,
        observers: Observers[BatchLoaderEvent],
    ) -> None:
        self._fetch = fetch
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._max_concurrent = max_concurrent
        self._observers = observers
        self.closed: bool = False
        self.collecting: Batch[K, V] | None = None
        """The batch that new keys go to; None until somebody asks."""
        self._queue: OrderedDict[Batch[K, V], None] = OrderedDict()
        """Batches that are full or due and wait for a slot, first come, first served."""
        self.holding: dict[Batch[K, V], None] = {}
        """Every batch that has a slot, abandoned ones on their way out included."""
        self.flying: set[Batch[K, V]] = set()
        """Every batch that has neither landed nor been abandoned."""
        # Counted since the beginning; see `BatchLoaderStatistics`.
        self.asked: int = 0
        self.fetched: int = 0
        self.fetches: int = 0
        self.errors: int = 0
        self.abandoned: int = 0

    def open(self, crew: Crew) -> None:
        """Have the batches fetched by *crew* from now on."""
        self._crew = crew

    # --- callers -----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def ask(self, key: K, asker: Flight | None) -> Batch[K, V]:
        """Put *key* into the collecting batch; unless that has answers, it takes a `leave`."""
        batch = self.collecting
        if batch is None:
            hash(key)  # raises, if it cannot be done, before anything has changed
            batch = self._begin(key, asker)
        elif asker is not None:
            self._refuse_deadlock(batch, key, asker)
        callers = batch.callers
        if key in callers:
            callers[key] += 1
        else:
            callers[key] = 1
        self.asked += 1
        if asker is not None:
            asker.begin_wait(batch)
        if len(callers) == self._max_batch:
            self.collecting = None
            if not batch.go.is_set():  # as it may be already, if it was due
                self._line_up(batch)
        return batch

    def _begin(self, key: K, asker: Flight | None) -> Batch[K, V]:
        """Open the batch that collects from now on; *key* is to be its first."""
        if self.closed:  # not asked for every key: who closes leaves none collecting
            raise BatchLoaderClosedError
        batch: Batch[K, V] = Batch(self, trio.current_time() + self._max_wait)
        if asker is not None:
            self._refuse_deadlock(batch, key, asker)
        self.collecting = batch
        self.flying.add(batch)
        self._crew.start(batch)
        return batch

    @staticmethod
    def _refuse_deadlock(batch: Batch[K, V], key: K, asker: Flight) -> None:
        if depends(batch, on=asker):
            raise WouldDeadlockError(f"key {key!r} is asked for from within a fetch it waits for")

    @trio.lowlevel.enable_ki_protection
    def leave(self, batch: Batch[K, V], key: K, asker: Flight | None) -> None:
        """End an `ask`, whatever came of it; *asker* waits no more."""
        if asker is not None:
            asker.end_wait(batch)
        if batch.answers is not None:
            return
        batch.callers[key] -= 1
        if not batch.callers[key]:
            del batch.callers[key]
        if batch.callers:
            return
        if batch.landed:
            batch.let_go()
        else:
            self._abandon(batch)

    # --- slots -------------------------------------------------------------------------

    def ahead(self) -> Collection[Batch[K, V]]:
        """Return those of whom one has to end before another batch can start, if so."""
        return self.holding if len(self.holding) == self._max_concurrent else ()

    def _line_up(self, batch: Batch[K, V]) -> None:
        self._queue[batch] = None
        self._give_slots()

    def _give_slots(self) -> None:
        # Given away here, and not taken by the batches' tasks, which Trio runs in any order.
        while self._queue and len(self.holding) < self._max_concurrent:
            batch, _ = self._queue.popitem(last=False)
            self.holding[batch] = None
            batch.go.set()

    @trio.lowlevel.enable_ki_protection
    def give_back(self, batch: Batch[K, V]) -> None:
        """Let others have the place of *batch*, which has ended."""
        self._queue.pop(batch, None)
        if batch in self.holding:
            del self.holding[batch]
            self._give_slots()

    async def _get_slot(self, batch: Batch[K, V]) -> None:
        with trio.move_on_at(batch.due):
            await batch.go.wait()
        if not batch.go.is_set():
            self._line_up(batch)  # keeps its place if it got full before
            await batch.go.wait()

    # --- the life of a batch -----------------------------------------------------------

    async def fetch_in_turn(self, batch: Batch[K, V]) -> Mapping[K, V | BaseException]:
        """Wait until *batch* may be fetched, and return what the fetch returned."""
        if not batch.go.is_set():
            await self._get_slot(batch)
        if batch not in self.flying:  # its last caller left in the pass that gave us the slot
            return {}
        batch.keys = keys = tuple(batch.callers)
        batch.began = trio.current_time()
        if self.collecting is batch:
            self.collecting = None
        self.fetches += 1
        self.fetched += len(keys)
        if self._observers:
            self._observers.tell(BatchFetchStarted(keys))
        answers: Any = await _call(self._fetch, keys)
        if not isinstance(answers, Mapping):
            raise TypeError(f"fetch must return a mapping, got {type(answers).__name__}")
        return answers

    def succeeded(self, batch: Batch[K, V], answers: Mapping[K, V | BaseException]) -> None:
        """Book that the fetch of *batch* returned *answers*."""
        self.give_back(batch)
        if batch not in self.flying:
            return
        self.flying.remove(batch)
        batch.land(answers, None)
        if self._observers:
            duration = trio.current_time() - batch.began
            self._observers.tell(BatchFetchSucceeded(batch.keys or (), duration))

    def failed(self, batch: Batch[K, V], error: BaseException) -> bool:
        """Book that *batch* raised *error*; False if nobody hears of it, not even the log."""
        self.give_back(batch)
        if batch in self.flying:
            self._fail(batch, error)
            return True
        if isinstance(error, Exception):
            _log.warning("a fetch failed and nobody waits for it", exc_info=error)
            return True
        return False

    def _fail(self, batch: Batch[K, V], error: BaseException) -> None:
        self.flying.remove(batch)
        self.errors += 1
        batch.land(None, error)
        if self._observers:
            duration = trio.current_time() - batch.began
            self._observers.tell(BatchFetchFailed(batch.keys or (), duration, error))

    def _abandon(self, batch: Batch[K, V]) -> None:
        self.flying.discard(batch)
        if self.collecting is batch:
            self.collecting = None
        batch.hand.cancel("everybody who waited for this batch gave up")
        if batch.keys is not None:
            self.abandoned += 1
            if self._observers:
                self._observers.tell(BatchFetchAbandoned(batch.keys))

    def cut_off(self, batch: Batch[K, V], cause: BaseException | None) -> None:
        """Book that *batch* ended with the loader, or because *cause* ends the whole program."""
        self.give_back(batch)
        self._release(batch, cause)

    def _release(self, batch: Batch[K, V], cause: BaseException | None) -> None:
        """Tell all who wait for *batch* that the loader is closed, and abandon it."""
        if batch not in self.flying:
            return
        closed = BatchLoaderClosedError()
        closed.__cause__ = cause
        batch.land(None, closed)
        self._abandon(batch)

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Release everybody, cancel every fetch, and refuse whoever comes later."""
        self.closed = True
        for batch in tuple(self.flying):
            self._release(batch, None)


@trio.lowlevel.disable_ki_protection
async def _call(fetch: Fetch[K, V], keys: Sequence[K]) -> object:
    return await fetch(keys)
