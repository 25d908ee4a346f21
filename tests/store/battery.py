"""
The battery's engine: a workload on a simulated disk, and what must hold after any crash.

Every violation carries the line that reproduces it.
"""

import contextlib
import errno
import random
from collections.abc import Callable
from typing import overload

import attrs

from csjd._model.errors import JobStoreCorruptError, JobStoreError, JobStoreFullError
from csjd._model.storing import Recovery
from csjd._store.file_store import FileJobStore
from csjd._store.files import Directory
from csjd._store.salvage import Salvage, salvage
from csjd.testing.simfs import SimFs
from csjd.testing.stores import StoreModel, Summary, accepted, random_batch, summarize

NOW = 1_700_000_000.0
COMPACT_AT = 1500
"""Bytes: every dozen batches or so, so that a short history holds a few compactions."""


class ViolationError(AssertionError):
    """The store broke its promise."""


@attrs.define(eq=False)
class Tally:
    """What a run has looked at."""

    states: int = 0
    seen: set[int] = attrs.field(factory=set)

    def is_new(self, disk: dict[str, bytes]) -> bool:
        mark = hash(tuple(sorted(disk.items())))
        if mark in self.seen:
            return False
        self.seen.add(mark)
        self.states += 1
        return True


@attrs.define(eq=False)
class History:
    """What was told to the store, and how much of it was promised to last."""

    models: list[StoreModel] = attrs.field(factory=lambda: [StoreModel()])
    """After each batch; the first is what the store began with."""
    promised: int = 0
    """Index of the oldest model a crash may fall back to."""
    crashed_clean: bool = True
    """Whether nobody has the store open."""

    def allowed(self) -> list[tuple[int, Summary]]:
        """Return what a recovery after a crash at this moment may tell."""
        allowed: list[tuple[int, Summary]] = []
        for index in range(self.promised, len(self.models)):
            for clean in (False, True):
                model = self.models[index].copy()
                model.opened(clean=clean)
                allowed.append((index, summarize(model.recovery())))
        return allowed


def open_store(fs: SimFs) -> FileJobStore:
    return FileJobStore("sim", files=fs, compact_at=COMPACT_AT)


def check_crash_state(disk: dict[str, bytes], allowed: list[tuple[int, Summary]]) -> int:
    """
    Recover what a crash left: a promised prefix; and again; and after one more commit.

    Returns:
        The index of the model that came back.
    """
    fs = SimFs(disk, seed=1, time=NOW)
    store = open_store(fs)
    try:
        recovery = store.recover()
    except JobStoreError as error:
        raise ViolationError(f"does not open: {error}") from error
    summary = summarize(recovery)
    found = [index for index, expected in allowed if expected == summary]
    if not found:
        raise ViolationError(f"not a promised prefix: {summary}")
    if recovery.quarantined:
        raise ViolationError(f"quarantined: {recovery.quarantined}")
    probe = accepted(recovery.next_order, id="probe")
    store.commit([probe])
    fs.kill()
    # Power fails again: only what is durable now comes back, and it must all be there.
    later = SimFs(next(fs.crash_states(0, random.Random(0))), seed=2, time=NOW)
    again = open_store(later).recover()
    if not again.live or again.live[-1].accepted != probe:
        raise ViolationError("a commit after the recovery was lost")
    told = summarize(again)
    if (told[0][:-1], *told[1:4]) != summary[:4]:
        raise ViolationError("the second recovery tells something else")
    return max(found)


@attrs.define(eq=False)
class Explorer:
    """Runs random histories, and looks at every crash they could have."""

    seed: int
    tally: Tally
    states_per_change: int
    budget: int
    """Stop after so many states."""
    check_each: Callable[[dict[str, bytes], list[tuple[int, Summary]]], int] = check_crash_state
    history: History = attrs.field(factory=History)
    fs: SimFs = attrs.field(init=False)
    _rng: random.Random = attrs.field(init=False)
    _changes: int = 0

    def __attrs_post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self.fs = self._disk({})

    def run(self, lives: int, batches: int) -> None:
        for _ in range(lives):
            if self.tally.states >= self.budget:
                return
            self._live(batches)
            self._crash()

    def _disk(self, contents: dict[str, bytes]) -> SimFs:
        short = self._rng.random() < 0.3
        return SimFs(
            contents,
            seed=self._rng.randrange(1 << 30),
            before=self._look,
            short_writes=short,
            writes_through=self.seed % 2 == 0,
            time=NOW,
        )

    def _live(self, batches: int) -> None:
        """Open the store, tell it something, perhaps close it."""
        store = open_store(self.fs)
        store.recover()
        model = self.history.models[-1].copy()
        model.opened(clean=self.history.crashed_clean)
        self.history.models[-1] = model
        self.history.crashed_clean = False
        for _ in range(self._rng.randrange(1, batches + 1)):
            self._commit(store)
            if self._rng.random() < 0.1 or store.statistics().maintenance_due:
                store.maintain()
                self.history.promised = len(self.history.models) - 1
        if self._rng.random() < 0.3:
            store.close()
            self.history.promised = len(self.history.models) - 1
            self.history.models[-1].opened(clean=True)
            self.history.crashed_clean = True

    def _commit(self, store: FileJobStore) -> None:
        model = self.history.models[-1].copy()
        batch = random_batch(model, self._rng, now=NOW)
        self.history.models.append(model)
        sync = self._rng.random() < 0.7
        store.commit(batch, sync=sync)
        if sync:
            self.history.promised = len(self.history.models) - 1

    def _crash(self) -> None:
        """Go on from one of the states a crash could leave now."""
        allowed = self.history.allowed()
        states = list(self.fs.crash_states(50, self._rng))
        disk = self._rng.choice(states)
        index = self._check(disk, allowed)
        self.history = History([self.history.models[index]], 0, self.history.crashed_clean)
        self.fs = self._disk(disk)

    def _look(self, kind: str, name: str) -> None:
        """Look at every crash that could happen before the next change."""
        self._changes += 1
        if self.tally.states >= self.budget:
            return
        allowed = self.history.allowed()
        for disk in self.fs.crash_states(self.states_per_change, self._rng):
            if self.tally.is_new(disk):
                self._check(disk, allowed)

    def _check(self, disk: dict[str, bytes], allowed: list[tuple[int, Summary]]) -> int:
        try:
            return self.check_each(disk, allowed)
        except ViolationError as error:
            raise ViolationError(f"seed {self.seed}, change {self._changes}: {error}") from error


# --- failing disks ---------------------------------------------------------------------


@attrs.define(eq=False)
class Fault:
    """Let the n-th change of a kind fail, once or from then on."""

    kind: str
    nth: int
    code: int
    lasting: bool
    hits: int = 0
    count: int = 0

    def __call__(self, kind: str, name: str) -> OSError | None:
        if kind != self.kind:
            return None
        self.count += 1
        if self.count == self.nth or (self.lasting and self.count > self.nth):
            self.hits += 1
            return OSError(self.code, "injected")
        return None


def run_with_fault(seed: int, fault: Fault) -> bool:
    """
    Run a short history on a disk that fails, then let the power fail, then recover.

    Returns:
        Whether the fault struck.
    """
    rng = random.Random(seed)
    fs = SimFs(seed=seed, time=NOW, fail=fault, writes_through=seed % 2 == 0)
    history = History()
    try:
        _live_through(fs, history, rng, fault)
    except ViolationError as error:
        raise ViolationError(f"seed {seed}, {fault}: {error}") from error
    fs.fail = None
    fs.kill()
    allowed = history.allowed()
    label = f"seed {seed}, {fault}"
    # First the process is started again, on a kernel that may show what the disk lacks;
    # only then does the power fail.
    survivors = list(fs.crash_states(20, rng))
    reopened = open_store(fs)
    try:
        summary = summarize(reopened.recover())
    except JobStoreError as error:
        raise ViolationError(f"{label}: does not reopen: {error}") from error
    if summary not in [expected for _, expected in allowed]:
        raise ViolationError(f"{label}: reopened to {summary}")
    probe = accepted(summary[-1], id="probe")
    reopened.commit([probe])
    for disk in fs.crash_states(20, rng):
        recovery = open_store(SimFs(disk, time=NOW)).recover()
        told = summarize(recovery)
        if not recovery.live or recovery.live[-1].accepted != probe:
            raise ViolationError(f"{label}: lost after reopening")
        if (told[0][:-1], *told[1:4]) != summary[:4]:
            raise ViolationError(f"{label}: changed after reopening")
    for disk in survivors:
        try:
            check_crash_state(disk, allowed)
        except ViolationError as error:
            raise ViolationError(f"{label}: {error}") from error
    return fault.hits > 0


def _live_through(fs: SimFs, history: History, rng: random.Random, fault: Fault) -> None:
    store = open_store(fs)
    try:
        store.recover()
    except JobStoreError:
        return
    for _ in range(25):
        model = history.models[-1].copy()
        batch = random_batch(model, rng, now=NOW)
        hits = fault.hits
        sync = rng.random() < 0.7
        try:
            store.commit(batch, sync=sync)
        except JobStoreFullError:
            continue  # as if it had never been
        except JobStoreError:
            if fault.hits > hits or not store.statistics().failed:
                history.models.append(model)  # it may be there, and may not
            _must_stay_failed(store)
            return
        if store.statistics().failed:
            raise ViolationError("a commit succeeded in a store that had failed")
        history.models.append(model)
        if sync:
            history.promised = len(history.models) - 1
        if store.statistics().maintenance_due:
            _maintain(store)
            if store.statistics().failed:
                _must_stay_failed(store)
                return


def _maintain(store: FileJobStore) -> None:
    with contextlib.suppress(JobStoreError):
        store.maintain()


def _must_stay_failed(store: FileJobStore) -> None:
    if not store.statistics().failed:
        raise ViolationError("an error of unknown outcome left the store in use")
    try:
        store.commit([accepted(10**9)])
    except JobStoreError:
        return
    raise ViolationError("a commit succeeded after a failed one")


EIO, ENOSPC = errno.EIO, errno.ENOSPC


# --- damaged files ---------------------------------------------------------------------

Disk = dict[str, bytes]


def make_disk(seed: int, batches: int = 50, *, close: bool) -> tuple[Disk, list[Summary]]:
    """Return a store's files, and what it held after each batch, oldest first."""
    rng = random.Random(seed)
    fs = SimFs(seed=seed, time=NOW)
    store = open_store(fs)
    store.recover()
    model = StoreModel()
    models = [model.copy()]
    for _ in range(batches):
        store.commit(random_batch(model, rng, now=NOW))
        models.append(model.copy())
        if store.statistics().maintenance_due:
            store.maintain()
    if close:
        store.close()
    for model in models:
        model.opened(clean=close)
    return fs.files(), [summarize(model.recovery()) for model in models]


def make_scarred_disk(seed: int) -> Disk:
    """Return the files of a store that lived on after a few crashes and losses of power."""
    tally = Tally()
    explorer = Explorer(seed, tally, states_per_change=0, budget=100_000)
    explorer.run(lives=5, batches=12)
    return explorer.fs.files()


def recovered(disk: Disk) -> Summary | None:
    """Return what a store tells, or None if it refuses as damaged."""
    store = open_store(SimFs(disk, time=NOW))
    try:
        recovery = store.recover()
    except JobStoreCorruptError as error:
        if not error.file or not 0 <= error.offset <= max(map(len, disk.values())):
            raise ViolationError(f"refused without a place: {error!r}") from error
        return None
    assert not recovery.quarantined
    return summarize(recovery)


class SimFsPair(SimFs):
    """Two disks: "out" is where things are saved, any other path what they are saved from."""

    def __init__(self, disk: Disk, target: SimFs) -> None:
        super().__init__(disk, time=NOW)
        self._target = target

    def open_directory(self, path: str, *, create: bool) -> Directory:
        if path == "out":
            return self._target.open_directory(path, create=create)
        return super().open_directory(path, create=create)


def holds_a_store(disk: Disk) -> bool:
    """Whether there is anything to salvage."""
    return any(name.startswith(("wal-", "snap-")) and ".tmp" not in name for name in disk)


def salvaged(disk: Disk) -> tuple[Salvage, Recovery]:
    """Salvage a store; return what that says, and what the new store tells."""
    target = SimFs(time=NOW)
    source = SimFsPair(disk, target)
    saved = salvage("sim", "out", files=source)
    if source.files() != disk:
        raise ViolationError("salvage changed what it saves from")
    recovery = open_store(target).recover()
    if not recovery.clean or recovery.notices or len(recovery.live) != saved.live:
        raise ViolationError(f"salvage made {recovery}, and said {saved}")
    return saved, recovery


@overload
def without_crashes(summary: Summary) -> Summary: ...
@overload
def without_crashes(summary: None) -> None: ...
@overload
def without_crashes(summary: Summary | None) -> Summary | None: ...
def without_crashes(summary: Summary | None) -> Summary | None:
    """Return a summary that does not say how often jobs crashed."""
    if summary is None:
        return None
    live = tuple((job.accepted, job.attempts, job.due, job.kind) for job in summary[0])
    return (live, *summary[1:])
