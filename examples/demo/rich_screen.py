"""The screen for terminals, drawn with rich."""

import trio
from rich import box, progress as bars, table as tables
from rich.console import Console
from rich.markup import escape

from examples.demo.progress import Progress
from examples.demo.screen import Table

_REFRESH = 0.1  # seconds


class RichScreen:
    """A bar and tables in colour."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    @property
    def usable(self) -> bool:
        """Whether standard output is a terminal that can be drawn on."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    async def follow(self, progress: Progress) -> None:
        """Draw a bar until everything is done."""
        bar = bars.Progress(
            bars.TextColumn("indexing"),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TextColumn("[red]{task.fields[failed]} failed"),
            bars.TimeElapsedColumn(),
            bars.TextColumn("[dim]{task.fields[latest]}", table_column=_narrow()),
            console=self._console,
            auto_refresh=False,  # drawn by this task, so that nothing outlives it
            expand=True,
        )
        row = bar.add_task("", total=progress.total, failed=0, latest="")
        with bar:
            while True:
                bar.update(
                    row,
                    completed=progress.done,
                    failed=progress.failed,
                    latest=escape(progress.latest) if progress.done < progress.total else "",
                )
                bar.refresh()
                if progress.done >= progress.total:
                    return
                await trio.sleep(_REFRESH)

    def show(self, table: Table) -> None:
        """Draw *table*."""
        drawn = tables.Table(
            title=table.title,
            title_justify="left",
            title_style="bold",
            caption=table.note or None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            header_style="dim",
        )
        for column in table.columns:
            to_right = column.startswith(">")
            drawn.add_column(column.lstrip(">"), justify="right" if to_right else "left")
        for row in table.rows:
            drawn.add_row(*map(escape, row))
        self._console.print()
        self._console.print(drawn)

    def say(self, text: str) -> None:
        """Print *text*."""
        self._console.print(escape(text))


def _narrow() -> tables.Column:
    return tables.Column(width=28, no_wrap=True, overflow="ellipsis")
