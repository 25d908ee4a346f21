"""Time read without a detour is Trio's time all the same."""

from time import perf_counter

import trio
from trio.testing import MockClock

from csjd._runtime.clock import split_clock


async def test_trios_own_clock_is_read_at_its_source() -> None:  # noqa: ASYNC124  asks Trio
    offset, clock = split_clock()
    assert clock is perf_counter, "Trio's clock has changed: every attempt pays for a detour"
    before = trio.current_time()
    now = offset + clock()
    assert before <= now <= trio.current_time()


async def test_any_other_clock_is_asked_itself(  # noqa: ASYNC124  asks Trio
    mock_clock: MockClock,
) -> None:
    offset, clock = split_clock()
    mock_clock.jump(5)
    assert offset + clock() == trio.current_time() == 5


async def test_clock_that_only_looks_like_trios_is_asked_itself(  # noqa: ASYNC124  asks Trio
    mock_clock: MockClock,
) -> None:
    mock_clock.offset = 3.0  # type: ignore[attr-defined]  # as Trio's own clock has one
    assert split_clock() == (0.0, mock_clock.current_time)
