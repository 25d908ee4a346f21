"""What goes into a payload comes out, or is refused."""

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given, strategies as st

from csjd._model.errors import InvalidJobError
from csjd._model.job import Job
from csjd._store.jobs import check_storable, to_accepted, to_job
from csjd._store.payloads import (
    MAX_DEPTH,
    decode_payload,
    decode_typed,
    encode_payload,
    encode_typed,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-3))))
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple))
KEYS = st.none() | st.booleans() | st.integers(-9, 9) | st.text() | st.binary()
PAYLOADS = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
        | st.binary().map(bytearray)
    ),
    max_leaves=12,
)


def exactly(value: Any) -> Any:
    """Return something that differs where values are equal and their types are not."""
    kind = type(value)
    if kind in (list, tuple):
        return (kind, [exactly(item) for item in value])
    if kind in (set, frozenset):
        return (kind, sorted(repr(exactly(item)) for item in value))
    if kind is dict:
        return (kind, [(exactly(key), exactly(item)) for key, item in value.items()])
    return (kind, repr(value.utcoffset()) if kind is datetime else None, value)


@given(PAYLOADS)
def test_payload_comes_back_with_its_types(payload: object) -> None:
    assert exactly(decode_payload(encode_payload(payload))) == exactly(payload)


def test_numbers_at_the_edge_come_back() -> None:
    for number in (2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400, math.inf, -0.0):
        assert exactly(decode_payload(encode_payload([number, {"a": number}]))) == exactly(
            [number, {"a": number}]
        )
    assert math.isnan(decode_payload(encode_payload(math.nan)))


class Text(str):
    __slots__ = ()


def nested(depth: int) -> object:
    payload: object = 1
    for _ in range(depth):
        payload = [payload]
    return payload


@pytest.mark.parametrize(
    "payload",
    [
        object(),
        Text("a"),
        [Text("a")],
        {"a": {"b": 1j}},
        "\ud800",
        {"\ud800": 1},
        {(1,): 1},
        {2**64: 1},
        nested(MAX_DEPTH + 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_payload_that_would_not_come_back_is_refused(payload: object) -> None:
    with pytest.raises(InvalidJobError) as caught:
        encode_payload(payload)
    assert caught.value.field == "payload"


def test_payload_as_deep_as_allowed_comes_back() -> None:
    assert decode_payload(encode_payload(nested(MAX_DEPTH))) == nested(MAX_DEPTH)


def test_payload_that_holds_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(InvalidJobError, match="deep"):
        encode_payload(loop)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_payload_raise_only_value_errors(data: bytes) -> None:
    try:
        decode_payload(data)
    except ValueError:
        return


@attrs.frozen
class Mail:
    to: str
    at: datetime
    copies: tuple[int, ...] = ()


def test_typed_payload_is_rebuilt_and_checked() -> None:
    mail = Mail("a@b", datetime(2024, 1, 1, tzinfo=UTC), (1, 2))
    data = encode_typed(mail)
    assert decode_typed(data, Mail) == mail
    with pytest.raises(ValueError, match="not a payload of"):
        decode_typed(encode_typed({"to": 1}), Mail)
    with pytest.raises(InvalidJobError, match="cannot be stored"):
        encode_typed(object())


@attrs.frozen
class Particular:
    limit: int

    def __attrs_post_init__(self) -> None:
        if self.limit < 10:
            raise LookupError("no such limit")


def test_whatever_a_class_raises_is_a_payload_that_does_not_fit() -> None:
    assert decode_typed(encode_typed({"limit": 10}), Particular) == Particular(10)
    with pytest.raises(ValueError, match="no such limit"):
        decode_typed(encode_typed({"limit": 9}), Particular)


def test_job_comes_back() -> None:
    job = Job(
        type="email",
        id="é 1",
        payload=(1, Decimal("1.50"), UUID(int=7), date(2024, 2, 29), time(1)),
        session="s",
        priority=-5,
        max_attempts=3,
        timeout=math.inf,
        run_at=datetime(2030, 1, 1, tzinfo=UTC),
        metadata={"trace": b"\x00"},
    )
    check_storable(job)
    accepted = to_accepted(job, 9, payload=encode_payload(job.payload), due=1.5, delay=2.5)
    assert (accepted.order, accepted.due, accepted.delay) == (9, 1.5, 2.5)
    assert to_job(accepted, decode_payload(accepted.payload)) == job


def test_job_that_a_store_cannot_write_is_refused() -> None:
    with pytest.raises(InvalidJobError, match="priority must fit in 64 bits"):
        check_storable(Job(type="email", priority=2**70))
    job = Job(type="email", metadata={"a": object()})
    with pytest.raises(InvalidJobError, match="metadata holds a object"):
        to_accepted(job, 1, payload=b"", due=None, delay=None)
