"""Throughput with handlers that wait once: most real ones wait."""

from functools import partial

from benchmarks._kit.pairs import measure
from benchmarks._kit.pools import run_bare, run_csjd
from benchmarks._kit.rows import Row, Target, speedup_row
from benchmarks._kit.work import batches, make_jobs, yield_once

TITLE = "Throughput, handlers with one checkpoint, against a bare Trio pool"

TARGET = Target(least=0.7)
WORKERS = (1, 4, 8)


def run(rounds: int, scale: float = 1.0) -> list[Row]:
    """Return a row for each number of workers."""
    jobs = make_jobs(max(64, int(20_000 * scale)))
    batched = batches(jobs)
    return [
        speedup_row(
            f"{workers} workers" if workers > 1 else "1 worker",
            measure(
                partial(run_csjd, workers, yield_once, batched),
                partial(run_bare, workers, yield_once, batched),
                rounds,
            ),
            len(jobs),
            TARGET,
        )
        for workers in WORKERS
    ]
