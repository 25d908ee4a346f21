"""What has been found so far, in a file that outlives the process."""

import os
from collections import Counter
from pathlib import Path

import attrs
import msgspec

from examples.demo.scan import FileScan


class Results:
    """
    The scans of finished jobs, a line of JSON each, on the disk before their jobs end.

    So a job that has ended has its line. A job that a crash made run twice has two, and
    they say the same: the last one counts.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._drop_torn_line(path)

    def add(self, scan: FileScan) -> None:
        """Write one file's scan, and return when it is on the disk; may be called by threads."""
        os.write(self._file, msgspec.json.encode(attrs.asdict(scan)) + b"\n")
        os.fdatasync(self._file)

    def scans(self) -> list[FileScan]:
        """Return what was written so far, in that order."""
        data = os.pread(self._file, os.fstat(self._file).st_size, 0)
        return [_scan(msgspec.json.decode(line)) for line in data.splitlines()]

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _drop_torn_line(self, path: Path) -> None:
        """Drop what a crash left of a line; its job has not ended, and runs again."""
        data = path.read_bytes()
        os.ftruncate(self._file, data.rfind(b"\n") + 1)


def _scan(fields: dict[str, object]) -> FileScan:
    return FileScan(
        **{
            name: Counter(value) if isinstance(value, dict) else value
            for name, value in fields.items()
        }  # type: ignore[arg-type]  # as they were written
    )
