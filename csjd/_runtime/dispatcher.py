"""The public face: checks where it is called from, delegates, returns."""

from collections.abc import Callable, Iterable
from random import Random
from typing import Literal, final

import trio
from trio.lowlevel import enable_ki_protection

from csjd._core import statistics
from csjd._core.lanes import Worker
from csjd._core.observers import Observers
from csjd._model.config import Config
from csjd._model.errors import (
    DispatcherClosedError,
    DispatcherNotStartedError,
    WorkerNotFoundError,
)
from csjd._model.events import Observer
from csjd._model.handler import Handler, HandlerT, describe
from csjd._model.job import Job
from csjd._model.lifecycle import DispatcherState
from csjd._model.metrics import (
    DeadLetter,
    EndedJob,
    MetricsSnapshot,
    SessionDistribution,
    SessionInfo,
    StopReport,
    WorkerStats,
)
from csjd._model.registry import Registry
from csjd._model.retry import RetryPolicy
from csjd._model.storing import JobStore
from csjd._runtime.admission import Admission
from csjd._runtime.journal import Journal
from csjd._runtime.keeping import Keeping
from csjd._runtime.receipts import BatchReport, Receipt
from csjd._runtime.recovering import Recovering
from csjd._runtime.scheduler import Scheduler
from csjd._runtime.stopping import Stopping


@final
class Dispatcher:
    """
    Runs jobs in the background of a Trio program.

    Get one from `open_dispatcher`. All methods belong to the Trio run that opened it;
    called from anywhere else they raise RuntimeError and say what to use instead.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        registry: Registry | None = None,
        observers: Iterable[Observer] = (),
        random: Random | None = None,
        store: JobStore | None = None,
    ) -> None:
        self._scheduler = Scheduler(config or Config(), Observers(observers), random or Random())
        self._admission = Admission(self._scheduler)
        self._stopping = Stopping(self._scheduler, self._admission)
        for spec in (registry or {}).values():
            self._admission.register(spec)
        if store is not None:
            journal = self._scheduler.journal = Journal(store, self._scheduler)
            self._admission.keeping = Keeping(self._admission, journal)
            self._admission.recovering = Recovering(journal, self._scheduler, self._admission.specs)

    # --- handlers ----------------------------------------------------------------------

    def register(
        self,
        type: str,
        handler: Handler,
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        retry_on_timeout: bool = True,
        on_failure: Literal["continue", "halt"] = "continue",
        payload: object = None,
    ) -> None:
        """
        Let *handler* do the jobs of *type*; see `Registry.register` for the arguments.

        Raises:
            ValueError: If a setting is unusable or *type* already has a handler.
            InvalidJobError: If *type* cannot be a type.
        """
        spec = describe(
            type,
            handler,
            timeout=timeout,
            retry=retry,
            retry_on_timeout=retry_on_timeout,
            on_failure=on_failure,
            payload=payload,
        )
        self._check_home("register")
        self._admission.register(spec)

    def handler(
        self,
        type: str,
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        retry_on_timeout: bool = True,
        on_failure: Literal["continue", "halt"] = "continue",
        payload: object = None,
    ) -> Callable[[HandlerT], HandlerT]:
        """Return a decorator that registers its function; see `Registry.register`."""

        def decorate(function: HandlerT) -> HandlerT:
            self.register(
                type,
                function,
                timeout=timeout,
                retry=retry,
                retry_on_timeout=retry_on_timeout,
                on_failure=on_failure,
                payload=payload,
            )
            return function

        return decorate

    # --- starting and stopping ---------------------------------------------------------

    @property
    def state(self) -> DispatcherState:
        """Where the dispatcher is in its life."""
        return self._scheduler.state

    @property
    def last_stop(self) -> StopReport | None:
        """What the last stop did, or a crash left; None before the first."""
        return self._stopping.last_stop

    @enable_ki_protection
    async def start(self) -> None:
        """
        Go on after a stop, with the same jobs; wait for a stop that is under way.

        Does nothing while the dispatcher runs.

        Raises:
            StuckHandlersError: More handlers outlived earlier stops than there are lanes.
            DispatcherClosedError: The dispatcher's block was left.
            WouldDeadlockError: Called by a handler while a stop is under way.
            JobStoreClosedError: The store has failed.
        """
        self._check_home("start")
        await self._stopping.start()

    @enable_ki_protection
    async def stop(self, *, grace: float | None = None) -> StopReport:
        """
        Accept nothing more, work off what is ready, interrupt what is left; then report.

        Worked off: what runs, what is ready, and backoff that falls due in time. Left for
        the next start: delayed, snoozed, paused, parked and halted jobs, and what waits
        behind them. What still runs when the grace is over is cancelled and put back,
        without losing its place or an attempt; what has not ended `Config.detach_grace`
        seconds later is reported as stuck, and not waited for.

        A stop that is under way is joined; the shorter grace counts. Cancelling the call
        does not call the stop off. Called by a handler, it does not wait for that handler.

        Args:
            grace: Seconds until what is left is interrupted; default: `Config.stop_grace`.

        Raises:
            ValueError: If *grace* is negative or not a number.
            DispatcherNotStartedError: Before the first start.
        """
        self._check_home("stop")
        return await self._stopping.stop(grace)

    # --- jobs --------------------------------------------------------------------------

    @enable_ki_protection
    async def submit(self, job: Job, *, wait: bool = False, delay: float = 0) -> Receipt:
        """
        Hand in one job.

        With a store it returns when the job is durable. Cancelled, it has not taken the job
        in: a job that is being written just then holds the cancellation back until it is,
        and the call returns. Only if that takes longer than `Config.commit_grace`, or the
        store fails, may the job exist or not: submit the same id again.

        Args:
            job: The job. What can be changed of it is copied.
            wait: Wait for room where a limit is reached, first come first served, instead
                of raising.
            delay: Seconds before it may start; it takes its place when it falls due.

        Raises:
            InvalidJobError: Something about it is unusable.
            HandlerNotFoundError: Its type has no handler.
            DuplicateJobError: Its id is live, or ended within the duplicate window.
            QueueFullError: A limit is reached.
            WouldDeadlockError: Called by a handler, with *wait*, where no room could ever
                come.
            JobStoreFullError: The store's disk is full.
            JobStoreError: The store has failed.
            DispatcherClosedError: The dispatcher stops or was stopped.
            DispatcherNotStartedError: It was never started.
        """
        self._check_home("submit")
        return await self._admission.submit(job, wait=wait, delay=delay)

    @enable_ki_protection
    async def submit_batch(self, jobs: Iterable[Job], *, wait: bool = False) -> BatchReport:
        """
        Hand in many jobs; one that is refused does not keep the others out.

        Cancelled while it waits for room, it has taken in the jobs before that one.

        Args:
            jobs: The jobs, in the order they are to be accepted.
            wait: Wait for room for each.

        Raises:
            DispatcherClosedError: The dispatcher stops or was stopped; none was taken in.
            DispatcherNotStartedError: It was never started.
        """
        self._check_home("submit_batch")
        return await self._admission.submit_batch(jobs, wait=wait)

    @enable_ki_protection
    def cancel(self, job_id: str) -> bool:
        """Ask for a job to be cancelled; False if no live job has this id. See `Receipt.cancel`."""
        self._check_home("cancel")
        entry = self._scheduler.backlog.ids.find(job_id)
        return entry is not None and self._scheduler.cancel(entry)

    @enable_ki_protection
    def pause(self, *, type: str | None = None, session: str | None = None) -> None:
        """
        Let no job start: none at all, or none of a type, or none of a session.

        What runs, goes on. Jobs are accepted as before.

        Raises:
            ValueError: If both a type and a session are given.
            InvalidJobError: If the type or session cannot be one.
        """
        self._check_home("pause")
        self._scheduler.pause(type, session)

    @enable_ki_protection
    def resume(self, *, type: str | None = None, session: str | None = None) -> None:
        """
        Undo the same call of `pause`; for a session also its halt after a failure.

        Raises:
            ValueError: If both a type and a session are given.
            InvalidJobError: If the type or session cannot be one.
        """
        self._check_home("resume")
        self._scheduler.resume(type, session)

    # --- size --------------------------------------------------------------------------

    @enable_ki_protection
    async def resize(self, workers: int) -> None:
        """
        Add or remove workers until there are *workers*; the newest go first.

        Takes effect at once. A worker that goes takes nothing more; it finishes what it
        runs, and its sessions move when nothing of theirs runs there.

        Raises:
            ValueError: If *workers* is not an int >= 1.
            DispatcherClosedError: The dispatcher's block was left.
            DispatcherNotStartedError: It was never opened.
        """
        self._check_home("resize")
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_not_closed()
        self._scheduler.resize(workers)
        await trio.lowlevel.cancel_shielded_checkpoint()

    @enable_ki_protection
    def add_worker(self) -> int:
        """
        Add a worker and return its id, which was never used before.

        Raises:
            DispatcherClosedError: The dispatcher's block was left.
            DispatcherNotStartedError: It was never opened.
        """
        self._check_home("add_worker")
        self._check_not_closed()
        return self._scheduler.add_worker().id

    @enable_ki_protection
    def remove_worker(self, worker_id: int) -> None:
        """
        Remove a worker; see `resize`.

        Raises:
            WorkerNotFoundError: There is no such worker.
            ValueError: It is the last one.
            DispatcherClosedError: The dispatcher's block was left.
            DispatcherNotStartedError: It was never opened.
        """
        self._check_home("remove_worker")
        self._check_not_closed()
        self._scheduler.remove_worker(self._worker(worker_id))

    def _worker(self, worker_id: int) -> Worker:
        workers = self._scheduler.backlog.workers
        if worker_id not in workers:
            raise WorkerNotFoundError(worker_id, tuple(workers))
        return workers[worker_id]

    # --- looking -----------------------------------------------------------------------

    def metrics(self) -> MetricsSnapshot:
        """Return the counters since opening, and the gauges now."""
        self._check_home("metrics")
        scheduler = self._scheduler
        return statistics.metrics(scheduler.backlog, scheduler.lanes, scheduler.state)

    def worker_stats(self) -> tuple[WorkerStats, ...]:
        """Return each worker's numbers, by id; those leaving as long as they run something."""
        self._check_home("worker_stats")
        return statistics.all_worker_stats(self._scheduler.backlog)

    def session_info(self, session: str) -> SessionInfo | None:
        """Return a session's numbers; None if it has no jobs and had none lately."""
        self._check_home("session_info")
        return self._scheduler.session_info(session)

    def session_distribution(self) -> SessionDistribution:
        """Return how evenly sessions are spread over the workers."""
        self._check_home("session_distribution")
        return statistics.session_distribution(self._scheduler.backlog.workers.values())

    def history(self) -> tuple[EndedJob, ...]:
        """Return the last `Config.history` jobs that ended, oldest first."""
        self._check_home("history")
        return statistics.history(self._scheduler.backlog)

    # --- dead letters ------------------------------------------------------------------

    async def dead_letters(self) -> tuple[DeadLetter, ...]:
        """Return the jobs that failed for good, oldest first."""
        self._check_home("dead_letters")
        await trio.lowlevel.checkpoint()
        return self._scheduler.backlog.dead_letters.letters()

    @enable_ki_protection
    async def requeue(self, job_id: str) -> Receipt:
        """
        Accept a dead letter anew: at the end of its session, with no attempts used.

        Raises:
            DeadLetterNotFoundError: There is none with this id.
            DuplicateJobError: A live job has the id.
            HandlerNotFoundError: It came out of the store, and its type has no handler.
            InvalidJobError: It came out of the store, and its handler cannot take it.
            QueueFullError: A limit is reached.
            DispatcherClosedError: The dispatcher stops or was stopped.
            DispatcherNotStartedError: It was never started.
            JobStoreError: As for `submit`.
        """
        self._check_home("requeue")
        return await self._admission.requeue(job_id)

    @enable_ki_protection
    async def discard(self, job_id: str) -> None:
        """
        Throw a dead letter away; with a store, when that knows of it.

        Raises:
            DeadLetterNotFoundError: There is none with this id.
            JobStoreError: The store has failed; the letter is still there.
        """
        self._check_home("discard")
        await self._admission.discard(job_id)

    # --- where it is called from -------------------------------------------------------

    def _check_home(self, method: str) -> None:
        self._scheduler.check_home(f"Dispatcher.{method}")

    def _check_not_closed(self) -> None:
        match self.state:
            case DispatcherState.NEW:
                raise DispatcherNotStartedError
            case DispatcherState.CLOSED as state:
                raise DispatcherClosedError(state.value)
