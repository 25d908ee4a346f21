"""One line for each test of the battery, at the end of the run."""

import os
import time
from collections.abc import Callable

import pytest

FULL = os.environ.get("CSJD_CRASH") == "full"
"""`make crash` sets it: the same tests, more of everything."""

_LINES = pytest.StashKey[list[str]]()

Report = Callable[..., None]


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Take what a test of the battery looked at: `report("T6 crash states", states, seed=...)`."""
    began = time.perf_counter()

    def take(name: str, states: int, *, violations: int = 0, seed: object = "-") -> None:
        seconds = time.perf_counter() - began
        lines = request.config.stash.setdefault(_LINES, [])
        lines.append(
            f"{name}: {states:,} states, {violations} violations, {seconds:.1f} s, seed {seed}"
        )

    return take


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("store battery")
        for line in lines:
            terminalreporter.write_line(line)
