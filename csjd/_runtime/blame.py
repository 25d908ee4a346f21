"""Whose error it is that user code raised in a task of ours: its own, or one that it met."""

import math

import trio

from csjd._model.groups import leaves


def tell_apart(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """
    Divide what user code raised in the running task, one of ours, by who has to hear of it.

    Returns:
        What is that code's own, for those who wait for what it does, and what has to go on
        to the nursery, since by it the interpreter or Trio ends the task. Each is None if
        there is no such part; never are both.
    """
    kinds = set(map(type, leaves(error)))
    if kinds & {KeyboardInterrupt, GeneratorExit}:
        return None, error
    if trio.Cancelled not in kinds:
        return error, None
    if trio.current_effective_deadline() > -math.inf:
        return without_cancelled(error), None
    if isinstance(error, BaseExceptionGroup):
        # As a child broke down while it was cancelled. Sent on whole, the nursery would drop
        # the Cancelled and be left with an error that it must not see.
        cancelled, own = error.split(trio.Cancelled)
        return own, cancelled
    return None, error


def is_cancellation(error: BaseException) -> bool:
    """Whether *error* is nothing but `trio.Cancelled`."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in leaves(error))


def without_cancelled(error: BaseException) -> BaseException:
    """
    Return *error*, or, if there is a `trio.Cancelled` in it, a RuntimeError from it.

    That is for a Cancelled that came out of nowhere, or was kept from going where it
    belongs: raised in a task that nobody cancelled, it would end that too.
    """
    if not any(isinstance(leaf, trio.Cancelled) for leaf in leaves(error)):
        return error
    stray = RuntimeError("trio.Cancelled was raised although nothing was cancelled")
    stray.__cause__ = error
    return stray
