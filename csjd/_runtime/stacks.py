"""Where a running handler is."""

import sys
import traceback
from types import FrameType

import trio


def stack_of(task: trio.lowlevel.Task, thread: int | None) -> tuple[str, ...]:
    """
    Return the calls *task* is in, outermost first: `file:line in function`.

    Args:
        task: The lane's task.
        thread: The thread its handler runs in, if it does, by ident.
    """
    lines = [
        _line(frame.f_code.co_filename, number, frame.f_code.co_name)
        for frame, number in task.iter_await_frames()
    ]
    frame: FrameType | None = sys._current_frames().get(thread) if thread is not None else None
    if frame is not None:
        lines += (
            _line(entry.filename, entry.lineno, entry.name)
            for entry in traceback.extract_stack(frame, limit=64)
        )
    return tuple(lines)


def _line(file: str, number: int | None, function: str) -> str:
    return f"{file}:{number} in {function}"
