import copy
import enum
import math
import pickle
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

import csjd
from csjd._model.job import FrozenMetadata

HUGE = 10**400
"""Beyond all floats."""


class _Vague(tzinfo):
    """A time zone that does not know its offset: as naive as none at all."""

    def utcoffset(self, at: datetime | None) -> None:
        return None

    def dst(self, at: datetime | None) -> None:
        return None

    def tzname(self, at: datetime | None) -> None:
        return None


def test_job_without_id_gets_one_that_sorts_by_age() -> None:
    ids = [csjd.Job(type="t").id for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    assert [each[14] for each in ids] == ["7"] * len(ids)
    # 60 bits of time: neighbours may share a tick, those far apart may not.
    assert ids[0] < ids[-1]


class _Name(str):
    pass


class _Level(enum.IntEnum):
    HIGH = 3


class _Real(float):
    pass


class _Moment(datetime):
    pass


@pytest.mark.parametrize(
    ("field", "value", "plain"),
    [
        *((field, _Name("x"), "x") for field in ("type", "id", "session")),
        ("priority", _Level.HIGH, 3),
        ("max_attempts", _Level.HIGH, 3),
        ("timeout", _Real(2.5), 2.5),
        ("timeout", _Level.HIGH, 3),
        *(
            (
                field,
                _Moment(2024, 10, 27, 2, 30, tzinfo=UTC, fold=1),
                datetime(2024, 10, 27, 2, 30, tzinfo=UTC, fold=1),
            )
            for field in ("run_at", "created_at")
        ),
    ],
)
def test_value_of_a_subclass_is_made_a_plain_one(field: str, value: Any, plain: Any) -> None:
    kept = getattr(csjd.Job(**({"type": "t"} | {field: value})), field)
    assert (kept, type(kept)) == (plain, type(plain))
    assert getattr(kept, "fold", 0) == getattr(plain, "fold", 0)


@pytest.mark.parametrize("field", ["run_at", "created_at"])
@pytest.mark.parametrize(
    "value",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    ],
)
def test_moment_that_utc_has_not_is_refused(field: str, value: Any) -> None:
    with pytest.raises(csjd.InvalidJobError, match=f"^{field} must be a moment that UTC has"):
        csjd.Job(**({"type": "t"} | {field: value}))


def test_job_can_be_hashed_pickled_and_copied() -> None:
    job = csjd.Job(type="t")
    for twin in (pickle.loads(pickle.dumps(job)), copy.deepcopy(job)):
        assert twin == job
        assert hash(twin) == hash(job)
        assert twin.metadata is job.metadata
    assert hash(csjd.Job(type="t", payload={"a": []}, metadata={"b": []}))
    assert (dict(job.metadata), len(job.metadata), repr(job.metadata)) == ({}, 0, "{}")
    assert job.metadata.get("a") is None


def test_frozen_metadata_is_a_mapping_that_nobody_can_change() -> None:
    given = {"a": [1], "b": 2}
    metadata: Any = FrozenMetadata(given)
    given["b"] = 3
    assert metadata == {"a": [1], "b": 2}
    assert {"a": [1], "b": 2} == metadata != {"a": [1]}
    assert dict(**metadata) == dict(metadata)
    assert (list(metadata), len(metadata), "b" in metadata) == (["a", "b"], 2, True)
    assert (metadata["b"], metadata.get("c", 7)) == (2, 7)
    assert repr(metadata) == "{'a': [1], 'b': 2}"
    with pytest.raises(TypeError, match="does not support item assignment"):
        metadata["b"] = 3
    with pytest.raises(TypeError, match="does not support item deletion"):
        del metadata["b"]
    with pytest.raises(KeyError, match="c"):
        metadata["c"]


def test_frozen_metadata_can_be_pickled_and_copied() -> None:
    metadata = FrozenMetadata({"a": [1]})
    for twin in (pickle.loads(pickle.dumps(metadata)), copy.deepcopy(metadata)):
        assert (type(twin), twin) == (FrozenMetadata, metadata)
        assert twin["a"] is not metadata["a"]


def test_job_is_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        csjd.Job(type="t").priority = 3  # type: ignore[misc]  # that is the point


def test_job_times_are_aware() -> None:
    assert csjd.Job(type="t").created_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize("field", ["type", "id", "session"])
@pytest.mark.parametrize(
    "value",
    ["", 7, b"x", "a\nb", "\x00", "\x7f", "\x9f", "x" * 513, "é" * 257, "\ud800"],
    ids=lambda value: type(value).__name__,
)
def test_unusable_name_is_refused_by_field(field: str, value: object) -> None:
    names = {"type": "t", field: value}
    with pytest.raises(csjd.InvalidJobError, match=f"^{field} ") as caught:
        csjd.Job(**names)  # type: ignore[arg-type]  # that is the point
    assert caught.value.field == field


@pytest.mark.parametrize("value", ["x" * 512, "é" * 256, " ", "a b", "日本"])
def test_odd_but_usable_name_is_kept(value: str) -> None:
    job = csjd.Job(type=value, id=value, session=value)
    assert job.type == job.id == job.session == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", 1.5),
        ("priority", True),
        ("priority", math.nan),
        ("priority", None),
        ("max_attempts", 0),
        ("max_attempts", -1),
        ("max_attempts", 2.0),
        ("max_attempts", True),
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", math.nan),
        ("timeout", -math.inf),
        ("timeout", "5"),
        ("timeout", True),
        ("timeout", HUGE),
        ("run_at", datetime(2030, 1, 1)),
        ("run_at", datetime(2030, 1, 1, tzinfo=_Vague())),
        ("run_at", 0.0),
        ("created_at", datetime(2030, 1, 1)),
        ("metadata", [("a", 1)]),
        ("metadata", None),
    ],
)
def test_unusable_setting_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(csjd.InvalidJobError) as caught:
        csjd.Job(type="t", **{field: value})  # type: ignore[arg-type]  # that is the point
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)


def test_no_timeout_is_a_timeout_of_infinity() -> None:
    assert csjd.Job(type="t", timeout=math.inf).timeout == math.inf


@given(st.text(max_size=600))
def test_job_exists_only_with_a_usable_id(text: str) -> None:
    control = any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
    usable = bool(text) and not control and len(text.encode()) <= 512
    try:
        job = csjd.Job(type="t", id=text)
    except csjd.InvalidJobError:
        assert not usable
    else:
        assert usable
        assert job.id == text


def test_job_without_metadata_survives_evolution() -> None:
    job = csjd.Job(type="t", run_at=datetime.now(UTC))
    assert attrs.evolve(job, priority=2).metadata == {}


def test_unusable_job_error_survives_pickling() -> None:
    with pytest.raises(csjd.InvalidJobError) as caught:
        csjd.Job(type="")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.field, again.reason) == ("type", "must not be empty")
