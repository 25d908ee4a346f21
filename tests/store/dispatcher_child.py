"""
A program that keeps its jobs in a store until somebody kills it.

`python -m tests.store.dispatcher_child PATH FIRST` submits jobs of three sessions, from
number FIRST on, and appends to two files beside the store, a line at a time: to `accepted`
what was acknowledged, to `done` what a handler did. A line is written by one `write`, which
survives the death of the process.
"""

import os
import sys
from pathlib import Path

import trio

import csjd

SESSIONS = 3
JOBS = 4000
"""More than anybody lets it do."""
CONFIG = csjd.Config(workers=2, duplicate_window=0, max_crashes=1000)
"""Killed as often as this, a job that was running time and again is not to blame for it."""


async def main(path: Path, first: int) -> None:
    registry = csjd.Registry()
    accepted, done = (
        os.open(path.with_name(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for name in ("accepted", "done")
    )

    @registry.handler("note", retry=csjd.Retry(max_attempts=3, min_delay=0.001))
    async def note(job: csjd.Job, attempt: csjd.Attempt) -> None:
        if job.payload % 7 == 0 and attempt.number == 1:
            raise OSError("not at the first go")
        await trio.lowlevel.checkpoint()
        os.write(done, b"%s %d\n" % (str(job.session).encode(), job.payload))

    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, CONFIG, registry=registry, store=csjd.FileJobStore(path)
        ) as dispatcher,
    ):
        print("open", flush=True)

        async def submit(session: int) -> None:
            for number in range(first + session, first + JOBS, SESSIONS):
                await dispatcher.submit(
                    csjd.Job(type="note", id=str(number), session=f"s{session}", payload=number)
                )
                os.write(accepted, b"s%d %d\n" % (session, number))

        async with trio.open_nursery() as submitters:
            for session in range(SESSIONS):
                submitters.start_soon(submit, session)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
