"""2,000 whole runs with everything going wrong; every promise holds in each."""

import logging

import pytest

from csjd.testing.simulation import simulate

SEEDS = 2_000
BLOCK = 100


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_promise_holds_whatever_goes_wrong(first: int) -> None:
    logging.getLogger("csjd").setLevel(logging.CRITICAL)  # it warns of what is left unfinished
    try:
        reports = [simulate(seed) for seed in range(first, first + BLOCK)]
    finally:
        logging.getLogger("csjd").setLevel(logging.NOTSET)
    # A simulation in which nothing happens would hold every promise, too.
    assert sum(report.accepted for report in reports) > 50 * BLOCK
    assert sum(report.succeeded for report in reports) > 25 * BLOCK


def test_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    assert simulate(7) == simulate(7)
    assert simulate(7).trace != simulate(8).trace
