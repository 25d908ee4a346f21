"""Keys that are fetched together, and those who wait for them."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from csjd._core.flights import Flight
from csjd._core.replicas import replica
from csjd._model.errors import MissingBatchResultError
from csjd._runtime.blame import without_cancelled
from csjd._runtime.crew import Hand
from csjd._runtime.parking import Sleepers, wake_all

if TYPE_CHECKING:
    from csjd._batching.batches import Batches

K = TypeVar("K")
V = TypeVar("V")

_NOTHING = object()


class Batch(Flight, Generic[K, V]):
    """One batch, from its first key to its outcome."""

    __slots__ = (
        "answers",
        "batches",
        "began",
        "callers",
        "due",
        "error",
        "go",
        "hand",
        "keys",
        "sleepers",
    )

    hand: Hand

    def __init__(self, batches: "Batches[K, V]", due: float) -> None:
        super().__init__()
        self.batches: Batches[K, V] = batches
        self.due: float = due
        """When it goes even if it is not full, by Trio's clock."""
        self.callers: dict[K, int] = {}
        """
        How many wait for each key; in the order they were first asked for.

        After it has landed, how many have not heard of its error yet; if it has answers,
        nobody counts any more.
        """
        self.sleepers: Sleepers = {}
        self.go: trio.Event = trio.Event()
        """Set when it has a slot."""
        self.keys: tuple[K, ...] | None = None
        """What the fetch was called with; None before."""
        self.began: float = due
        """When that was."""
        self.answers: Mapping[K, V | BaseException] | None = None
        self.error: BaseException | None = None

    def needs_one_of(self) -> Collection[Flight]:
        return () if self.go.is_set() else self.batches.ahead()

    def land(
        self, answers: Mapping[K, V | BaseException] | None, error: BaseException | None
    ) -> None:
        """Give the outcome to all who wait."""
        self.answers, self.error = answers, error
        self.landed = True
        wake_all(self.sleepers)

    def answer(self, key: K) -> V:
        """Return the value of *key*, or raise its error, or the batch's; before `leave`."""
        if self.answers is None:
            assert self.error is not None
            raise replica(self.error)
        value = self.answers.get(key, _NOTHING)  # no `[key]`: a defaultdict makes things up
        if value is _NOTHING:
            raise MissingBatchResultError(key)
        if isinstance(value, BaseException):
            raise replica(without_cancelled(value))
        return value  # type: ignore[return-value]  # not _NOTHING, hence a V

    def let_go(self) -> None:
        """
        Forget the error, of which all who waited have heard.

        Its traceback leads back here: only the garbage collector would find the two.
        """
        self.error = None

    # --- work for a hand ---------------------------------------------------------------

    async def perform(self) -> Mapping[K, V | BaseException]:
        """Wait for a slot, and fetch; all that the fetch starts is aboard."""
        self.board()
        return await self.batches.fetch_in_turn(self)

    def succeed(self, value: Mapping[K, V | BaseException]) -> None:
        """Give each caller the answer of its key."""
        self.batches.succeeded(self, value)

    def absorb(self, error: BaseException) -> bool:
        """Give *error* to all who wait; if there are none, log it, or return False."""
        return self.batches.failed(self, error)

    def cut_off(self, cause: BaseException | None) -> None:
        """Tell all who wait that the loader is closed."""
        self.batches.cut_off(self, cause)

    def cancelled(self) -> None:
        """Hear that the fetch, abandoned before, has ended."""
        self.batches.give_back(self)
