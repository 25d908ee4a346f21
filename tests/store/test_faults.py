"""T9, T10: the n-th call fails, once or for good; the disk is full."""

import random
from collections.abc import Iterable

import pytest

from csjd._model.errors import JobStoreError, JobStoreFullError
from csjd._model.storing import Ended, Postponed
from csjd._store.file_store import FileJobStore
from csjd.testing.simfs import SimFs
from csjd.testing.stores import accepted
from tests.store.battery import EIO, ENOSPC, NOW, Fault, open_store, run_with_fault
from tests.store.conftest import FULL, Report

KINDS = (
    "write",
    "sync",
    "sync_directory",
    "allocate",
    "truncate",
    "create",
    "rename",
    "unlink",
    "open",
    "lock",
)
SEEDS = 40 if FULL else 3


def test_every_failing_call_is_survived(report: Report) -> None:
    runs = 0
    for kind in KINDS:
        for nth in range(1, 60):
            struck = False
            for code in (EIO, ENOSPC):
                for lasting in (False, True):
                    for seed in range(SEEDS):
                        struck |= run_with_fault(seed, Fault(kind, nth, code, lasting))
                        runs += 1
            if not struck:
                break
    report("T9 failing calls on the simulated disk", runs, seed=f"0 to {SEEDS - 1}")


@pytest.mark.parametrize("code", [EIO, ENOSPC])
def test_failed_sync_is_never_tried_again(code: int) -> None:
    fault = Fault("sync", 3, code, lasting=False)
    fs = SimFs(fail=fault, time=NOW, writes_through=False)
    store = open_store(fs)
    store.recover()
    store.commit([accepted(1)])
    with pytest.raises(JobStoreError, match="reopen"):
        store.commit([accepted(2)])
    syncs = fault.count
    with pytest.raises(JobStoreError, match="reopen"):
        store.commit([accepted(3)])
    store.close()
    assert fault.count == syncs


def commit_jobs(store: FileJobStore, count: int) -> None:
    for order in range(1, count + 1):
        store.commit([accepted(order)])


@pytest.mark.parametrize("code", [EIO, ENOSPC])
def test_nor_is_that_of_room_just_made(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(SimFs(time=NOW, writes_through=True))
    store.recover()
    syncs = 0

    def sync(_: object) -> None:
        nonlocal syncs
        syncs += 1
        raise OSError(code, "planted")

    monkeypatch.setattr("csjd.testing.simfs._SimFile.sync", sync)
    with pytest.raises(JobStoreError, match="reopen"):
        commit_jobs(store, 100)
    store.close()
    assert syncs == 1


def fill(store: FileJobStore, rng: random.Random) -> list[int]:
    """Commit jobs until one is refused for lack of room; return the orders of the others."""
    for order in range(1, 1000):
        try:
            store.commit([accepted(order, payload=bytes(rng.randrange(100)))])
        except JobStoreFullError:
            return list(range(1, order))
    raise AssertionError("the disk never got full")


def full_disk(seeds: Iterable[int]) -> int:
    """Fill disks, end every job, make room, go on; return how many ends were recorded."""
    checked = 0
    for seed in seeds:
        rng = random.Random(seed)
        fs = SimFs(seed=seed, time=NOW, room=rng.randrange(1500, 6000), growth=1024)
        store = open_store(fs)
        try:
            store.recover()
        except JobStoreError:
            continue  # not even room for an empty store
        orders = fill(store, rng)
        for order in orders[:3]:
            store.commit([Postponed(order, 1, NOW)])
        for order in orders:
            store.commit([Ended(order)])  # every one, one by one
            checked += 1
        fs.room = 100_000
        store.commit([accepted(2000)])
        fs.kill()
        disk = next(fs.crash_states(0, rng))
        recovery = open_store(SimFs(disk, time=NOW)).recover()
        assert [job.order for job in recovery.live] == [2000], f"seed {seed}"
    return checked


def test_full_disk_refuses_jobs_and_still_records_what_ends(report: Report) -> None:
    checked = full_disk(range(200))
    assert checked > 1000
    report("T10 ends recorded on a full simulated disk", checked, seed="0 to 199")
