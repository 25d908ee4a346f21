"""Rows as text: for the terminal, and as Markdown for the docs."""

from collections.abc import Sequence
from typing import Any

from benchmarks._kit.rows import Row

LAST = ("rounds", "target", "met")


def text_table(rows: Sequence[Row]) -> str:
    """Return *rows* with their columns in line."""
    cells = _cells(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def markdown_table(rows: Sequence[Row]) -> str:
    """Return *rows* as a Markdown table."""
    header, *lines = _cells(rows)
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return a header and a line per row; a column that only some rows have stays empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    # What all have in common stands last, whichever columns a row has of its own.
    columns.sort(key=lambda column: LAST.index(column) + 1 if column in LAST else 0)
    header = [column.replace("_", " ") for column in columns]
    return [header, *([_shown(row.get(column)) for column in columns] for row in rows)]


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "NO"
        case int():
            return f"{value:,}"
        case float():
            return (
                f"{value:,.0f}"
                if abs(value) >= 1000
                else f"{value:.3g}"
                if abs(value) < 0.1
                else f"{value:.2f}"
            )
        case _:
            return str(value)
