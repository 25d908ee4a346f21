"""The command line, `python -m csjd ...`; each group of commands has a module of its own."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from csjd.cli import store


class _Parser(argparse.ArgumentParser):
    """One for commands of which status 2 says that a store is damaged."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and exit."""
        self.print_usage(sys.stderr)
        self.exit(store.FAILED, f"{self.prog}: error: {message}\n")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser: argparse.ArgumentParser = _Parser(prog="python -m csjd", description="Tools for csjd.")
    groups = parser.add_subparsers(metavar="GROUP", required=True)
    store.add_commands(groups)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit status."""
    options = make_parser().parse_args(arguments)
    status: int = options.run(options)
    return status
