"""
One owner per store: an advisory lock on the directory itself.

On the directory, not on a file in it: a file can be removed while it is locked, and the
next process would then lock another of the same name. `flock`, not `lockf`: the latter
is dropped when *any* descriptor of the file is closed anywhere in the process. The kernel
frees the lock when its owner dies, however it dies.

A forked child inherits the descriptor, and with it the lock: it would keep the store
locked after its parent's death, and could write beside it. So children close it at once,
and a parent that lets go does not wait for a child that has not come to it yet.
"""

import fcntl
import os
import weakref
from typing import Final

import attrs

_NOTE_BYTES: Final = 512


@attrs.define(eq=False, slots=False)
class LockHeldError(Exception):
    """The directory's lock is held."""

    note: str
    """What its holder wrote into it."""


@attrs.define(eq=False)
class FlockLock:
    """A lock held through an open descriptor."""

    _fd: int
    _pid: int = attrs.field(factory=os.getpid)

    def held(self) -> bool:
        """Whether this process still has it."""
        return self._fd >= 0 and self._pid == os.getpid()

    def release(self) -> None:
        """Give it back; twice does nothing."""
        fd, ours, self._fd = self._fd, self.held(), -1
        _held.discard(self)
        if fd < 0:
            return
        try:
            if ours:
                fcntl.flock(fd, fcntl.LOCK_UN)  # for every copy of the descriptor
        finally:
            os.close(fd)


_held: "weakref.WeakSet[FlockLock]" = weakref.WeakSet()
"""Every lock of this process; only for `_let_go_in_child`."""


def _let_go_in_child() -> None:
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_child)


def take_lock(directory: int, name: str, note: str) -> FlockLock:
    """
    Lock an open directory, and write *note* into the file *name* in it.

    The file only tells people who has the store; nothing depends on it.

    Raises:
        LockHeldError: Somebody has it; with the note found.
        OSError: ELOOP for a planted link, and whatever else the system says.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_note(directory, name, note)
    except BlockingIOError:
        os.close(fd)
        raise LockHeldError(_read_note(directory, name)) from None
    except BaseException:
        os.close(fd)
        raise
    lock = FlockLock(fd)
    _held.add(lock)
    return lock


def _write_note(directory: int, name: str, note: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, note.encode()[:_NOTE_BYTES], 0)
    finally:
        os.close(fd)


def _read_note(directory: int, name: str) -> str:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return ""
    try:
        return os.read(fd, _NOTE_BYTES).decode(errors="replace")
    finally:
        os.close(fd)
