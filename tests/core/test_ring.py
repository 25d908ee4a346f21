import math
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from csjd._core.ring import HashRing, load_limit


def _ring(workers: int, virtual_nodes: int = 150) -> HashRing:
    ring = HashRing(virtual_nodes)
    for worker in range(workers):
        ring.add(worker)
    return ring


def _anyone(worker: int) -> bool:
    return True


KEYS = [f"session-{number}" for number in range(10_000)]


def test_key_always_falls_to_the_same_worker() -> None:
    first, second = _ring(8), _ring(8)
    assert [first.find(key, _anyone) for key in KEYS] == [second.find(key, _anyone) for key in KEYS]


def test_keys_are_spread() -> None:
    ring = _ring(10)
    counts = Counter(ring.find(key, _anyone) for key in KEYS)
    assert set(counts) == set(range(10))
    assert max(counts.values()) < 1.5 * len(KEYS) / 10
    assert min(counts.values()) > 0.5 * len(KEYS) / 10


def test_new_worker_takes_its_share_and_moves_nothing_else() -> None:
    ring = _ring(9)
    before = {key: ring.find(key, _anyone) for key in KEYS}
    ring.add(9)
    moved = [key for key in KEYS if ring.find(key, _anyone) != before[key]]
    assert {ring.find(key, _anyone) for key in moved} == {9}
    assert 0.05 * len(KEYS) < len(moved) < 0.2 * len(KEYS)


def test_removed_worker_gives_up_its_own_and_nothing_else() -> None:
    ring = _ring(10)
    before = {key: ring.find(key, _anyone) for key in KEYS}
    ring.remove(4)
    for key in KEYS:
        now = ring.find(key, _anyone)
        assert now == before[key] if before[key] != 4 else now != 4


def test_ring_without_a_fitting_worker_finds_none() -> None:
    assert _ring(3).find("key", lambda worker: False) is None
    assert HashRing(10).find("key", _anyone) is None


@given(st.text(min_size=1), st.integers(1, 12), st.sets(st.integers(0, 11)))
def test_every_fitting_worker_can_be_found(key: str, workers: int, full: set[int]) -> None:
    ring = _ring(workers, virtual_nodes=5)
    found = ring.find(key, lambda worker: worker not in full)
    free = set(range(workers)) - full
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
        found = ring.find(f"s{number}", roomy.__contains__)
        assert found is not None
        held[found] += 1
        assert held[found] <= math.ceil(1.25 * (number + 1) / workers)
