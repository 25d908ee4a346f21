"""T6: every state a crash may legally leave, at every change, on a disk that forgets."""

from tests.store.battery import Explorer, Tally
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
