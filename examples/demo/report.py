"""The tables at the end: what the run took, what could not be indexed, what the index says."""

from collections.abc import Iterator

import csjd
from examples.demo.index import Index, top
from examples.demo.indexing import Run
from examples.demo.screen import Table


def run_table(run: Run, config: csjd.Config) -> Table:
    """Return what the run took."""
    metrics, index = run.metrics, run.index
    pace = metrics.succeeded / run.seconds if run.seconds else 0.0
    megabytes = index.size / 1e6
    return Table(
        title="The run",
        columns=("", ">value", ">p50", ">p90", ">p99"),
        rows=[
            ("jobs accepted", f"{metrics.accepted:,}", "", "", ""),
            ("  succeeded", f"{metrics.succeeded:,}", "", "", ""),
            ("  failed (dead letters)", f"{metrics.failed:,}", "", "", ""),
            ("retries", f"{metrics.retries:,}", "", "", ""),
            ("sessions", f"{len(index.packages):,}", "", "", ""),
            ("workers x lanes", f"{config.workers} x {config.lanes}", "", "", ""),
            ("elapsed", f"{run.seconds:.1f} s", "", "", ""),
            ("throughput", f"{pace:,.0f} files/s", "", "", ""),
            ("", f"{megabytes / run.seconds:.1f} MB/s" if run.seconds else "", "", "", ""),
            ("wait for a lane", "", *_percentiles(metrics.wait)),
            ("run", "", *_percentiles(metrics.run)),
        ],
    )


def worker_table(run: Run) -> Table:
    """Return how the work was shared."""
    return Table(
        title="The workers",
        columns=("worker", ">files", ">failed", ">busy"),
        rows=[
            (
                str(each.worker),
                f"{each.attempts:,}",
                str(each.failed),
                f"{each.busy_seconds / run.seconds:.0%}" if run.seconds else "",
            )
            for each in run.workers
        ],
    )


def dead_letter_table(run: Run) -> Table:
    """Return which files could not be indexed, and why."""
    return Table(
        title="Dead letters: files that this Python cannot parse",
        columns=("file", "error"),
        rows=sorted((letter.job.id, _cause(letter.error)) for letter in run.dead_letters),
    )


def index_table(index: Index, count: int) -> Table:
    """Return the top *count* entries of each part of the index, side by side."""
    parts = {
        "definition": index.definitions,
        "name": index.names,
        "docstring word": index.words,
        "package (lines)": index.packages,
    }
    columns = [heading for part in parts for heading in (part, ">count")]
    ranked = [_padded(top(counter, count), count) for counter in parts.values()]
    rows = [
        [cell for part in ranked for cell in part[position]]
        for position in range(max(map(len, ranked)))
    ]
    return Table(
        title="The index",
        columns=columns,
        rows=[row for row in rows if any(row)],
        note=(
            f"{index.files:,} files, {index.lines:,} lines, {len(index.definitions):,} distinct "
            f"definitions, {len(index.names):,} names, {len(index.words):,} docstring words"
        ),
    )


def find_lines(index: Index, name: str) -> Iterator[str]:
    """Yield the answer to the question who defines *name*."""
    places = index.find(name)
    files = "1 file" if len(places) == 1 else f"{len(places)} files"
    yield f"\n{name}: defined in {files}, otherwise mentioned {index.names[name]:,} times"
    yield from (f"  {place}" for place in places)


def _percentiles(durations: csjd.Histogram) -> tuple[str, str, str]:
    return _duration(durations.p50), _duration(durations.p90), _duration(durations.p99)


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def _cause(error: BaseException) -> str:
    """Return the parser's words, which a `PermanentError` carries as its cause."""
    cause = error.__cause__ or error
    reason = cause.msg if isinstance(cause, SyntaxError) else str(cause)
    return reason if len(reason) <= 72 else f"{reason[:69]}..."


def _padded(ranked: list[tuple[str, int]], count: int) -> list[tuple[str, str]]:
    shown = [(name, f"{number:,}") for name, number in ranked]
    return shown + [("", "")] * (count - len(shown))
