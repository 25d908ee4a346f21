"""
What the batch loader costs per key: `python -m benchmarks loader`.

64 tasks each ask for one key, again and again, so that every batch is full. The yardstick
is a hop over a Trio memory channel from one task to another; the same work is done by
aiodataloader under asyncio. It does less of it: it has no time window, no limit to the
fetches that run at once, and takes no notice of callers who give up or ask for the same key.

The row "by hand" is no measure of the loader: it shows what a batch costs that is written
down with Trio's own means and nothing around it, one event and one task per batch.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter

import trio

import csjd
from benchmarks._kit.interleaved import interleave, peer, row, skipped
from benchmarks._kit.rows import Row

TITLE = "The batch loader, against what it is made of and its peer: time of ours / time of theirs"

_aiodataloader = peer("aiodataloader")

_BATCH = 64
_BATCHES = 100
_HOPS = 10_000

Contender = Callable[[], float]


async def _hops() -> float:
    send, receive = trio.open_memory_channel[int](0)

    async def give() -> None:
        async with send:
            for number in range(_HOPS):
                await send.send(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give)
        began = perf_counter()
        async for _ in receive:
            pass
        taken = perf_counter() - began
    return taken / _HOPS


async def _fetch(keys: Sequence[int]) -> dict[int, int]:
    await trio.lowlevel.checkpoint()
    return {key: key for key in keys}


async def _load() -> float:
    async def ask(first: int) -> None:
        for number in range(_BATCHES):
            assert await loader.load(first + number * _BATCH) == first + number * _BATCH

    async with (
        trio.open_nursery() as nursery,
        csjd.open_batch_loader(nursery, _fetch, max_batch=_BATCH) as loader,
    ):
        began = perf_counter()
        async with trio.open_nursery() as callers:
            for first in range(_BATCH):
                callers.start_soon(ask, first)
        taken = perf_counter() - began
        assert loader.statistics().fetches == _BATCHES, loader.statistics()
    return taken / (_BATCH * _BATCHES)


async def _load_by_hand() -> float:
    """An event and a task for each batch: no window, no limits, no errors, no giving up."""
    keys: list[int] = []
    done = trio.Event()
    answers: dict[int, int] = {}

    async def fetch(keys: list[int], done: trio.Event, answers: dict[int, int]) -> None:
        answers.update(await _fetch(keys))
        done.set()

    async def load(key: int) -> int:
        nonlocal keys, done, answers
        keys.append(key)
        mine, found = done, answers
        if len(keys) == _BATCH:
            nursery.start_soon(fetch, keys, done, answers)
            keys, done, answers = [], trio.Event(), {}
        await mine.wait()
        return found[key]

    async def ask(first: int) -> None:
        for number in range(_BATCHES):
            assert await load(first + number * _BATCH) == first + number * _BATCH

    async with trio.open_nursery() as nursery:
        began = perf_counter()
        async with trio.open_nursery() as callers:
            for first in range(_BATCH):
                callers.start_soon(ask, first)
        taken = perf_counter() - began
    return taken / (_BATCH * _BATCHES)


async def _load_many() -> float:
    async with (
        trio.open_nursery() as nursery,
        csjd.open_batch_loader(nursery, _fetch, max_batch=_BATCH) as loader,
    ):
        began = perf_counter()
        for number in range(_BATCHES):
            keys = range(number * _BATCH, (number + 1) * _BATCH)
            assert await loader.load_many(keys) == list(keys)
        taken = perf_counter() - began
        assert loader.statistics().fetches == _BATCHES, loader.statistics()
    return taken / (_BATCH * _BATCHES)


async def _asyncio_load(*, many: bool) -> float:
    fetches = 0

    async def fetch(keys: list[int]) -> list[int]:
        nonlocal fetches
        fetches += 1
        await asyncio.sleep(0)
        return keys

    # Its cache is off, as `BatchLoader` keeps nothing either.
    loader = _aiodataloader.DataLoader(fetch, max_batch_size=_BATCH, cache=False)

    async def ask(first: int) -> None:
        for number in range(_BATCHES):
            assert await loader.load(first + number * _BATCH) == first + number * _BATCH

    began = perf_counter()
    if many:
        for number in range(_BATCHES):
            keys = range(number * _BATCH, (number + 1) * _BATCH)
            assert await loader.load_many(keys) == list(keys)
    else:
        async with asyncio.TaskGroup() as callers:
            for first in range(_BATCH):
                callers.create_task(ask(first))
    taken = perf_counter() - began
    assert fetches == _BATCHES, f"{fetches} fetches instead of {_BATCHES}"
    return taken / (_BATCH * _BATCHES)


def run(rounds: int = 9) -> list[Row]:
    """Measure everything in *rounds* interleaved rounds and return the report's rows."""
    contenders: dict[str, Contender] = {
        "hop": lambda: trio.run(_hops),
        "by hand": lambda: trio.run(_load_by_hand),
        "load": lambda: trio.run(_load),
        "load_many": lambda: trio.run(_load_many),
    }
    if _aiodataloader is not None:
        contenders["peer load"] = lambda: asyncio.run(_asyncio_load(many=False))
        contenders["peer load_many"] = lambda: asyncio.run(_asyncio_load(many=True))
    figures = interleave(contenders, rounds)

    def compare(name: str, of: str, against: str, limit: float | None) -> Row:
        return row(name, figures[of], figures[against], unit="us", scale=1e6, limit=limit)

    rows = [
        compare(f"load, a key in a batch of {_BATCH} / channel hop", "load", "hop", 2),
        compare(f"load_many, a key of {_BATCH} / channel hop", "load_many", "hop", 2),
    ]
    if _aiodataloader is None:
        rows.append(skipped("aiodataloader", "not installed: make bench installs it"))
    else:
        rows += [
            compare("load / aiodataloader", "load", "peer load", 1),
            compare("by hand: load / aiodataloader", "by hand", "peer load", None),
            compare("load_many / aiodataloader", "load_many", "peer load_many", 1),
        ]
    return rows
