"""
Handlers that follow a script: what each attempt does is written down beforehand.

    handler = ScriptedHandler([Raise(OSError("down")), Sleep(2, then=Return("done"))])
    dispatcher.register("report", handler)

The first call does the first step, and so on; calls beyond the script repeat the last
step. Every call is noted, with its times.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import trio

from csjd import Attempt, Job, RetryAfter, Snooze


@attrs.frozen
class Return:
    """Return a value."""

    value: Any = None


@attrs.frozen
class Raise:
    """Raise an exception."""

    error: BaseException


@attrs.frozen
class Sleep:
    """Wait, open to cancellation, then do something else."""

    seconds: float
    then: "Step" = attrs.field(factory=Return)


@attrs.frozen
class Hang:
    """Wait until cancelled."""


@attrs.frozen
class IgnoreCancel:
    """Be deaf to cancellation for a while, as behind a shield, then do something else."""

    seconds: float
    then: "Step" = attrs.field(factory=Return)


@attrs.frozen
class CleanUp:
    """Wait until cancelled, take some time to clean up, then do something else."""

    seconds: float
    then: "Step | None" = None
    """None: let the cancellation out."""


Step: TypeAlias = Return | Raise | Sleep | Hang | IgnoreCancel | CleanUp
"""What one attempt does: any of the values above."""


def snooze(seconds: float) -> Raise:
    """Return the step that asks to be called again after *seconds*."""
    return Raise(Snooze(seconds))


def retry_after(seconds: float) -> Raise:
    """Return the step that fails and asks for the next attempt after *seconds*."""
    return Raise(RetryAfter(seconds))


@attrs.define(eq=False)
class Call:
    """One call of a scripted handler."""

    job: Job
    attempt: int
    """Counted from 1."""
    worker: int
    began: float
    """On Trio's clock."""
    ended: float = math.inf
    """On Trio's clock; infinite while it runs."""
    cancelled: bool = False
    """Whether a cancellation reached it."""


@attrs.define(eq=False)
class ScriptedHandler:
    """
    An async handler that does as it was told.

    Args:
        script: Steps for all calls in turn, or a mapping of job id to the steps for the
            calls with that job; the last step repeats.
    """

    script: Sequence[Step] | Mapping[str, Sequence[Step]] = (Return(),)
    calls: list[Call] = attrs.field(factory=list, init=False)
    """Every call so far, in the order they began."""

    async def __call__(self, job: Job, attempt: Attempt) -> Any:
        """Do the next step of the script."""
        step = self._next_step(job)
        call = Call(job, attempt.number, attempt.worker, trio.current_time())
        self.calls.append(call)
        try:
            return await _perform(step)
        except trio.Cancelled:
            call.cancelled = True
            raise
        finally:
            call.ended = trio.current_time()

    @property
    def order(self) -> list[str]:
        """The ids of the jobs it was called with, in that order."""
        return [call.job.id for call in self.calls]

    def _next_step(self, job: Job) -> Step:
        if isinstance(self.script, Mapping):
            steps = self.script.get(job.id, (Return(),))
            done = sum(call.job.id == job.id for call in self.calls)
        else:
            steps, done = self.script, len(self.calls)
        return steps[min(done, len(steps) - 1)]


async def _perform(step: Step) -> Any:
    while True:
        match step:
            case Return(value):
                return value
            case Raise(error):
                raise error
            case Sleep(seconds, then):
                await trio.sleep(seconds)
                step = then
            case Hang():
                await trio.sleep_forever()
            case IgnoreCancel(seconds, then):
                with trio.CancelScope(shield=True):
                    await trio.sleep(seconds)
                step = then
            case CleanUp():
                step = await _clean_up(step)


async def _clean_up(step: CleanUp) -> Step:
    try:
        await trio.sleep_forever()
    except trio.Cancelled:  # noqa: ASYNC103  a script may say so
        with trio.CancelScope(shield=True):
            await trio.sleep(step.seconds)
        if step.then is None:
            raise
        return step.then  # noqa: ASYNC104  a script may say so
