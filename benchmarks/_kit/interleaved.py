"""Ratios that a shared machine cannot spoil: every contender runs in every round, in turn."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks._kit.rows import Row, Spread, Target


def peer(module: str) -> Any:
    """Return the library to compare with, None if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def interleave(
    contenders: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """
    Run every contender once per round and return what each measured, by round.

    The order turns by one place each round, so that nobody always follows the same one.
    """
    names = list(contenders)
    measured: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            measured[name].append(contenders[name]())
    return measured


def row(
    case: str,
    of: Sequence[float],
    against: Sequence[float],
    *,
    unit: str,
    scale: float = 1.0,
    limit: float | None = None,
) -> Row:
    """
    Return one line of a report: *of* in proportion to *against*, round by round.

    Args:
        case: What is compared with what.
        of: Seconds per operation, by round.
        against: The same of the yardstick.
        unit: In which the absolute figures are printed.
        scale: How many of it a second has.
        limit: The ratio that was promised.
    """
    ratio = Spread.of([mine / theirs for mine, theirs in zip(of, against, strict=True)])
    return {
        "case": case,
        **ratio.columns(),
        unit: median(of) * scale,
        f"yardstick_{unit}": median(against) * scale,
        "rounds": len(of),
        **({} if limit is None else Target(most=limit).columns(ratio.median)),
    }


def skipped(case: str, reason: str) -> Row:
    """Return the line of a comparison that could not be made."""
    return {"case": f"{case}: skipped, {reason}"}
