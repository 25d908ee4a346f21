"""
Tasks that do one piece of work after another, since a new task for each costs more.

Each piece runs in a copy of the context of whoever started it, as in a task of its own.
What a *hand*, one such task, does next is decided when a piece has ended. If that returned
and left nothing behind, the hand takes the next, or sleeps until there is one. Otherwise,
if it raised, was cancelled or left a cancel scope or nursery open, the hand ends as well.
"""

from contextvars import Context, copy_context
from typing import Any, Protocol

import trio

from csjd._runtime.blame import is_cancellation, tell_apart
from csjd._runtime.isolation import cancel_status
from csjd._runtime.leaks import close_leaks
from csjd._runtime.parking import Sleepers, sleep_among, wake_all

_SPARE = 16
"""Hands kept for later when there is nothing to do. More would only help in bursts."""


class Work(Protocol):
    """A piece of work; `perform` is called at most once, then exactly one of the others."""

    hand: "Hand"
    """Who does it; set before it begins."""

    async def perform(self) -> Any:
        """Do it, unprotected from Ctrl-C; not called at all if it is cancelled before."""

    def succeed(self, value: Any) -> None:
        """Hear what it returned, perhaps although it was cancelled."""

    def absorb(self, error: BaseException) -> bool:
        """Hear of an error of its own; False if nobody else did, so that it has to go on."""

    def cut_off(self, cause: BaseException | None) -> None:
        """Hear that it ended with its nursery, or because *cause* ends the whole program."""

    def cancelled(self) -> None:
        """Hear that it has ended after `Hand.cancel`."""


class Hand:
    """One task of a crew."""

    __slots__ = ("_scope", "bed", "is_cancelled", "task", "work")

    task: trio.lowlevel.Task

    def __init__(self, work: Work) -> None:
        self.work: Work | None = work
        """What it does; None while it sleeps."""
        self.bed: Sleepers = {}
        self.is_cancelled: bool = False
        self._scope = trio.CancelScope()

    def cancel(self, reason: str) -> None:
        """Cancel what it does, and let it end with that."""
        self.is_cancelled = True
        self._scope.cancel(reason)


class Crew:
    """
    The tasks of one owner, all in one nursery; they end when that is cancelled.

    Args:
        nursery: Where they live.
        name: What each is called in Trio's tree.
        code: What the user's code that they run is called if it misbehaves.
        above: The nursery that ends with theirs, if there is one, and in which what they
            raise ends up.
    """

    __slots__ = ("_above", "_asleep", "_code", "_name", "_nursery")

    def __init__(
        self, nursery: trio.Nursery, name: str, code: str, *, above: trio.Nursery | None = None
    ) -> None:
        self._nursery = nursery
        self._above = nursery if above is None else above
        self._name = name
        self._code = code
        self._asleep: dict[Hand, None] = {}

    def start(self, work: Work) -> None:
        """Have *work* done soon, in a copy of the present context."""
        if self._asleep:
            hand, _ = self._asleep.popitem()
            work.hand, hand.work = hand, work
            hand.task.context = copy_context()
            # Who is on the way out, as the nursery is cancelled, will not be woken again:
            # then that is what happens to the work, as it would in a new task.
            wake_all(hand.bed)
        else:
            work.hand = hand = Hand(work)
            self._nursery.start_soon(self._run, hand, name=self._name)

    @trio.lowlevel.enable_ki_protection
    async def _run(self, hand: Hand) -> None:
        hand.task = trio.lowlevel.current_task()
        leak: BaseException | None = None
        rest: BaseException | None = None
        try:
            with hand._scope:
                leak = await self._work(hand)
        except BaseException as error:  # noqa: ASYNC103  # all but the work's own goes on
            # Trio complains of a leak as well, but does not say whose it is.
            rest = self._book(hand.work, leak or error)
            if rest is not None:
                raise rest  # noqa: ASYNC104, B904
        else:
            if hand.work is not None:
                hand.work.cancelled()
        finally:
            # The work knows its hand, and the task's context may know the work: no circles.
            del hand.task, leak, rest
            hand.work = None

    def _book(self, work: Work | None, error: BaseException) -> BaseException | None:
        """Tell *work* what it failed of; return what of that has to go on to the nursery."""
        own, rest = (None, error) if work is None else tell_apart(error)
        if own is not None and work is not None and work.absorb(own):
            return rest
        cause = None if is_cancellation(error) else error
        if cause is not None:
            # As Trio will, when all of ours have ended. Done before anybody is woken for it,
            # so that those up there are cancelled, and *error* is not one voice among many.
            self._above.cancel_scope.cancel(f"{self._name} failed")
        if own is None and work is not None:
            work.cut_off(cause)
        return error

    async def _work(self, hand: Hand) -> BaseException | None:
        """Work until this hand has to end; return what it has to fail of for a leak."""
        task = hand.task
        status = cancel_status(task)
        while hand.work is not None and not hand.is_cancelled:
            try:
                value = await hand.work.perform()
            except BaseException as error:  # noqa: ASYNC103  # it is the leak's cause, or raised
                if cancel_status(task) is status:
                    raise
                return await close_leaks(task, self._code, error)  # noqa: ASYNC102, ASYNC104
            if cancel_status(task) is not status:
                return await close_leaks(task, self._code, None)
            work, hand.work = hand.work, None
            work.succeed(value)
            if hand.is_cancelled or len(self._asleep) >= _SPARE:
                return None
            self._asleep[hand] = None
            # What waits here, perhaps for long, must not keep the last work alive.
            del work, value
            task.context = Context()
            try:
                await sleep_among(hand.bed, task)
            except BaseException:
                self._asleep.pop(hand, None)
                raise
        return None
