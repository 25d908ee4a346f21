"""
The journal: the one task that owns the store.

Whatever a store must know is gathered in a *batch*. While one batch is being written, the
next one gathers, so all submits that arrive meanwhile share one commit. A batch is
written at once when somebody waits for it. Nobody waits for the end of an attempt: it
rides along with the next batch, and has one of its own only if none comes for a moment.

The store's methods run in threads, at most two at a time, which no limiter holds up: 40
stuck handlers must not keep us from the disk. Nor does a cancellation: a batch that was
taken is written. Only `statistics`, which must not block, is called in the loop. A failed
write is final. Nothing is acknowledged any more and nothing begins; what runs, ends.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio
from trio.lowlevel import enable_ki_protection

from csjd._core.entry import Entry
from csjd._model.errors import (
    CsjdError,
    JobStoreClosedError,
    JobStoreError,
    JobStoreFullError,
)
from csjd._model.events import JobStoreFailed
from csjd._model.lifecycle import JobState
from csjd._model.storing import (
    JobStore,
    Operation,
    Placed,
    Recovery,
    Started,
)
from csjd._runtime import threads
from csjd._runtime.commits import Batch, Change, Placing
from csjd._runtime.notes import Notes

if TYPE_CHECKING:
    from csjd._runtime.scheduler import Scheduler

LINGER: Final = 0.005
"""Seconds that ends of attempts wait for a submit to ride along with."""
IDLE: Final = 1.0
"""Seconds without a commit after which the store is told to seal what it has."""
FULL_RETRY: Final = 1.0
"""Seconds after which ends that a full disk did not take are tried again."""
HEAD_START: Final = 2
"""
Times that others run after a commit before we look whether they have submitted more: Trio
runs tasks in random order, so only after two rounds has everybody had a turn. Less, if as
many changes have come by then as the commit brought about.
"""

logger = logging.getLogger("csjd")


class Journal:
    """Makes durable what a scheduler does."""

    def __init__(self, store: JobStore, scheduler: "Scheduler") -> None:
        self.store = store
        self.path = str(getattr(store, "path", type(store).__name__))
        self.failure: BaseException | None = None
        """What the store failed of; it is of no use any more."""
        self.notes = Notes(self.note, scheduler.backlog.ids.window)
        """What has happened in memory, to be written when there is something to write."""
        self.unsettled: dict[int, Batch] = {}
        """Cancelled jobs, by order, whose end is not known to be durable."""
        self.turn_away: Callable[[Callable[[], CsjdError]], None] | None = None
        """Refuses those who wait for room."""
        self._scheduler = scheduler
        self._backlog = scheduler.backlog
        self._next = Batch()
        self._successes: list[tuple[int, float]] = []
        """Order and end of the jobs that have succeeded since anything else was gathered."""
        self._written: Batch | None = None
        """The one that is being written."""
        self._news = trio.Event()
        """Something was gathered."""
        self._hurry = trio.Event()
        """Somebody waits for what was gathered."""
        self._maintaining = False
        self._resting = False
        """A full disk has not even taken ends: try again later."""
        self._open = False
        self.taken_in = False
        """Everything in the store is in the backlog."""

    # --- the store's methods, in threads -----------------------------------------------

    async def recover(self) -> Recovery:
        """
        Open the store and return everything in it.

        Raises:
            JobStoreError: It cannot be opened.
        """
        recovery = await threads.run_in_thread(self.store.recover)
        self._open = True
        return recovery

    async def close(self) -> None:
        """Write what was gathered, then give the store up; nothing of it runs after this."""
        if not self._open:
            return
        with trio.CancelScope(shield=True):
            self._withdraw_all()
            try:
                while self._has_news() and self.failure is None:
                    if not await self._write():
                        break  # a full disk: what has ended may run once more
            finally:
                self._open = False
                self._next.done.set()
                await self._close_store()  # noqa: ASYNC102  shielded above

    async def _close_store(self) -> None:
        close = self.store.close
        if not self.taken_in:
            # Closed clean, a store forgets that jobs in it may have killed their process;
            # it must not before these are known. One of one's own may have no other way.
            close = getattr(self.store, "close_as_found", close)
        try:
            await threads.run_in_thread(close)
        except JobStoreError as error:
            if self.failure is None:
                self._note_failure(error)

    # --- the task ----------------------------------------------------------------------

    @enable_ki_protection
    async def run(self) -> None:
        """Write what is gathered, until cancelled; `close` writes the rest."""
        sealed = True
        while True:
            idle = self.failure is None and not sealed
            with trio.move_on_after(IDLE) if idle else trio.CancelScope() as waiting:
                await self._wait_for_news()
            if waiting.cancelled_caught:
                self._maintain()
                sealed = True
                continue
            await self._wait_for_company()
            changed = self._next.changed
            await self._write()
            await self._let_go_on(changed)
            sealed = False
            if self.failure is None and self.store.statistics().maintenance_due:
                self._maintain()

    async def _wait_for_news(self) -> None:
        """Wait until there is something to write."""
        while self.failure is not None or not self._has_news():
            await self._news.wait()
            self._news = trio.Event()

    async def _wait_for_company(self) -> None:
        """Let more be gathered, until somebody waits for it or it has waited long enough."""
        if not self._hurry.is_set():
            with trio.move_on_after(FULL_RETRY if self._resting else LINGER):
                await self._hurry.wait()

    async def _let_go_on(self, changed: int) -> None:
        """
        Let those who waited for a commit go on, and only then the lanes it has work for.

        Args:
            changed: How many changes it was waited with for.
        """
        with trio.CancelScope(shield=True):
            for _ in range(HEAD_START):
                await trio.lowlevel.checkpoint()
                if changed and self._next.changed >= changed:
                    break
        if not (self._hurry.is_set() and self._has_news() and self.failure is None):
            self._scheduler.send_calls()  # else the next commit does, when it has begun

    async def _write(self) -> bool:
        """Write the batch that has gathered; return whether the store took it, or part of it."""
        self._note_successes()
        batch, self._next = self._next, Batch()
        self._hurry = trio.Event()
        self._written = batch
        batch.writing = True
        try:
            taken = await self._commit(batch)
        except BaseException as error:
            # Not the store's own word for a failure, so a bug, which will end the
            # dispatcher. Those who wait must not go without an answer until then.
            self._lose(batch, error)
            raise
        finally:
            self._written = None
            batch.done.set()
        return taken

    async def _commit(self, batch: Batch) -> bool:
        try:
            try:
                await self._tell(batch.operations(), batch.sync)
            except JobStoreFullError as error:
                return await self._commit_ends(batch, error)
        except JobStoreError as error:
            self._lose(batch, error)
            return False
        self._settle(batch, refused=None)
        return True

    async def _commit_ends(self, batch: Batch, full: JobStoreFullError) -> bool:
        """Refuse what would make the store grow, and keep the rest."""
        rest = batch.operations(refused=True)
        if rest:
            try:
                await self._tell(rest, batch.sync)
            except JobStoreFullError:
                self._put_back(batch)
                self._refuse([change for change in batch.changes() if change.grows], full)
                return False
        self._settle(batch, refused=full)
        return True

    async def _tell(self, operations: list[Operation], sync: bool) -> None:
        if operations:
            await threads.run_in_thread(_commit, self.store, operations, sync, self._began)
        else:
            self._scheduler.send_calls()

    def _began(self) -> None:
        """
        Have lanes called for what the commit before has brought; from the store's thread.

        Not before, because the thread needs the interpreter to begin, and lanes that run
        handlers would keep it: the disk would wait for them, and not work beside them.
        """
        token = self._scheduler.token
        assert token is not None, "there is no journal before there is a run"
        token.run_sync_soon(self._scheduler.send_calls, idempotent=True)

    def _settle(self, batch: Batch, refused: JobStoreFullError | None) -> None:
        """Let happen what the store knows of now."""
        self._resting = False
        now = self._scheduler.clock.current_time()
        for change in batch.changes():
            if refused is not None and change.grows:
                self._refuse_change(change, refused, now)
            else:
                change.apply(now)
        if self.unsettled:
            for order in [o for o, waits_for in self.unsettled.items() if waits_for is batch]:
                del self.unsettled[order]

    def _put_back(self, batch: Batch) -> None:
        """Keep for the next commit what a full disk did not take, before all else."""
        self._resting = True
        batch.put_before(self._next)
        for order, waits_for in self.unsettled.items():
            if waits_for is batch:
                self.unsettled[order] = self._next
        self._news.set()

    def _refuse(self, changes: Iterable[Change], error: JobStoreError) -> None:
        now = self._scheduler.clock.current_time()
        for change in changes:
            self._refuse_change(change, error, now)

    def _refuse_change(self, change: Change, error: JobStoreError, now: float) -> None:
        change.error = error
        change.refuse(now)

    def _lose(self, batch: Batch, error: BaseException) -> None:
        """The store has failed; whether it has kept *batch* shows when it is reopened."""
        self._note_failure(error)
        unknown = JobStoreError(
            self.path,
            f"writing failed ({error}), so whether the job was kept shows when it is reopened: "
            "submit the same id again then",
        )
        unknown.__cause__ = error
        self._refuse(_wanted(batch), unknown)
        rest, self._next = self._next, Batch()
        self._refuse(_wanted(rest), self.refusal())
        rest.done.set()

    def _note_failure(self, error: BaseException) -> None:
        scheduler = self._scheduler
        self.failure = error
        self._successes.clear()
        self._backlog.stopped = True  # what began now would only be begun again
        logger.error(
            "the job store failed: nothing is acknowledged and no job begins any more; "
            "its jobs are safe, reopen it to go on: %s",
            error,
        )
        if self.turn_away is not None:  # no job ends any more but those that run
            self.turn_away(self.refusal)
        scheduler.rest()
        scheduler.tell(lambda at: JobStoreFailed(at=at, error=error))

    def refusal(self) -> JobStoreError:
        """Return what to raise at those who want something of a store that has failed."""
        if self.failure is None:
            return JobStoreClosedError(self.path, "the dispatcher's block was left")
        error = JobStoreClosedError(self.path, f"it has failed ({self.failure}): reopen it")
        error.__cause__ = self.failure
        return error

    def _maintain(self) -> None:
        """Have the store look after itself, beside commits."""
        if not self._maintaining:
            self._maintaining = True
            self._scheduler.start_soon(self._maintain_once, name="csjd store maintenance")

    async def _maintain_once(self) -> None:
        try:
            await threads.run_in_thread(self.store.maintain)
        except JobStoreError as error:
            # The jobs are as safe as before; if the store is not, the next commit says so.
            logger.warning("looking after the job store failed: %s", error)
        finally:
            self._maintaining = False

    # --- what waits for the disk -------------------------------------------------------

    def submit(self, change: Change) -> None:
        """
        Have *change* happen with the next commit; `wait` says when it has.

        Raises:
            JobStoreClosedError: The store has failed.
        """
        self.check()
        self._note_successes()
        self._next.add(change)
        self._next.sync = True
        self._news.set()
        self._hurry.set()

    def can_grow(self, change: Change) -> bool:
        """Whether operations added to *change* now take effect in the order of gathering."""
        return not self._successes and self._next.ends_with(change)

    def check(self) -> None:
        """
        Refuse whoever wants something of a store that has failed.

        Raises:
            JobStoreClosedError: It has.
        """
        if self.failure is not None or not self._open:
            raise self.refusal()

    async def wait(self, changes: Sequence[Change]) -> None:
        """
        Wait until all of *changes* have happened, or been refused.

        Cancelled, those whose commit has not begun are withdrawn. One that is being
        written is waited for, for at most `commit_grace`, and if it comes to its end, the
        call counts as not cancelled: it returns, and the next checkpoint raises.
        """
        try:
            await _all_done(changes)
        except trio.Cancelled:
            withdrawn = [change for change in changes if self._withdraw(change)]
            if withdrawn:
                raise
            with trio.move_on_after(self._scheduler.config.commit_grace, shield=True):
                await _all_done(changes)
                # As if the cancellation had come too late; the next checkpoint raises it.
                return  # noqa: ASYNC104
            raise

    def _withdraw(self, change: Change) -> bool:
        """Take back *change* unless its commit has begun; return whether it was taken back."""
        batch = change.batch
        if batch.writing or batch.done.is_set() or not change.wanted:
            return False
        change.withdrawn = True
        change.refuse(self._scheduler.clock.current_time())
        return True

    def _withdraw_all(self) -> None:
        """Refuse what nobody can be told any more."""
        withdrawn = [change for change in self._next.changes() if change.grows]
        self._refuse(withdrawn, self.refusal())
        for change in withdrawn:
            change.withdrawn = True

    async def flush(self) -> None:
        """Wait until what was gathered so far is durable, or never will be."""
        batch = self._next if self._has_news() else self._written
        if batch is None or self.failure is not None or not self._open:
            return
        self._hurry.set()
        await batch.taken()

    async def settle(self, entry: Entry) -> None:
        """
        Wait until the cancellation of *entry* is durable.

        Raises:
            JobStoreError: It is not known to be, and never will be.
        """
        self._hurry.set()
        while (batch := self.unsettled.get(entry.order)) is not None:
            if batch.done.is_set() or self.failure is not None:
                raise self.refusal()
            await batch.taken()

    # --- what rides along --------------------------------------------------------------

    def note(self, operation: Operation, *, sync: bool = True) -> None:
        """Have *operation*, which tells of what has happened, written before long."""
        if self.failure is None:
            self._note_successes()
            self._next.note([operation])
            self._next.sync |= sync
            self._news.set()

    def note_success(self, order: int, now: float) -> None:
        """
        Note that the job of *order* has just succeeded.

        Every job comes here, while its commit waits for the interpreter: the next step
        towards the store has words for all that have come until then.
        """
        successes = self._successes
        if not successes and not self._hears_of_successes():
            return
        successes.append((order, now))

    def _hears_of_successes(self) -> bool:
        self._news.set()
        return self.failure is None

    def _note_successes(self) -> None:
        """Put those who have succeeded in a row into the next batch."""
        if self._successes:
            now = self._scheduler.clock.current_time()
            self._next.note(self.notes.succeeded(self._successes, now))
            self._next.sync = True
            self._successes.clear()

    def _has_news(self) -> bool:
        return bool(self._successes or self._next.parts)

    def note_end(self, entry: Entry) -> None:
        """Note a job that has ended, and not in success."""
        if entry.state is JobState.CANCELLED:
            self.unsettled[entry.order] = self._next
        self.notes.ended(entry)

    def place(self, due: list[tuple[int, Entry]]) -> None:
        """Have delayed jobs that fell due, given with their old orders, take their places."""
        for old_order, entry in due:
            if self.failure is None:
                self.submit(Placing([Placed(old_order, entry.order)], self._backlog, entry))

    async def announce(self, entry: Entry) -> bool:
        """Have the store know that the job is about to run; return whether it does."""
        if self.failure is None:
            self.notes.started.add(entry.order)
            batch = self._next
            self.note(Started(entry.order), sync=False)
            self._hurry.set()
            await batch.taken()
        return self.failure is None


async def _all_done(changes: Sequence[Change]) -> None:
    for change in changes:
        while not change.batch.done.is_set():  # a full disk may put it off to the next
            await change.batch.done.wait()


def _wanted(batch: Batch) -> list[Change]:
    return [change for change in batch.changes() if change.wanted]


def _commit(
    store: JobStore, operations: list[Operation], sync: bool, began: Callable[[], None]
) -> Any:
    began()
    return store.commit(operations, sync=sync)
