"""A crew: tasks used again, and what must not be left over from one use to the next."""

import gc
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from csjd._model.groups import leaves
from csjd._runtime import crew as crew_module
from csjd._runtime.crew import Crew, Hand

name: ContextVar[str] = ContextVar("name", default="nobody")


@attrs.define(eq=False)
class Piece:
    """A piece of work that notes how it ended."""

    act: Callable[[], Awaitable[Any]]
    passes_on: bool = False
    ends: list[Any] = attrs.field(factory=list)
    hand: Hand = attrs.field(init=False)
    task: Any = None

    async def perform(self) -> Any:
        self.task = trio.lowlevel.current_task()
        return await self.act()

    def succeed(self, value: Any) -> None:
        self.ends.append(value)

    def absorb(self, error: BaseException) -> bool:
        self.ends.append(error)
        return not self.passes_on

    def cut_off(self, cause: BaseException | None) -> None:
        self.ends.append(("cut off", cause))

    def cancelled(self) -> None:
        self.ends.append("cancelled")


async def _act() -> str:
    await trio.lowlevel.checkpoint()
    return name.get()


async def _run(crew: Crew, *pieces: Piece) -> None:
    for piece in pieces:
        crew.start(piece)
    await wait_all_tasks_blocked()


async def test_a_task_is_used_again_in_the_context_of_who_starts_it(nursery: trio.Nursery) -> None:
    crew = Crew(nursery, "crew", "code")

    async def sign() -> str:
        before = await _act()
        name.set("somebody")
        return before

    pieces = [Piece(sign) for _ in range(3)]
    for piece, starter in zip(pieces, ("one", "two", "three"), strict=True):
        name.set(starter)
        await _run(crew, piece)
    assert [piece.ends for piece in pieces] == [["one"], ["two"], ["three"]]
    assert len({piece.task for piece in pieces}) == 1
    assert name.get() == "three"
    nursery.cancel_scope.cancel()


async def test_pieces_run_side_by_side_and_few_tasks_are_kept(nursery: trio.Nursery) -> None:
    crew = Crew(nursery, "crew", "code")
    others = len(nursery.child_tasks)
    pieces = [Piece(_act) for _ in range(100)]
    await _run(crew, *pieces)
    assert all(piece.ends == [name.get()] for piece in pieces)
    assert len({piece.task for piece in pieces}) == 100
    assert len(nursery.child_tasks) - others == crew_module._SPARE
    nursery.cancel_scope.cancel()


async def test_an_idle_task_keeps_nothing_alive(nursery: trio.Nursery) -> None:
    class Thing:
        pass

    held: ContextVar[Thing] = ContextVar("held")
    crew = Crew(nursery, "crew", "code")

    async def make() -> Thing:
        held.set(Thing())
        await trio.lowlevel.checkpoint()
        return Thing()

    piece = Piece(make)
    await _run(crew, piece)
    watched = [weakref.ref(piece), weakref.ref(piece.ends[0])]
    watched.append(weakref.ref(piece.hand.task.context.get(held, piece.ends[0])))
    del piece
    gc.collect()
    assert [ref() for ref in watched] == [None] * 3
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1)])
async def test_a_task_whose_work_raised_ends(error: BaseException, nursery: trio.Nursery) -> None:
    crew = Crew(nursery, "crew", "code")

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    failing, next_one = Piece(fail), Piece(_act)
    await _run(crew, failing)
    await _run(crew, next_one)
    assert failing.ends == [error]
    assert next_one.ends == [name.get()]
    assert failing.task is not next_one.task
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_what_is_not_absorbed_reaches_the_nursery(kind: type[BaseException]) -> None:
    error = kind()

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    piece = Piece(fail, passes_on=True)
    with pytest.RaisesGroup(kind):
        async with trio.open_nursery() as nursery:
            Crew(nursery, "crew", "code").start(piece)
    assert piece.ends == [error if kind is SystemExit else ("cut off", error)]


async def test_what_goes_on_cancels_the_nursery_it_ends_up_in_before_work_hears_of_it() -> None:
    cancelled: list[bool] = []

    class Noting(Piece):
        def cut_off(self, cause: BaseException | None) -> None:
            cancelled.append(above.cancel_scope.cancel_called)
            super().cut_off(cause)

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    with pytest.RaisesGroup(pytest.RaisesGroup(KeyboardInterrupt)):
        async with trio.open_nursery() as above, trio.open_nursery() as nursery:
            Crew(nursery, "crew", "code", above=above).start(Noting(fail))
    assert cancelled == [True]


@pytest.mark.parametrize("passes_on", [False, True])
async def test_an_error_among_cancelled_tasks_is_the_works_own(passes_on: bool) -> None:
    async def break_down() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise SystemExit(3)

    async def work() -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(break_down)
            await trio.sleep_forever()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await _run(Crew(nursery, "crew", "code"), piece)
            nursery.cancel_scope.cancel()

    piece = Piece(work, passes_on=passes_on)
    if passes_on:
        with pytest.RaisesGroup(pytest.RaisesGroup(SystemExit)):
            await run()
    else:
        await run()
    (error,) = piece.ends
    assert [type(leaf) for leaf in leaves(error)] == [SystemExit]


@pytest.mark.parametrize("moment", ["before it begins", "before a used task begins", "in it"])
async def test_cancelled_work_hears_that_it_has_ended(moment: str, nursery: trio.Nursery) -> None:
    crew = Crew(nursery, "crew", "code")
    if moment == "before a used task begins":
        await _run(crew, Piece(_act))
    piece = Piece(trio.sleep_forever)
    crew.start(piece)
    if moment == "in it":
        await wait_all_tasks_blocked()
    piece.hand.cancel("enough")
    await wait_all_tasks_blocked()
    assert piece.ends == ["cancelled"]
    assert (piece.task is not None) == (moment == "in it")
    after = Piece(_act)
    await _run(crew, after)
    assert after.ends == [name.get()]
    nursery.cancel_scope.cancel()


async def test_work_that_returns_although_cancelled_has_succeeded(nursery: trio.Nursery) -> None:
    crew = Crew(nursery, "crew", "code")

    async def insist() -> str:
        with trio.CancelScope(shield=True):
            await leave.wait()
        return "done"

    for _ in range(10):  # in whichever order they run
        leave = trio.Event()
        piece = Piece(insist)
        await _run(crew, piece)
        piece.hand.cancel("enough")
        leave.set()
        after = [Piece(_act) for _ in range(4)]
        for each in after:  # by tasks that nobody has cancelled, whenever it is started
            crew.start(each)
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert piece.ends == ["done"]
        assert [each.ends for each in after] == [[name.get()]] * 4
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("opened", ["scope", "nursery"])
async def test_what_is_left_open_is_an_error_and_spoils_no_other_work(
    opened: str, nursery: trio.Nursery
) -> None:
    crew = Crew(nursery, "crew", "code")

    async def leak() -> str:
        if opened == "scope":
            trio.CancelScope().__enter__()
        else:
            await trio.open_nursery().__aenter__()
        await trio.lowlevel.checkpoint()
        return "done"

    leaking, after = Piece(leak), Piece(_act)
    await _run(crew, leaking)
    await _run(crew, after)
    (error,) = leaking.ends
    assert isinstance(error, RuntimeError)
    assert "the code returned while" in str(error)
    assert after.ends == [name.get()]
    assert after.task is not leaking.task
    nursery.cancel_scope.cancel()


async def test_an_error_that_leaves_something_open_is_its_cause(nursery: trio.Nursery) -> None:
    async def leak() -> None:
        await trio.open_nursery().__aenter__()
        raise LookupError

    leaking = Piece(leak)
    await _run(Crew(nursery, "crew", "code"), leaking)
    (error,) = leaking.ends
    assert isinstance(error.__cause__, LookupError)
    nursery.cancel_scope.cancel()


async def test_ctrl_c_gets_through_though_it_leaves_something_open() -> None:
    async def leak() -> None:
        await trio.open_nursery().__aenter__()
        raise KeyboardInterrupt

    leaking = Piece(leak)
    with pytest.RaisesGroup(KeyboardInterrupt):
        async with trio.open_nursery() as nursery:
            await _run(Crew(nursery, "crew", "code"), leaking)
    ((end, cause),) = leaking.ends
    assert (end, type(cause)) == ("cut off", KeyboardInterrupt)


@pytest.mark.parametrize("idle", ["on their way out", "gone"])
async def test_work_started_in_a_cancelled_nursery_is_cancelled(idle: str) -> None:
    async with trio.open_nursery() as nursery:
        crew = Crew(nursery, "crew", "code")
        await _run(crew, Piece(_act))
        piece = Piece(trio.sleep_forever)
        nursery.cancel_scope.cancel()
        if idle == "gone":
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
        crew.start(piece)
        assert piece.ends == []
    assert piece.ends == [("cut off", None)]


async def test_the_crew_protects_its_books_from_ctrl_c_and_leaves_work_as_it_finds_it(
    nursery: trio.Nursery,
) -> None:
    protected: list[bool] = []

    class Noting(Piece):
        @trio.lowlevel.disable_ki_protection
        async def perform(self) -> Any:
            protected.append(trio.lowlevel.currently_ki_protected())
            await trio.lowlevel.checkpoint()

        def succeed(self, value: Any) -> None:
            protected.append(trio.lowlevel.currently_ki_protected())

    await _run(Crew(nursery, "crew", "code"), Noting(_act))
    assert protected == [False, True]
    nursery.cancel_scope.cancel()
