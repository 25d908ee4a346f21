"""
The file layer: all that a store asks of the world outside, as one small seam.

`OsFiles` is the real one. `csjd.testing.simfs.SimFs` is another, whose disk forgets what
was not synced, fails when told to, and can show every state a crash may leave behind.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from csjd._store.lock import take_lock

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers that mean: the same call can succeed once there is room."""

# A write that syncs itself does there what a write and an fdatasync do, into room that was
# allocated ahead. It is one call, so that its thread need not wait in between for the
# interpreter, which runs handlers meanwhile: that is worth a quarter of all throughput.
# Not where room can still be lacking when allocated bytes are synced, as on btrfs.
_WRITE_THROUGH: Final = frozenset({"ext3", "ext4", "xfs"})
# Their locks or their fsync do not promise what a store builds on.
_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs"})
_ZEROS: Final = bytes(1 << 20)
_PAUSE: Final = 0.0003  # seconds; any real sleep hands the interpreter over, 0 may not


class File(Protocol):
    """An open file; all methods raise `OSError` as the system does."""

    @property
    def writes_through(self) -> bool:
        """Whether `write_through` may be called."""
        ...

    def size(self) -> int:
        """Return its length in bytes."""
        ...

    def read(self, offset: int, count: int) -> bytes:
        """Return up to *count* bytes from *offset*; fewer only at the file's end."""
        ...

    def write(self, data: bytes | memoryview, offset: int) -> int:
        """Write at *offset*; return how many bytes were written, perhaps not all."""
        ...

    def write_through(self, data: bytes | memoryview, offset: int) -> int:
        """
        Write, and return once what was written survives the loss of power; else as `write`.

        That holds for these bytes alone: what was written before needs a `sync` of its own.
        An error for lack of room must mean that they were not written, and no failed sync.
        """
        ...

    def allocate(self, offset: int, count: int) -> None:
        """Make the file at least `offset + count` long, with room on disk for all of it."""
        ...

    def truncate(self, size: int) -> None:
        """Set its length."""
        ...

    def sync(self) -> None:
        """Return once its contents and length survive the loss of power."""
        ...

    def forget_cache(self) -> None:
        """Let the next read come from the disk, where the system can do that."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Lock(Protocol):
    """A held lock."""

    def release(self) -> None:
        """Give it back; twice does nothing."""
        ...

    def held(self) -> bool:
        """Whether this process still has it: false after release, and in a forked child."""
        ...


class Directory(Protocol):
    """An open directory; names are single components, and links are never followed."""

    def names(self) -> list[str]:
        """Return what is in it."""
        ...

    def open(self, name: str) -> File:
        """Open a file to read; what is no regular file raises an `OSError` at once."""
        ...

    def create(self, name: str) -> File:
        """Make a new file to read and write; one of that name is removed first."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Rename a file, in place of one that has the new name."""
        ...

    def unlink(self, name: str) -> None:
        """Remove a file."""
        ...

    def sync(self) -> None:
        """Return once its names survive the loss of power."""
        ...

    def lock(self, name: str, note: str) -> Lock:
        """
        Lock the directory for this process, and write *note* into its file *name*.

        Raises:
            LockHeldError: Somebody has it.
        """
        ...

    def close(self) -> None:
        """Close it."""
        ...


class FileLayer(Protocol):
    """Where directories, time and randomness come from."""

    @property
    def growth(self) -> int:
        """Bytes of room a segment allocates at a time; a quarter is kept in reserve."""
        ...

    def open_directory(self, path: str, *, create: bool) -> Directory:
        """Open a directory; make it (0700), and what leads to it, if it is missing."""
        ...

    def now(self) -> float:
        """Return wall-clock seconds since the epoch."""
        ...

    def entropy(self, count: int) -> bytes:
        """Return that many random bytes."""
        ...

    def pause(self) -> None:
        """Give other threads a turn."""
        ...


def write_all(
    write: Callable[[bytes | memoryview, int], int], data: bytes | memoryview, offset: int
) -> None:
    """Write all of *data* at *offset*, however little each call takes."""
    written = write(data, offset)
    while written < len(data):
        written += write(memoryview(data)[written:], offset + written)


@attrs.define(eq=False)
class OsFile:
    """A file of the operating system."""

    _fd: int
    writes_through: bool
    """Whether a write can be told to sync itself."""

    def size(self) -> int:
        """Return its length in bytes."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Return up to *count* bytes from *offset*; fewer only at the file's end."""
        data = os.pread(self._fd, count, offset)
        if not data or len(data) == count:
            return data
        parts = [data]  # a read may be short for no reason
        offset, count = offset + len(data), count - len(data)
        while count > 0 and (data := os.pread(self._fd, count, offset)):
            parts.append(data)
            offset, count = offset + len(data), count - len(data)
        return b"".join(parts)

    def write(self, data: bytes | memoryview, offset: int) -> int:
        """Write at *offset*; return how many bytes were written, perhaps not all."""
        return os.pwrite(self._fd, data, offset)

    def write_through(self, data: bytes | memoryview, offset: int) -> int:
        """Write, and return once what was written survives the loss of power."""
        return os.pwritev(self._fd, [data], offset, os.RWF_DSYNC)

    def allocate(self, offset: int, count: int) -> None:
        """
        Make the file at least `offset + count` long, with room on disk for all of it.

        Where writes are in place it is filled with zeros, too: the first write to a block
        that was only allocated has the file system keep books, and its sync waits for them.
        """
        os.posix_fallocate(self._fd, offset, count)
        if self.writes_through:
            for at in range(offset, offset + count, len(_ZEROS)):
                write_all(self.write, memoryview(_ZEROS)[: offset + count - at], at)

    def truncate(self, size: int) -> None:
        """Set its length."""
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """Return once its contents and length survive the loss of power."""
        os.fdatasync(self._fd)

    def forget_cache(self) -> None:
        """Let the next read come from the disk."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


@attrs.define(eq=False)
class OsDirectory:
    """
    A directory of the operating system.

    Everything in it is reached through its descriptor, so that renaming it, or putting
    another in its place, cannot send a write elsewhere.
    """

    _fd: int
    _writes_through: bool

    def names(self) -> list[str]:
        """Return what is in it."""
        return os.listdir(self._fd)

    def open(self, name: str) -> File:
        """Open a file to read; what is no regular file raises an `OSError` at once."""
        # Asked before, since opening a pipe or a device can already do something.
        if not stat.S_ISREG(os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", name)
        # And if it is another by now, do not wait for somebody at its other end.
        return self._file(os.open(name, os.O_RDONLY | os.O_NONBLOCK | _SAFELY, dir_fd=self._fd))

    def create(self, name: str) -> File:
        """Make a new file to read and write; one of that name is removed first."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFELY
        try:
            return self._file(os.open(name, flags, 0o600, dir_fd=self._fd))
        except FileExistsError:
            self.unlink(name)
            return self._file(os.open(name, flags, 0o600, dir_fd=self._fd))

    def rename(self, old: str, new: str) -> None:
        """Rename a file, in place of one that has the new name."""
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def unlink(self, name: str) -> None:
        """Remove a file."""
        os.unlink(name, dir_fd=self._fd)

    def sync(self) -> None:
        """Return once its names survive the loss of power."""
        os.fsync(self._fd)

    def lock(self, name: str, note: str) -> Lock:
        """Lock the directory for this process, and write *note* into its file *name*."""
        return take_lock(self._fd, name, note)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def _file(self, fd: int) -> OsFile:
        return OsFile(fd, self._writes_through)


@attrs.frozen
class OsFiles:
    """The operating system's files, clock and randomness."""

    network: bool = False
    """Whether a network file system will do; its promises are the caller's to check."""
    growth: int = 1 << 20
    """Bytes of room a segment allocates at a time: rarely, yet little for an idle store."""

    def open_directory(self, path: str, *, create: bool) -> Directory:
        """
        Open a directory; make it (0700), and what leads to it, if it is missing.

        Raises:
            OSError: As the system does; EREMOTEIO for a network file system.
        """
        if create:
            _make_directory(os.path.abspath(path))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            kind = _file_system_of(fd)
            if kind in _NETWORK and not self.network:
                raise OSError(
                    errno.EREMOTEIO,
                    f"{kind} keeps neither locks nor syncs as a store needs them; use a local "
                    "disk, or OsFiles(network=True) if you know that yours does",
                )
        except BaseException:
            os.close(fd)
            raise
        return OsDirectory(fd, kind in _WRITE_THROUGH and hasattr(os, "RWF_DSYNC"))

    def now(self) -> float:
        """Return wall-clock seconds since the epoch."""
        return time.time()

    def entropy(self, count: int) -> bytes:
        """Return that many random bytes."""
        return os.urandom(count)

    def pause(self) -> None:
        """Give other threads a turn."""
        time.sleep(_PAUSE)


_SAFELY: Final = os.O_NOFOLLOW | os.O_CLOEXEC


def _make_directory(path: str) -> None:
    """
    Make *path* and what leads to it; each name is durable before anything relies on it.

    Also names that are there already, of *path* and of its parent: whoever made them may
    have died before they were synced, and whoever finds one makes nothing in it before.
    """
    parent = os.path.dirname(path)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # if it is no directory, opening it says so
    except FileNotFoundError:
        _make_directory(parent)
        with contextlib.suppress(FileExistsError):  # another process may be making it, too
            os.mkdir(path, 0o700)
    for holder in (os.path.dirname(parent), parent):
        with contextlib.suppress(PermissionError):  # not ours, so it is no news
            _sync_directory(holder)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _file_system_of(fd: int) -> str:
    device = os.fstat(fd).st_dev
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            return file_system_type(mounts.read(), os.major(device), os.minor(device))
    except OSError:
        return "unknown"


def file_system_type(mountinfo: str, major: int, minor: int) -> str:
    """
    Return the file system type of a device, or "unknown".

    Source:
        proc(5), /proc/pid/mountinfo: the third field is major:minor, the type follows
        the separator " - ".
    """
    wanted = f"{major}:{minor}"
    for line in mountinfo.splitlines():
        front, _, back = line.partition(" - ")
        fields = front.split()
        if len(fields) > 2 and fields[2] == wanted and back:
            return back.split()[0]
    return "unknown"
