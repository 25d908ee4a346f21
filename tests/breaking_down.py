"""User code that fails while it is cancelled, in a nursery of its own."""

from typing import NoReturn

import trio


async def break_down_when_cancelled() -> NoReturn:
    """Sleep in a nursery until cancelled; then a child raises ValueError in its clean-up."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_fail_on_the_way_out)
        await trio.sleep_forever()
    raise AssertionError("nobody wakes it")


async def _fail_on_the_way_out() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("on the way out")
