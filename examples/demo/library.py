"""Which files there are to index, and which package each belongs to."""

import os
import sys
import sysconfig
import zlib
from pathlib import Path, PurePath


def standard_library() -> Path:
    """Return where the running interpreter keeps its standard library."""
    return Path(sysconfig.get_path("stdlib"))


def source_files(root: Path) -> list[str]:
    """
    Return every Python file under *root*, as sorted paths relative to it.

    What was installed on top of a library is not part of it and is left out.
    """
    foreign = {"site-packages", "dist-packages"}
    found = (path.relative_to(root) for path in root.rglob("*.py") if path.is_file())
    return sorted(path.as_posix() for path in found if foreign.isdisjoint(path.parts))


def default_store(root: Path, limit: int | None) -> Path:
    """Return where a run over the same files finds what an earlier one has left."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = zlib.crc32(f"{sys.version}\n{root.resolve()}\n{limit}".encode())
    return cache / "csjd-demo" / f"{name:08x}"


def package_of(path: str) -> str:
    """Return the top-level package, or the module, that the file at *path* is part of."""
    return PurePath(path).parts[0].removesuffix(".py")
