"""Numbers about a backlog, put together when somebody asks."""

import math
from collections.abc import Iterable

from csjd._core.backlog import Backlog
from csjd._core.lanes import Lane, Worker
from csjd._model.lifecycle import DispatcherState, JobState
from csjd._model.metrics import (
    EndedJob,
    MetricsSnapshot,
    SessionDistribution,
    SessionInfo,
    WorkerStats,
)


def metrics(backlog: Backlog, lanes: Iterable[Lane], state: DispatcherState) -> MetricsSnapshot:
    """Return the counters and gauges of *backlog*, whose lanes are *lanes*."""
    ledger = backlog.ledger
    for worker in (*backlog.workers.values(), *backlog.leaving.values()):
        worker.settle(ledger.runs)
    everyone = tuple(lanes)
    running = sum(lane.entry is not None and not lane.detached for lane in everyone)
    detached = sum(lane.entry is not None and lane.detached for lane in everyone)
    scheduled = (
        backlog.backoffs.size + backlog.snoozes.size + backlog.delays.size + len(backlog.unplaced)
    )
    ready = (
        backlog.shared.size
        + sum(worker.ready.size for worker in backlog.workers.values())
        + backlog.holds.kept_back()
    )
    parked = sum(entry.state is JobState.PARKED for entry in backlog.unready)
    return MetricsSnapshot(
        state=state,
        accepted=ledger.accepted,
        recovered=ledger.recovered,
        succeeded=ledger.succeeded,
        failed=ledger.failed,
        timed_out=ledger.timed_out,
        cancelled=ledger.cancelled,
        live=ledger.live,
        ready=ready,
        scheduled=scheduled,
        waiting=ledger.live - ready - scheduled - running - detached - parked,
        parked=parked,
        running=running,
        detached=detached,
        duplicates=ledger.duplicates,
        rejected=ledger.rejected,
        invalid=ledger.invalid,
        attempts=ledger.waits.count(),
        retries=ledger.retries,
        snoozed=ledger.snoozed,
        interrupted=ledger.interrupted,
        late=ledger.late,
        panics=ledger.panics,
        detachments=ledger.detachments,
        dead_letters=len(backlog.dead_letters),
        dead_letters_dropped=backlog.dead_letters.dropped,
        sessions=backlog.sessions.active,
        sessions_remembered=len(backlog.sessions),
        ids_remembered=backlog.ids.remembered(),
        workers=len(backlog.workers),
        lanes=sum(len(worker.lanes) for worker in backlog.workers.values()),
        lanes_busy=sum(lane.entry is not None and not lane.detached for lane in everyone),
        lanes_stuck=sum(lane.stuck for lane in everyone),
        wait=ledger.waits.freeze(),
        run=ledger.runs.freeze(),
    )


def worker_stats(worker: Worker) -> WorkerStats:
    """Return the numbers of *worker*."""
    return WorkerStats(
        worker=worker.id,
        sessions=worker.sessions,
        ready=worker.ready.size,
        lanes=len(worker.lanes),
        lanes_busy=sum(lane.entry is not None for lane in worker.lanes),
        lanes_stuck=sum(lane.stuck for lane in worker.lanes),
        detached=worker.detached,
        attempts=worker.attempts,
        succeeded=worker.succeeded,
        failed=worker.failed,
        busy_seconds=worker.busy_seconds,
        leaving=worker.leaving,
    )


def all_worker_stats(backlog: Backlog) -> tuple[WorkerStats, ...]:
    """Return each worker's numbers, by id; of those removed, the ones that still run something."""
    leaving = [
        worker
        for worker in backlog.leaving.values()
        if worker.detached or any(lane.entry is not None for lane in worker.lanes)
    ]
    workers = sorted((*backlog.workers.values(), *leaving), key=lambda worker: worker.id)
    return tuple(map(worker_stats, workers))


def session_info(backlog: Backlog, name: str, now: float) -> SessionInfo | None:
    """Return the numbers of the session, None if it is not remembered."""
    session = backlog.sessions.find(name, now)
    if session is None:
        return None
    head = session.head
    running = head is not None and head.state in (JobState.RUNNING, JobState.DETACHED)
    return SessionInfo(
        session=name,
        worker=session.worker.id,
        pending=session.pending,
        running=head.job.id if head is not None and running else None,
        succeeded=session.succeeded,
        failed=session.failed,
        cancelled=session.cancelled,
        paused=session.paused,
        halted=session.halted,
    )


def session_distribution(workers: Iterable[Worker]) -> SessionDistribution:
    """Return how evenly sessions are spread over *workers*, of which there is at least one."""
    by_worker = {worker.id: worker.sessions for worker in workers}
    counts = by_worker.values()
    mean = sum(counts) / len(counts)
    return SessionDistribution(
        by_worker=by_worker,
        mean=mean,
        lowest=min(counts),
        highest=max(counts),
        deviation=math.sqrt(sum((count - mean) ** 2 for count in counts) / len(counts)),
    )


def history(backlog: Backlog) -> tuple[EndedJob, ...]:
    """Return the jobs that ended last, oldest first."""
    return tuple(
        EndedJob(
            job_id=job_id,
            type=job_type,
            session=session,
            state=state,
            attempts=attempts,
            duration=duration,
            ended=ended,
        )
        for job_id, job_type, session, state, attempts, duration, ended in backlog.ledger.history
    )
