"""Trio's time, read without a detour."""

from collections.abc import Callable
from time import perf_counter

import trio


def split_clock() -> tuple[float, Callable[[], float]]:
    """
    Return a constant and a function that add up to Trio's time in seconds.

    `trio.current_time()` is half of what a cache's hit costs, and asking the clock itself
    still is one Python call for each attempt. Trio's own clock is `perf_counter` plus a
    constant, so if it is found to be that, both can be spared.
    """
    clock = trio.lowlevel.current_clock()
    offset = getattr(clock, "offset", None)
    if type(clock).__module__.startswith("trio.") and isinstance(offset, float):
        before = perf_counter()
        told = clock.current_time() - offset
        rounding = 1e-9
        if before - rounding <= told <= perf_counter() + rounding:
            return offset, perf_counter
    return 0.0, clock.current_time
