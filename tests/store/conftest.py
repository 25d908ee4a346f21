"""What each test of the battery says of itself; `tests/conftest.py` shows it at the end."""

import os
import time
from collections.abc import Callable

import pytest

from tests.conftest import BATTERY_LINE

FULL = os.environ.get("CSJD_CRASH") == "full"
"""`make crash` sets it: the same tests, more of everything."""

Report = Callable[..., None]


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Take what a test of the battery looked at: `report("T6 crash states", states, seed=...)`."""
    began = time.perf_counter()

    def take(name: str, states: int, *, violations: int = 0, seed: object = "-") -> None:
        seconds = time.perf_counter() - began
        # A property of the test's report, which also comes from the processes of pytest-xdist.
        record_property(
            BATTERY_LINE,
            f"{name}: {states:,} states, {violations} violations, {seconds:.1f} s, seed {seed}",
        )

    return take
