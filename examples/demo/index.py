"""The index: what all files say together, and who defines what."""

from collections import Counter
from collections.abc import Iterable

import attrs

from examples.demo.scan import FileScan


@attrs.frozen
class PackageIndex:
    """The scans of one top-level package."""

    scans: dict[str, FileScan] = attrs.field(factory=dict)
    """By path, in the order they were added."""

    def add(self, scan: FileScan) -> None:
        """Add one file's scan; adding it again changes nothing."""
        self.scans[scan.path] = scan


@attrs.frozen(kw_only=True)
class Index:
    """Every package's scans, merged."""

    files: int
    size: int
    """Bytes."""
    lines: int
    definitions: Counter[str]
    names: Counter[str]
    words: Counter[str]
    defined_in: dict[str, tuple[str, ...]]
    """The files that define a name, sorted."""
    packages: Counter[str]
    """Lines per top-level package."""

    def find(self, name: str) -> tuple[str, ...]:
        """Return the files that define *name*, sorted."""
        return self.defined_in.get(name, ())


def merge(packages: Iterable[tuple[str, PackageIndex]]) -> Index:
    """Return what the *packages*, by name, say together; their order does not matter."""
    definitions: Counter[str] = Counter()
    names: Counter[str] = Counter()
    words: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    places: dict[str, set[str]] = {}
    files = size = 0
    for package, index in packages:
        for scan in index.scans.values():
            files += 1
            size += scan.size
            lines[package] += scan.lines
            definitions.update(scan.definitions)
            names.update(scan.names)
            words.update(scan.words)
            for name in scan.definitions:
                places.setdefault(name, set()).add(scan.path)
    return Index(
        files=files,
        size=size,
        lines=lines.total(),
        definitions=definitions,
        names=names,
        words=words,
        defined_in={name: tuple(sorted(where)) for name, where in places.items()},
        packages=lines,
    )


def top(counter: Counter[str], count: int) -> list[tuple[str, int]]:
    """Return the *count* most frequent, ties in alphabetical order, so that runs agree."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:count]
