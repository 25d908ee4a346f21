"""
What one commit will write: operations, and changes that wait for it.

A plain operation tells of what has happened in memory already, such as the end of an
attempt. A `Change` is still to happen, when its operations are on the disk: jobs are
accepted, a delayed one takes its place. So memory never shows what a crash could take
back, except ends, and those only mean that a job may run again.
"""

from typing import ClassVar

import attrs
import trio

from csjd._core.backlog import Backlog
from csjd._core.entry import Entry
from csjd._model.errors import JobStoreError
from csjd._model.storing import Operation


@attrs.define(eq=False)
class Change:
    """What happens when the store knows of all its operations, or does not happen at all."""

    operations: list[Operation]
    """In order; none was gathered by anybody else in between."""
    withdrawn: bool = attrs.field(default=False, init=False)
    """Whoever wanted it has given up before it was written."""
    error: JobStoreError | None = attrs.field(default=None, init=False)
    """Why it did not happen, if it was refused."""
    batch: "Batch" = attrs.field(init=False)
    grows: ClassVar[bool] = True
    """Whether it makes the store grow, so that it is refused when the disk is full."""
    wanted: ClassVar[bool] = True
    """Whether somebody waits for it, who may give up or be told that the store has failed."""

    def apply(self, now: float) -> None:
        """Let it happen."""
        raise NotImplementedError

    def refuse(self, now: float) -> None:
        """Undo what was reserved for it."""
        raise NotImplementedError


@attrs.define(eq=False)
class Placing(Change):
    """A delayed job that fell due takes its place."""

    backlog: Backlog
    entry: Entry
    grows = False
    wanted = False

    def apply(self, now: float) -> None:
        """Line the job up."""
        self.backlog.place(self.entry)


@attrs.define(eq=False)
class Batch:
    """What one commit will write."""

    parts: list[Change | list[Operation]] = attrs.field(factory=list)
    """Changes, and runs of plain operations, in the order in which they take effect."""
    sync: bool = False
    """Whether it must survive the loss of power, and not just of the process."""
    writing: bool = False
    """The commit has begun: nothing in it can be taken back."""
    done: trio.Event = attrs.field(factory=trio.Event)
    """Set when it was written, or will never be; or a full disk has not taken it."""
    changed: int = 0
    """Changes added to it."""
    heir: "Batch | None" = None
    """The one that what a full disk has not taken will be written with."""

    def add(self, change: Change) -> None:
        """Let *change* be written with it."""
        change.batch = self
        self.parts.append(change)
        self.changed += 1

    def note(self, operations: list[Operation]) -> None:
        """Let plain *operations* be written with it."""
        self.parts.append(operations)

    def ends_with(self, change: Change) -> bool:
        """Whether nothing has been gathered after *change*, so that it may still grow."""
        return not self.writing and bool(self.parts) and self.parts[-1] is change

    def operations(self, *, refused: bool = False) -> list[Operation]:
        """Return what is to be written; of what a full disk has *refused* nothing that grows."""
        found: list[Operation] = []
        for part in self.parts:
            if not isinstance(part, Change):
                found += part
            elif not (part.withdrawn or (refused and part.grows)):
                found += part.operations
        return found

    def changes(self) -> list[Change]:
        """Return what happens when it is written, in order."""
        return [part for part in self.parts if isinstance(part, Change) and not part.withdrawn]

    async def taken(self) -> None:
        """Wait until what does not grow of it was written, or never will be."""
        await self.done.wait()
        heir = self.heir
        while heir is not None:
            await heir.done.wait()
            heir = heir.heir

    def put_before(self, other: "Batch") -> None:
        """Have all of it that does not grow written with *other*, before all else."""
        self.heir = other
        kept = [part for part in self.parts if not (isinstance(part, Change) and part.grows)]
        other.parts[:0] = kept
        other.sync |= self.sync
        for part in kept:
            if isinstance(part, Change):
                part.batch = other
