from collections import deque

import pytest
from hypothesis import given, strategies as st

from csjd._core.histogram import BOUNDS, MANY, Recorder
from csjd._core.lanes import Worker
from csjd._core.ledger import Ledger


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=100),
    st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
)
def test_percentile_is_never_too_low_and_hardly_too_high(values: list[float], share: float) -> None:
    recorder = Recorder()
    for value in values:
        recorder.fresh.append(value)
        recorder.settle()
    shown = recorder.freeze().percentile(share)
    rank = max(1, -int(-share * len(values) // 1))
    exact = sorted(values)[rank - 1]
    assert exact <= shown <= exact * 1.19


def test_empty_histogram_is_all_zeros() -> None:
    empty = Recorder().freeze()
    assert (empty.count, empty.mean, empty.p50, empty.p90, empty.p99) == (0, 0.0, 0.0, 0.0, 0.0)


def test_histogram_counts_sums_and_keeps_the_highest() -> None:
    recorder = Recorder()
    for value in (0.0, 0.25, 0.5, 3e9):
        recorder.fresh.append(value)
        recorder.settle()
    shown = recorder.freeze()
    assert shown.count == 4
    assert shown.total == 3e9 + 0.75
    assert shown.highest == 3e9
    assert shown.mean == shown.total / 4
    assert shown.percentile(1) == 3e9
    assert len(shown.counts) == len(shown.bounds) + 1


def test_frozen_histogram_does_not_move() -> None:
    recorder = Recorder()
    before = recorder.freeze()
    recorder.fresh.append(1.0)
    recorder.settle()
    assert before.count == 0


def test_bounds_ascend() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share must be"):
        Recorder().freeze().percentile(share)


def test_ledger_settles_before_much_has_gathered_and_counts_all() -> None:
    ledger = Ledger(deque())
    worker = Worker(0)
    for number in range(10_000):
        ledger.waits.fresh.append(number / 100)
        worker.runs.append(number / 50)
        ledger.settle(worker)
        assert max(len(ledger.waits.fresh), len(worker.runs), len(ledger.runs.fresh)) < MANY
    assert worker.succeeded == worker.attempts == 10_000
    assert worker.busy_seconds == pytest.approx(sum(range(10_000)) / 50)
    worker.settle(ledger.runs)
    assert ledger.waits.count() == ledger.runs.count() == 10_000
    assert worker.succeeded == worker.attempts == 10_000
