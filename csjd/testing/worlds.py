"""
Where a store lives, as seen by what kills its process: the machine's other half.

`csjd.testing.machine_store` runs a dispatcher and lets it die; what that leaves to the
next one is a world's affair. `DiskWorld` is a `FileJobStore` on a simulated disk.
`MemoryWorld` is the simplest there is: everything committed survives. For a store of your
own write a third.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
import trio

from csjd import FileJobStore, JobStoreFullError
from csjd.stores import JobStore, Operation, Recovery, StoreStatistics
from csjd.testing.simfs import SimFs
from csjd.testing.stores import MemoryJobStore
from csjd.testing.threads import blocking


class World(Protocol):
    """What a store leaves behind, and what can go wrong with it."""

    def store(self, now: float) -> JobStore:
        """
        Return a store on what is there, not recovered yet.

        Args:
            now: What the wall clock shows, in seconds.
        """
        ...

    def kill(self) -> None:
        """Let the process die: its memory is gone, and what it does from now on is nothing."""
        ...

    def lose_power(self, rng: random.Random) -> None:
        """Let the machine die: what was not synced may be lost, or not, as *rng* draws."""
        ...

    def at_change(self, number: int, then: Callable[[], None]) -> None:
        """
        Call *then* in the midst of a commit: before the change of this number from now on.

        Args:
            number: Counted from 1.
            then: Calls `kill` or `lose_power`. Forgotten when the process dies before.
        """
        ...

    def fail(self, kind: str, code: int, times: int) -> None:
        """
        Let the next calls of a kind fail.

        Args:
            kind: `write`, `sync`, ...: what the world knows by it.
            code: An `errno`.
            times: How many.
        """
        ...

    def heal(self) -> None:
        """Let nothing fail any more."""
        ...

    def troubles(self) -> int:
        """Return how many calls have failed in this process."""
        ...


@attrs.define(eq=False)
class DiskWorld:
    """A `FileJobStore` on a disk that forgets what was not synced."""

    compact_at: int = 1500
    """Bytes: small, so that a short run compacts a few times."""
    disk: SimFs = attrs.field(factory=SimFs)
    _faults: list[list[Any]] = attrs.field(factory=list)
    _struck: int = 0
    _countdown: int = 0
    _then: Callable[[], None] | None = None

    def store(self, now: float) -> JobStore:
        """Return a file store on the disk."""
        self.disk.time = now
        self.disk.before, self.disk.fail = self._before, self._fail
        return FileJobStore("disk", compact_at=self.compact_at, files=self.disk)

    def kill(self) -> None:
        """Keep what was written, synced or not."""
        self._go_on(self.disk.survivor())

    def lose_power(self, rng: random.Random) -> None:
        """Keep one of the states that the disk may be in then."""
        contents = rng.choice(list(self.disk.crash_states(30, rng)))
        self._go_on(SimFs(contents, seed=rng.randrange(1 << 30), time=self.disk.time))

    def _go_on(self, disk: SimFs) -> None:
        self.disk.before = self.disk.fail = None
        self.disk, self._then, self._struck = disk, None, 0

    def at_change(self, number: int, then: Callable[[], None]) -> None:
        """Count the disk's changes."""
        self._countdown, self._then = number, then

    def _before(self, kind: str, name: str) -> None:
        if self._then is not None:
            self._countdown -= 1
            if self._countdown == 0:
                then, self._then = self._then, None
                then()

    def fail(self, kind: str, code: int, times: int) -> None:
        """Fail calls of `SimFs.fail`'s kinds."""
        self._faults.append([kind, code, times])

    def heal(self) -> None:
        """Fail nothing."""
        self._faults.clear()

    def troubles(self) -> int:
        """Return how many calls failed on this disk."""
        return self._struck

    def _fail(self, kind: str, name: str) -> OSError | None:
        for fault in self._faults:
            if fault[0] == kind:
                fault[2] -= 1
                if not fault[2]:
                    self._faults.remove(fault)
                self._struck += 1
                return OSError(fault[1], "injected")
        return None


class Quiet:
    """The part of a world in which nothing fails, and nobody dies in the midst of a commit."""

    def at_change(self, number: int, then: Callable[[], None]) -> None:
        """Do nothing: this world dies between two steps only."""

    def fail(self, kind: str, code: int, times: int) -> None:
        """Do nothing: here nothing fails."""

    def heal(self) -> None:
        """Do nothing."""

    def troubles(self) -> int:
        """Return 0."""
        return 0


@attrs.define(eq=False)
class MemoryWorld(Quiet):
    """A `MemoryJobStore` whose every commit survives; nothing ever fails."""

    _store: MemoryJobStore = attrs.field(factory=MemoryJobStore)
    _countdown: int = 0
    _then: Callable[[], None] | None = None

    def store(self, now: float) -> JobStore:
        """Return the store, with a count of its commits."""
        return _Counted(self._store, self._count)

    def kill(self) -> None:
        """Keep what was committed."""
        model, clean = self._store.model.copy(), self._store.is_clean
        self._store, self._then = MemoryJobStore(model=model, clean=clean), None

    def lose_power(self, rng: random.Random) -> None:
        """Keep the same."""
        self.kill()

    def at_change(self, number: int, then: Callable[[], None]) -> None:
        """Count commits."""
        self._countdown, self._then = number, then

    def _count(self) -> None:
        if self._then is not None:
            self._countdown -= 1
            if self._countdown == 0:
                then, self._then = self._then, None
                then()


@attrs.define(eq=False)
class _Wrapped:
    """A store that does what another does."""

    inner: JobStore

    def recover(self) -> Recovery:
        return self.inner.recover()

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> Any:
        return self.inner.commit(operations, sync=sync)

    def maintain(self) -> None:
        self.inner.maintain()

    def close(self) -> None:
        self.inner.close()

    def statistics(self) -> StoreStatistics:
        return self.inner.statistics()


@attrs.define(eq=False)
class _Counted(_Wrapped):
    count: Callable[[], None]

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> Any:
        self.count()
        return super().commit(operations, sync=sync)


@attrs.define(eq=False)
class SlowStore(_Wrapped):
    """
    A store whose commits take virtual time, and that can be watched.

    Half of the time passes before the commit, half between it and its return: what dies
    in between has written what it has not acknowledged. Needs `virtual_threads`.
    """

    seconds: float = 0.0
    """How long a commit takes."""
    on_recovered: Callable[[Recovery], None] = lambda recovery: None
    on_committed: Callable[[Sequence[Operation]], None] = lambda operations: None
    """Called as a commit returns."""
    writing: int = 0
    """Commits that have begun and not returned."""
    refused_at: float = -math.inf
    """When it last had no room for a commit."""

    def recover(self) -> Recovery:
        """Open the store, and tell everything in it."""
        recovery = self.inner.recover()
        self.on_recovered(recovery)
        return recovery

    def commit(self, operations: Sequence[Operation], /, *, sync: bool = True) -> Any:
        """Keep a batch of operations."""
        kept = list(operations)
        self.writing += 1

        def write(cancelled: bool) -> Any:
            try:
                self.inner.commit(kept, sync=sync)
            except BaseException as error:
                self.writing -= 1
                if isinstance(error, JobStoreFullError):
                    self.refused_at = trio.current_time()
                raise
            return blocking(self.seconds / 2, finish) if self.seconds else finish(False)

        def finish(cancelled: bool) -> None:
            self.writing -= 1
            self.on_committed(kept)

        return blocking(self.seconds / 2, write) if self.seconds else write(False)
