"""T6: every state a crash may legally leave, at every change, on a disk that forgets."""

from csjd.testing.stores import Summary, summarize
from tests.store.battery import (
    Disk,
    Explorer,
    Tally,
    ViolationError,
    check_crash_state,
    holds_a_store,
    recovered,
    salvaged,
)
from tests.store.conftest import FULL, Report

STATES = 200_000 if FULL else 20_000


def test_every_legal_crash_state_recovers_to_a_promised_prefix(report: Report) -> None:
    tally = Tally()
    seed = 0
    while tally.states < STATES:
        explorer = Explorer(seed, tally, states_per_change=60, budget=STATES)
        explorer.run(lives=6, batches=25)
        seed += 1
    report("T6 legal crash states", tally.states, seed=f"0 to {seed - 1}")


def test_every_legal_crash_state_salvages_to_what_it_recovers_to(report: Report) -> None:
    def check(disk: Disk, allowed: list[tuple[int, Summary]]) -> int:
        if holds_a_store(disk):
            saved, recovery = salvaged(disk)
            if saved.lost or summarize(recovery) != recovered(disk):
                raise ViolationError(f"{saved}: {summarize(recovery)}")
        return check_crash_state(disk, allowed)

    tally, most = Tally(), STATES // 5
    seed = 0
    while tally.states < most:
        Explorer(seed, tally, states_per_change=10, budget=most, check_each=check).run(6, 25)
        seed += 1
    report("T6 legal crash states, salvaged", tally.states, seed=f"0 to {seed - 1}")
