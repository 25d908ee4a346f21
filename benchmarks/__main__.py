"""`python -m benchmarks`: run benchmarks, print their tables, write them down."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks._kit import catalogue
from benchmarks._kit.pages import write_page, write_plots
from benchmarks._kit.pairs import MEDIAN_ROUNDS
from benchmarks._kit.results import Result, Setting, write_json
from benchmarks._kit.tables import text_table

DOCS = Path(__file__).parents[1] / "docs" / "explanation"
QUICK_ROUNDS = 3
QUICK_SCALE = 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(catalogue.names()):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else MEDIAN_ROUNDS)
    setting = Setting.now(rounds=rounds, quick=options.quick)
    print(f"{setting} {rounds} rounds.\n", flush=True)
    results = []
    for name in options.names or catalogue.names():
        result = catalogue.run(name, rounds, QUICK_SCALE if options.quick else 1.0)
        _show(result)
        results.append(result)
    if options.json is not None:
        write_json(options.json, setting, results)
    if options.svg is not None:
        write_plots(options.svg, results)
    if options.docs:
        write_page(DOCS, setting, results)
    _show_verdict(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure csjd against bare Trio, side by side in the same rounds.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(catalogue.names()))
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: for a look")
    parser.add_argument("--rounds", type=int, help=f"paired rounds (default {MEDIAN_ROUNDS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows to FILE")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="write a picture of each to DIR")
    parser.add_argument("--docs", action="store_true", help=f"write the page in {DOCS.name}/")
    return parser


def _show(result: Result) -> None:
    print(f"{result.name}: {result.title}")
    print(f"skipped: {result.skipped}" if result.skipped else text_table(result.rows))
    print(flush=True)


def _show_verdict(results: Sequence[Result]) -> None:
    verdicts = [row["met"] for result in results for row in result.rows if "met" in row]
    print(f"{sum(verdicts)} of {len(verdicts)} targets met.")


if __name__ == "__main__":
    main()
