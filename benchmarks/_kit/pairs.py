"""
Paired rounds: each measures two sides one right after the other.

The machine's speed changes from minute to minute, far more than what is compared here,
so no time is compared with one of another round: each round yields its own ratio, and
the median of the ratios is the figure.
"""

import gc
import time
from collections.abc import Awaitable, Callable

import attrs
import trio

MEDIAN_ROUNDS = 9
"""Rounds below which a median is no figure to publish."""


class Stopwatch:
    """Measures from `start` to `stop`."""

    wall: float = 0.0
    """Seconds that passed."""
    cpu: float = 0.0
    """Seconds this process worked; on a busy machine the steadier of the two."""

    def start(self) -> None:
        """Start from a clean heap, so that nobody pays for the garbage of the other side."""
        gc.collect()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Note the time since `start`."""
        self.wall = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu


Side = Callable[[], Awaitable[Stopwatch]]
"""One thing to be measured: sets up, runs its work inside a stopwatch, and returns that."""


@attrs.frozen
class Pairs:
    """The measurements of two sides, by round."""

    subject: tuple[Stopwatch, ...]
    yardstick: tuple[Stopwatch, ...]

    def speedups(self) -> list[float]:
        """Return yardstick time / subject time of each round: above 1, the subject is faster."""
        return [b.wall / a.wall for a, b in zip(self.subject, self.yardstick, strict=True)]

    def cpu_speedups(self) -> list[float]:
        """Return the same of processor time."""
        return [b.cpu / a.cpu for a, b in zip(self.subject, self.yardstick, strict=True)]


def measure(subject: Side, yardstick: Side, rounds: int) -> Pairs:
    """
    Measure both sides *rounds* times, each in a Trio run of its own.

    Who goes first alternates, so that neither always follows the other's garbage. A round
    before the first warms caches and is thrown away.
    """
    measured: tuple[list[Stopwatch], list[Stopwatch]] = ([], [])
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            stopwatch = trio.run((subject, yardstick)[which])
            if number:
                measured[which].append(stopwatch)
    return Pairs(subject=tuple(measured[0]), yardstick=tuple(measured[1]))
