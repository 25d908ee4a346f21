import math
from collections import Counter
from collections.abc import Container

import pytest
from hypothesis import given, strategies as st

from csjd._core.ring import HashRing, load_limit


def _ring(workers: int, virtual_nodes: int = 150) -> HashRing:
    ring = HashRing(virtual_nodes)
    for worker in range(workers):
        ring.add(worker)
    return ring


def _home(ring: HashRing, key: str) -> int:
    return ring.owners[ring.place(key)]


def _first(ring: HashRing, key: str, fitting: Container[int]) -> int | None:
    return next((each for each in ring.clockwise(ring.place(key)) if each in fitting), None)


KEYS = [f"session-{number}" for number in range(10_000)]


def test_key_always_falls_to_the_same_worker() -> None:
    first, second = _ring(8), _ring(8)
    assert [_home(first, key) for key in KEYS] == [_home(second, key) for key in KEYS]


def test_keys_are_spread() -> None:
    ring = _ring(10)
    counts = Counter(_home(ring, key) for key in KEYS)
    assert set(counts) == set(range(10))
    assert max(counts.values()) < 1.5 * len(KEYS) / 10
    assert min(counts.values()) > 0.5 * len(KEYS) / 10


def test_new_worker_takes_its_share_and_moves_nothing_else() -> None:
    ring = _ring(9)
    before = {key: _home(ring, key) for key in KEYS}
    ring.add(9)
    moved = [key for key in KEYS if _home(ring, key) != before[key]]
    assert {_home(ring, key) for key in moved} == {9}
    assert 0.05 * len(KEYS) < len(moved) < 0.2 * len(KEYS)


def test_removed_worker_gives_up_its_own_and_nothing_else() -> None:
    ring = _ring(10)
    before = {key: _home(ring, key) for key in KEYS}
    ring.remove(4)
    for key in KEYS:
        now = _home(ring, key)
        assert now == before[key] if before[key] != 4 else now != 4


@given(st.text(min_size=1), st.integers(1, 12), st.sets(st.integers(0, 11)))
def test_every_worker_is_found_clockwise_from_the_home(
    key: str, workers: int, full: set[int]
) -> None:
    ring = _ring(workers, virtual_nodes=5)
    round_once = [*ring.clockwise(ring.place(key))]
    assert round_once[0] == _home(ring, key)
    assert Counter(round_once) == dict.fromkeys(range(workers), 5)
    free = set(range(workers)) - full
    found = _first(ring, key, free)
    assert found in free if free else found is None


def test_bounded_load_is_the_promised_one() -> None:
    assert math.ceil(load_limit(1.25, 0, 4)) == 1
    assert math.ceil(load_limit(1.25, 99, 10)) == 13
    assert math.ceil(load_limit(1.0, 9, 10)) == 1


@pytest.mark.parametrize("workers", range(1, 12))
def test_bounded_load_always_leaves_a_place(workers: int) -> None:
    ring, held = _ring(workers), Counter[int]()
    for number in range(300):
        limit = load_limit(1.25, number, workers)
        roomy = {worker for worker in range(workers) if held[worker] < limit}
        found = _first(ring, f"s{number}", roomy)
        assert found is not None
        held[found] += 1
        assert held[found] <= math.ceil(1.25 * (number + 1) / workers)
