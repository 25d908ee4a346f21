"""No wake-up is lost in 2,000 storms of submits, pauses, removals, detachments and stops."""

import pytest

from csjd.testing.storm import stress

SEEDS = 2_000
BLOCK = 250


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_no_parked_lane_could_take_a_ready_job(first: int) -> None:
    for seed in range(first, first + BLOCK):
        stress(seed)  # an error names its seed
