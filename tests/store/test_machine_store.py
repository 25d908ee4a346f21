"""T12: the real dispatcher with a store against the plain model, dying again and again."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from csjd.testing.machine_store import MemoryMachine, StoreMachine
from csjd.testing.promises import Death
from tests.store.conftest import FULL, Report

RUNS = 1_500 if FULL else 160
STEPS_PER_RUN = 50


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the log of a store that fails a thousand times out of the report."""
    logger = logging.getLogger("csjd")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def run(machine: type[StoreMachine], runs: int) -> None:
    machine.tally.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=STEPS_PER_RUN,
            deadline=None,
            print_blob=True,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_dispatcher_on_a_disk_keeps_its_promises_over_every_death(report: Report) -> None:
    run(StoreMachine, RUNS)
    tally = StoreMachine.tally
    for happened in (
        *(each.value for each in Death),
        "jobs recovered",
        "crashes counted",
        "dead letters recovered",
        "while a commit was being written",
        "the store failed",
        "the store was full",
        "a submit was withdrawn",
    ):
        # How often differs with what Hypothesis draws; that it happens at all must not.
        assert tally[happened] >= RUNS / 80, f"too seldom: {happened}: {dict(tally)}"
    deaths = sum(tally[each.value] for each in Death)
    report(f"T12 steps of the stateful machine ({deaths:,} deaths)", RUNS * STEPS_PER_RUN)


def test_dispatcher_keeps_its_promises_over_a_store_of_another_kind(report: Report) -> None:
    run(MemoryMachine, RUNS // 8)
    report("T12 the same over memory", RUNS // 8 * STEPS_PER_RUN)
