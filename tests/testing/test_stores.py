"""The suite for stores: sound ones pass it, and every broken one is told what is wrong."""

from typing import Any

import pytest

from csjd.stores import JobStore
from csjd.testing.stores import JobStoreCrashSuite
from tests.testing.broken_stores import BROKEN, Broken, Disk, LogStore

TESTS = [name for name in dir(JobStoreCrashSuite) if name.startswith("test_")]


class NotToldHowFound(LogStore):
    """A sound store without the method that a store need not have."""

    close_as_found = None  # type: ignore[assignment]


class Suite(JobStoreCrashSuite):
    """The suite for one test, on a disk of its own."""

    __test__ = False

    def __init__(self, store: type[LogStore]) -> None:
        self.disk, self.store = Disk(), store

    def open_store(self) -> JobStore:
        return self.store(self.disk)

    def abandon(self, store: Any) -> None:
        store.die()


@pytest.mark.parametrize("store", [LogStore, NotToldHowFound])
@pytest.mark.parametrize("test", TESTS)
def test_sound_store_passes(store: type[LogStore], test: str) -> None:
    getattr(Suite(store), test)()


@pytest.mark.parametrize("mutant", BROKEN.values(), ids=BROKEN)
def test_broken_store_is_caught_and_told_why(mutant: Broken) -> None:
    for test in mutant.caught_by:
        with pytest.raises(AssertionError, match=r"\w+ \w+") as caught:
            getattr(Suite(mutant.store), test)()
        print(f"{test}: {caught.value}")
        assert len(str(caught.value)) < 2000, "too long to read"


def test_every_test_catches_a_broken_store() -> None:
    assert {test for mutant in BROKEN.values() for test in mutant.caught_by} == set(TESTS)
