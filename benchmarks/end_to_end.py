"""Throughput with handlers that do nothing: what csjd itself costs."""

from functools import partial

from benchmarks._kit.pairs import measure
from benchmarks._kit.pools import run_bare, run_csjd
from benchmarks._kit.rows import Row, Target, speedup_row
from benchmarks._kit.work import batches, do_nothing, make_jobs

TITLE = "Throughput, handlers that do nothing, against a bare Trio pool"

TARGETS = {1: Target(least=2.0), 4: Target(least=1.5), 8: Target(least=1.5)}
"""By number of workers."""


def run(rounds: int, scale: float = 1.0) -> list[Row]:
    """Return a row for each number of workers."""
    jobs = make_jobs(max(64, int(20_000 * scale)))
    batched = batches(jobs)
    return [
        speedup_row(
            f"{workers} workers" if workers > 1 else "1 worker",
            measure(
                partial(run_csjd, workers, do_nothing, batched),
                partial(run_bare, workers, do_nothing, batched),
                rounds,
            ),
            len(jobs),
            target,
        )
        for workers, target in TARGETS.items()
    ]
