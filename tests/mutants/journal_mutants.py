"""
The mutants of a dispatcher with a store: what it tells its store, and what it believes.

D: historic defects of a job dispatcher with a file store; J: mistakes that a journal with
group commit invites. Planted by replacing whole decisions, so that they outlive changes of
how the journal is written.
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec
import trio

from csjd._core.dead_letters import Buried
from csjd._core.entry import Entry
from csjd._model.storing import (
    NEVER,
    Accepted,
    DeadLettered,
    Discarded,
    DueKind,
    Ended,
    Halted,
    Interrupted,
    JobStore,
    LiveJob,
    Operation,
    Placed,
    Postponed,
    Recovery,
    Requeued,
    Resumed,
    Started,
)
from csjd._runtime import (
    journal as journal_module,
    keeping as keeping_module,
    recovering as recovering_module,
)
from csjd._runtime.journal import Journal
from csjd._runtime.keeping import Admitting, Discarding, Keeping
from csjd._runtime.notes import Notes
from csjd._runtime.recovering import Recovering
from tests.mutants.planting import Mutant, Planting, replace


def _instead(owner: Any, name: str, function: Callable[..., Any]) -> Callable[[], Planting]:
    return lambda: replace(owner, name, lambda original: function)


async def _checkpoint(*_: object) -> None:
    await trio.lowlevel.checkpoint()


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""


# --- what the store is told: operations are changed on their way to it --------------------


def _told(change: Callable[[list[Operation]], Sequence[Operation]]) -> Callable[[], Planting]:
    """Have the store told what *change* makes of each batch."""

    def make(original: Any) -> Any:
        def commit(store: JobStore, operations: list[Operation], *rest: Any) -> Any:
            return original(store, list(change(operations)), *rest)

        return commit

    return lambda: replace(journal_module, "_commit", make)


def _without(*kinds: type) -> Callable[[], Planting]:
    return _told(lambda batch: [each for each in batch if not isinstance(each, kinds)])


def _changed(sort: type | tuple[type, ...], /, **fields: Any) -> Callable[[], Planting]:
    return _told(
        lambda batch: [
            msgspec.structs.replace(each, **fields) if isinstance(each, sort) else each
            for each in batch
        ]
    )


def _retry_that_is_not_kept_is_deleted(batch: list[Operation]) -> list[Operation]:
    return [
        Ended(each.order) if isinstance(each, Postponed) and each.kind is DueKind.BACKOFF else each
        for each in batch
    ]


def _only_power_matters() -> Planting:
    def make(original: Any) -> Any:
        def commit(store: JobStore, operations: list[Operation], sync: bool, *rest: Any) -> Any:
            return original(store, operations, False, *rest)

        return commit

    return replace(journal_module, "_commit", make)


def _ends_first(batch: list[Operation]) -> list[Operation]:
    """What has happened already goes before what is about to: a tidy idea, and wrong."""
    return sorted(batch, key=lambda each: isinstance(each, (Accepted, Placed, Requeued)))


# --- what a recovery is believed to say ---------------------------------------------------


def _believed(change: Callable[[Recovery], Recovery]) -> Callable[[], Planting]:
    def make(original: Any) -> Any:
        async def recover(self: Journal) -> Recovery:
            return change(await original(self))

        return recover

    return lambda: replace(Journal, "recover", make)


def _each_live(change: Callable[[LiveJob], LiveJob]) -> Callable[[Recovery], Recovery]:
    return lambda recovery: attrs.evolve(recovery, live=list(map(change, recovery.live)))


def _type_without_handler_is_deleted() -> Planting:
    def make(original: Any) -> Any:
        def take_in(self: Recovering, live: LiveJob, now: float, wall: float) -> None:
            if live.accepted.type in self.specs:
                original(self, live, now, wall)
            else:
                self.journal.note(Ended(live.order))

        return take_in

    return replace(Recovering, "_take_in", make)


# --- when those who wait are answered -----------------------------------------------------


def _withdrawn_while_written() -> Planting:
    def withdraw(self: Journal, change: Any) -> bool:
        if change.batch.done.is_set() or not change.refusable:
            return False
        change.withdrawn = True
        change.refuse(self._scheduler.clock.current_time())
        return True

    return replace(Journal, "_withdraw", lambda original: withdraw)


def _cancelled_is_withdrawn_and_written() -> Planting:
    def withdraw(self: Journal, change: Any) -> bool:
        return change.refusable and not change.batch.done.is_set()

    return replace(Journal, "_withdraw", lambda original: withdraw)


def _never_lets_go() -> Planting:
    async def wait(self: Journal, changes: Any) -> None:
        with trio.CancelScope(shield=True):
            await journal_module._all_done(changes)

    return replace(Journal, "wait", lambda original: wait)


def _meanwhile_is_lost() -> Planting:
    def make(original: Any) -> Any:
        async def commit(self: Journal, batch: Any) -> bool:
            taken: bool = await original(self, batch)
            self._successes.clear()
            self._next.parts.clear()
            return taken

        return commit

    return replace(Journal, "_commit", make)


def _full_disk_is_believed() -> Planting:
    def make(original: Any) -> Any:
        def settle(self: Journal, batch: Any, refused: Any) -> None:
            original(self, batch, None)

        return settle

    return replace(Journal, "_settle", make)


def _jobs_begin_after_a_failure() -> Planting:
    def make(original: Any) -> Any:
        def note_failure(self: Journal, error: BaseException) -> None:
            original(self, error)
            self._backlog.stopped = False
            self._backlog.call_all()
            self._scheduler.send_calls()

        return note_failure

    return replace(Journal, "_note_failure", make)


def _close_forgets() -> Planting:
    def make(original: Any) -> Any:
        async def close(self: Journal) -> None:
            self._successes.clear()
            self._next.parts.clear()
            await original(self)

        return close

    return replace(Journal, "close", make)


def _start_told_beside() -> Planting:
    async def announce(self: Journal, entry: Entry) -> bool:
        async def later() -> None:
            await trio.lowlevel.checkpoint()
            self.note(Started(entry.order), sync=False)

        self._scheduler.start_soon(later, name="csjd start")
        await trio.lowlevel.checkpoint()
        return True

    return replace(Journal, "announce", lambda original: announce)


def _start_not_waited_for() -> Planting:
    async def announce(self: Journal, entry: Entry) -> bool:
        self.notes.started.add(entry.order)
        self.note(Started(entry.order), sync=False)
        await trio.lowlevel.checkpoint()
        return True

    return replace(Journal, "announce", lambda original: announce)


def _discard_not_waited_for() -> Planting:
    async def discard(self: Keeping, buried: Buried) -> None:
        self.journal.submit(Discarding([Discarded(buried.order)], self, buried))
        self.scheduler.backlog.dead_letters.take_out(buried.job_id)
        await trio.lowlevel.checkpoint()

    return replace(Keeping, "discard", lambda original: discard)


def _clock_of_trio() -> float:
    clock = trio.lowlevel.current_clock()
    return clock.current_time()


JOURNAL_MUTANTS = (
    Mutant(
        "D3",
        "A retry that could not be kept was deleted.",
        _told(_retry_that_is_not_kept_is_deleted),
    ),
    Mutant("D4", "A job without a handler was deleted.", _type_without_handler_is_deleted),
    Mutant(
        "D12",
        "A job that killed its process ran for ever: its starts were not told.",
        _instead(Recovering, "_suspecting", lambda self, spec, live: spec),
    ),
    Mutant(
        "D12 crashes",
        "Crashes were counted and nothing came of it.",
        _believed(_each_live(lambda live: msgspec.structs.replace(live, crashes=0))),
    ),
    Mutant(
        "D14 restored",
        "Bare wall-clock time was compared with another clock.",
        lambda: replace(recovering_module, "wall_time", lambda original: lambda: 0.0),
    ),
    Mutant(
        "D14 kept",
        "A clock that means nothing after a restart was kept.",
        lambda: replace(keeping_module, "wall_time", lambda original: _clock_of_trio),
    ),
    Mutant("J early", "Acknowledged before the commit.", _instead(Journal, "wait", _checkpoint)),
    Mutant("J unsynced", "Acknowledged what the power can take.", _only_power_matters),
    Mutant("J ends first", "Ends written before what they are ends of.", _told(_ends_first)),
    Mutant("J start beside", "Starts told beside the handler.", _start_told_beside),
    Mutant("J start early", "Handlers ran before their start was known.", _start_not_waited_for),
    Mutant("J withdrawn late", "Withdrawn after the write began.", _withdrawn_while_written),
    Mutant(
        "J withdrawn in word",
        "Told to be withdrawn, and written all the same.",
        _cancelled_is_withdrawn_and_written,
    ),
    Mutant("J no grace", "A slow disk kept cancelled callers for ever.", _never_lets_go),
    Mutant("J meanwhile", "What gathered during a commit was lost.", _meanwhile_is_lost),
    Mutant("J full", "Refused by a full disk, and accepted.", _full_disk_is_believed),
    Mutant("J full ends", "Ends dropped on a full disk.", _instead(Journal, "_put_back", _nothing)),
    Mutant("J poison", "A failure not latched.", _instead(Journal, "_note_failure", _nothing)),
    Mutant("J poison begins", "Jobs began after a failure.", _jobs_begin_after_a_failure),
    Mutant("J close", "Leaving forgot what had gathered.", _close_forgets),
    Mutant(
        "J cancel early",
        "A cancellation reported before it was kept.",
        _instead(Journal, "settle", _checkpoint),
    ),
    Mutant("J discard early", "A discard nobody waits for.", _discard_not_waited_for),
    Mutant("J no ends", "Ends not written.", _without(Ended)),
    Mutant("J no deaths", "Dead letters not written.", _without(DeadLettered, Halted)),
    Mutant(
        "J no crash deaths",
        "Deaths of crashes not written.",
        _instead(Notes, "crashed", _nothing),
    ),
    Mutant("J no backoff", "Used attempts not written.", _without(Postponed)),
    Mutant("J attempts", "Attempts begin at nought again.", _changed(Postponed, attempts=0)),
    Mutant("J dues", "Backoff forgotten.", _changed(Postponed, due=0.0)),
    Mutant("J delays", "Delays forgotten.", _changed(Accepted, due=None)),
    Mutant("J places", "Places not written.", _without(Placed)),
    Mutant(
        "J places at once",
        "Places given before they were written.",
        _instead(
            Journal,
            "place",
            lambda self, due: [self._backlog.place(entry) for _, entry in due] and None,
        ),
    ),
    Mutant("J interrupts", "An interrupted start counted as a crash.", _without(Interrupted)),
    Mutant("J halts", "Halts forgotten.", _without(Halted)),
    Mutant("J resumes", "Resumed sessions halted again.", _without(Resumed)),
    Mutant("J discards", "Discarded letters came back.", _without(Discarded)),
    Mutant(
        "J windows",
        "Duplicate windows ended with the process.",
        _changed((Ended, DeadLettered), remembered_until=NEVER),
    ),
    Mutant(
        "J refused keeps",
        "A refused job kept its id and room.",
        _instead(Admitting, "refuse", _nothing),
    ),
    Mutant(
        "J reorders",
        "Recovery turned the order round.",
        _believed(lambda recovery: attrs.evolve(recovery, live=recovery.live[::-1])),
    ),
    Mutant(
        "J orders again",
        "Orders given out twice.",
        _believed(lambda recovery: attrs.evolve(recovery, next_order=1)),
    ),
    Mutant(
        "J forgets windows",
        "Recovered windows not kept.",
        _believed(lambda recovery: attrs.evolve(recovery, remembered={})),
    ),
    Mutant(
        "J forgets halts",
        "Recovered halts not kept.",
        _believed(lambda recovery: attrs.evolve(recovery, halted=frozenset())),
    ),
    Mutant("J snoozes", "A snooze came back as a delay.", _changed(Postponed, kind=DueKind.DELAY)),
)
