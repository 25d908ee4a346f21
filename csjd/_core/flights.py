"""
Who waits for what, so that a wait that could never end is refused instead of begun.

A *flight* is work that many callers wait for together: a cache's load, a loader's batch.
Code that runs on behalf of a flight (its task, its children, their threads: whatever has
inherited the context variable below) is *aboard* it. When code aboard one flight waits
for another, the first `needs` the second. A flight that is not under way yet may also
need any one of several to land first, as a batch does that waits for a free slot.

Nobody but a caller about to wait can close a circle, so that is where it is looked for:
from the flight wanted, along what is needed at that moment. No circle, no cost: callers
aboard no flight are never checked.
"""

from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Optional

_aboard: ContextVar[Optional["Flight"]] = ContextVar("csjd_flight", default=None)


class Flight:
    """Work that many callers wait for together."""

    __slots__ = ("landed", "needs")

    def __init__(self) -> None:
        self.landed: bool = False
        """Whether its outcome is there, so that nobody waits for it any more."""
        self.needs: dict[Flight, int] = {}
        """Flights that code aboard waits for, with the number of waits; all have to land."""

    def needs_one_of(self) -> Collection["Flight"]:
        """Flights of which one has to land before this one can; empty: it needs none."""
        return ()

    def board(self) -> None:
        """Count the running task, and all that inherits its context, as aboard."""
        _aboard.set(self)

    def begin_wait(self, wanted: "Flight") -> None:
        """Note that code aboard waits for *wanted*."""
        self.needs[wanted] = self.needs.get(wanted, 0) + 1

    def end_wait(self, wanted: "Flight") -> None:
        """Note that a wait begun with `begin_wait` is over."""
        waits = self.needs[wanted] - 1
        if waits:
            self.needs[wanted] = waits
        else:
            del self.needs[wanted]


boarded: Callable[[], Flight | None] = _aboard.get
"""Returns the flight that the running code has boarded, in the air or not."""


def aboard() -> Flight | None:
    """Return the flight that the running code is aboard, None if there is none in the air."""
    flight = _aboard.get()
    # Code may outlive its flight; then nobody waits for it, and it may wait for anybody.
    return None if flight is None or flight.landed else flight


def depends(wanted: Flight, on: Flight) -> bool:
    """
    Whether *wanted* cannot land before *on* has: as things are, or because they are one.

    Linear in the flights that *wanted* needs, however long the chain.
    """
    # Breadth first, so that, read backwards, what is needed mostly comes before who needs it.
    reach: dict[Flight, None] = {wanted: None}
    frontier = [wanted]
    for flight in frontier:
        for needed in (*flight.needs, *flight.needs_one_of()):
            if needed not in reach:
                reach[needed] = None
                frontier.append(needed)
    if on not in reach:
        return False
    # Let land what can land without *on*, until nothing more does.
    flying = [flight for flight in reversed(frontier) if flight is not on]
    landed: set[Flight] = set()
    while True:
        still = [flight for flight in flying if not _lands(flight, landed)]
        if len(still) == len(flying):
            return wanted is on or wanted in still
        flying = still


def _lands(flight: Flight, landed: set[Flight]) -> bool:
    """Whether *flight* lands once all of *landed* have; if so, it joins them."""
    one_of = flight.needs_one_of()
    if flight.landed or (
        landed.issuperset(flight.needs) and (not one_of or not landed.isdisjoint(one_of))
    ):
        landed.add(flight)
        return True
    return False
