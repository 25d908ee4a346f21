"""A child that uses a store until it is killed, and what it must have left behind."""

import multiprocessing
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs

from csjd._store.file_store import FileJobStore
from csjd.testing.stores import accepted, summarize
from tests.store import child

BATCHES = 2_000
"""More than any child gets through."""


@attrs.frozen
class Promised:
    """How many batches a child has acknowledged."""

    before: int
    """By the moment it was doomed."""
    in_all: int


def kill_at_random(
    path: Path, seed: int, rng: random.Random, doom: Callable[[], object] = lambda: None
) -> Promised:
    """Let a child use the store at *path*, at a random moment call *doom*, and kill it."""
    # It is forked from a process that has imported everything: 5 ms, not 150.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.store.child"])
    here, there = server.Pipe(duplex=False)
    process = server.Process(target=child.serve, args=(path, seed, BATCHES, there))
    process.start()
    there.close()
    acknowledged = [int(here.recv_bytes()) for _ in range(rng.randrange(1, 60))]
    # Not at once: the moment after an acknowledgement would always be the same one.
    spin_until = time.perf_counter() + rng.random() * 0.003
    while time.perf_counter() < spin_until:
        pass
    while here.poll():
        acknowledged.append(int(here.recv_bytes()))
    before = acknowledged[-1]
    doom()
    process.kill()
    with suppress(EOFError):
        while True:
            acknowledged.append(int(here.recv_bytes()))
    process.join()
    here.close()
    return Promised(before, acknowledged[-1])


def check_what_is_left(path: Path, seed: int, promised: int, most: int) -> None:
    """What is there is the child's history up to *promised* batches, or to *most* or between."""
    store = FileJobStore(path)
    began = time.perf_counter()
    recovery = store.recover()
    assert time.perf_counter() - began < 5, "the lock was not free at once"
    summary = summarize(recovery)
    allowed = []
    for model in child.history(seed, most)[promised:]:
        for clean in (False, True):
            reopened = model.copy()
            reopened.opened(clean=clean)
            allowed.append(summarize(reopened.recovery()))
    assert summary in allowed, f"seed {seed}: {promised} to {most} batches were promised"
    store.commit([accepted(recovery.next_order, id="probe")])
    store.close()
