"""The work: jobs made before any clock starts, and handlers that hardly do anything."""

import trio

import csjd

BATCH = 64
"""Jobs handed in between two checkpoints, by both sides."""

TIMEOUT = 2.0
"""Seconds each job may run; the bare pool has no timeouts."""


def make_jobs(count: int, *, sessions: int = 0) -> list[csjd.Job]:
    """Return *count* jobs, spread in turn over *sessions* if there are to be any."""
    names = [f"session-{number}" for number in range(sessions)]
    return [
        csjd.Job(
            type="work",
            id=f"job-{number}",
            session=names[number % sessions] if names else None,
            timeout=TIMEOUT,
        )
        for number in range(count)
    ]


def batches(jobs: list[csjd.Job]) -> list[list[csjd.Job]]:
    """Return *jobs* cut into batches."""
    return [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]


async def do_nothing(job: csjd.Job) -> None:
    """Return at once."""


async def yield_once(job: csjd.Job) -> None:
    """Let other tasks run once."""
    await trio.lowlevel.checkpoint()
