"""The batch loader against a plain model, under random sequences of what can happen."""

from collections.abc import Sequence
from typing import Any

import attrs
import trio
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import csjd

MAX_WAIT = 2.0
KEYS = st.integers(0, 4)


def _cancelled() -> BaseException:
    """Return a `trio.Cancelled`, caught where it belonged."""
    caught: list[BaseException] = []

    async def catch() -> None:
        with trio.move_on_after(0):
            try:
                await trio.sleep_forever()
            except trio.Cancelled as error:
                caught.append(error)
                raise

    trio.run(catch)
    return caught[0]


STRAY = _cancelled()


@attrs.define(eq=False)
class Asked:
    """One caller: what it should get, and what it got."""

    key: int
    expected: Any = "waits"
    got: Any = "waits"
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.define(eq=False)
class Batch:
    due: float
    callers: list[Asked] = attrs.field(factory=list)
    keys: tuple[int, ...] = ()
    wanted: dict[int, None] = attrs.field(factory=dict)  # by when the first asked, gone or not

    def add(self, asked: Asked) -> None:
        self.callers.append(asked)
        self.wanted.setdefault(asked.key)

    def remove(self, asked: Asked) -> None:
        self.callers.remove(asked)
        if all(other.key != asked.key for other in self.callers):
            del self.wanted[asked.key]

    def distinct(self) -> tuple[int, ...]:
        return tuple(self.wanted)


@attrs.define(eq=False)
class Model:
    """What the loader promises, without a thought for cost."""

    max_batch: int
    max_concurrent: int
    now: float = 0.0
    collecting: Batch | None = None
    queue: list[Batch] = attrs.field(factory=list)
    running: list[Batch] = attrs.field(factory=list)
    log: list[tuple[int, ...]] = attrs.field(factory=list)

    def ask(self, asked: Asked) -> None:
        if self.collecting is None:
            self.collecting = Batch(self.now + MAX_WAIT)
        batch = self.collecting
        batch.add(asked)
        if len(batch.distinct()) == self.max_batch:
            self.collecting = None
            if batch not in self.queue:
                self.queue.append(batch)
        self.settle()

    def settle(self) -> None:
        batch = self.collecting
        if batch is not None and self.now >= batch.due and batch not in self.queue:
            self.queue.append(batch)  # and goes on collecting
        while self.queue and len(self.running) < self.max_concurrent:
            batch = self.queue.pop(0)
            if batch is self.collecting:
                self.collecting = None
            batch.keys = batch.distinct()
            self.running.append(batch)
            self.log.append(batch.keys)

    def end(self, batch: Batch, outcomes: dict[int, Any]) -> None:
        self.running.remove(batch)
        for asked in batch.callers:
            asked.expected = outcomes[asked.key]
        self.settle()

    def close(self) -> None:
        for batch in [*self.running, *self.queue, *filter(None, [self.collecting])]:
            for asked in batch.callers:
                asked.expected = "closed"

    def give_up(self, asked: Asked) -> None:
        asked.expected = "gave up"
        for batch in [*self.running, *self.queue, *filter(None, [self.collecting])]:
            if asked not in batch.callers:
                continue
            batch.remove(asked)
            if not batch.callers:
                if batch in self.running:
                    self.running.remove(batch)
                if batch in self.queue:
                    self.queue.remove(batch)
                if batch is self.collecting:
                    self.collecting = None
            break
        self.settle()


class Real:
    """The loader under test, driven one step at a time; callers live in *nursery*."""

    loader: csjd.BatchLoader[int, Any]
    nursery: trio.Nursery

    def __init__(self, breaks: str) -> None:
        self.breaks = breaks
        self.ended = False
        self.log: list[tuple[int, ...]] = []
        self.running: dict[int, tuple[tuple[int, ...], trio.Event, list[Any]]] = {}

    async def fetch(self, keys: Sequence[int]) -> dict[int, Any]:
        number = len(self.log)
        self.log.append(tuple(keys))
        gate, outcome = trio.Event(), []  # type: ignore[var-annotated]
        self.running[number] = (tuple(keys), gate, outcome)
        try:
            if self.breaks == "in a nursery":
                async with trio.open_nursery() as inner:
                    inner.start_soon(self.wait, gate)
                    await gate.wait()
            else:
                await self.wait(gate)
        finally:
            del self.running[number]
        (answers,) = outcome
        if isinstance(answers, Exception):
            raise answers
        result: dict[int, Any] = answers
        return result

    async def wait(self, gate: trio.Event) -> None:
        try:
            await gate.wait()
        finally:
            if self.breaks != "never" and not gate.is_set():
                raise OSError("on the way out")

    async def ask(self, asked: Asked) -> None:
        with asked.scope:
            try:
                asked.got = await self.loader.load(asked.key)
            except csjd.MissingBatchResultError as error:
                asked.got = ("missing", error.key)
            except LookupError as error:
                asked.got = error.args[0]
            except (csjd.BatchLoaderClosedError, OSError, ExceptionGroup):
                asked.got = "closed"  # and which it is depends on who is the first to hear
            except RuntimeError as error:
                asked.got = error.__cause__
            return
        asked.got = "gave up"


OPERATION = st.one_of(
    st.tuples(st.just("ask"), KEYS),
    st.tuples(st.just("ask"), KEYS),
    st.tuples(st.just("ask"), KEYS),
    st.tuples(st.just("jump"), st.sampled_from([0.5, 2.0])),
    st.tuples(st.just("end"), st.integers(0, 3)),
    st.tuples(st.just("fail"), st.integers(0, 3)),
    st.tuples(st.just("give up"), st.integers(0, 9)),
)


@settings(max_examples=250, deadline=None)
@given(
    operations=st.lists(OPERATION, min_size=20, max_size=60),
    max_batch=st.integers(1, 3),
    max_concurrent=st.integers(1, 2),
    breaks=st.sampled_from(["never", "bare", "in a nursery"]),
    finish=st.sampled_from(["callers give up", "the block is left", "the nursery is cancelled"]),
)
def test_the_loader_does_what_the_model_does(
    operations: list[tuple[str, Any]],
    max_batch: int,
    max_concurrent: int,
    breaks: str,
    finish: str,
) -> None:
    clock = MockClock()

    async def main() -> None:
        async with trio.open_nursery() as real.nursery:
            async with (
                trio.open_nursery() as nursery,
                csjd.open_batch_loader(
                    nursery,
                    real.fetch,
                    max_batch=max_batch,
                    max_wait=MAX_WAIT,
                    max_concurrent=max_concurrent,
                ) as real.loader,
            ):
                for number, (kind, argument) in enumerate(operations):
                    await step(model, real, clock, callers, kind, argument, number)
                    check(model, real, callers)
                if finish == "callers give up":
                    for caller in callers:
                        caller.scope.cancel()
                        if caller.expected == "waits":
                            model.give_up(caller)
                    await wait_all_tasks_blocked()
                elif finish == "the nursery is cancelled":
                    nursery.cancel_scope.cancel()
            model.close()
            await wait_all_tasks_blocked()
            assert [asked.got for asked in callers] == [asked.expected for asked in callers]
            batches = real.loader._batches
            assert not batches.flying
            assert not batches.holding
            assert not batches._queue
            assert not real.running
            real.ended = True

    model, real = Model(max_batch, max_concurrent), Real(breaks)
    callers: list[Asked] = []
    trio.run(main, clock=clock)
    assert real.ended  # and no Cancelled out of nowhere has cancelled all that in silence


async def step(
    model: Model,
    real: Real,
    clock: MockClock,
    callers: list[Asked],
    kind: str,
    argument: Any,
    number: int,
) -> None:
    """Do one thing to both."""
    match kind:
        case "ask":
            asked = Asked(argument)
            callers.append(asked)
            real.nursery.start_soon(real.ask, asked)
            model.ask(asked)
        case "jump":
            clock.jump(argument)
            model.now = trio.current_time()
            model.settle()
        case "end" | "fail" if model.running:
            end(model, real, argument, number, failed=kind == "fail")
        case "give up" if callers:
            asked = callers[argument % len(callers)]
            if asked.expected == "waits":
                asked.scope.cancel()
                model.give_up(asked)
    await wait_all_tasks_blocked()


def end(model: Model, real: Real, position: int, number: int, *, failed: bool) -> None:
    """End one fetch: it fails, or gives a value, an error, what is none or nothing, by key."""
    batch = model.running[position % len(model.running)]
    # Batches of the same keys are told apart by the order they began in.
    alike = [each for each in model.running if each.keys == batch.keys]
    runs = [(gate, outcome) for keys, gate, outcome in real.running.values() if keys == batch.keys]
    gate, outcome = runs[alike.index(batch)]
    expected: dict[int, Any] = dict.fromkeys(batch.keys, number)
    answers: dict[int, Any] = dict(expected)
    for key in batch.keys:
        if key == 3:
            answers[key] = LookupError((number, key))
            expected[key] = (number, key)
        elif key == 4:
            del answers[key]
            expected[key] = ("missing", key)
        elif key == 2:
            answers[key] = STRAY
            expected[key] = STRAY
    outcome.append(LookupError(number) if failed else answers)
    gate.set()
    model.end(batch, dict.fromkeys(batch.keys, number) if failed else expected)


def check(model: Model, real: Real, callers: list[Asked]) -> None:
    """Compare what can be seen without disturbing anything."""
    assert [asked.got for asked in callers] == [asked.expected for asked in callers]
    assert real.log == model.log
    assert sorted(keys for keys, _, _ in real.running.values()) == sorted(
        batch.keys for batch in model.running
    )
    statistics = real.loader.statistics()
    assert statistics.waiting == sum(asked.expected == "waits" for asked in callers)
    assert statistics.fetching == len(model.running)
    assert statistics.fetches == len(model.log)
