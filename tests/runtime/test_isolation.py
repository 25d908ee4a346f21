"""Jobs are kept apart: what they carry, what they set, and what they leave open."""

import dataclasses
import enum
from collections import namedtuple
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import attrs
import msgspec
import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

import csjd
from csjd import Job
from csjd._runtime.isolation import cancel_status, disown_nurseries, is_immutable
from tests.runtime.scene import NO_WAIT, ONCE, opened, submit, work


@attrs.frozen
class FrozenAttrs:
    value: Any = 1


@attrs.define
class LooseAttrs:
    value: Any = 1


@dataclasses.dataclass(frozen=True)
class FrozenData:
    value: Any = 1


class LooseChild(FrozenData):
    pass


class FrozenStruct(msgspec.Struct, frozen=True):
    value: Any = 1


class FrozenStructWithDict(msgspec.Struct, frozen=True, dict=True):
    value: Any = 1


class Named(NamedTuple):
    value: Any = 1


Point = namedtuple("Point", "x y")  # noqa: PYI024  made the old way on purpose


class NamedChild(Named):
    pass


class Text(str):
    pass


class Colour(enum.Enum):
    RED = 1


IMMUTABLE: list[Any] = [
    None,
    5,
    "text",
    b"bytes",
    (1, ("a", frozenset({2}))),
    Colour.RED,
    FrozenAttrs((1, 2)),
    FrozenData("a"),
    FrozenStruct(b"b"),
    Named(3),
    Point(1, 2),
    int,
]

MUTABLE: list[Any] = [
    [1],
    {"a": 1},
    {1},
    bytearray(b"x"),
    (1, [2]),
    FrozenAttrs([1]),
    LooseAttrs(),
    FrozenData([1]),
    LooseChild(),
    FrozenStruct([1]),
    FrozenStructWithDict(),
    Named([1]),
    NamedChild(),
    Text("x"),
]


@pytest.mark.parametrize("value", IMMUTABLE, ids=lambda value: type(value).__name__)
async def test_immutable_payload_is_passed_as_it_is(value: Any) -> None:
    assert is_immutable(value)
    async with opened() as dispatcher:
        dispatcher.register("same", lambda job: job.payload is value)
        assert await (await submit(dispatcher, "same", value)).result()


@pytest.mark.parametrize("value", MUTABLE, ids=lambda value: type(value).__name__)
def test_whatever_can_be_changed_counts_as_mutable(value: Any) -> None:
    assert not is_immutable(value)


def test_bottomless_value_counts_as_mutable() -> None:
    deep: Any = ()
    for _ in range(100_000):
        deep = (deep,)
    assert not is_immutable(deep)


async def test_mutable_payload_and_metadata_are_each_attempts_own() -> None:
    seen: list[Any] = []
    async with opened() as dispatcher:

        @dispatcher.handler("spoil", retry=NO_WAIT)
        async def spoil(job: Job) -> None:  # noqa: ASYNC124
            seen.append((list(job.payload), list(job.metadata["note"])))
            job.payload.append("spoilt by an attempt")
            job.metadata["note"].append("spoilt")
            raise ValueError

        payload, metadata = ["mine"], {"note": ["mine"]}
        receipt = await submit(dispatcher, "spoil", payload, metadata=metadata)
        payload.append("spoilt by the caller")
        metadata["note"].append("spoilt by the caller")
        await receipt.outcome()
        assert seen == [(["mine"], ["mine"])] * 3
        assert receipt.job.payload == ["mine"]
        [letter] = await dispatcher.dead_letters()
        assert letter.job.payload == ["mine"]
        assert payload == ["mine", "spoilt by the caller"]


async def test_payload_is_copied_when_it_is_handed_in_not_when_there_is_room(
    autojump_clock: MockClock,
) -> None:
    async with opened(work().registry, max_pending=1) as dispatcher:
        await submit(dispatcher, "sleep", 5)
        payload = ["mine"]

        async def change_it_meanwhile() -> None:
            await trio.sleep(1)
            payload.append("spoilt")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(change_it_meanwhile)
            receipt = await submit(dispatcher, "nothing", payload, wait=True)
        assert await receipt.result() == ["mine"]


VAR: ContextVar[Any] = ContextVar("VAR", default="untouched")


class Unequal:
    def __eq__(self, other: object) -> bool:
        raise TypeError("do not compare me")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("value", ["changed", Unequal()], ids=["plain", "raising"])
@pytest.mark.parametrize("fails", [False, True])
async def test_context_variable_reaches_no_other_job(value: Any, fails: bool) -> None:
    async with opened(workers=1) as dispatcher:

        @dispatcher.handler("set", retry=ONCE)
        async def set_it(job: Job) -> None:  # noqa: ASYNC124
            assert VAR.get() == "untouched"
            VAR.set(value)
            if fails:
                raise ValueError

        @dispatcher.handler("get")
        async def get_it(job: Job) -> Any:  # noqa: ASYNC124
            return VAR.get()

        for _ in range(3):
            await (await submit(dispatcher, "set")).outcome()
            assert await (await submit(dispatcher, "get")).result() == "untouched"


async def test_handlers_see_the_context_the_dispatcher_was_opened_in() -> None:
    token = VAR.set("of the opener")
    try:
        async with opened() as dispatcher:
            VAR.set("of the submitter")
            dispatcher.register("get", lambda job: VAR.get())
            assert await (await submit(dispatcher, "get")).result() == "of the opener"
    finally:
        VAR.reset(token)


@pytest.mark.parametrize("leak", ["scope", "nursery", "nursery with a child"])
async def test_what_a_handler_leaves_open_fails_its_attempt_and_nothing_else(
    leak: str, autojump_clock: MockClock
) -> None:
    cancelled: list[str] = []
    async with opened(work().registry, workers=1) as dispatcher:

        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append("child")

        @dispatcher.handler("leak", retry=ONCE)
        async def leaky(job: Job) -> None:
            if leak == "scope":
                trio.CancelScope().__enter__()
                return
            nursery = await trio.open_nursery().__aenter__()
            if leak == "nursery with a child":
                nursery.start_soon(child)
                await trio.lowlevel.checkpoint()

        outcome = await (await submit(dispatcher, "leak")).outcome()
        assert isinstance(outcome, csjd.Failed)
        assert "still open" in str(outcome.error)
        assert cancelled == ["child"] * (leak == "nursery with a child")
        for _ in range(3):
            assert await (await submit(dispatcher, "sleep", 1)).result()


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_a_handler_that_drops_a_generator_with_a_nursery_fails_its_attempt_alone(
    autojump_clock: MockClock,
) -> None:
    async def generate() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield  # noqa: ASYNC101, ASYNC119  the mistake under test

    async with opened(work().registry, workers=1) as dispatcher:

        @dispatcher.handler("leak", retry=ONCE)
        async def leaky(job: Job) -> None:
            async for _ in generate():
                return

        for _ in range(2):
            outcome = await (await submit(dispatcher, "leak")).outcome()
            assert isinstance(outcome, csjd.Failed)
            assert "still open" in str(outcome.error)
            assert await (await submit(dispatcher, "sleep", 1)).result()


async def test_cancelled_scope_that_leaked_cancels_no_other_job(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1) as dispatcher:

        @dispatcher.handler("leak", retry=ONCE)
        async def leaky(job: Job) -> None:  # noqa: ASYNC124
            trio.CancelScope(deadline=trio.current_time() + 1).__enter__()

        await submit(dispatcher, "leak")
        assert await (await submit(dispatcher, "sleep", 5)).result()


async def test_trio_still_tells_in_which_scope_a_task_is() -> None:
    """Should this fail, Trio has changed: `cancel_status` needs a new way."""
    task = trio.lowlevel.current_task()
    outside = cancel_status(task)
    with trio.CancelScope():  # noqa: ASYNC100  the scope itself is the point
        inside = cancel_status(task)
        assert inside is not outside
        assert cancel_status(task) is inside
    assert cancel_status(task) is outside
    async with trio.open_nursery():
        assert cancel_status(task) is not outside


async def test_trio_still_lets_a_nursery_be_taken_from_its_task() -> None:
    """Should this fail, Trio has changed: `disown_nurseries` needs a new way."""

    async def leave_one_open() -> None:
        await trio.open_nursery().__aenter__()
        task = trio.lowlevel.current_task()
        [nursery] = task.child_nurseries
        assert disown_nurseries(task) == [nursery]
        assert not task.child_nurseries
        with pytest.raises(RuntimeError, match="closed"):
            nursery.start_soon(trio.sleep, 0)

    async with trio.open_nursery() as nursery:  # noqa: ASYNC112  it would else be told of it
        nursery.start_soon(leave_one_open)
