"""Trio's time, read without a detour."""

from collections.abc import Callable
from time import perf_counter

import trio


def swift_clock() -> Callable[[], float]:
    """
    Return a function that tells Trio's time in seconds, up to a constant.

    Asking `trio.current_time()` would be half of what a hit costs. Trio's own clock is
    `perf_counter` plus a constant, so if it is found to be that, two calls can be spared.
    """
    clock = trio.lowlevel.current_clock()
    offset = getattr(clock, "offset", None)
    if type(clock).__module__.startswith("trio.") and isinstance(offset, float):
        before = perf_counter()
        told = clock.current_time() - offset
        rounding = 1e-9
        if before - rounding <= told <= perf_counter() + rounding:
            return perf_counter
    return clock.current_time
