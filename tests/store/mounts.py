"""File systems of a test's own: made in a file, mounted, and taken away again."""

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHUTDOWN = 0x8004587D
"""The ioctl by which ext4, XFS and f2fs stop at once, as at a loss of power."""
_WITHOUT_FLUSH = struct.pack("I", 2)

_FIEMAP = 0xC020660B
_FIEMAP_HEAD, _FIEMAP_EXTENT = struct.Struct("=QQIIII"), struct.Struct("=QQQQQIIII")
_MOST_EXTENTS = 64
_UNWRITTEN = 0x800

IMAGE_BYTES = {"ext4": 16 << 20, "xfs": 320 << 20}


class MountRefusedError(Exception):
    """This machine does not let us."""


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise MountRefusedError(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MountRefusedError(f"{' '.join(command[:3])}: {done.stderr.strip()[:200]}")


def _check_root() -> None:
    if os.geteuid() != 0:
        raise MountRefusedError("mounting takes root")


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    """
    Have something mounted at *path*, which is made, while entered.

    Raises:
        MountRefusedError: The machine does not allow it.
    """
    _check_root()
    path.mkdir(exist_ok=True)
    _run("mount", *options, str(path))
    try:
        yield
    finally:
        if subprocess.run(["umount", str(path)], capture_output=True, check=False).returncode:
            subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


def make_image(path: Path, kind: str) -> None:
    """
    Make a file system in a file.

    Raises:
        MountRefusedError: There is no tool for it.
    """
    _check_root()
    with path.open("wb") as image:
        image.truncate(IMAGE_BYTES[kind])
    _run(f"mkfs.{kind}", "-q", str(path))


def cut_power(path: Path) -> None:
    """
    Let the file system at *path* forget at once all that is not on its disk.

    Raises:
        MountRefusedError: It does not know how.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, SHUTDOWN, _WITHOUT_FLUSH)
    except OSError as error:
        raise MountRefusedError(f"the file system cannot be shut down: {error}") from error
    finally:
        with suppress(OSError):
            os.close(fd)


def unwritten_bytes(path: Path) -> int:
    """Return how much of a file is allocated and was never written."""
    room = bytearray(_FIEMAP_HEAD.size + _MOST_EXTENTS * _FIEMAP_EXTENT.size)
    _FIEMAP_HEAD.pack_into(room, 0, 0, 1 << 62, 0, 0, _MOST_EXTENTS, 0)
    with path.open("rb") as file:
        fcntl.ioctl(file, _FIEMAP, room)
    count = _FIEMAP_HEAD.unpack_from(room)[3]
    extents = _FIEMAP_EXTENT.iter_unpack(room[_FIEMAP_HEAD.size :])
    return sum(
        each[2] for each, _ in zip(extents, range(count), strict=False) if each[5] & _UNWRITTEN
    )
