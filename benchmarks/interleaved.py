"""Ratios that a shared machine cannot spoil: every contender runs in every round, in turn."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any

Row = dict[str, Any]


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
    name: str,
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
        name: What is compared with what.
        of: Seconds per operation, by round.
        against: The same of the yardstick.
        unit: In which the absolute figures are printed.
        scale: How many of it a second has.
        limit: The ratio that was promised.
    """
    ratios = [mine / theirs for mine, theirs in zip(of, against, strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return {
        "name": name,
        "ratio": median(ratios),
        "low": low,
        "high": high,
        "cost": median(of) * scale,
        "yardstick": median(against) * scale,
        "unit": unit,
        "limit": limit,
    }


def skipped(name: str, reason: str) -> Row:
    """Return the line of a comparison that could not be made."""
    return {"name": name, "skipped": reason}


def table(rows: Sequence[Row]) -> str:
    """Return *rows* as text: the median ratio, its quartiles, and the absolute medians."""
    width = max(len(line["name"]) for line in rows)
    lines = [f"{'':{width}}  ratio  (quartiles)      cost   against  promised"]
    for line in rows:
        if "skipped" in line:
            lines.append(f"{line['name']:{width}}  skipped: {line['skipped']}")
            continue
        limit = "" if line["limit"] is None else f"  <= {line['limit']:g}"
        kept = "" if line["limit"] is None or line["ratio"] <= line["limit"] else "  MISSED"
        lines.append(
            f"{line['name']:{width}}  {line['ratio']:5.2f}  ({line['low']:.2f}-{line['high']:.2f})"
            f"  {line['cost']:8.2f}  {line['yardstick']:8.2f} {line['unit']}{limit}{kept}"
        )
    return "\n".join(lines)
