"""Throughput with handlers that do nothing: what csjd itself costs."""

from benchmarks._kit.rows import Row, Target
from benchmarks._kit.throughput import throughput_rows
from benchmarks._kit.work import do_nothing

TITLE = "Throughput, handlers that do nothing, against a bare Trio pool"

TARGETS = {1: Target(least=2.0), 4: Target(least=1.5), 8: Target(least=1.5)}
"""By number of workers."""


def run(rounds: int, scale: float = 1.0) -> list[Row]:
    """Return a row for each number of workers."""
    return throughput_rows(do_nothing, TARGETS, rounds, scale)
