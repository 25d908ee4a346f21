"""T1, T2, T11: real processes on a real disk, killed at random, at each call, and racing."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from csjd._model.errors import JobStoreLockedError
from csjd._store.file_store import FileJobStore
from tests.store.conftest import FULL, Report
from tests.store.killing import BATCHES, check_what_is_left, kill_at_random

ROOT = Path(__file__).parents[2]
KILLS = 1000 if FULL else 100


def start_child(path: Path, seed: int, batches: int, *before: str) -> "subprocess.Popen[bytes]":
    command = [*before, sys.executable, "-m", "tests.store.child", str(path), str(seed)]
    return subprocess.Popen(
        [*command, str(batches)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    )


def promised(lines: list[bytes]) -> int:
    """Return how many batches were acknowledged, from whole lines of a child's output."""
    return max((int(line) for line in lines if line.strip().isdigit()), default=0)


def check(path: Path, seed: int, acknowledged: int) -> None:
    """What is there is the history up to what was acknowledged, or one batch more."""
    check_what_is_left(path, seed, acknowledged, acknowledged + 1)


def test_killed_at_a_random_moment(tmp_path: Path, report: Report) -> None:
    rng = random.Random(1)
    for seed in range(KILLS):
        path = tmp_path / str(seed)
        check(path, seed, kill_at_random(path, seed, rng).in_all)
        shutil.rmtree(path)
    report("T1 killed at random", KILLS, seed=f"0 to {KILLS - 1}")


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    probe = ["strace", "-o", os.devnull, "-e", "inject=fsync:signal=KILL:when=9999", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


CALLS = (
    "fdatasync",
    "fsync",
    "pwrite64",
    "pwritev2",
    "rename,renameat,renameat2",
    "unlink,unlinkat",
)


@pytest.mark.skipif(not strace_works(), reason="strace is missing, or may not trace here")
@pytest.mark.parametrize("calls", CALLS)
def test_killed_at_each_system_call(tmp_path: Path, report: Report, calls: str) -> None:
    """Includes opening and compaction; the k-th call never happens."""
    batches, states = 60, 0
    limit = 10_000 if FULL else 8
    for nth in range(1, limit + 1):
        # A sample strides over the run, so that it reaches the compactions too.
        when = nth if FULL else nth * nth
        path = tmp_path / str(when)
        tracer = ["strace", "-f", "-o", os.devnull, "-e", f"trace={calls}"]
        tracer += ["-e", f"inject={calls}:signal=KILL:when={when}"]
        process = start_child(path, 7, batches, *tracer)
        output, _ = process.communicate()
        lines = output.splitlines(keepends=True)
        check(path, 7, promised([line for line in lines if line.endswith(b"\n")]))
        states += 1
        if b"closed\n" in lines:
            break  # there are no more such calls
    report(f"T2 killed at {calls.split(',')[0]}", states, seed=7)


@pytest.mark.skipif(not strace_works(), reason="strace is missing, or may not trace here")
@pytest.mark.parametrize(
    ("calls", "error"),
    [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("pwritev2", "EIO"), ("pwritev2", "ENOSPC")],
)
def test_failing_system_calls(tmp_path: Path, report: Report, calls: str, error: str) -> None:
    """T9 on the real system: the process may fail, the acknowledged jobs stay."""
    states = 0
    for when in range(1, 200) if FULL else (1, 2, 3, 5, 9, 17, 30, 31):
        path = tmp_path / f"{calls}-{when}"
        tracer = ["strace", "-f", "-o", os.devnull, "-e", f"trace={calls}"]
        tracer += ["-e", f"inject={calls}:error={error}:when={when}+"]
        process = start_child(path, 8, 60, *tracer)
        output, _ = process.communicate()
        lines = output.splitlines(keepends=True)
        check(path, 8, promised([line for line in lines if line.endswith(b"\n")]))
        states += 1
        if b"closed\n" in lines:
            break  # there are no more such calls
    report(f"T9 {calls} fails with {error}", states, seed=8)


RACER = """
import sys
from csjd._model.errors import JobStoreLockedError
from csjd._store.file_store import FileJobStore
from csjd.testing.stores import accepted
won = 0
for turn in range(int(sys.argv[2])):
    store = FileJobStore(sys.argv[1])
    try:
        recovery = store.recover()
    except JobStoreLockedError:
        continue
    store.commit([accepted(recovery.next_order, id=f"{sys.argv[3]}-{turn}")])
    won += 1
    store.close()
print(won)
"""


def test_racing_processes_never_write_both(tmp_path: Path, report: Report) -> None:
    turns = 1000 if FULL else 250
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path / "store"), str(turns), str(number)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        for number in range(4)
    ]
    won = sum(int(racer.communicate()[0]) for racer in racers)
    assert all(racer.returncode == 0 for racer in racers)
    store = FileJobStore(tmp_path / "store")
    jobs = store.recover().live
    store.close()
    assert len(jobs) == won
    assert len({job.accepted.id for job in jobs}) == won
    report("T11 races for the lock", 4 * turns)


def test_lock_is_free_right_after_a_kill(tmp_path: Path) -> None:
    process = start_child(tmp_path / "store", 1, BATCHES)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()  # the first acknowledgement: it has the lock
    with pytest.raises(JobStoreLockedError, match=f"process {process.pid} on "):
        FileJobStore(tmp_path / "store").recover()
    process.kill()
    process.wait()
    process.stdout.close()
    store = FileJobStore(tmp_path / "store")
    began = time.perf_counter()
    store.recover()
    assert time.perf_counter() - began < 1
    store.close()
