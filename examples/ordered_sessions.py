"""
Order under load: ten workers, a hundred sessions, two thousand jobs, none out of order.

Run it with `python -m examples.ordered_sessions`.

Every job takes a random time, so ten workers overtake each other all the time; within a
session the jobs still run one at a time, in the order they were accepted.
"""

import itertools
from random import Random

import attrs
import trio

import csjd

WORKERS, SESSIONS, JOBS = 10, 100, 2_000


@attrs.define(eq=False)
class Witness:
    """Sees every attempt begin and end, and remembers what it must not see."""

    order: dict[str, list[int]] = attrs.field(factory=dict)
    """Per session: the jobs' numbers, as they began."""
    overlaps: int = 0
    """Times a job began while another one of its session ran."""
    busiest: int = 0
    """The most jobs that ran at one time."""
    _running: set[str] = attrs.field(factory=set)

    def begin(self, session: str, number: int) -> None:
        """See a job begin."""
        self.overlaps += session in self._running
        self._running.add(session)
        self.busiest = max(self.busiest, len(self._running))
        self.order.setdefault(session, []).append(number)

    def end(self, session: str) -> None:
        """See a job end."""
        self._running.discard(session)

    def out_of_order(self) -> int:
        """Return how many jobs began before one that was accepted earlier."""
        return sum(
            later < earlier
            for numbers in self.order.values()
            for earlier, later in itertools.pairwise(numbers)
        )


async def main(seed: int = 2024) -> Witness:
    """Run the jobs; return what was seen."""
    random, witness = Random(seed), Witness()
    registry = csjd.Registry()

    @registry.handler("step", payload=int)
    async def step(job: csjd.Job) -> None:
        assert job.session is not None
        witness.begin(job.session, job.payload)
        await trio.sleep(random.uniform(0, 0.005))
        witness.end(job.session)

    jobs = [
        csjd.Job(type="step", payload=number, session=f"customer-{random.randrange(SESSIONS)}")
        for number in range(JOBS)
    ]
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, csjd.Config(workers=WORKERS), registry=registry) as d,
    ):
        began = trio.current_time()
        report = await d.submit_batch(jobs)
        spread = d.session_distribution()
        for receipt in report.receipts:
            assert receipt is not None, "nothing here is refused"
            await receipt.outcome()
        seconds = trio.current_time() - began

    print(f"{JOBS:,} jobs of {len(witness.order)} sessions on {WORKERS} workers: {seconds:.2f} s")
    print(f"sessions per worker: {spread.lowest} to {spread.highest}, mean {spread.mean:.0f}")
    print(f"running at a time: up to {witness.busiest}")
    print(f"out of order: {witness.out_of_order()}")
    print(f"overlapping within a session: {witness.overlaps}")
    return witness


if __name__ == "__main__":
    trio.run(main)
