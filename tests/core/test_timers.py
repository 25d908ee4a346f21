from hypothesis import given, strategies as st

from csjd._core.timers import DueTimes
from tests.core.naive import entry


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=80))
def test_jobs_fall_due_in_order_and_cancelled_ones_never(plan: list[tuple[int, bool]]) -> None:
    times = DueTimes()
    entries = [entry(order) for order in range(len(plan))]
    for each, (due, _) in zip(entries, plan, strict=True):
        times.add(each, float(due))
    for each, (_, cancelled) in zip(entries, plan, strict=True):
        if cancelled:
            times.discard(each)
    left = sorted(
        (float(due), order) for order, (due, cancelled) in enumerate(plan) if not cancelled
    )
    assert times.size == len(left)
    assert {each.order for each in times.entries()} == {order for _, order in left}
    for moment, order in left:
        assert times.next_due() == moment
        assert times.pop_due(moment - 0.5) is None
        found = times.pop_due(moment)
        assert found is entries[order]
        assert found.holder is None
    assert times.next_due() is None
    assert times.size == 0


def test_job_added_again_falls_due_once() -> None:
    times = DueTimes()
    each = entry(1)
    times.add(each, 5.0)
    times.discard(each)
    times.add(each, 3.0)
    assert times.pop_due(10) is each
    assert times.pop_due(10) is None


def test_memory_follows_the_living() -> None:
    times = DueTimes()
    for order in range(10_000):
        each = entry(order)
        times.add(each, float(order))
        times.discard(each)
    assert len(times._heap) < 200
