"""
Dynamic resizing: five phases of load, and a pool that follows them.

Run it with `python -m examples.resizing`.

A small controller looks at the metrics ten times a second and resizes the dispatcher so
that each worker has a few jobs pending. A session with jobs stays with its worker as long
as there is one, which keeps its order cheap; new sessions spread over the new workers.
"""

import itertools
import math

import attrs
import trio

import csjd

SMALLEST, LARGEST = 2, 16
PENDING_PER_WORKER = 4
WORK = 0.02  # seconds a job takes


@attrs.frozen(kw_only=True)
class Phase:
    """A time of even load."""

    name: str
    rate: int
    """Jobs per second."""
    seconds: float = 0.8


PHASES = (
    Phase(name="quiet", rate=50),
    Phase(name="rising", rate=300),
    Phase(name="peak", rate=700),
    Phase(name="falling", rate=200),
    Phase(name="night", rate=20),
)


@attrs.frozen(kw_only=True)
class Seen:
    """What one phase looked like."""

    phase: Phase
    workers: tuple[int, int]
    """The fewest and the most."""
    succeeded: int
    most_pending: int


async def main() -> list[Seen]:
    """Go through the phases; return what each looked like."""
    registry = csjd.Registry()
    order: dict[str | None, list[int]] = {}

    @registry.handler("work", payload=int)
    async def work(job: csjd.Job) -> None:
        order.setdefault(job.session, []).append(job.payload)
        await trio.sleep(WORK)

    seen = []
    async with trio.open_nursery() as nursery:
        config = csjd.Config(workers=SMALLEST)
        async with csjd.open_dispatcher(nursery, config, registry=registry) as dispatcher:
            numbers = itertools.count()
            for phase in PHASES:
                seen.append(await _go_through(phase, dispatcher, numbers))
                print(_line(seen[-1]))
            await dispatcher.stop()
            metrics = dispatcher.metrics()
    kept = all(numbers == sorted(numbers) for numbers in order.values())
    print(f"{metrics.succeeded:,} of {metrics.accepted:,} jobs succeeded, order kept: {kept}")
    print(f"wait for a lane: p50 {metrics.wait.p50:.3f} s, p99 {metrics.wait.p99:.3f} s")
    assert kept
    return seen


async def _go_through(
    phase: Phase, dispatcher: csjd.Dispatcher, numbers: "itertools.count[int]"
) -> Seen:
    """Submit jobs at the phase's rate, tenth of a second by tenth, and resize as needed."""
    before = dispatcher.metrics().succeeded
    sizes, most_pending = [], 0
    tick = 0.1
    for _ in range(round(phase.seconds / tick)):
        batch = list(itertools.islice(numbers, round(phase.rate * tick)))
        await dispatcher.submit_batch(
            csjd.Job(type="work", payload=number, session=f"order-{number // 5}")
            for number in batch
        )
        pending = dispatcher.metrics().pending
        workers = min(LARGEST, max(SMALLEST, math.ceil(pending / PENDING_PER_WORKER)))
        await dispatcher.resize(workers)
        sizes.append(workers)
        most_pending = max(most_pending, pending)
        await trio.sleep(tick)
    return Seen(
        phase=phase,
        workers=(min(sizes), max(sizes)),
        succeeded=dispatcher.metrics().succeeded - before,
        most_pending=most_pending,
    )


def _line(seen: Seen) -> str:
    low, high = seen.workers
    return (
        f"{seen.phase.name:<8} {seen.phase.rate:>4} jobs/s   workers {low:>2} to {high:>2}   "
        f"succeeded {seen.succeeded:>4}   most pending {seen.most_pending:>4}"
    )


if __name__ == "__main__":
    trio.run(main)
