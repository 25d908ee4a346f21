"""A dispatcher with a real store, killed again and again: what it acknowledged, it does."""

import random
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import trio

import csjd
from tests.store.conftest import FULL, Report
from tests.store.dispatcher_child import CONFIG, JOBS

ROOT = Path(__file__).parents[2]
KILLS = 300 if FULL else 30


def lines(path: Path) -> list[tuple[str, int]]:
    """Return the sessions and numbers in a file of the child's, without a torn last line."""
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0].split("\n")
    return [(line.split()[0], int(line.split()[1])) for line in whole if line]


def first_times(done: Iterable[tuple[str, int]], session: str) -> list[int]:
    """Return the numbers of the session's jobs, in the order they were first done."""
    return list(dict.fromkeys(number for name, number in done if name == session))


def kill_a_child(path: Path, first: int, within: float) -> None:
    """Start a child, and kill it *within* seconds of opening its store."""
    command = [sys.executable, "-m", "tests.store.dispatcher_child", str(path), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        spin_until = time.perf_counter() + within
        while time.perf_counter() < spin_until:
            pass
        process.kill()


async def work_off(path: Path) -> int:
    """Do what is left in the store; return how many jobs that were."""
    registry = csjd.Registry()

    @registry.handler("note")
    async def note(job: csjd.Job) -> None:  # noqa: ASYNC124  a handler
        with path.with_name("done").open("a") as done:
            done.write(f"{job.session} {job.payload}\n")

    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, CONFIG, registry=registry, store=csjd.FileJobStore(path)
        ) as dispatcher,
    ):
        while dispatcher.metrics().scheduled:  # backoff of before: a few milliseconds  # noqa: ASYNC110
            await trio.lowlevel.checkpoint()
        assert not await dispatcher.dead_letters()
        recovered = dispatcher.metrics().recovered
    return recovered


def test_nothing_acknowledged_is_lost_and_sessions_keep_their_order(
    tmp_path: Path, report: Report
) -> None:
    rng = random.Random(5)
    path = tmp_path / "store"
    for life in range(KILLS):
        # Some at work, some with the job they began with: that must not count against it.
        kill_a_child(path, life * JOBS, within=rng.random() * rng.choice([0.05, 0.005]))
    left = trio.run(work_off, path)
    accepted, done = lines(tmp_path / "accepted"), lines(tmp_path / "done")
    assert left > 0, "no kill came while there was work"
    assert set(accepted) <= set(done)
    for session in ("s0", "s1", "s2"):
        numbers = first_times(done, session)
        assert numbers == sorted(numbers)
    # At least once: what ran at a kill, or had just ended, runs again, and nothing else.
    assert len(done) - len(set(done)) < KILLS * 100
    report("dispatcher killed at random", KILLS, seed=5)
