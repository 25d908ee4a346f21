"""The block a dispatcher lives in: opened with it, and left only when it has ended."""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from csjd._model.config import Config
from csjd._model.errors import DispatcherCrashedError
from csjd._model.events import Observer
from csjd._model.lifecycle import DispatcherState
from csjd._model.registry import Registry
from csjd._model.storing import JobStore
from csjd._runtime.dispatcher import Dispatcher
from csjd._runtime.scheduler import Scheduler
from csjd._runtime.stopping import Stopping

logger = logging.getLogger("csjd")


@asynccontextmanager
async def open_dispatcher(
    nursery: trio.Nursery,
    config: Config | None = None,
    *,
    registry: Registry | None = None,
    store: JobStore | None = None,
    observers: Iterable[Observer] = (),
) -> AsyncIterator[Dispatcher]:
    """
    Run a dispatcher for the length of an `async with` block.

    Leaving the block normally drains for at most `Config.stop_grace`; leaving it by an
    exception or a cancellation stops at once. Either way nothing of csjd runs any more
    afterwards; a handler that does not end is waited for.

    Args:
        nursery: Gets exactly one task, in which all others live.
        config: Default: `Config()`.
        registry: The handlers; more can be registered later.
        store: Where jobs survive a crash, such as `FileJobStore(path)`, not opened yet. What
            is in it is taken in before the block begins; leaving the block closes it.
        observers: Called with every event. One that raises is dropped and logged.

    What is raised comes out of *nursery*, so in an exception group.

    Raises:
        DispatcherCrashedError: The dispatcher's task died; from what it died of, which
            also surfaces in *nursery*.
        JobStoreError: The store cannot be opened; or it has failed, when the block is left.
    """
    dispatcher = Dispatcher(config, registry=registry, observers=observers, store=store)
    scheduler, stopping = dispatcher._scheduler, dispatcher._stopping
    try:
        guard = trio.CancelScope()
        await nursery.start(scheduler.run, guard, name="csjd dispatcher")
        with guard:
            try:
                await _recover(dispatcher)
                await stopping.start()
                yield dispatcher
                if scheduler.state is not DispatcherState.STOPPED:
                    await stopping.stop(None)
            finally:
                await _close(scheduler, stopping)  # noqa: ASYNC102  shielded there
    except BaseException as error:
        # The nursery dies of the crash as well, so what comes out of a body inside it is
        # the nursery's Cancelled. What is no Exception, like Ctrl-C, needs no second voice.
        if isinstance(scheduler.crash, Exception) and error is not scheduler.crash:
            raise DispatcherCrashedError from scheduler.crash  # noqa: ASYNC104
        raise
    if scheduler.crash is not None:
        await trio.lowlevel.checkpoint_if_cancelled()  # the nursery was cancelled, and so are we
        if isinstance(scheduler.crash, (Exception, trio.Cancelled)):
            raise DispatcherCrashedError from scheduler.crash
        raise scheduler.crash
    if scheduler.journal is not None and scheduler.journal.failure is not None:
        await trio.lowlevel.checkpoint_if_cancelled()
        raise scheduler.journal.refusal()


@trio.lowlevel.enable_ki_protection
async def _recover(dispatcher: Dispatcher) -> None:
    """Take in what the store keeps, if there is one, and begin to tell it what happens."""
    recovering, journal = dispatcher._admission.recovering, dispatcher._scheduler.journal
    if recovering is not None and journal is not None:
        await recovering.recover()
        # Its task may have been cancelled meanwhile; then there is nothing to start any more.
        if dispatcher._scheduler.state is not DispatcherState.CLOSED:
            dispatcher._scheduler.start_soon(journal.run, name="csjd journal")


@trio.lowlevel.enable_ki_protection
async def _close(scheduler: Scheduler, stopping: Stopping) -> None:
    """Stop at once, unless that was done, and wait for the end of everything."""
    # No deadline: a handler that does not end keeps the block open, as any child task would.
    with trio.CancelScope(shield=True):
        if scheduler.state is not DispatcherState.CLOSED:
            if scheduler.state is not DispatcherState.NEW:  # else cancelled while it started
                await stopping.stop(0)
            scheduler.close()
        await scheduler.ended_event.wait()
        if scheduler.journal is not None:  # a store may have come to be open after that
            await scheduler.journal.close()
    report = stopping.last_stop
    if report is not None and report.unfinished and scheduler.journal is None:
        logger.warning(
            "the dispatcher was left with %d unfinished jobs: see last_stop.unfinished, "
            "or open it with a store",
            len(report.unfinished),
        )
