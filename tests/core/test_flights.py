"""Who waits for what."""

from collections.abc import Collection
from contextvars import copy_context
from itertools import pairwise

from hypothesis import given, strategies as st

from csjd._core.flights import Flight, aboard, depends


class Queued(Flight):
    """Needs one of several to land."""

    def __init__(self, *one_of: Flight) -> None:
        super().__init__()
        self.one_of = one_of

    def needs_one_of(self) -> Collection[Flight]:
        return self.one_of


def _chain(length: int) -> list[Flight]:
    flights = [Flight() for _ in range(length)]
    for first, second in pairwise(flights):
        first.begin_wait(second)
    return flights


def test_a_flight_depends_on_itself_and_on_what_it_waits_for() -> None:
    first, second, third = _chain(3)
    assert depends(first, on=first)
    assert depends(first, on=third)
    assert not depends(third, on=first)
    assert not depends(Flight(), on=second)


def test_a_wait_that_is_over_binds_no_more() -> None:
    first, second = Flight(), Flight()
    first.begin_wait(second)
    first.begin_wait(second)
    first.end_wait(second)
    assert depends(first, on=second)
    first.end_wait(second)
    assert not depends(first, on=second)


def test_what_has_landed_depends_on_nothing() -> None:
    first, second, third = _chain(3)
    second.landed = True
    assert not depends(first, on=third)


def test_one_of_several_suffices() -> None:
    target, other = Flight(), Flight()
    assert depends(Queued(target), on=target)
    assert not depends(Queued(target, other), on=target)
    other.begin_wait(target)
    assert depends(Queued(target, other), on=target)


def test_waiters_in_the_queue_for_their_own_slot_get_on_with_the_other_one() -> None:
    target, holder, other = Flight(), Flight(), Flight()
    queued = Queued(holder, other)
    holder.begin_wait(queued)
    assert not depends(queued, on=target)
    other.begin_wait(target)
    assert depends(queued, on=target)


def test_a_chain_may_be_long() -> None:
    flights = _chain(5000)
    assert depends(flights[0], on=flights[-1])
    assert not depends(flights[0], on=Flight())


def test_aboard_is_inherited_and_ends_with_the_flight() -> None:
    flight = Flight()

    def inside() -> None:
        flight.board()
        assert aboard() is flight
        assert copy_context().run(aboard) is flight
        flight.landed = True
        assert aboard() is None

    copy_context().run(inside)
    assert aboard() is None


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20))
def test_refusing_every_wait_that_closes_a_circle_keeps_the_graph_free_of_them(
    waits: list[tuple[int, int]],
) -> None:
    flights = [Flight() for _ in range(7)]
    needs: dict[int, set[int]] = {number: set() for number in range(7)}

    def reaches(start: int, goal: int) -> bool:
        return start == goal or any(reaches(needed, goal) for needed in needs[start])

    for asker, wanted in waits:
        refused = depends(flights[wanted], on=flights[asker])
        assert refused == reaches(wanted, asker)
        if not refused:
            flights[asker].begin_wait(flights[wanted])
            needs[asker].add(wanted)
