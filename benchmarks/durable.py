"""
What durability costs: a job of about 90 bytes kept before it counts, and its end.

Each engine takes jobs and ends them. `append by hand` is the limit on this disk: lines
appended to a file, one fdatasync a batch, nothing to recover them with. `sqlite by hand`
is the best that stock SQLite does as safely (WAL, synchronous=FULL). `csjd dispatcher` is
the whole way: submit, commit, handler, end on the disk; by one task, which waits for each
batch before it makes the next, and by four, whose batches share commits. huey, litequeue
and persist-queue are what people would pick; they have no batches. litequeue as it comes does
not sync, so it stands here twice: as it comes, and made to sync as the others do. What a
power cut may empty has not done the same work, so the target is set against those that sync.

The dispatcher's jobs are made before the clock starts, as in the other benchmarks: a
`Job` has an id of its own and is checked when it is made, which the lines and rows that
the others write have not and are not. All run in turn in each round, on one disk, because
disks change their mind from minute to minute; who begins changes from round to round.
"""

import gc
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

import csjd
from benchmarks._kit.rows import Target
from csjd import FileJobStore
from csjd.stores import Accepted, Ended

TITLE = "Jobs kept on disk, against what a disk can do and what people would use"

PAYLOAD: Final = b"x" * 60
CREATED: Final = datetime(2024, 1, 1, tzinfo=UTC)

Work = Callable[[int, int], None]
"""Takes and ends so many jobs, in batches of so many."""


@contextmanager
def csjd_store(path: Path) -> Iterator[Work]:
    """`FileJobStore`, one commit a batch."""
    store = FileJobStore(path / "store")
    store.recover()
    order = 0

    def work(jobs: int, batch: int) -> None:
        nonlocal order
        for _ in range(jobs // batch):
            orders = range(order + 1, order + 1 + batch)
            order += batch
            store.commit([Accepted(n, f"job-{n:08}", "email", PAYLOAD, CREATED) for n in orders])
            store.commit([Ended(n) for n in orders])

    try:
        yield work
    finally:
        store.close()


@contextmanager
def append_by_hand(path: Path) -> Iterator[Work]:
    """Append and fdatasync, the limit."""
    fd = os.open(path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def work(jobs: int, batch: int) -> None:
        for _ in range(jobs // batch):
            os.write(fd, b"".join(b"+job-%08d email %b\n" % (n, PAYLOAD) for n in range(batch)))
            os.fdatasync(fd)
            os.write(fd, b"".join(b"-job-%08d\n" % n for n in range(batch)))
            os.fdatasync(fd)

    try:
        yield work
    finally:
        os.close(fd)


@contextmanager
def sqlite_by_hand(path: Path) -> Iterator[Work]:
    """Stock SQLite: WAL, synchronous=FULL, one transaction a batch."""
    with closing(sqlite3.connect(path / "db", isolation_level=None)) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        db.execute("create table job (id integer primary key, name text, body blob)")

        def work(jobs: int, batch: int) -> None:
            for _ in range(jobs // batch):
                db.execute("begin immediate")
                db.executemany(
                    "insert into job (name, body) values (?, ?)",
                    [(f"job-{n:08}", PAYLOAD) for n in range(batch)],
                )
                db.execute("commit")
                db.execute("begin immediate")
                taken = db.execute("select id, body from job order by id limit ?", (batch,))
                db.executemany("delete from job where id = ?", [(row[0],) for row in taken])
                db.execute("commit")

        yield work


@contextmanager
def huey_sqlite(path: Path) -> Iterator[Work]:
    """Huey's SQLite storage with fsync; it deletes a job before it runs."""
    from huey.storage import SqliteStorage  # type: ignore[import-not-found, import-untyped, unused-ignore]

    storage: Any = SqliteStorage(filename=str(path / "huey.db"), fsync=True)

    def work(jobs: int, batch: int) -> None:
        for _ in range(jobs // batch):
            for _ in range(batch):
                storage.enqueue(PAYLOAD)
            for _ in range(batch):
                storage.dequeue()

    yield work


@contextmanager
def litequeue_queue(path: Path, synchronous: str = "normal") -> Iterator[Work]:
    """Litequeue as it comes: synchronous=NORMAL, so a power cut loses the tail."""
    import litequeue  # type: ignore[import-not-found, import-untyped, unused-ignore]

    queue: Any = litequeue.LiteQueue(str(path / "lite.db"))
    queue.conn.execute(f"pragma synchronous = {synchronous}")
    text = PAYLOAD.decode()

    def work(jobs: int, batch: int) -> None:
        for _ in range(jobs // batch):
            for _ in range(batch):
                queue.put(text)
            for _ in range(batch):
                queue.done(queue.pop().message_id)

    try:
        yield work
    finally:
        queue.close()


@contextmanager
def persist_queue(path: Path) -> Iterator[Work]:
    """persist-queue's queue with acknowledgements."""
    import persistqueue  # type: ignore[import-not-found, import-untyped, unused-ignore]

    queue: Any = persistqueue.SQLiteAckQueue(str(path / "persist"), multithreading=False)

    def work(jobs: int, batch: int) -> None:
        for _ in range(jobs // batch):
            for _ in range(batch):
                queue.put(PAYLOAD)
            for _ in range(batch):
                queue.ack(queue.get())

    try:
        yield work
    finally:
        queue.close()


class EndToEnd:
    """`csjd dispatcher`: `submit_batch` with a store, handlers that do nothing, ends recorded."""

    def __init__(self, path: Path, tasks: int = 1) -> None:
        self._path = path
        self._tasks = tasks

    def rate(self, jobs: int, batch: int) -> float:
        """Return jobs a second, from the first submit to the last end on the disk."""
        return trio.run(self._rate, jobs, batch)

    async def _rate(self, jobs: int, batch: int) -> float:
        batches = [_jobs(batch) for _ in range(jobs // batch)]
        async with opened(self._path) as dispatcher:

            async def submit(share: list[list[csjd.Job]]) -> None:
                for each in share:
                    await dispatcher.submit_batch(each)

            await dispatcher.submit_batch(_jobs(batch))
            gc.collect()  # what making the jobs has left is not ours to clear away
            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for first in range(self._tasks):
                    nursery.start_soon(submit, batches[first :: self._tasks])
            await dispatcher.stop()
            return jobs / (time.perf_counter() - began)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[csjd.Dispatcher]:
    """Open a dispatcher whose handler does nothing, with a store in *path*."""
    registry = csjd.Registry()

    @registry.handler("email")
    async def email(job: csjd.Job) -> None:
        pass

    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, registry=registry, store=FileJobStore(path / "store")
        ) as dispatcher,
    ):
        yield dispatcher


def _jobs(count: int) -> list[csjd.Job]:
    return [csjd.Job(type="email", payload=PAYLOAD) for _ in range(count)]


async def acknowledged_rate(path: Path, submitters: int, each: int) -> float:
    """Return how many jobs a second *submitters* tasks get acknowledged, one at a time each."""
    shares = [_jobs(each) for _ in range(submitters)]
    async with opened(path) as dispatcher:

        async def submit(jobs: list[csjd.Job]) -> None:
            for job in jobs:
                await dispatcher.submit(job)

        await dispatcher.submit_batch(_jobs(1))
        gc.collect()
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for share in shares:
                nursery.start_soon(submit, share)
        return submitters * each / (time.perf_counter() - began)


async def submit_latency(path: Path, jobs: int) -> tuple[float, float]:
    """Return the median seconds of one `submit` alone, and of an fdatasync in a thread."""
    submits, syncs = [], []
    fd = os.open(path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append() -> None:
        os.write(fd, b"+job-%08d email %b\n" % (0, PAYLOAD))
        os.fdatasync(fd)

    async with opened(path) as dispatcher:
        for job in _jobs(jobs):
            began = time.perf_counter()
            await dispatcher.submit(job)
            between = time.perf_counter()
            await trio.sleep(0.01)  # the end of it has its own commit meanwhile
            again = time.perf_counter()
            await trio.to_thread.run_sync(append)
            submits.append(between - began)
            syncs.append(time.perf_counter() - again)
    os.close(fd)
    return statistics.median(submits), statistics.median(syncs)


DISPATCHER: Final = "csjd dispatcher"
FROM_TASKS: Final = "csjd dispatcher, from 4 tasks"
ENGINES: Final[dict[str, Callable[[Path], Any]]] = {
    "append by hand": append_by_hand,
    "csjd FileJobStore": csjd_store,
    DISPATCHER: EndToEnd,
    FROM_TASKS: partial(EndToEnd, tasks=4),
    "sqlite by hand": sqlite_by_hand,
    "huey SqliteStorage": huey_sqlite,
    "litequeue": litequeue_queue,
    "litequeue, synchronous=FULL": partial(litequeue_queue, synchronous="full"),
    "persist-queue": persist_queue,
}
_BATCHED: Final = (
    "append by hand",
    "csjd FileJobStore",
    DISPATCHER,
    FROM_TASKS,
    "sqlite by hand",
)
_JOBS: Final = {64: 64 * 400, 1: 500}
"""How many each engine takes and ends in a measurement, by the size of its batches."""
_AS_THEY_COME: Final = ("huey SqliteStorage", "litequeue", "persist-queue")
_SYNCED: Final = ("huey SqliteStorage", "litequeue, synchronous=FULL", "persist-queue")


def run(rounds: int = 5, scale: float = 1.0) -> list[dict[str, Any]]:
    """
    Return a row for each engine and batch size, and for submits one at a time.

    Those with a batch size say how many jobs were taken and ended a second; `ratio` is to
    `append by hand` in the same batch size, median of the rounds' ratios.
    """
    rates: dict[tuple[str, int], list[float]] = {}
    many: list[float] = []
    alone: list[tuple[float, float]] = []
    names = list(ENGINES)
    for number in range(rounds):
        turn = number % len(names)
        for batch, jobs in _JOBS.items():
            for name in names[turn:] + names[:turn]:
                # What has no batches does fewer jobs, one by one.
                if name in _BATCHED or batch == 1:
                    count = max(batch, int(jobs * scale))
                    rates.setdefault((name, batch), []).append(_rate(name, count, batch))
        with _directory() as path:
            many.append(trio.run(acknowledged_rate, path, 512, max(1, int(40 * scale))))
        with _directory() as path:
            alone.append(trio.run(submit_latency, path, max(5, int(60 * scale))))
    return [
        *(_row(name, batch, rates) for batch in _JOBS for name in names if (name, batch) in rates),
        *_verdicts(rates),
        *_single_rows(many, alone),
    ]


def _rate(name: str, jobs: int, batch: int) -> float:
    with _directory() as path:
        engine = ENGINES[name](path)
        if isinstance(engine, EndToEnd):
            return engine.rate(jobs, batch)
        with engine as work:
            work(batch, batch)  # the first use of anything is slow
            began = time.perf_counter()
            work(jobs, batch)
            return jobs / (time.perf_counter() - began)


@contextmanager
def _directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="csjd-bench-", dir=os.environ.get("CSJD_BENCH_DIR")))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _row(name: str, batch: int, rates: dict[tuple[str, int], list[float]]) -> dict[str, Any]:
    mine, limit = rates[name, batch], rates["append by hand", batch]
    return {
        "case": f"{name}, batches of {batch}",
        "figure": round(statistics.median(mine)),
        "unit": "jobs/s",
        "lowest": round(min(mine)),
        "highest": round(max(mine)),
        "ratio": round(statistics.median(a / b for a, b in zip(mine, limit, strict=True)), 3),
    }


def _verdicts(rates: dict[tuple[str, int], list[float]]) -> Iterator[dict[str, Any]]:
    """Yield how the dispatcher, in batches, compares with what people would use."""
    limit, sqlite = rates["append by hand", 64], rates["sqlite by hand", 64]
    synced, as_they_come = _best(_SYNCED, rates), _best(_AS_THEY_COME, rates)
    for mine, case, others, target in (
        (DISPATCHER, "append by hand", limit, Target(least=0.5)),
        (DISPATCHER, "sqlite by hand", sqlite, Target(least=1.0)),
        (FROM_TASKS, "sqlite by hand", sqlite, None),
        (DISPATCHER, "best of the three peers, synced", synced, Target(least=15.0)),
        (DISPATCHER, "best of the three as they come", as_they_come, None),
    ):
        ratios = [a / b for a, b in zip(rates[mine, 64], others, strict=True)]
        ratio = statistics.median(ratios)
        yield {
            "case": f"{mine} / {case}",
            "lowest": round(min(ratios), 2),
            "highest": round(max(ratios), 2),
            "ratio": round(ratio, 2),
            **(target.columns(ratio) if target else {}),
        }


def _best(peers: Sequence[str], rates: dict[tuple[str, int], list[float]]) -> list[float]:
    """Return the highest rate of *peers* in each round."""
    return [max(of_round) for of_round in zip(*(rates[peer, 1] for peer in peers), strict=True)]


def _single_rows(many: list[float], alone: list[tuple[float, float]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of submits one at a time, by many tasks and by one."""
    rate = statistics.median(many)
    yield {
        "case": "512 tasks submit, acknowledged",
        "figure": round(rate),
        "unit": "jobs/s",
        "lowest": round(min(many)),
        "highest": round(max(many)),
        **Target(least=20_000).columns(rate),
    }
    ratios = [submit / sync for submit, sync in alone]
    yield {
        "case": "one task submits / an fdatasync in a thread",
        "figure": round(1e6 * statistics.median(submit for submit, _ in alone)),
        "unit": "us",
        "lowest": round(min(ratios), 2),
        "highest": round(max(ratios), 2),
        "ratio": round(statistics.median(ratios), 2),
        **Target(most=2.0).columns(statistics.median(ratios)),
    }


if __name__ == "__main__":
    for row in run():
        print(row)
