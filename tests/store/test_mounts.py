"""T7, T10, T11 on file systems of our own: cut off from power, full, and reached by an alias."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csjd._model.errors import JobStoreFullError, JobStoreLockedError
from csjd._model.storing import Ended
from csjd._store.file_store import FileJobStore
from csjd._store.files import OsFiles
from csjd.testing.stores import accepted
from tests.store.conftest import FULL, Report
from tests.store.killing import check_what_is_left, kill_at_random
from tests.store.mounts import (
    MountRefusedError,
    cut_power,
    make_image,
    mounted,
    unwritten_bytes,
)

CUTS = 1_000 if FULL else 40


def or_skip(function: Callable[..., Any], *args: Any) -> Any:
    """Call *function*; skip the test, with the reason, where the machine does not allow it."""
    try:
        return function(*args)
    except MountRefusedError as refused:
        pytest.skip(str(refused))


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_power_fails_under_a_real_file_system(tmp_path: Path, report: Report, kind: str) -> None:
    image, mount = tmp_path / "image", tmp_path / "mount"
    or_skip(make_image, image, kind)
    rng = random.Random(7)
    for seed in range(CUTS):
        path = mount / str(seed)
        try:
            with mounted(mount, "-o", "loop", str(image)):
                # A word that came later may be of something that was never on the disk.
                promised = kill_at_random(path, seed, rng, lambda: cut_power(mount))
        except MountRefusedError as refused:
            if seed:
                raise
            pytest.skip(str(refused))
        with mounted(mount, "-o", "loop", str(image)):
            check_what_is_left(path, seed, promised.before, promised.in_all + 1)
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    report(f"T7 power cuts on {kind}", CUTS, seed=7)


SIZES = ("64k", "100k", "256k", "1M")


@pytest.mark.parametrize("size", SIZES)
def test_real_full_disk_still_records_what_ends(tmp_path: Path, report: Report, size: str) -> None:
    mount, rng = tmp_path / "mount", random.Random(size)

    def make_store() -> FileJobStore:
        # The default growth would not fit in here once.
        return FileJobStore(mount / "store", files=OsFiles(growth=8 << 10))

    try:
        with mounted(mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
            ballast = mount / "ballast"
            ballast.write_bytes(bytes(16 << 10))
            store = make_store()
            store.recover()
            orders = fill(store, rng)
            for order in orders:
                store.commit([Ended(order)])
            ballast.unlink()
            store.commit([accepted(1_000_000)])
            store.close()
            store = make_store()
            assert [job.order for job in store.recover().live] == [1_000_000]
            store.close()
    except MountRefusedError as refused:
        pytest.skip(str(refused))
    report(f"T10 ends recorded on a full tmpfs of {size}", len(orders), seed=size)


def fill(store: FileJobStore, rng: random.Random) -> list[int]:
    """Commit jobs until one is refused for lack of room; return the orders of the others."""
    for order in range(1, 100_000):
        try:
            store.commit([accepted(order, payload=bytes(rng.randrange(200)))])
        except JobStoreFullError:
            return list(range(1, order))
    raise AssertionError("the disk never got full")


def test_room_ahead_of_use_was_written_already(tmp_path: Path) -> None:
    directory = OsFiles().open_directory(str(tmp_path), create=True)
    file = directory.create("log")
    try:
        if not file.writes_through:
            pytest.skip("the temporary directory is on no file system that writes in place")
        file.write(b"x", 0)
        file.allocate(1, (1 << 20) + 7)
        file.sync()
        assert file.read(0, 2 << 20) == b"x" + bytes((1 << 20) + 7)
    finally:
        file.close()
        directory.close()
    assert unwritten_bytes(tmp_path / "log") == 0


def test_store_reached_through_a_bind_mount_is_the_same_store(tmp_path: Path) -> None:
    path, alias = tmp_path / "store", tmp_path / "alias"
    store = FileJobStore(path)
    store.recover()
    try:
        with mounted(alias, "--bind", str(path)):
            with pytest.raises(JobStoreLockedError):
                FileJobStore(alias).recover()
            store.commit([accepted(1)])
            store.close()
            other = FileJobStore(alias)
            assert [job.order for job in other.recover().live] == [1]
            with pytest.raises(JobStoreLockedError):
                FileJobStore(path).recover()
            other.close()
    except MountRefusedError as refused:
        pytest.skip(str(refused))
    finally:
        store.close()
