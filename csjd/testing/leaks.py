"""
Whether anything of csjd is left: tasks, or threads.

Trio keeps idle threads for reuse; those are nobody's leak. A thread counts when csjd's
code is on its stack. Inside a Trio run its tasks are asked; outside, any coroutine of
csjd that stands half-way is what a lost task looks like.
"""

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CoroutineType, FrameType

import trio

_HOME = str(Path(__file__).resolve().parent.parent)
_KIT = str(Path(__file__).resolve().parent)


def assert_no_leaks() -> None:
    """
    Fail if a task or a thread of csjd is left.

    Call it after dispatchers were left: in a Trio run, or after it.

    Raises:
        AssertionError: Naming each.
    """
    left = [*csjd_threads(), *csjd_tasks()]
    assert not left, "csjd has left behind: " + "; ".join(left)


def csjd_threads() -> list[str]:
    """Return the other threads that run code of csjd now, each with where it is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        f"thread {names.get(ident, ident)!r} in {place}"
        for ident, frame in sys._current_frames().items()
        if ident != threading.get_ident() and (place := _place(frame)) is not None
    ]


def csjd_tasks() -> list[str]:
    """Return the tasks of csjd in the present Trio run, or those that outlived theirs."""
    if not trio.lowlevel.in_trio_run():
        return [
            f"coroutine {each.__qualname__}"
            for each in gc.get_objects()
            if type(each) is CoroutineType and each.cr_frame and _is_ours(each.cr_code.co_filename)
        ]
    root = trio.lowlevel.current_root_task()
    return [f"task {task.name!r}" for task in _tasks(root) if task.name.startswith("csjd ")]


def _tasks(task: trio.lowlevel.Task | None) -> Iterator[trio.lowlevel.Task]:
    if task is None:
        return
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child)


def _place(frame: FrameType | None) -> str | None:
    """Return where on its stack a thread runs csjd's code, None if it does not."""
    while frame is not None:
        if _is_ours(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _is_ours(file: str) -> bool:
    return file.startswith(_HOME) and not file.startswith(_KIT)
