"""The command line, `python -m csjd ...`; each group of commands has a module of its own."""

import argparse
from collections.abc import Sequence

from csjd.cli import store


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m csjd", description="Tools for csjd.")
    groups = parser.add_subparsers(metavar="GROUP", required=True)
    store.add_commands(groups)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status
