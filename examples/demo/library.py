"""Which files there are to index, and which package each belongs to."""

import sysconfig
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


def package_of(path: str) -> str:
    """Return the top-level package, or the module, that the file at *path* is part of."""
    return PurePath(path).parts[0].removesuffix(".py")
