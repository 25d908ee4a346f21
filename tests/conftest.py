"""What holds for every test: nothing of csjd outlives it."""

import gc
from collections.abc import Iterator

import hypothesis
import pytest

from csjd.testing import assert_no_leaks

# The same examples in every run: a red run can be repeated, and nobody's change is held up
# by what chance finds. To look for more: `pytest --hypothesis-profile explore`.
hypothesis.settings.register_profile("steady", derandomize=True)
hypothesis.settings.register_profile("explore", derandomize=False)
hypothesis.settings.load_profile("steady")


BATTERY_LINE = "store battery"
"""The property of a test's report that is one line about what it looked at."""


def pytest_collection_finish() -> None:
    """Keep the thousands of objects that importing made out of every collection below."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_of_csjd_is_left() -> Iterator[None]:
    """
    Fail a test that leaves a task, a thread or a warning of csjd behind.

    Python warns of a coroutine that was never awaited, or a channel that was never closed,
    when it collects it: that is made to happen here, where the test to blame is known.
    """
    yield
    gc.collect()
    assert_no_leaks()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the battery's lines; the main process of pytest-xdist knows no conftest but this."""
    reports = [each for found in terminalreporter.stats.values() for each in found]
    lines = [
        str(line)
        for each in reports
        if getattr(each, "when", None) == "call"
        for name, line in each.user_properties
        if name == BATTERY_LINE
    ]
    if lines:
        terminalreporter.section(BATTERY_LINE)
        for line in lines:
            terminalreporter.write_line(line)
