"""The shelves: what goes when, and that nothing is ever searched for."""

import sys
from collections import OrderedDict
from collections.abc import Callable
from types import FrameType
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from csjd._core.shelves import Shelves


def _shelves(**settings: Any) -> Shelves[Any, Any]:
    defaults = {"ttl": 10.0, "maxsize": None, "refresh_ahead": 0, "serve_stale": 0, "jitter": 0}
    return Shelves(**(defaults | settings))


@attrs.define
class Key:
    """A key that counts how often it is looked at."""

    number: int
    looks: list[int]

    def __hash__(self) -> int:
        self.looks[0] += 1
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        self.looks[0] += 1
        return isinstance(other, Key) and self.number == other.number


def _steps(call: Callable[[], object], looks: list[int]) -> tuple[int, int]:
    """Return how many lines *call* runs, and how many looks at keys it takes."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = looks[0]
    former = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(former)
    return lines, looks[0] - before


def _costs(size: int, jitter: float) -> dict[str, tuple[int, int]]:
    """Return the steps of each operation among *size* entries."""
    looks = [0]
    keys = [Key(number, looks) for number in range(2 * size)]
    shelves = _shelves(maxsize=size, jitter=jitter)
    for number, key in enumerate(keys[:size]):
        shelves.put(key, number, now=number / size, sample=number / size)
    middle, new = keys[size // 2], keys[size]

    def put_and_evict() -> None:
        assert shelves.put(new, 0, now=1.0, sample=0.5)
        assert shelves.evict() is keys[0]

    def touch() -> None:
        assert shelves.touch is not None
        shelves.touch(middle)

    return {
        "put and evict": _steps(put_and_evict, looks),
        "put again": _steps(lambda: shelves.put(new, 1, now=1.0, sample=0.5), looks),
        "touch": _steps(touch, looks),
        "postpone": _steps(lambda: shelves.postpone(middle, 1.0, now=1.0), looks),
        "drop": _steps(lambda: shelves.drop(middle, shelves.held[middle]), looks),
        "expire nothing": _steps(lambda: shelves.expire(now=1.0), looks),
    }


@pytest.mark.parametrize("jitter", [0.0, 0.5])
def test_every_operation_takes_as_many_steps_among_many_as_among_few(jitter: float) -> None:
    few, many = _costs(100, jitter), _costs(10_000, jitter)
    assert many == few
    assert all(lines > 0 for lines, _ in few.values())


def test_expiring_takes_steps_for_what_expires_alone() -> None:
    looks = [0]

    def cost(size: int, expired: int) -> tuple[int, int]:
        shelves = _shelves()
        for number in range(size):
            shelves.put(Key(number, looks), 0, now=0.0 if number < expired else 5.0, sample=0.0)

        def expire() -> None:
            assert shelves.expire(now=10.0) == expired

        return _steps(expire, looks)

    assert cost(100, 10) == cost(10_000, 10)
    assert cost(10_000, 1000)[0] > 50 * cost(10_000, 10)[0]


def test_a_new_entry_takes_two_expired_ones_along() -> None:
    shelves = _shelves()
    for number in range(5):
        shelves.put(number, number, now=0.0, sample=0.0)
    shelves.put("new", 0, now=10.0, sample=0.0)
    assert list(shelves.held) == [2, 3, 4, "new"]
    assert shelves.expirations == 2


def test_a_lifetime_too_short_for_the_clock_is_over_at_once() -> None:
    shelves = _shelves(ttl=1e-9, maxsize=1)
    for key in "ab":
        assert not shelves.put(key, 0, now=1e9, sample=0.0)
        assert not shelves.held


@settings(max_examples=200, deadline=None)
@given(
    operations=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 5), st.floats(0, 1, exclude_max=True)),
            st.tuples(st.just("touch"), st.integers(0, 5), st.none()),
            st.tuples(st.just("drop"), st.integers(0, 5), st.none()),
            st.tuples(st.just("wait"), st.integers(1, 6), st.none()),
            st.tuples(st.just("expire"), st.just(0), st.none()),
        ),
        max_size=50,
    ),
    maxsize=st.integers(1, 4),
    jitter=st.sampled_from([0.0, 0.9]),
)
def test_the_least_recently_used_goes_and_nothing_outlives_its_lifetime(
    operations: list[tuple[str, int, Any]], maxsize: int, jitter: float
) -> None:
    shelves = _shelves(maxsize=maxsize, jitter=jitter, serve_stale=2)
    model: OrderedDict[int, float] = OrderedDict()  # the key's expiry, by last use
    now = 0.0
    for kind, number, sample in operations:
        match kind:
            case "put":
                too_many = shelves.put(number, number, now, sample)
                model.pop(number, None)
                expires = shelves.held[number].expires
                assert now + 10 * (1 - jitter) <= expires <= now + 10
                # What the put took along was over, and all that is left is as it was.
                gone = model.keys() - shelves.held.keys()
                assert all(model.pop(key) + 2 <= now for key in gone)
                model[number] = expires
                assert too_many == (len(model) > maxsize)
                if too_many:
                    evicted, _ = model.popitem(last=False)
                    assert shelves.evict() == evicted
            case "touch" if number in model:
                assert shelves.touch is not None
                shelves.touch(number)
                model.move_to_end(number)
            case "drop" if number in model:
                shelves.drop(number, shelves.held[number])
                del model[number]
            case "wait":
                now += number
            case "expire":
                over = [key for key, expires in model.items() if expires + 2 <= now]
                assert shelves.expire(now) == len(over)
                for key in over:
                    del model[key]
        assert list(shelves.held) == list(model)
        assert sorted(key for shelf in shelves._shelves for key in shelf) == sorted(model)
