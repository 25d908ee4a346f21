"""Rows: what a benchmark returns, plain dicts that become a table, JSON and a plot."""

import statistics
from collections.abc import Sequence
from typing import Any, TypeAlias

import attrs

from benchmarks._kit.pairs import Pairs

Row: TypeAlias = dict[str, Any]
"""Column to value; `case` names it, `target` and `met` say what was wanted and whether it is so."""


@attrs.frozen
class Spread:
    """Where the figures of many rounds lie."""

    median: float
    q1: float
    q3: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        """Return the spread of *figures*, of which there must be one at least."""
        if len(figures) == 1:
            (only,) = figures
            return cls(only, only, only, only, only)
        q1, median, q3 = statistics.quantiles(figures, n=4, method="inclusive")
        return cls(median, q1, q3, min(figures), max(figures))

    def columns(self) -> Row:
        """Return this as columns."""
        return {
            "ratio": self.median,
            "q1": self.q1,
            "q3": self.q3,
            "min": self.lowest,
            "max": self.highest,
        }


@attrs.frozen
class Target:
    """What a figure should be."""

    least: float | None = None
    most: float | None = None
    wanted: float | None = None
    """Beyond the target, and welcome."""
    unit: str = ""

    def columns(self, figure: float) -> Row:
        """Return the target, and whether *figure* meets it, as columns."""
        met = (self.least is None or figure >= self.least) and (
            self.most is None or figure <= self.most
        )
        return {"target": str(self), "met": met}

    def __str__(self) -> str:
        sign, bound = (">=", self.least) if self.least is not None else ("<=", self.most)
        wanted = "" if self.wanted is None else f" (wanted {sign} {self.wanted:g})"
        return f"{sign} {bound:g}{self.unit}{wanted}"


def speedup_row(case: str, pairs: Pairs, jobs: int, target: Target | None) -> Row:
    """
    Return the row of a comparison of throughput.

    Args:
        case: What was compared.
        pairs: The measurements.
        jobs: How many jobs each of them ran.
        target: What the speed-up should be; None where no promise is made.
    """
    spread = Spread.of(pairs.speedups())
    return {
        "case": case,
        **spread.columns(),
        "cpu_ratio": statistics.median(pairs.cpu_speedups()),
        "csjd_us": statistics.median(each.wall for each in pairs.subject) / jobs * 1e6,
        "bare_us": statistics.median(each.wall for each in pairs.yardstick) / jobs * 1e6,
        "rounds": len(pairs.subject),
        **(target.columns(spread.median) if target is not None else {}),
    }
