"""A file that takes everything csjd logs, as lines of JSON."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csjd.logs import JsonFormatter


@contextmanager
def json_log(path: Path) -> Iterator[None]:
    """Write the logger `csjd` and all below it to *path* while the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Appending a line to a local file does not block for long. A program that logs to
    # something slower puts a `logging.handlers.QueueHandler` in between.
    handler = logging.FileHandler(path, mode="w", encoding="ascii")
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("csjd")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
