"""What `FileJobStore` does, on a real disk and on a simulated one."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from csjd._model.errors import (
    JobStoreClosedError,
    JobStoreCorruptError,
    JobStoreError,
    JobStoreLockedError,
)
from csjd._model.storing import (
    DeadLettered,
    DeathReason,
    Ended,
    JobStore,
    Requeued,
    Started,
)
from csjd._store import files
from csjd._store.batches import encode_batch
from csjd._store.file_store import FileJobStore
from csjd._store.framing import RecordKind
from csjd.testing.simfs import SimFs
from csjd.testing.stores import JobStoreCrashSuite, MemoryJobStore, accepted
from tests.store.battery import COMPACT_AT, NOW, open_store


class TestFileStore(JobStoreCrashSuite):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "some" / "store"

    def open_store(self) -> JobStore:
        return FileJobStore(self.path, compact_at=COMPACT_AT)

    def abandon(self, store: FileJobStore) -> None:
        crash(store)


class TestFileStoreOnSimulatedDisk(JobStoreCrashSuite):
    @pytest.fixture(autouse=True)
    def _disk(self) -> None:
        self.fs = SimFs(time=NOW, short_writes=True)

    def open_store(self) -> JobStore:
        return open_store(self.fs)

    def abandon(self, store: FileJobStore) -> None:
        self.fs.kill()


class TestMemoryStore(JobStoreCrashSuite):
    @pytest.fixture(autouse=True)
    def _store(self) -> None:
        self.store = MemoryJobStore()

    def open_store(self) -> JobStore:
        return self.store

    def abandon(self, store: MemoryJobStore) -> None:
        store.crash()


def crash(store: FileJobStore) -> None:
    """Let go of the store as a dying process does."""
    assert store._opened is not None
    store._opened.lock.release()


def test_files_are_private(tmp_path: Path) -> None:
    store = FileJobStore(tmp_path / "store")
    store.recover()
    store.commit([accepted(1)])
    store.compact()
    modes = {name: os.stat(tmp_path / "store" / name).st_mode for name in os.listdir(store.path)}
    store.close()
    assert {stat.S_IMODE(mode) for mode in modes.values()} == {0o600}
    assert stat.S_IMODE(os.stat(tmp_path / "store").st_mode) == 0o700
    assert len(modes) == 3


@pytest.mark.parametrize(
    ("file_system", "expected"),
    [("ext4", ["pwritev"]), ("xfs", ["pwritev"]), ("btrfs", ["pwrite", "fdatasync"])],
)
def test_commit_is_synced_as_the_file_system_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_system: str, expected: list[str]
) -> None:
    calls: list[str] = []

    def recorded(name: str) -> None:
        original = getattr(os, name)

        def call(*args: Any) -> Any:
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(os, name, call)

    monkeypatch.setattr(files, "_file_system_of", lambda fd: file_system)
    store = FileJobStore(tmp_path / "store")
    store.recover()
    for name in ("pwrite", "pwritev", "fdatasync"):
        recorded(name)
    store.commit([accepted(1)])
    assert calls == expected
    # A sync of the last record alone would leave the one before to its luck.
    del calls[:]
    store.commit([Started(1)], sync=False)
    store.commit([Ended(1)])
    assert calls == ["pwrite", "pwrite", "fdatasync"]
    monkeypatch.undo()
    store.close()


def test_locked_store_names_its_holder(tmp_path: Path) -> None:
    store = FileJobStore(tmp_path)
    store.recover()
    with pytest.raises(JobStoreLockedError, match=f"process {os.getpid()} on ") as caught:
        FileJobStore(tmp_path).recover()
    store.close()
    assert str(os.getpid()) in caught.value.holder
    assert str(tmp_path) in str(caught.value)


def test_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "store"
    path.mkdir()
    (path / "LOCK").symlink_to(victim)
    with pytest.raises(JobStoreError, match="symbolic links"):
        FileJobStore(path).recover()
    assert victim.read_text() == "precious"


def test_store_reached_by_another_path_is_the_same_store(tmp_path: Path) -> None:
    path, alias = tmp_path / "store", tmp_path / "alias"
    alias.symlink_to(path)
    store = FileJobStore(path)
    store.recover()
    with pytest.raises(JobStoreLockedError):
        FileJobStore(alias).recover()
    os.unlink(path / "LOCK")  # the lock is on the directory, the file only tells of it
    with pytest.raises(JobStoreLockedError):
        FileJobStore(path).recover()
    store.close()


def test_file_in_place_of_the_directory_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(JobStoreError, match="cannot be opened"):
        FileJobStore(tmp_path / "store").recover()


def test_store_is_opened_once(tmp_path: Path) -> None:
    store = FileJobStore(tmp_path)
    with pytest.raises(JobStoreClosedError, match="recover"):
        store.commit([])
    store.recover()
    with pytest.raises(JobStoreError, match="before"):
        store.recover()
    store.close()


def test_running_job_counts_one_crash_for_each_crash() -> None:
    fs = SimFs(time=NOW)
    for crashes in range(4):
        store = open_store(fs)
        recovery = store.recover()
        if not crashes:
            store.commit([accepted(1), accepted(2)])
        assert [job.crashes for job in recovery.live] == ([] if not crashes else [crashes, 0])
        assert recovery.clean == (not crashes)
        store.commit([Started(1)], sync=False)
        fs.kill()
    store = open_store(fs)
    assert [job.crashes for job in store.recover().live] == [4, 0]
    store.commit([Started(2)])
    store.close()  # clean: nothing crashed
    store = open_store(fs)
    recovery = store.recover()
    assert recovery.clean
    assert [job.crashes for job in recovery.live] == [4, 0]


def test_crashes_survive_compaction() -> None:
    fs = SimFs(time=NOW)
    store = open_store(fs)
    store.recover()
    store.commit([accepted(1), Started(1)])
    store.compact()
    fs.kill()
    store = open_store(fs)
    assert [job.crashes for job in store.recover().live] == [1]


def test_duplicate_windows_end_by_the_wall_clock() -> None:
    fs = SimFs(time=NOW)
    store = open_store(fs)
    store.recover()
    store.commit([accepted(1), accepted(2), Ended(1, NOW + 10), Ended(2, NOW + 20)])
    fs.kill()
    fs.time += 15
    store = open_store(fs)
    assert store.recover().remembered == {"job-2": NOW + 20}
    store.compact()
    fs.kill()
    fs.time -= 100  # a clock set back lengthens a window and never shortens one
    assert open_store(fs).recover().remembered == {"job-2": NOW + 20}


def test_requeued_dead_letter_is_a_fresh_job_at_the_end() -> None:
    fs = SimFs(time=NOW)
    store = open_store(fs)
    store.recover()
    store.commit([accepted(1, due=NOW + 5), accepted(2)])
    store.commit([DeadLettered(1, 3, DeathReason.FAILED, "no", NOW, 0.0), Requeued(1, 3)])
    fs.kill()
    recovery = open_store(fs).recover()
    assert [(job.order, job.accepted.id) for job in recovery.live] == [(2, "job-2"), (3, "job-1")]
    assert (recovery.live[1].attempts, recovery.live[1].due) == (0, None)
    assert recovery.dead_letters == []


def write_raw(fs: SimFs, body: bytes) -> None:
    """Put a sound record of any content into a store."""
    store = open_store(fs)
    store.recover()
    assert store._opened is not None
    store._opened.segment.append(RecordKind.OPERATIONS, body, sync=True)
    fs.kill()


def test_record_that_cannot_be_read_goes_to_quarantine_and_halts_its_session() -> None:
    fs = SimFs(time=NOW)
    broken = [1, "seven", "id", "email", b"", 0, "s1"]
    write_raw(fs, msgspec.msgpack.encode([broken, accepted(8)]))
    for _ in range(2):
        store = open_store(fs)
        recovery = store.recover()
        assert [job.order for job in recovery.live] == [8]
        assert [item.session for item in recovery.quarantined] == ["s1"]
        assert msgspec.msgpack.decode(recovery.quarantined[0].raw) == broken
        assert recovery.halted == {"s1"}
        store.compact()  # and it stays, in a snapshot too
        store.close()


def test_operation_without_its_job_goes_to_quarantine() -> None:
    fs = SimFs(time=NOW)
    write_raw(fs, encode_batch([accepted(1), Ended(7), Ended(1), accepted(1, session="s")]))
    recovery = open_store(fs).recover()
    assert recovery.live == []
    assert len(recovery.quarantined) == 2
    assert recovery.halted == {"s"}


def test_resumed_session_of_a_quarantined_record_stays_resumed() -> None:
    from csjd._model.storing import Resumed

    fs = SimFs(time=NOW)
    write_raw(fs, msgspec.msgpack.encode([[1, "seven", "id", "email", b"", 0, "s1"]]))
    store = open_store(fs)
    store.recover()
    store.commit([Resumed("s1")])
    store.compact()
    store.close()
    recovery = open_store(fs).recover()
    assert recovery.halted == frozenset()
    assert len(recovery.quarantined) == 1


def test_unknown_operation_refuses_the_store_or_is_carried_along() -> None:
    fs = SimFs(time=NOW)
    write_raw(fs, msgspec.msgpack.encode([[200, "from the future"], accepted(1)]))
    store = open_store(fs)
    assert len(store.recover().live) == 1
    store.compact()
    store.close()
    snapshot = next(data for name, data in fs.files().items() if name.startswith("snap"))
    assert b"from the future" in snapshot
    before = fs.files()
    write_raw(fs, msgspec.msgpack.encode([[30, 1]]))
    with pytest.raises(JobStoreError, match="must not ignore"):
        open_store(fs).recover()
    assert before.keys() <= fs.files().keys()


def test_refused_store_is_untouched() -> None:
    fs = SimFs(time=NOW)
    store = open_store(fs)
    store.recover()
    for order in range(1, 9):
        store.commit([accepted(order)])
    fs.kill()
    files = fs.files()
    name = max(files)
    damaged = bytearray(files[name])
    damaged[200] ^= 1
    fs = SimFs(files | {name: bytes(damaged)}, time=NOW)
    with pytest.raises(JobStoreCorruptError) as caught:
        open_store(fs).recover()
    assert fs.files() == files | {name: bytes(damaged)}
    assert caught.value.file == name
    assert 0 < caught.value.offset <= 200


@pytest.mark.parametrize("writes_through", [True, False])
def test_statistics_count_every_sync_of_the_log(writes_through: bool) -> None:
    asked = 0

    def count(kind: str, name: str) -> None:
        nonlocal asked
        asked += kind == "sync" and name.startswith("wal-")

    store = open_store(SimFs(time=NOW, writes_through=writes_through, before=count))
    store.recover()
    for order in range(1, 100):  # so many that more room is made
        store.commit([accepted(order), Started(order)], sync=order % 3 > 0)
        assert store.statistics().syncs == asked
    store.maintain()
    store.compact()
    store.commit([Ended(1)])
    assert store.statistics().syncs == asked
    store.close()
    assert store.statistics().syncs == asked


def test_idle_store_is_sealed_once() -> None:
    fs = SimFs(time=NOW)
    store = open_store(fs)
    store.recover()
    store.commit([accepted(1)])
    store.maintain()
    size = store.statistics().log_bytes
    store.maintain()
    assert store.statistics().log_bytes == size
    store.close()


def test_reopening_again_and_again_stays_small() -> None:
    fs = SimFs(time=NOW)
    for _ in range(60):
        store = open_store(fs)
        store.recover()
        if store.statistics().maintenance_due:
            store.maintain()
        fs.kill()
    assert len(fs.files()) < 20


def test_forked_child_cannot_write(tmp_path: Path) -> None:
    store = FileJobStore(tmp_path)
    store.recover()
    store.commit([accepted(1)])
    child = os.fork()
    if not child:
        try:
            store.commit([accepted(2)])
        except JobStoreClosedError:
            store.close()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.commit([accepted(3)])
    store.close()
    store = FileJobStore(tmp_path)
    assert [job.order for job in store.recover().live] == [1, 3]
    store.close()


def test_lock_is_not_kept_by_a_forked_child(tmp_path: Path) -> None:
    store = FileJobStore(tmp_path)
    store.recover()
    ready, go = os.pipe()
    child = os.fork()
    if not child:
        os.close(go)
        os.read(ready, 1)  # lives until its parent says so
        os._exit(0)
    store.close()
    again = FileJobStore(tmp_path)
    again.recover()
    again.close()
    os.close(go)
    os.waitpid(child, 0)
    os.close(ready)


def test_lock_is_not_kept_by_a_child_that_has_just_been_forked(tmp_path: Path) -> None:
    store = FileJobStore(tmp_path)
    store.recover()
    copies = [os.dup(fd) for fd in _descriptors_of(tmp_path)]  # as a child has them at first
    assert copies
    store.close()
    again = FileJobStore(tmp_path)
    again.recover()
    again.close()
    for fd in copies:
        os.close(fd)


def _descriptors_of(path: Path) -> list[int]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if entry.readlink() == path:
                found.append(int(entry.name))
    return found
