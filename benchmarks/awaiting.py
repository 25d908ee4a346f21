"""Throughput with handlers that wait once: most real ones wait."""

from benchmarks._kit.rows import Row, Target
from benchmarks._kit.throughput import throughput_rows
from benchmarks._kit.work import yield_once

TITLE = "Throughput, handlers with one checkpoint, against a bare Trio pool"

TARGETS = dict.fromkeys((1, 4, 8), Target(least=0.7))
"""By number of workers."""


def run(rounds: int, scale: float = 1.0) -> list[Row]:
    """Return a row for each number of workers."""
    return throughput_rows(yield_once, TARGETS, rounds, scale)
