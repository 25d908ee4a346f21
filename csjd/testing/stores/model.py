"""What operations add up to: the plain model that stores are held against."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import attrs
import msgspec

from csjd._model.storing import (
    Accepted,
    DeadLetter,
    DeadLettered,
    Discarded,
    Ended,
    Halted,
    Interrupted,
    LiveJob,
    Operation,
    Placed,
    Postponed,
    Recovery,
    Requeued,
    Resumed,
    Started,
)

Summary: TypeAlias = tuple[Any, ...]
"""All that a recovery must get right, comparable with `==`."""


def summarize(recovery: Recovery) -> Summary:
    """Return what of a recovery must not depend on the store."""
    return (
        tuple(recovery.live),
        tuple(sorted(recovery.remembered.items())),
        tuple(recovery.dead_letters),
        tuple(sorted(recovery.halted)),
        recovery.next_order,
    )


@attrs.define(eq=False)
class StoreModel:
    """
    What operations add up to, as plainly as it can be said.

    Written apart from any store, to hold stores against. It takes operations that refer
    to what exists, and fails with a `KeyError` on others.
    """

    live: dict[int, LiveJob] = attrs.field(factory=dict)
    dead: dict[int, DeadLetter] = attrs.field(factory=dict)
    remembered: dict[str, float] = attrs.field(factory=dict)
    halted: set[str] = attrs.field(factory=set)
    next_order: int = 1

    def copy(self) -> "StoreModel":
        """Return another that is the same now."""
        return StoreModel(
            dict(self.live),
            dict(self.dead),
            dict(self.remembered),
            set(self.halted),
            self.next_order,
        )

    def apply(self, operations: Sequence[Operation]) -> None:
        """Let a batch take effect."""
        for operation in operations:
            self._apply(operation)

    def _apply(self, operation: Operation) -> None:
        match operation:
            case Accepted(order=order, due=due, delay=delay):
                self._new_order(order)
                self.live[order] = LiveJob(operation, due=due, delay=delay)
            case Started(order=order):
                self._change(order, started=True, due=None, delay=None)
            case Interrupted(order=order):
                self._change(order, started=False)
            case Postponed(order, attempts, due, kind, delay):
                self._change(
                    order, attempts=attempts, due=due, kind=kind, delay=delay, started=False
                )
            case Placed(order=order, new_order=new_order):
                self._new_order(new_order)
                job = self.live.pop(order)
                self.live[new_order] = msgspec.structs.replace(
                    job,
                    accepted=msgspec.structs.replace(job.accepted, order=new_order),
                    due=None,
                    delay=None,
                    started=False,
                )
            case Ended(order=order, remembered_until=until):
                self._remember(self.live.pop(order).accepted.id, until)
            case DeadLettered(order=order, attempts=attempts, reason=reason, error=error, at=at):
                job = self.live.pop(order)
                self.dead[order] = DeadLetter(
                    job.accepted, attempts, job.crashes, reason, error, at
                )
                self._remember(job.accepted.id, operation.remembered_until)
            case Requeued(order=order, new_order=new_order):
                self._new_order(new_order)
                accepted = self.dead.pop(order).accepted
                self.live[new_order] = LiveJob(
                    msgspec.structs.replace(accepted, order=new_order, due=None)
                )
            case Discarded(order=order):
                del self.dead[order]
            case Halted(session=session):
                self.halted.add(session)
            case Resumed(session=session):
                self.halted.discard(session)

    def opened(self, *, clean: bool) -> None:
        """Let the owner's end take effect: nothing runs, and unless *clean* it crashed."""
        for order, job in self.live.items():
            if job.started:
                crashes = job.crashes if clean else job.crashes + 1
                self.live[order] = msgspec.structs.replace(job, started=False, crashes=crashes)

    def recovery(self, *, clean: bool = True) -> Recovery:
        """Return what a store that was told the same would tell."""
        return Recovery(
            live=[self.live[order] for order in sorted(self.live)],
            remembered=dict(self.remembered),
            dead_letters=list(self.dead.values()),
            halted=frozenset(self.halted),
            quarantined=[],
            next_order=self.next_order,
            clean=clean,
        )

    def _new_order(self, order: int) -> None:
        if order < self.next_order:
            raise KeyError(order)
        self.next_order = order + 1

    def _change(self, order: int, **changes: Any) -> None:
        self.live[order] = msgspec.structs.replace(self.live[order], **changes)

    def _remember(self, id: str, until: float) -> None:
        self.remembered.pop(id, None)
        if until > 0:
            self.remembered[id] = until


def model_of(recovery: Recovery) -> StoreModel:
    """Return a model that begins where a recovery leaves off."""
    return StoreModel(
        {job.order: job for job in recovery.live},
        {letter.order: letter for letter in recovery.dead_letters},
        dict(recovery.remembered),
        set(recovery.halted),
        recovery.next_order,
    )
