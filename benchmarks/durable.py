"""
What durability costs: a job of about 90 bytes kept before it counts, and its end.

Each engine takes jobs and ends them. `append by hand` is the limit on this disk: lines
appended to a file, one fdatasync a batch, nothing to recover them with. `sqlite by hand`
is the best that stock SQLite does as safely (WAL, synchronous=FULL). huey, litequeue and
persist-queue are what people would pick; they have no batches. All run in turn in each
round, on one disk, because disks change their mind from minute to minute.
"""

import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks._kit.rows import Row
from csjd import FileJobStore
from csjd.stores import Accepted, Ended

TITLE: Final = "Durable jobs, taken and ended, against appending to a file by hand"

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
def litequeue_queue(path: Path) -> Iterator[Work]:
    """Litequeue as it comes: synchronous=NORMAL, so a power cut loses the tail."""
    import litequeue  # type: ignore[import-not-found, import-untyped, unused-ignore]

    queue: Any = litequeue.LiteQueue(str(path / "lite.db"))
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


ENGINES: Final = {
    "append by hand": append_by_hand,
    "csjd FileJobStore": csjd_store,
    "sqlite by hand": sqlite_by_hand,
    "huey SqliteStorage": huey_sqlite,
    "litequeue": litequeue_queue,
    "persist-queue": persist_queue,
}
PEERS: Final = {
    "huey SqliteStorage": "huey",
    "litequeue": "litequeue",
    "persist-queue": "persistqueue",
}
"""What each engine that somebody may lack imports."""
_BATCHED: Final = ("append by hand", "csjd FileJobStore", "sqlite by hand")
_JOBS: Final = {64: 64 * 40, 1: 150}


def run(rounds: int = 5) -> list[Row]:
    """
    Return a row for each engine and batch size: jobs taken and ended a second.

    `ratio` is to `append by hand` in the same batch size, median of the rounds' ratios.
    """
    missing = [name for name, module in PEERS.items() if not find_spec(module)]
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for batch, jobs in _JOBS.items():
            for name in ENGINES:
                if name in missing:
                    continue
                # What has no batches does the same number of jobs one by one, once.
                if batch in (1, 64) and (name in _BATCHED or batch == 1):
                    rates.setdefault((name, batch), []).append(_rate(name, jobs, batch))
    return [
        *(_row(name, batch, rates) for name, batch in rates),
        *({"case": f"{name}: skipped, {PEERS[name]} is not installed"} for name in missing),
    ]


def _rate(name: str, jobs: int, batch: int) -> float:
    path = Path(tempfile.mkdtemp(prefix="csjd-bench-", dir=os.environ.get("CSJD_BENCH_DIR")))
    try:
        with ENGINES[name](path) as work:
            work(batch, batch)  # the first use of anything is slow
            began = time.perf_counter()
            work(jobs, batch)
            return jobs / (time.perf_counter() - began)
    finally:
        shutil.rmtree(path)


def _row(name: str, batch: int, rates: dict[tuple[str, int], list[float]]) -> Row:
    mine, limit = rates[name, batch], rates["append by hand", batch]
    return {
        "case": f"{name}, batches of {batch}" if batch > 1 else f"{name}, one by one",
        "jobs_per_second": round(statistics.median(mine)),
        "lowest": round(min(mine)),
        "highest": round(max(mine)),
        "ratio": round(statistics.median(a / b for a, b in zip(mine, limit, strict=True)), 3),
    }
