"""Cancel scopes and nurseries that user code opened in a task of ours and left open."""

import trio

from csjd._model.groups import leaves
from csjd._runtime.isolation import disown_nurseries

_CHECK = 0.01
"""Seconds between looks at what is left running in a nursery that was never closed."""


async def close_leaks(
    task: trio.lowlevel.Task, culprit: str, error: BaseException | None
) -> BaseException:
    """
    End what runs in the nurseries left open in *task*; return what its work failed of.

    No other work must begin while tasks of this one still run, so this waits for them. It
    has to look now and then: nobody can wait in a nursery but the code that opened it.

    Leaving the cancel scope around the work will still raise Trio's own RuntimeError.

    Args:
        task: The running task, which must take no other work from now on.
        culprit: Whose code it was, for the message.
        error: What that code raised, if it did.
    """
    nurseries = disown_nurseries(task)
    for nursery in nurseries:
        nursery.cancel_scope.cancel(f"its {culprit} returned without closing it")
    with trio.CancelScope(shield=True):
        while any(nursery.child_tasks for nursery in nurseries):  # noqa: ASYNC110
            await trio.sleep(_CHECK)
    if error is not None and any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(error)):
        return error  # it ends the program, so what was left open on the way matters no more
    leak = RuntimeError(
        f"the {culprit} returned while a cancel scope or nursery it had opened was still open: "
        "leave every `with` and `async with` block, also those inside generators"
    )
    leak.__cause__ = error
    return leak
