"""
A hundred jobs greet users from a SQLite file, with one query per user at most.

Run it: `python -m examples.cached_users`.

Each job asks the cache for its user; what the cache lacks, it asks the batch loader for;
and that fetches all the users asked for meanwhile in one query, in a thread.
"""

import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import attrs
import trio

import csjd


@attrs.frozen
class User:
    """A row of the table."""

    id: int
    name: str


@attrs.define(eq=False)
class UserTable:
    """The users in a SQLite file; counts the queries it is asked."""

    path: Path
    queries: int = 0

    async def fetch(self, ids: Sequence[int]) -> dict[int, User]:
        """Read the users of *ids*, those that there are, in one query."""
        self.queries += 1
        return await trio.to_thread.run_sync(self._select, ids)

    def _select(self, ids: Sequence[int]) -> dict[int, User]:
        marks = ",".join("?" * len(ids))
        # A connection per query keeps it in the thread that made it.
        with closing(sqlite3.connect(self.path)) as connection:
            rows = connection.execute(f"SELECT id, name FROM users WHERE id IN ({marks})", ids)
            return {row[0]: User(*row) for row in rows}


@attrs.frozen
class Users:
    """Users by id, through cache and batch loader."""

    cache: csjd.TTLCache[int, User]
    loader: csjd.BatchLoader[int, User]

    async def get(self, user_id: int) -> User:
        """Return the user; `MissingBatchResultError` if there is none."""
        return await self.cache.get_or_load(user_id, self.loader.load)


@asynccontextmanager
async def open_users(nursery: trio.Nursery, table: UserTable) -> AsyncIterator[Users]:
    """Open cache and loader over *table*."""
    async with (
        csjd.open_batch_loader(nursery, table.fetch, max_wait=0.002) as loader,
        csjd.open_cache(nursery, ttl=30, maxsize=10_000, jitter=0.1) as cache,
    ):
        yield Users(cache, loader)


async def greet(users: Users, user_id: int, greetings: list[str]) -> None:
    """Greet one user: the work of one job."""
    user = await users.get(user_id)
    greetings.append(f"Hello {user.name}")


async def greet_with_tasks(path: Path, ids: Sequence[int]) -> tuple[list[str], int]:
    """Greet the users of *ids*, each in a task; return the greetings and the queries it took."""
    table, greetings = UserTable(path), list[str]()
    async with (
        trio.open_nursery() as nursery,
        open_users(nursery, table) as users,
        trio.open_nursery() as jobs,
    ):
        for user_id in ids:
            jobs.start_soon(greet, users, user_id, greetings)
    return greetings, table.queries


async def greet_with_jobs(path: Path, ids: Sequence[int]) -> tuple[list[str], int]:
    """Do the same with a dispatcher: each greeting is a job, ten run at a time."""
    table, greetings = UserTable(path), list[str]()
    async with trio.open_nursery() as nursery, open_users(nursery, table) as users:
        registry = csjd.Registry()

        @registry.handler("greet")
        async def greet_user(job: csjd.Job) -> None:
            await greet(users, job.payload, greetings)

        config = csjd.Config(workers=10)
        async with csjd.open_dispatcher(nursery, config, registry=registry) as dispatcher:
            for user_id in ids:
                await dispatcher.submit(csjd.Job(type="greet", payload=user_id))
    return greetings, table.queries


def make_table(path: Path) -> None:
    """Make a table of ten users in a new file at *path*."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        names = ("Ada", "Ben", "Cem", "Dot", "Eli", "Fay", "Gus", "Hal", "Ida", "Jo")
        connection.executemany("INSERT INTO users VALUES (?, ?)", enumerate(names, start=1))


def main() -> None:
    """Greet each of ten users ten times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "users.sqlite"
        make_table(path)
        greetings, queries = trio.run(greet_with_jobs, path, [*range(1, 11)] * 10)
    print(f"{len(greetings)} greetings to {len(set(greetings))} users took {queries} queries")


if __name__ == "__main__":
    main()
