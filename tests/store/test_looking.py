"""
Looking at a store in use: whatever its owner does meanwhile, the verdict is right.

The owner acts between two calls of the looker, or in the middle of one: of a read, one part
is then from before and the other from after; of a listing, some of the names.
"""

import errno
import random
from collections.abc import Callable, Iterator
from typing import cast

import attrs
import pytest

from csjd import stores
from csjd._model.errors import JobStoreError
from csjd._store.file_store import FileJobStore
from csjd._store.framing import HEADER_BYTES, RECORD_BYTES
from csjd.testing.simfs import SimFs
from csjd.testing.stores import accepted
from tests.store.battery import NOW, open_store
from tests.store.conftest import Report

Splice = Callable[[bytes, bytes], bytes]
"""Makes of what is there before and after what one read of both may give."""


@attrs.define(eq=False)
class Owner:
    """Who has the store: its jobs are those from 1 to `last`."""

    fs: SimFs = attrs.field(factory=lambda: SimFs(time=NOW))
    store: FileJobStore = attrs.field(init=False)
    last: int = 0

    def __attrs_post_init__(self) -> None:
        self.opens()
        self.compacts()
        self.commits()

    def opens(self) -> None:
        self.store = open_store(self.fs)
        self.store.recover()

    def commits(self) -> None:
        self.last += 1
        self.store.commit([accepted(self.last)])

    def commits_often(self) -> None:
        for _ in range(5):
            self.commits()

    def commits_much(self) -> None:
        self.last += 1
        self.store.commit([accepted(self.last, payload=bytes(range(256)) * 8)])

    def seals(self) -> None:
        self.commits()
        self.store.maintain()
        self.commits()

    def compacts(self) -> None:
        self.commits()
        self.store.compact()
        self.commits()

    def closes(self) -> None:
        self.commits()
        self.store.close()

    def dies_and_comes_back(self) -> None:
        self.commits()
        self.fs.kill()
        self.opens()
        self.commits()


ACTS: dict[str, Callable[[Owner], None]] = {
    "commits": Owner.commits,
    "commits often": Owner.commits_often,
    "commits much": Owner.commits_much,
    "seals": Owner.seals,
    "compacts": Owner.compacts,
    "closes": Owner.closes,
    "dies and comes back": Owner.dies_and_comes_back,
}


@attrs.define(eq=False)
class Looker:
    """A file layer for whoever looks at the same disk; the owner acts in some of its calls."""

    fs: SimFs
    act: Callable[[], None]
    calls_to_act_in: range
    """Counted from 1."""
    splice: Splice = lambda before, after: after
    rng: random.Random | None = None
    """Which of the names that came or went a listing gives; None: none that came."""
    calls: int = 0
    growth: int = 512

    def open_directory(self, path: str, *, create: bool) -> stores.Directory:
        inner = self.fs.open_directory(path, create=create)
        return cast("stores.Directory", LookedAtDirectory(self, inner))

    def now(self) -> float:
        return NOW

    def entropy(self, count: int) -> bytes:
        raise AssertionError("who looks writes nothing")

    def pause(self) -> None:
        pass

    def turn(self) -> bool:
        """Count a call; return whether the owner acts in it."""
        self.calls += 1
        return self.calls in self.calls_to_act_in


@attrs.define(eq=False)
class LookedAtDirectory:
    """As much of a directory as a look needs."""

    looker: Looker
    inner: stores.Directory

    def names(self) -> list[str]:
        before = self.inner.names()
        if not self.looker.turn():
            return before
        self.looker.act()
        after, rng = self.inner.names(), self.looker.rng
        if rng is None:
            return before
        changed = sorted({*before} ^ {*after})
        return [*({*before} & {*after}), *(name for name in changed if rng.random() < 0.5)]

    def open(self, name: str) -> stores.File:
        if self.looker.turn():
            self.looker.act()
        return cast("stores.File", LookedAtFile(self.looker, self.inner.open(name)))

    def close(self) -> None:
        pass


@attrs.define(eq=False)
class LookedAtFile:
    """As much of a file as a look needs."""

    looker: Looker
    inner: stores.File

    def size(self) -> int:
        if self.looker.turn():
            self.looker.act()
        return self.inner.size()

    def read(self, offset: int, count: int) -> bytes:
        before = self.inner.read(offset, count)
        if not self.looker.turn():
            return before
        self.looker.act()
        return self.looker.splice(before, self.inner.read(offset, count))

    def close(self) -> None:
        pass


def splices() -> Iterator[Splice]:
    """Yield ways in which a read can be half of one moment and half of another."""
    yield lambda before, after: before
    yield lambda before, after: after
    for share in range(1, 40):
        yield lambda before, after, share=share: _cut(before, after, share)  # type: ignore[misc]
        yield lambda before, after, share=share: _cut(after, before, share)  # type: ignore[misc]


def _cut(front: bytes, back: bytes, share: int) -> bytes:
    """Return the beginning of *front* and the end of *back*, cut in what differs."""
    size = min(len(front), len(back))
    differing = [at for at in range(size) if front[at] != back[at]] or [0]
    cut = differing[len(differing) * share // 40]
    return front[:cut] + back[cut:]


def inspect_files(fs: SimFs) -> tuple[stores.FileReport, ...]:
    return stores.inspect("sim", files=fs).files


def look(nth: int, act: Callable[[Owner], None], splice: Splice, seed: int) -> bool:
    """Look at a store whose owner acts in the n-th call; return whether it came to that."""
    owner = Owner()
    rng = random.Random(seed) if seed else None
    looker = Looker(owner.fs, lambda: act(owner), range(nth, nth + 1), splice, rng)
    first = owner.last
    found = stores.inspect("sim", files=looker)
    live = [job.order for job in found.recovery.live]
    assert first <= len(live) <= owner.last
    assert live == [*range(1, len(live) + 1)]
    assert found.recovery.next_order == len(live) + 1
    assert found.recovery.notices == ()
    assert not found.recovery.quarantined
    assert not any(file.problem for file in found.files)
    return looker.calls >= nth


@pytest.mark.parametrize("name", ACTS)
def test_store_in_use_is_shown_as_it_was_at_some_moment(name: str, report: Report) -> None:
    looks = 0
    for seed, splice in enumerate(splices()):
        nth = 1
        while look(nth, ACTS[name], splice, seed):
            nth += 1
        looks += nth
    report(f"looks at a store in use (its owner {name})", looks)


def test_verify_of_a_busy_store_comes_to_an_end_and_is_clean() -> None:
    for calls in range(1, 40):
        owner = Owner()
        looker = Looker(owner.fs, owner.commits, range(1, calls))
        assert stores.verify("sim", files=looker) == stores.Verdict(health=stores.Health.CLEAN)


def test_damage_in_a_store_in_use_is_found() -> None:
    """It lies before what the owner goes on to write, and reading it again mends nothing."""
    nth, looked = 1, True
    while looked:
        owner = Owner()
        owner.commits_often()
        last = max(owner.fs.files())
        spot = [
            record
            for record in stores.records("sim", files=owner.fs)
            if record["file"] == last and record["kind"] == "operations"
        ][2]
        owner.fs._names[last].current[spot["offset"] + RECORD_BYTES] ^= 1
        looker = Looker(owner.fs, owner.commits_often, range(nth, nth + 3))
        verdict = stores.verify("sim", files=looker)
        assert verdict.health is stores.Health.CORRUPT
        assert (verdict.file, verdict.offset) == (last, spot["offset"])
        looked = looker.calls >= nth
        nth += 1


def test_record_that_stays_half_written_is_a_torn_tail() -> None:
    """Its owner stands still in the middle of writing it: that looks like a crash."""
    owner = Owner()
    last = max(owner.fs.files())
    ends = []
    for _ in range(2):
        ends.append(next(file.used for file in inspect_files(owner.fs) if file.name == last))
        owner.commits()
    start, end = ends
    content = owner.fs._names[last].current
    whole = bytes(content)
    for written in range(start + 1, end - 1):  # its very last byte is a zero
        content[:] = whole[:written].ljust(len(whole), b"\0")
        verdict = stores.verify("sim", files=owner.fs)
        assert (verdict.health, verdict.offset) == (stores.Health.TORN, start)
    content[:] = whole
    assert stores.verify("sim", files=owner.fs).health is stores.Health.CLEAN


def test_missing_file_is_reported_and_not_looked_for_for_ever() -> None:
    owner = Owner()
    disk = owner.fs.files()
    for name in disk:
        left = {other: data for other, data in disk.items() if other != name}
        verdict = stores.verify("sim", files=SimFs(left, time=NOW))
        assert verdict.health is stores.Health.CORRUPT or name == max(disk)
    vanishing = SimFs(disk, time=NOW)
    vanishing.fail = lambda kind, name: FileNotFoundError(errno.ENOENT, "gone", name)
    with pytest.raises(JobStoreError, match="gone"):
        stores.verify("sim", files=vanishing)


def test_directory_without_a_finished_file_holds_no_store() -> None:
    fs = SimFs({"wal-00000000000000000001.tmp": bytes(HEADER_BYTES), "wal-x": b""})
    with pytest.raises(JobStoreError, match="holds no store"):
        stores.verify("sim", files=fs)
