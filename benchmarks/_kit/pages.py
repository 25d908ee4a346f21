"""The page of figures for the docs."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks._kit.plots import ratio_plot
from benchmarks._kit.results import Result, Setting
from benchmarks._kit.tables import markdown_table

HEAD = """\
<!-- Written by `python -m benchmarks --docs`; edits would be lost. -->
# The figures

Measured on {setting} Command: `{command}`, {rounds} rounds.
[What is measured and how](performance.md) says how to read them.
"""


def write_plots(folder: Path, results: Sequence[Result]) -> dict[str, Path]:
    """Write a picture for each result that has ratios; return where, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for result in results:
        plot = ratio_plot(result.title, result.rows)
        if plot is not None:
            written[result.name] = folder / f"performance-{result.name}.svg"
            written[result.name].write_text(plot)
    return written


def write_page(folder: Path, setting: Setting, results: Sequence[Result]) -> None:
    """Write the page and its pictures into *folder*."""
    plots = write_plots(folder, results)
    parts = [HEAD.format(setting=setting, command=setting.command, rounds=setting.rounds)]
    for result in results:
        parts.append(f"## {result.name}\n\n{result.title}.\n")
        if result.skipped is not None:
            parts.append(f"Skipped: {result.skipped}.\n")
            continue
        if result.name in plots:
            parts.append(f"![{result.title}]({plots[result.name].name})\n")
        parts.append(markdown_table(result.rows) + "\n")
    (folder / "performance-figures.md").write_text("\n".join(parts))
