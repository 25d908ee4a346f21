from hypothesis import given, strategies as st

from csjd._core.duplicates import KnownIds
from csjd._core.entry import Entry
from tests.core.naive import entry


def _add(ids: KnownIds, each: Entry, now: float) -> None:
    """Do as `Backlog` does."""
    ids.forget(now, 2)
    ids.known[each.job.id] = each


def test_window_is_open_up_to_its_very_end() -> None:
    ids = KnownIds(2.0)
    each = entry(1)
    _add(ids, each, 0.0)
    assert ids.refuses("1", 100.0)
    ids.end(each.job.id, 100.0)
    assert ids.refuses("1", 101.999)
    assert not ids.refuses("1", 102.0)
    assert ids.find("1") is None


def test_without_a_window_an_ended_id_is_free_at_once() -> None:
    ids = KnownIds(0)
    each = entry(1)
    _add(ids, each, 0.0)
    ids.end(each.job.id, 0.0)
    assert not ids.refuses("1", 0.0)
    assert ids.remembered() == 0


@given(
    st.lists(st.tuples(st.sampled_from(["add", "end", "wait"]), st.integers(0, 5)), max_size=120),
    st.integers(0, 3),
)
def test_ids_are_refused_exactly_while_they_must_be(
    plan: list[tuple[str, int]], window: int
) -> None:
    ids = KnownIds(window)
    now = 0.0
    live: dict[str, Entry] = {}
    until: dict[str, float] = {}
    for what, number in plan:
        name = str(number)
        if what == "wait":
            now += number / 2
        elif what == "add" and name not in live and until.get(name, now) <= now:
            live[name] = entry(number)
            until.pop(name, None)
            _add(ids, live[name], now)
        elif what == "end" and name in live:
            ids.end(live.pop(name).job.id, now)
            until[name] = now + window
        for each in map(str, range(6)):
            assert ids.refuses(each, now) is (each in live or until.get(each, now) > now)
            assert ids.find(each) is live.get(each)
    assert sorted(map(id, ids.live())) == sorted(map(id, live.values()))


def test_memory_follows_the_window() -> None:
    ids = KnownIds(2.0)
    most = 0
    for order in range(10_000):
        now = order / 100
        each = entry(order)
        _add(ids, each, now)
        ids.end(each.job.id, now)
        most = max(most, ids.remembered())
    assert most < 250


def test_many_ended_ids_are_forgotten_a_few_at_a_time() -> None:
    ids = KnownIds(2.0)
    entries = [entry(order) for order in range(1000)]
    for each in entries:
        _add(ids, each, 0.0)
    for each in entries:
        ids.end(each.job.id, 0.0)
    before = ids.remembered()
    _add(ids, entry(5000), 10.0)
    assert before - 2 <= ids.remembered() <= before  # never a sweep
    for order in range(5001, 6100):
        _add(ids, entry(order), 10.0)
    assert ids.remembered() <= 1100
