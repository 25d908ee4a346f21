"""What a person sees: a bar and tables in a terminal, plain lines anywhere else."""

from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from examples.demo.progress import Progress

_REFRESH = 0.1  # seconds


@attrs.frozen(kw_only=True)
class Table:
    """Rows under a title; columns named with a leading `>` hold numbers, set to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Screen(Protocol):
    """Somewhere to show a run."""

    async def follow(self, progress: Progress) -> None:
        """Show *progress* until everything is done."""
        ...

    def show(self, table: Table) -> None:
        """Show one table."""
        ...

    def say(self, text: str) -> None:
        """Show one line."""
        ...


class PlainScreen:
    """Plain lines, for files, pipes and terminals without rich."""

    async def follow(self, progress: Progress) -> None:
        """Print a line for each tenth of the way."""
        tenth = 0
        while True:
            reached = 10 * progress.done // progress.total if progress.total else 10
            if reached > tenth:
                tenth = reached
                print(f"{progress.done:>6} of {progress.total} files, {progress.failed} failed")
            if progress.done >= progress.total:
                return
            await trio.sleep(_REFRESH)

    def show(self, table: Table) -> None:
        """Print *table* in columns."""
        right = [column.startswith(">") for column in table.columns]
        head = [column.lstrip(">") for column in table.columns]
        widths = [max(map(len, cells)) for cells in zip(head, *table.rows, strict=True)]
        print(f"\n{table.title}")
        for row in [head, ["-" * width for width in widths], *table.rows]:
            cells = [
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(row, widths, right, strict=True)
            ]
            print("  " + "  ".join(cells).rstrip())
        if table.note:
            print(f"  {table.note}")

    def say(self, text: str) -> None:
        """Print *text*."""
        print(text)


def open_screen() -> Screen:
    """Return the best screen there is for standard output."""
    try:
        from examples.demo.rich_screen import RichScreen
    except ImportError:  # rich comes with csjd[demo] and is not needed
        return PlainScreen()
    screen = RichScreen()
    return screen if screen.usable else PlainScreen()
