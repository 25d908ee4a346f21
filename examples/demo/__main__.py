"""The command: `python -m examples.demo`."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

import csjd
from csjd.logs import LogObserver
from examples.demo import report
from examples.demo.indexing import Run, build_index, forget
from examples.demo.library import default_store, source_files, standard_library
from examples.demo.log_file import json_log
from examples.demo.progress import Progress
from examples.demo.scan import silence_parser
from examples.demo.screen import open_screen


def main(arguments: Sequence[str] | None = None) -> int:
    """Index a library, show what came of it, and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        config = csjd.Config(workers=options.workers, lanes=options.lanes, max_pending=256)
    except ValueError as error:
        parser.error(str(error))
    files = source_files(options.root)[: options.limit]
    if not files:
        parser.error(f"there are no Python files in {options.root}")

    silence_parser()
    screen, progress = open_screen(), Progress(len(files))
    screen.say(f"Indexing {len(files):,} files of {options.root}")

    keep = options.store or default_store(options.root, options.limit)
    keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    screen.say(f"What must outlive a crash is kept in {keep}")

    def resumed(found: int, left: int) -> None:
        progress.done = found
        screen.say(
            f"An earlier run was ended half-way: {found:,} of {len(files):,} files are done, "
            f"{left:,} jobs were left in its store; going on from there"
        )

    async def work() -> Run:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.follow, progress)
            run = await build_index(
                options.root,
                files,
                config=config,
                keep=keep,
                observers=[progress.note, LogObserver()],
                say_resumed=resumed,
            )
        return run

    run: Run | None = None
    try:
        with json_log(options.log):
            run = trio.run(work)
    except* KeyboardInterrupt:
        screen.say(
            f"Interrupted after {progress.done:,} files; run it again to go on. "
            f"The log is {options.log}"
        )
    if run is None:
        return 130
    # All is done, so the next run begins anew.
    if options.store is None:
        shutil.rmtree(keep)
    else:
        forget(keep)

    screen.show(report.run_table(run, config))
    screen.show(report.worker_table(run))
    if run.dead_letters:
        screen.show(report.dead_letter_table(run))
    screen.show(report.index_table(run.index, options.top))
    for name in options.find:
        for line in report.find_lines(run.index, name):
            screen.say(line)
    screen.say(f"\nEvery step of every job is in {options.log}, a line of JSON each.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Index the standard library of this Python with csjd.",
    )
    parser.add_argument(
        "--workers", type=int, default=4, help="packages are spread over them (%(default)s)"
    )
    parser.add_argument(
        "--lanes", type=int, default=1, help="files a worker reads at a time (%(default)s)"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N files")
    parser.add_argument(
        "--root", type=Path, default=standard_library(), metavar="DIR", help="index this instead"
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="keep jobs and results in DIR, to go on after a crash; removed from it when all is "
        "done (default: in the user's cache)",
    )
    parser.add_argument(
        "--log", type=Path, default=Path("build/demo.jsonl"), metavar="FILE", help="(%(default)s)"
    )
    parser.add_argument(
        "--top", type=_count, default=10, metavar="N", help="entries to show (%(default)s)"
    )
    parser.add_argument(
        "--find", action="append", default=[], metavar="NAME", help="show who defines NAME"
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
