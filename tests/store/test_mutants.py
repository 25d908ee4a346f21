"""T8: historical bugs, planted again one at a time; the battery must find every one."""

import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from csjd._model.errors import JobStoreError
from csjd._model.storing import JobStore
from csjd._store.framing import HEADER_BYTES, MARK
from csjd.testing.simfs import SimFs
from csjd.testing.stores import JobStoreCrashSuite, accepted
from tests.mutants.store_mutants import STORE_MUTANTS, Mutant
from tests.store import test_faults, test_file_store
from tests.store.battery import (
    EIO,
    ENOSPC,
    NOW,
    Explorer,
    Fault,
    Tally,
    make_disk,
    open_store,
    recovered,
    run_with_fault,
    without_crashes,
)
from tests.store.conftest import FULL, Report


class SimulatedSuite(JobStoreCrashSuite):
    """The conformance suite, each test on a fresh simulated disk."""

    __test__ = False

    def __init__(self) -> None:
        self.fs = SimFs(time=NOW, short_writes=True)

    def open_store(self) -> JobStore:
        return open_store(self.fs)

    def abandon(self, store: JobStore) -> None:
        self.fs.kill()


def check_conformance() -> None:
    for name in dir(JobStoreCrashSuite):
        if name.startswith("test_"):
            getattr(SimulatedSuite(), name)()


def check_single_promises() -> None:
    test_file_store.test_running_job_counts_one_crash_for_each_crash()
    test_file_store.test_crashes_survive_compaction()
    test_file_store.test_record_that_cannot_be_read_goes_to_quarantine_and_halts_its_session()
    test_file_store.test_unknown_operation_refuses_the_store_or_is_carried_along()


def check_real_lock() -> None:
    with tempfile.TemporaryDirectory() as path:
        test_file_store.test_locked_store_names_its_holder(Path(path))
        test_file_store.test_forked_child_cannot_write(Path(path))


def check_full_disk() -> None:
    test_faults.full_disk(range(30))


def check_damage() -> None:
    """Some prefixes, and one flipped bit in every third byte."""
    disk, summaries = make_disk(11, close=True)
    full = without_crashes(summaries[-1])
    for name, data in disk.items():
        for size in range(0, len(data), 17):
            if name != max(disk):
                assert recovered(disk | {name: data[:size]}) is None
        for at in range(0, len(data), 3):
            flipped = bytearray(data)
            flipped[at] ^= 1 << at % 8
            found = without_crashes(recovered(disk | {name: bytes(flipped)}))
            assert found in (None, full), f"{name} byte {at}"


def check_foreign_bytes() -> None:
    """Records and files where they do not belong: another store's, or out of place."""
    ours, summaries = make_disk(21, batches=6, close=False)
    theirs, _ = make_disk(22, batches=6, close=False)
    possible = [without_crashes(summary) for summary in summaries]
    name = max(ours)
    for mine, other in zip(records_in(ours[name]), records_in(theirs[name]), strict=True):
        spliced = ours[name][:mine] + theirs[name][other:]
        assert without_crashes(recovered(ours | {name: spliced})) in (None, *possible)


def check_misplaced_records() -> None:
    """A record left out, and an older snapshot in a newer one's place."""
    disk, summaries = make_disk(11, close=True)
    full = without_crashes(summaries[-1])
    name = max(disk)
    for start, end in pairwise(records_in(disk[name])):
        left_out = disk[name][:start] + disk[name][end:]
        assert without_crashes(recovered(disk | {name: left_out})) in (None, full)
    older, _ = make_disk(11, batches=25, close=True)
    newest = max(name for name in disk if name.startswith("snap"))
    stale = max(name for name in older if name.startswith("snap"))
    assert stale < newest
    assert recovered(disk | {newest: older[stale]}) is None


def records_in(data: bytes) -> list[int]:
    """Return where a file's records begin, and where the last one ends."""
    starts = [at for at in range(HEADER_BYTES, len(data)) if data.startswith(MARK, at)]
    return [*starts, len(data.rstrip(b"\0"))]


def check_read_back() -> None:
    """A snapshot that the disk garbled must not replace anything."""
    fs = SimFs(time=NOW)
    store = open_store(fs)
    store.recover()
    store.commit([accepted(1), accepted(2)])

    def garble(kind: str, name: str) -> None:
        if kind == "rename" and name.startswith("snap"):
            fs._names[name].current[100] ^= 4

    fs.before = garble
    before = fs.files()
    with pytest.raises(JobStoreError):
        store.compact()
    assert before.keys() <= fs.files().keys()


def check_crash_states() -> None:
    tally = Tally()
    budget = 12_000 if FULL else 5_000
    for seed in (3, 4, 5, 6):
        Explorer(seed, tally, states_per_change=12, budget=budget).run(lives=8, batches=25)


def check_faults() -> None:
    for kind in test_faults.KINDS:
        for nth in range(1, 40):
            struck = False
            for code in (EIO, ENOSPC):
                for lasting in (False, True):
                    struck |= run_with_fault(nth, Fault(kind, nth, code, lasting))
            if not struck:
                break


BATTERY: Final[tuple[Callable[[], None], ...]] = (
    check_conformance,
    check_single_promises,
    check_foreign_bytes,
    check_misplaced_records,
    check_read_back,
    check_full_disk,
    check_real_lock,
    check_crash_states,
    check_faults,
    check_damage,
)
CHECKS: Final = {check.__name__: check for check in BATTERY}


def survives(mutant: Mutant) -> bool:
    """Whether the check that must find the mutant does not."""
    with pytest.MonkeyPatch.context() as patch:
        mutant.plant(patch)
        try:
            CHECKS[mutant.killer]()
        except (Exception, pytest.fail.Exception):
            return False
    return True


def test_battery_passes_without_a_mutant() -> None:
    for check in BATTERY:
        check()


def test_every_mutant_is_killed(report: Report) -> None:
    survivors = [name for name, mutant in STORE_MUTANTS.items() if survives(mutant)]
    report("T8 mutants; violations are survivors", len(STORE_MUTANTS), violations=len(survivors))
    assert not survivors
    assert len(STORE_MUTANTS) >= 25


if __name__ == "__main__":
    for name, mutant in STORE_MUTANTS.items():
        began = time.perf_counter()
        verdict = "SURVIVES" if survives(mutant) else mutant.killer
        print(f"{name:55} {verdict} {time.perf_counter() - began:.1f} s")
