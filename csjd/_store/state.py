"""
What a log adds up to: the state that replaying it gives.

A store keeps no copy of the jobs in memory while it runs, the dispatcher has them. The
state is built when a store is opened, from its files, and again, from the files that are
finished by then, when they are compacted.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

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
    Quarantined,
    Requeued,
    Resumed,
    Started,
)
from csjd._store.batches import Broken, Entry, Foreign, HaltedSession, Remembered, encode_batch

_replace: Final = msgspec.structs.replace
_BLOCK_BITS: Final = 12


class JobTable:
    """
    Live jobs by order, in blocks of neighbours.

    One dictionary of a million jobs would hold the interpreter for tens of milliseconds
    when it grows, and for longer when it is freed; a block takes microseconds.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, dict[int, LiveJob]] = {}

    def __len__(self) -> int:
        """Return how many jobs there are."""
        return sum(map(len, self._blocks.values()))

    def __contains__(self, order: int) -> bool:
        """Whether there is a job of that order."""
        return order in self._blocks.get(order >> _BLOCK_BITS, ())

    def put(self, job: LiveJob) -> None:
        """Add a job, or replace the one of its order."""
        order = job.accepted.order
        block = self._blocks.get(order >> _BLOCK_BITS)
        if block is None:
            block = self._blocks[order >> _BLOCK_BITS] = {}
        block[order] = job

    def get(self, order: int) -> LiveJob | None:
        """Return the job of that order, if there is one."""
        block = self._blocks.get(order >> _BLOCK_BITS)
        return None if block is None else block.get(order)

    def pop(self, order: int) -> LiveJob | None:
        """Remove and return the job of that order, if there is one."""
        block = self._blocks.get(order >> _BLOCK_BITS)
        job = None if block is None else block.pop(order, None)
        if job is not None and not block:
            del self._blocks[order >> _BLOCK_BITS]
        return job

    def highest(self) -> int:
        """Return the highest order of a job; 0 if there is none."""
        return max(self._blocks[max(self._blocks)]) if self._blocks else 0

    def drain(self) -> Iterator[list[LiveJob]]:
        """Yield the jobs in blocks, in order, and forget each block as the next is asked for."""
        for number in sorted(self._blocks):
            block = self._blocks.pop(number)
            yield [block[order] for order in sorted(block)]


@attrs.define(eq=False)
class State:
    """All that a store has been told, summed up."""

    now: float
    """Wall-clock seconds: what is remembered only until then is forgotten."""
    live: JobTable = attrs.field(factory=JobTable)
    dead: dict[int, DeadLetter] = attrs.field(factory=dict)
    remembered: dict[str, float] = attrs.field(factory=dict)
    halted: dict[str, None] = attrs.field(factory=dict)
    """A set that keeps its order, so that two stores told the same write the same."""
    quarantined: list[Quarantined] = attrs.field(factory=list)
    foreign: list[bytes] = attrs.field(factory=list)
    """Of a later version; carried along."""
    started: set[int] = attrs.field(factory=set)
    """Orders of live jobs that are running, as far as we were told."""
    next_order: int = 1

    def apply(self, item: Operation | Broken | Foreign) -> None:
        """Take one operation into account; what refers to nothing goes to quarantine."""
        _APPLY[type(item)](self, item)

    def restore(self, entry: Entry | Broken | Foreign) -> None:
        """Take one entry of a snapshot into account."""
        _RESTORE[type(entry)](self, entry)

    def interrupted(self) -> None:
        """Note that the owner closed the store: nothing is running."""
        for order in self.started:
            job = self.live.get(order)
            if job is not None:
                self.live.put(_replace(job, started=False))
        self.started.clear()

    def crashed(self) -> None:
        """Note that the owner died: what was running has one crash more."""
        for order in self.started:
            job = self.live.get(order)
            if job is not None:
                self.live.put(_replace(job, started=False, crashes=job.crashes + 1))
        self.started.clear()

    def drain(self) -> Iterator[list[Entry | Foreign]]:
        """Yield everything as a snapshot's entries, in small lists; the state is empty after."""
        for block in self.live.drain():
            yield from _pieces(block)
        rest: list[Entry | Foreign] = [*self.dead.values()]
        rest += [Remembered(*item) for item in self.remembered.items()]
        rest += [HaltedSession(session) for session in self.halted]
        rest += self.quarantined
        rest += [Foreign(raw) for raw in self.foreign]
        yield from _pieces(rest)

    # --- operations ---

    def _accept(self, op: Accepted) -> None:
        if op.order < self.next_order:
            self._stray(op, f"order {op.order} was used before")
            return
        self.next_order = op.order + 1
        self.live.put(LiveJob(op, due=op.due, delay=op.delay))

    def _start(self, op: Started) -> None:
        job = self.live.get(op.order)
        if job is None:
            self._stray(op, _UNKNOWN)
            return
        self.live.put(_replace(job, started=True, due=None, delay=None))
        self.started.add(op.order)

    def _interrupt(self, op: Interrupted) -> None:
        job = self.live.get(op.order)
        if job is None:
            self._stray(op, _UNKNOWN)
            return
        self.live.put(_replace(job, started=False))
        self.started.discard(op.order)

    def _postpone(self, op: Postponed) -> None:
        job = self.live.get(op.order)
        if job is None:
            self._stray(op, _UNKNOWN)
            return
        postponed = _replace(
            job, attempts=op.attempts, due=op.due, kind=op.kind, delay=op.delay, started=False
        )
        self.live.put(postponed)
        self.started.discard(op.order)

    def _place(self, op: Placed) -> None:
        job = self.live.get(op.order)
        if job is None or op.new_order < self.next_order:
            self._stray(op, _UNKNOWN)
            return
        self.live.pop(op.order)
        self.next_order = op.new_order + 1
        accepted = _replace(job.accepted, order=op.new_order)
        self.live.put(_replace(job, accepted=accepted, due=None, delay=None, started=False))
        self.started.discard(op.order)

    def _end(self, op: Ended) -> None:
        job = self.live.pop(op.order)
        if job is None:
            self._stray(op, _UNKNOWN)
            return
        self.started.discard(op.order)
        self._remember(job.accepted.id, op.remembered_until)

    def _die(self, op: DeadLettered) -> None:
        job = self.live.pop(op.order)
        if job is None:
            self._stray(op, _UNKNOWN)
            return
        self.started.discard(op.order)
        self.dead[op.order] = DeadLetter(
            job.accepted, op.attempts, job.crashes, op.reason, op.error, op.at
        )
        self._remember(job.accepted.id, op.remembered_until)

    def _requeue(self, op: Requeued) -> None:
        letter = self.dead.get(op.order)
        if letter is None or op.new_order < self.next_order:
            self._stray(op, _UNKNOWN)
            return
        del self.dead[op.order]
        self.next_order = op.new_order + 1
        self.live.put(LiveJob(_replace(letter.accepted, order=op.new_order, due=None)))

    def _discard(self, op: Discarded) -> None:
        if self.dead.pop(op.order, None) is None:
            self._stray(op, _UNKNOWN)

    def _halt(self, op: Halted) -> None:
        self.halted[op.session] = None

    def _resume(self, op: Resumed) -> None:
        self.halted.pop(op.session, None)

    def _remember(self, id: str, until: float) -> None:
        if until > self.now:
            self.remembered[id] = until
        else:
            self.remembered.pop(id, None)

    def _stray(self, op: Operation, reason: str) -> None:
        session = op.session if type(op) is Accepted else None
        self._quarantine(Broken(reason, encode_batch([op]), session))

    # --- entries, and what operations and entries share ---

    def _restore_live(self, job: LiveJob) -> None:
        self.live.put(job)
        if job.started:
            self.started.add(job.accepted.order)

    def _restore_dead(self, letter: DeadLetter) -> None:
        self.dead[letter.order] = letter

    def _restore_remembered(self, entry: Remembered) -> None:
        self._remember(entry.id, entry.until)

    def _restore_halted(self, entry: HaltedSession) -> None:
        self.halted[entry.session] = None

    def _restore_quarantined(self, entry: Quarantined) -> None:
        self.quarantined.append(entry)  # whether its session is still halted is told apart

    def _quarantine(self, item: Broken) -> None:
        self.quarantined.append(Quarantined(item.reason, item.raw, item.session))
        if item.session is not None:
            self.halted[item.session] = None

    def _carry(self, item: Foreign) -> None:
        self.foreign.append(item.raw)


_UNKNOWN: Final = "it refers to a job that does not exist"

_APPLY: Final[dict[type, Callable[[State, Any], None]]] = {
    Accepted: State._accept,
    Started: State._start,
    Interrupted: State._interrupt,
    Postponed: State._postpone,
    Placed: State._place,
    Ended: State._end,
    DeadLettered: State._die,
    Requeued: State._requeue,
    Discarded: State._discard,
    Halted: State._halt,
    Resumed: State._resume,
    Broken: State._quarantine,
    Foreign: State._carry,
}

_RESTORE: Final[dict[type, Callable[[State, Any], None]]] = {
    LiveJob: State._restore_live,
    DeadLetter: State._restore_dead,
    Remembered: State._restore_remembered,
    HaltedSession: State._restore_halted,
    Quarantined: State._restore_quarantined,
    Broken: State._quarantine,
    Foreign: State._carry,
}

_PIECE_ENTRIES: Final = 100
_PIECE_BYTES: Final = 1 << 15


def _pieces(entries: "list[Any]") -> Iterator[list[Entry | Foreign]]:
    """Cut a list into lists short enough that writing one takes well below a millisecond."""
    piece: list[Entry | Foreign] = []
    size = 0
    for entry in entries:
        piece.append(entry)
        size += len(entry.accepted.payload) if isinstance(entry, LiveJob) else 0
        if len(piece) >= _PIECE_ENTRIES or size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
