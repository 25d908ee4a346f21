"""Dead letters: jobs that will not be tried again, kept until somebody has looked at them."""

from collections import OrderedDict

import attrs

from csjd._core.entry import Entry
from csjd._model.handler import HandlerSpec
from csjd._model.metrics import DeadLetter


@attrs.frozen
class Buried:
    """A dead letter, and what it takes to accept its job anew."""

    letter: DeadLetter
    spec: HandlerSpec | None
    """How it is run; None if nobody has said so since it came out of a store."""
    copies: bool
    """Whether attempts need copies."""
    order: int
    """What a store knows it by."""

    @property
    def job_id(self) -> str:
        """The id of its job."""
        return self.letter.job.id


@attrs.frozen
class Displaced:
    """What went when a dead letter came."""

    replaced: Buried | None
    """The letter of an earlier job with the same id."""
    dropped: tuple[Buried, ...]
    """The oldest, which had to make room."""

    @property
    def all(self) -> tuple[Buried, ...]:
        """Every letter that is gone."""
        return self.dropped if self.replaced is None else (self.replaced, *self.dropped)


@attrs.define(eq=False)
class DeadLetters:
    """The dead letters of one dispatcher: one for a job id, oldest first, the latest only."""

    limit: int
    """How many are kept."""
    dropped: int = 0
    """How many had to make room, ever."""
    _kept: OrderedDict[str, Buried] = attrs.field(factory=OrderedDict)
    """By job id, oldest first."""

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, job_id: str) -> Buried | None:
        """Return the letter of the job with this id, None if there is none."""
        return self._kept.get(job_id)

    def letters(self) -> tuple[DeadLetter, ...]:
        """Return all letters, oldest first."""
        return tuple(buried.letter for buried in self._kept.values())

    def bury(self, entry: Entry, error: BaseException, *, timed_out: bool, now: float) -> Displaced:
        """Make a letter of a job that failed for good, and keep it."""
        letter = DeadLetter(
            job=entry.job, attempts=entry.attempts, error=error, timed_out=timed_out, failed=now
        )
        return self.keep(Buried(letter, entry.spec, entry.copies, entry.order))

    def keep(self, buried: Buried) -> Displaced:
        """Keep a letter as the newest, also if it is not the first of its id."""
        replaced = self._kept.pop(buried.job_id, None)
        self._kept[buried.job_id] = buried
        dropped = []
        while len(self._kept) > self.limit:
            dropped.append(self._kept.popitem(last=False)[1])
        self.dropped += len(dropped)
        return Displaced(replaced, tuple(dropped))

    def take_out(self, job_id: str) -> Buried:
        """
        Keep the letter of this id no longer; return it.

        Raises:
            KeyError: There is none.
        """
        return self._kept.pop(job_id)

    def put_back(self, buried: Buried) -> None:
        """Undo `take_out`: keep a letter as the newest, and drop none for it."""
        self._kept[buried.job_id] = buried
