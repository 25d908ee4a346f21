"""Throughput of ordered sessions, and whether many of them cost more than few."""

from functools import partial

from benchmarks._kit.pairs import measure
from benchmarks._kit.pools import BarePool, Batches, Handler, run_bare, run_bare_keyed, run_csjd
from benchmarks._kit.rows import Row, Spread, Target, speedup_row
from benchmarks._kit.work import batches, do_nothing, make_jobs, yield_once

TITLE = "Ordered sessions, 10 workers"

WORKERS = 10
SHAPES = ((100, 2_000), (100, 20_000), (10_000, 100_000))
"""(sessions, jobs in all)"""

NO_OP = Target(least=1.0, wanted=1.5)
"""Against a pool that keeps no order."""
AWAITING = Target(least=0.6)
"""Against a dict of deques that keeps the same order."""
GROWTH = Target(most=1.6)
"""The cost per job with the most sessions, as a multiple of that with the fewest."""


def run(rounds: int, scale: float = 1.0) -> list[Row]:
    """Return a row for each shape and kind of handler, and one for the growth of the cost."""
    shapes = [
        (max(4, int(sessions * scale)), max(64, int(jobs * scale))) for sessions, jobs in SHAPES
    ]
    work = [(sessions, batches(make_jobs(jobs, sessions=sessions))) for sessions, jobs in shapes]
    return [
        *(_row(f"no-op, {n:,} sessions", do_nothing, run_bare, b, NO_OP, rounds) for n, b in work),
        *(
            _row(f"one checkpoint, {n:,} sessions", yield_once, run_bare_keyed, b, AWAITING, rounds)
            for n, b in work
        ),
        _growth(work[-2][1], work[-1][1], rounds),
    ]


def _row(
    case: str, handler: Handler, bare: BarePool, work: Batches, target: Target, rounds: int
) -> Row:
    jobs = sum(map(len, work))
    pairs = measure(
        partial(run_csjd, WORKERS, handler, work), partial(bare, WORKERS, handler, work), rounds
    )
    return speedup_row(f"{case}, {jobs:,} jobs", pairs, jobs, target)


def _growth(few: Batches, many: Batches, rounds: int) -> Row:
    """Return how the cost per job grows from *few* sessions to *many*."""
    pairs = measure(
        partial(run_csjd, WORKERS, do_nothing, many),
        partial(run_csjd, WORKERS, do_nothing, few),
        rounds,
    )
    fewer_jobs = sum(map(len, few)) / sum(map(len, many))
    growth = Spread.of([fewer_jobs / speedup for speedup in pairs.speedups()])
    return {
        "case": "cost per job, most sessions / fewest",
        **growth.columns(),
        "rounds": rounds,
        **GROWTH.columns(growth.median),
    }
