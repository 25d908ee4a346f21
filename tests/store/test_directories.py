"""A store's directory: made by whoever comes first, and its name durable before it counts."""

import os
from pathlib import Path

import pytest

from csjd._store.file_store import FileJobStore
from csjd._store.files import OsFiles
from csjd.testing.stores import accepted


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths that are synced from now on."""
    paths: list[str] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        fsync(fd)
        paths.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", note)
    return paths


@pytest.mark.parametrize("made", ["", "a", "a/b", "a/b/jobs"])
def test_names_that_another_process_left_unsynced_are_synced(
    tmp_path: Path, synced: list[str], made: str
) -> None:
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    store = FileJobStore(tmp_path / "a/b/jobs")
    store.recover()
    # That which was there last, and all that was made after it.
    first = (tmp_path / made).parent if made else tmp_path
    levels = [tmp_path, tmp_path / "a", tmp_path / "a/b"]
    expected = {str(each) for each in levels if each == first or first in each.parents}
    assert expected <= set(synced)
    store.commit([accepted(1)])
    store.close()


def test_death_before_the_name_was_synced_leaves_it_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[str]
) -> None:
    def die(fd: int) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(os, "fsync", die)
        with pytest.raises(Killed):
            FileJobStore(tmp_path / "jobs").recover()
    assert (tmp_path / "jobs").is_dir()
    store = FileJobStore(tmp_path / "jobs")
    store.recover()
    assert str(tmp_path) in synced
    store.close()


def test_directory_that_appears_meanwhile_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a" / "b" / "jobs"
    mkdir = os.mkdir

    def faster_elsewhere(name: str, mode: int) -> None:
        mkdir(name, mode)
        path.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(os, "mkdir", faster_elsewhere)
    OsFiles().open_directory(str(path), create=True).close()


def test_parent_that_may_not_be_read_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(name: str, flags: int, *args: int, **kwargs: int) -> int:
        if name == str(tmp_path):
            raise PermissionError(13, "Permission denied", name)
        return opened(name, flags, *args, **kwargs)

    (tmp_path / "jobs").mkdir()
    monkeypatch.setattr(os, "open", refuse)
    OsFiles().open_directory(str(tmp_path / "jobs"), create=True).close()
