"""
The same seed, the same interleaving: Trio's order of tasks, taken in hand.

Trio shuffles each batch of runnable tasks, so that nobody comes to rely on an order. For
a failing run to be replayed that shuffle must come from the seed. Trio has no public way
to say so; the two private names it takes are used here and nowhere else, and a test of
this module fails loudly when Trio changes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from trio._core import _run


class SchedulingChangedError(RuntimeError):
    """Trio no longer lets its schedule be seeded the way we know."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"trio._core._run has no {missing}: adapt csjd.testing.determinism to it")


@contextmanager
def deterministic_schedule(seed: int | str) -> Iterator[None]:
    """
    While entered, runs of Trio in this thread order their tasks as *seed* says.

    Raises:
        SchedulingChangedError: Trio's private names are not what they were.
    """
    run: Any = _run
    if not isinstance(getattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", None), bool):
        raise SchedulingChangedError("_ALLOW_DETERMINISTIC_SCHEDULING")
    if not isinstance(getattr(run, "_r", None), Random):
        raise SchedulingChangedError("_r")
    before, state = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    run._r.seed(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before
        run._r.setstate(state)
