import copy
import inspect
import pickle
from typing import Any

import pytest

import csjd

HUGE = 10**400
"""Beyond all floats."""

ERRORS: list[csjd.CsjdError] = [
    csjd.InvalidJobError("type", "must be a str"),
    csjd.DuplicateJobError("a", live=True),
    csjd.DuplicateJobError("a", live=False),
    csjd.QueueFullError("max_pending", 3),
    csjd.QueueFullError("max_pending_per_session", 3, "s"),
    csjd.DispatcherClosedError("stopped"),
    csjd.DispatcherClosedError("closed"),
    csjd.DispatcherNotStartedError(),
    csjd.HandlerNotFoundError("t"),
    csjd.DeadLetterNotFoundError("a"),
    csjd.WorkerNotFoundError(7, (0, 1)),
    csjd.JobFailedError("a", 3, timed_out=True),
    csjd.JobCancelledError("a"),
    csjd.WouldDeadlockError("why"),
    csjd.StuckHandlersError(("a", "b"), 1),
    csjd.DispatcherCrashedError(),
    csjd.JobStoreError("/p", "why"),
    csjd.JobStoreLockedError("/p", "why", "pid 3"),
    csjd.JobStoreClosedError("/p", "why"),
    csjd.JobStoreFullError("/p", "why"),
    csjd.RecordedError("why"),
    csjd.JobStoreCorruptError("/p", "why", "f", 12),
    csjd.CacheClosedError(),
    csjd.BatchLoaderClosedError(),
    csjd.CacheClosedError(),
    csjd.MissingBatchResultError("k"),
    csjd.PermanentError("never again"),
    csjd.Snooze(2.5),
    csjd.RetryAfter(3),
]


def _face(error: BaseException) -> tuple[Any, ...]:
    return type(error), error.args, str(error), vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_survives_pickling_and_copying_whole(error: csjd.CsjdError) -> None:
    error.add_note("seen on a Tuesday")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert _face(again) == _face(error)
        assert again.__notes__ == ["seen on a Tuesday"]


def test_error_of_ones_own_survives_pickling() -> None:
    error = OwnError("a", 3)
    again = pickle.loads(pickle.dumps(error))
    assert (again.args, again.extra) == (("a", 3), 3)


class OwnError(csjd.PermanentError):
    """What a user may derive."""

    def __init__(self, text: str, extra: int) -> None:
        super().__init__(text, extra)
        self.extra = extra


def test_every_exported_error_is_tried_here() -> None:
    exported = {
        each
        for each in vars(csjd).values()
        if inspect.isclass(each) and issubclass(each, BaseException)
    }
    assert exported - {csjd.CsjdError} == {type(error) for error in ERRORS}
    assert all(issubclass(each, csjd.CsjdError) for each in exported)


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (csjd.InvalidJobError, ValueError),
        (csjd.JobStoreLockedError, csjd.JobStoreError),
        (csjd.JobStoreClosedError, csjd.JobStoreError),
        (csjd.JobStoreCorruptError, csjd.JobStoreError),
    ],
)
def test_families_are_as_promised(error: type, family: type) -> None:
    assert issubclass(error, family)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_says_something(error: csjd.CsjdError) -> None:
    assert str(error)


def test_permanent_raises_from_what_it_is_given() -> None:
    cause = ValueError("bad")
    with pytest.raises(csjd.PermanentError, match=r"^bad$") as caught:
        csjd.permanent(cause)
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("kind", [csjd.Snooze, csjd.RetryAfter])
@pytest.mark.parametrize(
    "seconds",
    [-1, float("nan"), float("inf"), "1", None, HUGE, True],
    ids=lambda value: repr(value)[:9],
)
def test_unusable_wait_is_refused(kind: type[csjd.Snooze], seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"^seconds must be"):
        kind(seconds)
