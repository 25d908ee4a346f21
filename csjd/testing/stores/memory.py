"""A store in memory, for tests of what uses one."""

from collections.abc import Iterator, Sequence

import attrs
import msgspec

from csjd._model.errors import JobStoreClosedError, JobStoreLockedError
from csjd._model.storing import Operation, Recovery, StoreStatistics
from csjd.testing.stores.model import StoreModel


class MemoryJobStore:
    """
    A `JobStore` that survives only its own `close`: for tests of what uses one.

    Args:
        faults: Raised by the next commits in turn; None lets one pass.
        model: What is in it.
        clean: Whether its last owner closed it.
    """

    def __init__(
        self,
        *,
        faults: Iterator[Exception | None] | None = None,
        model: StoreModel | None = None,
        clean: bool = True,
    ) -> None:
        self.model: StoreModel = StoreModel() if model is None else model
        self.batches: list[tuple[Operation, ...]] = []
        """Every batch committed, oldest first."""
        self._faults = faults
        self._open = False
        self._clean = clean
        self._statistics = StoreStatistics()

    @property
    def is_clean(self) -> bool:
        """Whether its last owner, if it had any, has closed it."""
        return self._clean

    def recover(self) -> Recovery:
        """Open the store, and tell everything in it."""
        if self._open:
            raise JobStoreLockedError("memory", "locked", "this process")
        self.model.opened(clean=self._clean)
        recovery = self.model.recovery(clean=self._clean)
        self._open, self._clean = True, False
        return recovery

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> None:
        """Keep a batch of operations."""
        self._check_open()
        fault = None if self._faults is None else next(self._faults, None)
        if fault is not None:
            raise fault
        msgspec.msgpack.encode(operations)  # refuse what other stores could not carry
        changed = self.model.copy()
        changed.apply(operations)
        self.model = changed
        self.batches.append(tuple(operations))
        self._statistics = attrs.evolve(
            self._statistics,
            commits=self._statistics.commits + 1,
            operations=self._statistics.operations + len(operations),
            syncs=self._statistics.syncs + sync,
        )

    def maintain(self) -> None:
        """Do nothing."""
        self._check_open()

    def crash(self) -> None:
        """Let its owner die."""
        self._open = False

    def close(self) -> None:
        """Give the store up, clean."""
        if self._open:
            self._open, self._clean = False, True

    def statistics(self) -> StoreStatistics:
        """Return the store's numbers at this moment."""
        return self._statistics

    def _check_open(self) -> None:
        if not self._open:
            raise JobStoreClosedError("memory", "it is closed")
