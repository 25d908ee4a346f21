"""Ctrl-C at the worst moments of opening and leaving: it comes out, and nothing hangs."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

import csjd
from csjd import FileJobStore
from csjd.stores import Recovery

PROGRAM = """
import signal, sys
import trio, csjd
from csjd._runtime.scheduler import Scheduler

method, argument, *path = sys.argv[1:]
original = getattr(Scheduler, method)

def interrupted(self, *args, **kwargs):
    if argument in repr((args, kwargs)):
        setattr(Scheduler, method, original)
        signal.raise_signal(signal.SIGINT)
    return original(self, *args, **kwargs)

setattr(Scheduler, method, interrupted)

async def main():
    store = csjd.FileJobStore(path[0]) if path else None
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, store=store) as dispatcher,
    ):
        dispatcher.register("t", lambda job: None)
        await dispatcher.submit(csjd.Job(type="t"))

try:
    trio.run(main)
except BaseException as error:
    while isinstance(error, BaseExceptionGroup):
        assert len(error.exceptions) == 1, error.exceptions
        error = error.exceptions[0]
    print(type(error).__name__)
if path:
    store = csjd.FileJobStore(path[0])
    store.recover()
    store.close()
"""


@pytest.mark.parametrize("kept", [False, True], ids=["memory", "store"])
@pytest.mark.parametrize(
    ("method", "argument"),
    [("run", "CancelScope"), ("advance", "START"), ("start_soon", "stop"), ("advance", "CLOSE")],
    ids=["opening", "starting", "draining", "closing"],
)
def test_ctrl_c_comes_out_and_nothing_hangs(
    method: str, argument: str, kept: bool, tmp_path: Path
) -> None:
    arguments = [method, argument, *([str(tmp_path / "store")] if kept else [])]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "KeyboardInterrupt\n"), done.stderr


async def test_store_is_closed_if_its_opening_was_cancelled(tmp_path: Path) -> None:
    recovered, ended = threading.Event(), threading.Event()

    class Slow(FileJobStore):
        def recover(self) -> Recovery:
            recovery = super().recover()
            recovered.set()
            assert ended.wait(10)
            return recovery

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel() -> None:
                await trio.to_thread.run_sync(recovered.wait, 10)
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                ended.set()

            async with csjd.open_dispatcher(nursery, store=Slow(tmp_path / "store")):
                raise AssertionError("it must not open")
    assert scope.cancelled_caught
    again = FileJobStore(tmp_path / "store")
    again.recover()
    again.close()
