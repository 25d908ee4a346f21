"""Throughput against the bare pool, for one kind of handler and several numbers of workers."""

from collections.abc import Mapping
from functools import partial

from benchmarks._kit.pairs import measure
from benchmarks._kit.pools import Handler, run_bare, run_csjd
from benchmarks._kit.rows import Row, Target, speedup_row
from benchmarks._kit.work import batches, make_jobs

_JOBS = 20_000


def throughput_rows(
    handler: Handler, targets: Mapping[int, Target], rounds: int, scale: float
) -> list[Row]:
    """Return a row for each number of workers, a key of *targets*."""
    jobs = make_jobs(max(64, int(_JOBS * scale)))
    batched = batches(jobs)
    return [
        speedup_row(
            f"{workers} workers" if workers > 1 else "1 worker",
            measure(
                partial(run_csjd, workers, handler, batched),
                partial(run_bare, workers, handler, batched),
                rounds,
            ),
            len(jobs),
            target,
        )
        for workers, target in targets.items()
    ]
