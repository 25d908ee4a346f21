"""Compaction: what replaces a log, and what happens when it cannot."""

from contextlib import suppress

import pytest

from csjd._model.errors import JobStoreError, JobStoreFullError
from csjd._model.storing import Ended
from csjd._store.file_store import FileJobStore
from csjd.testing.simfs import SimFs
from csjd.testing.stores import accepted
from tests.store.battery import NOW, open_store


def test_compaction_gives_way_and_bounds_the_log() -> None:
    fs = SimFs(time=NOW)
    store = FileJobStore("sim", files=fs, compact_at=20_000)
    store.recover()
    for order in range(1, 2000):
        store.commit([accepted(order), *([Ended(order - 5)] if order > 5 else [])])
        if store.statistics().maintenance_due:
            store.maintain()
    numbers = store.statistics()
    assert numbers.compactions > 3
    assert numbers.log_bytes < 30_000
    assert sum(map(len, fs.files().values())) < 40_000
    assert fs.pauses > numbers.compactions
    store.close()


@pytest.mark.parametrize("left", [0, 1, 2])
def test_files_that_vanished_fail_a_compaction_and_no_commit(left: int) -> None:
    fs = SimFs(time=NOW)
    for order in range(1, 4):  # each opening begins a file
        fs.kill()
        store = open_store(fs)
        store.recover()
        store.commit([accepted(order)])
    directory = fs.open_directory("sim", create=False)
    segments = sorted(name for name in fs.files() if name.startswith("wal-"))
    for name in segments[: len(segments) - left]:
        directory.unlink(name)
    with pytest.raises(JobStoreError, match=r"missing|gone"):
        store.compact()
    store.commit([accepted(100)])
    store.close()


@pytest.mark.parametrize("room", [60_000, 80_000, 120_000])
def test_compaction_on_a_full_disk_leaves_room_for_every_end(room: int) -> None:
    fs = SimFs(time=NOW, room=room, growth=8192)
    store = FileJobStore("sim", files=fs)
    store.recover()
    jobs = 0
    with suppress(JobStoreFullError):
        while True:
            store.commit([accepted(jobs + 1, payload=b"x" * 100)])
            jobs += 1
    with suppress(JobStoreError):
        store.compact()
    fs.room = 0  # others take what is free
    for order in range(1, jobs + 1):
        store.commit([Ended(order)])
    store.close()
