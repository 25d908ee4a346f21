"""One line for each test of the battery, at the end of the run."""

import os
import time
from collections.abc import Callable

import pytest

FULL = os.environ.get("CSJD_CRASH") == "full"
"""`make crash` sets it: the same tests, more of everything."""

_LINE = "store battery"

Report = Callable[..., None]


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Take what a test of the battery looked at: `report("T6 crash states", states, seed=...)`."""
    began = time.perf_counter()

    def take(name: str, states: int, *, violations: int = 0, seed: object = "-") -> None:
        seconds = time.perf_counter() - began
        # A property of the test's report, which also comes from the processes of pytest-xdist.
        record_property(
            _LINE,
            f"{name}: {states:,} states, {violations} violations, {seconds:.1f} s, seed {seed}",
        )

    return take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [each for found in terminalreporter.stats.values() for each in found]
    lines = [
        str(line)
        for each in reports
        if getattr(each, "when", None) == "call"
        for name, line in each.user_properties
        if name == _LINE
    ]
    if lines:
        terminalreporter.section("store battery")
        for line in lines:
            terminalreporter.write_line(line)
