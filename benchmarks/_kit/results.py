"""Results: the rows of the benchmarks that were run, and where, when and how that was."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import attrs

from benchmarks._kit.rows import Row


@attrs.frozen
class Result:
    """What one benchmark found."""

    name: str
    title: str
    rows: Sequence[Row] = ()
    skipped: str | None = None
    """Why it was not run, if it was not."""


@attrs.frozen
class Setting:
    """Under which circumstances it was measured."""

    command: str
    date: str
    machine: str
    python: str
    versions: dict[str, str]
    rounds: int
    quick: bool
    """Sizes were cut down: good for a look, not for publication."""

    @classmethod
    def now(cls, *, rounds: int, quick: bool) -> "Setting":
        """Look around."""
        return cls(
            command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
            date=datetime.now(UTC).date().isoformat(),
            machine=f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            versions={name: version(name) for name in ("csjd", "trio")},
            rounds=rounds,
            quick=quick,
        )

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        quick = " Cut down by --quick." if self.quick else ""
        return f"{self.machine}; {self.python}, {versions}; {self.date}.{quick}"


def _processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def write_json(path: Path, setting: Setting, results: Sequence[Result]) -> None:
    """Write everything down for programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "setting": attrs.asdict(setting),
        "results": [attrs.asdict(result) for result in results],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
