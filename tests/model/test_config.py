import math
import re

import attrs
import pytest

import csjd


@pytest.mark.parametrize(
    ("field", "default"),
    [
        ("workers", 4),
        ("lanes", 1),
        ("max_pending", None),
        ("max_pending_per_session", None),
        ("max_sessions", None),
        ("job_timeout", 10.0),
        ("duplicate_window", 2.0),
        ("detach_budget", 0),
        ("detach_grace", 1.0),
        ("stop_grace", 30.0),
        ("virtual_nodes", 150),
        ("load_factor", 1.25),
        ("session_idle", 60.0),
        ("max_crashes", 3),
        ("commit_grace", 5.0),
        ("max_payload", 1 << 20),
        ("history", 1000),
    ],
)
def test_default_is_as_promised(field: str, default: object) -> None:
    assert getattr(csjd.Config(), field) == default


def test_default_retry_is_as_promised() -> None:
    assert csjd.Config().retry == csjd.Retry()


def test_config_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        csjd.Config().workers = 3  # type: ignore[misc]  # that is the point


_WHOLE = {
    "workers": 1,
    "lanes": 1,
    "detach_budget": 0,
    "virtual_nodes": 1,
    "max_crashes": 1,
    "max_payload": 1,
    "history": 0,
    "max_pending": 1,
    "max_pending_per_session": 1,
    "max_sessions": 1,
}
_SECONDS = {
    "duplicate_window": 0,
    "detach_grace": 0,
    "stop_grace": 0,
    "session_idle": 0,
    "commit_grace": 0,
    "load_factor": 1,
}


@pytest.mark.parametrize(("field", "low"), [*_WHOLE.items(), *_SECONDS.items()])
def test_lowest_value_is_allowed_and_less_is_refused(field: str, low: int) -> None:
    assert getattr(csjd.Config(**{field: low}), field) == low  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"^{field} must be .*>= {low}.* got {low - 1}$"):
        csjd.Config(**{field: low - 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [*_WHOLE, *_SECONDS, "job_timeout"])
@pytest.mark.parametrize("value", ["1", math.nan, True, -math.inf, [1]], ids=repr)
def test_nonsense_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} .*{re.escape(repr(value))}"):
        csjd.Config(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", _WHOLE)
def test_counts_are_whole(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} "):
        csjd.Config(**{field: 2.0})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [*_SECONDS, "job_timeout"])
def test_number_beyond_all_floats_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} "):
        csjd.Config(**{field: 10**400})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["job_timeout", "stop_grace"])
def test_for_ever_is_allowed_where_it_means_something(field: str) -> None:
    assert getattr(csjd.Config(**{field: math.inf}), field) == math.inf  # type: ignore[arg-type]


def test_timeout_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^job_timeout must be a number > 0, got 0$"):
        csjd.Config(job_timeout=0)


def test_retry_must_be_callable() -> None:
    with pytest.raises(ValueError, match=r"^retry "):
        csjd.Config(retry=3)  # type: ignore[arg-type]
