"""
The mutants, by the historic defect each stands for.

D: a job dispatcher with a file store; A: a session-affine worker pool; W: how wake-ups
were lost in prototypes of this one.
"""

import math
from typing import Any

from csjd._core import sessions as sessions_module
from csjd._core.backlog import Backlog
from csjd._core.calls import Switchboard
from csjd._core.dead_letters import DeadLetters, Displaced
from csjd._core.limits import Limits
from csjd._core.ready import ReadyQueue
from csjd._core.verdict import Kind, Verdict
from csjd._runtime import lane as lane_module
from csjd._runtime.admission import Admission
from csjd._runtime.lane import LaneTask
from csjd._runtime.scheduler import Scheduler
from csjd._runtime.stopping import Stopping
from tests.mutants.planting import Mutant, Planting, edit, replace


def _interrupted_is_lost() -> Planting:
    def interrupt(self: Backlog, entry: Any) -> None:
        entry.attempts -= 1
        self.cancel(entry, RuntimeError("lost"), 0.0)

    return replace(Backlog, "interrupt", lambda original: interrupt)


def _drain_drops_retries() -> Planting:
    def make(original: Any) -> Any:
        def book(self: Scheduler, lane: Any, entry: Any, verdict: Any, now: float) -> None:
            if self.drain is not None and verdict.kind is Kind.RETRY:
                verdict = Verdict(Kind.FAIL, verdict.error, timed_out=verdict.timed_out)
            original(self, lane, entry, verdict, now)

        return book

    return replace(Scheduler, "book", make)


def _foreign_timeout_is_permanent() -> Planting:
    def make(original: Any) -> Any:
        def judge(error: BaseException, **rest: Any) -> Any:
            if isinstance(error, TimeoutError):
                return Verdict(Kind.FAIL, error)
            return original(error, **rest)

        return judge

    return replace(lane_module, "judge", make)


def _waiting_counts_as_running() -> Planting:
    return edit(
        LaneTask,
        "_serve",
        (
            "deadline = now + timeout",
            "deadline = entry.since + timeout",
        ),
    )


def _late_return_fails() -> Planting:
    def make(original: Any) -> Any:
        def succeed(self: Backlog, lane: Any, entry: Any, result: Any, now: float) -> None:
            if now <= lane.deadline:
                original(self, lane, entry, result, now)
                return
            self.release(lane, entry, now)
            self.fail(entry, lane.worker, TimeoutError("too late"), True, now)

        return succeed

    return replace(Backlog, "succeed", make)


def _failed_jobs_vanish() -> Planting:
    def bury(self: DeadLetters, *_: Any, **__: Any) -> Displaced:
        return Displaced(None, ())

    return replace(DeadLetters, "bury", lambda original: bury)


def _heap_without_tie_break() -> Planting:
    def make(original: Any) -> Any:
        def push(self: ReadyQueue, entry: Any) -> None:
            entry.order = -entry.order
            original(self, entry)

        return push

    return replace(ReadyQueue, "push", make)


def _popped_and_dropped() -> Planting:
    return edit(Backlog, "interrupt", ("self._offer(entry)", "pass"))


def _second_stop_begins_anew() -> Planting:
    return edit(
        Stopping,
        "stop",
        (
            "scheduler.state is DispatcherState.RUNNING",
            "scheduler.state.value != 'stopped'",
        ),
    )


def _id_is_freed_too_early() -> Planting:
    def make(original: Any) -> Any:
        def retry(self: Backlog, entry: Any, due: float) -> None:
            original(self, entry, due)
            del self.ids.known[entry.job.id]

        return retry

    return replace(Backlog, "retry", make)


def _deaf_handler_is_declared_failed() -> Planting:
    def make(original: Any) -> Any:
        def detach(self: Scheduler, lane: Any, now: float) -> None:
            original(self, lane, now)
            verdict = Verdict(Kind.FAIL, TimeoutError("gave up"), timed_out=True)
            self.book(lane, lane.entry, verdict, now)

        return detach

    return replace(Scheduler, "_detach", make)


def _stop_waits_for_the_future() -> Planting:
    def make(original: Any) -> Any:
        def workable(self: Backlog, until: float, lanes: Any) -> bool:
            return original(self, until, lanes) or bool(self.delays.size or self.snoozes.size)

        return workable

    return replace(Backlog, "workable", make)


def _drain_starts_the_future() -> Planting:
    def make(original: Any) -> Any:
        def fall_due(self: Backlog, now: float, *, draining: bool) -> None:
            original(self, now, draining=False)

        return fall_due

    return replace(Backlog, "fall_due", make)


def _new_worker_takes_busy_sessions() -> Planting:
    def make(original: Any) -> Any:
        def add_worker(self: Backlog) -> Any:
            self.sessions._sessions.clear()
            self.sessions._idle.clear()
            self.sessions._look_at = math.inf
            return original(self)

        return add_worker

    return replace(Backlog, "add_worker", make)


def _detach_without_bound() -> Planting:
    return replace(Scheduler, "_has_budget", lambda original: lambda self: True)


def _max_sessions_is_never_read() -> Planting:
    return edit(Limits, "lacks_room", ("limit = config.max_sessions", "limit = None"))


def _accepted_while_stopping() -> Planting:
    return replace(Admission, "check_open", lambda original: lambda self: None)


def _graceful_stop_cancels() -> Planting:
    async def work_off(self: Stopping, drain: Any) -> None:
        pass

    return replace(Stopping, "_work_off", lambda original: work_off)


def _added_worker_ignores_the_stop() -> Planting:
    return edit(Backlog, "take", ("self.idle or ", "self.idle and lane.worker.id < 3 or "))


def _batch_stops_half_way() -> Planting:
    def note_refusal(self: Admission, job: Any, error: Exception) -> None:
        raise error

    return replace(Admission, "note_refusal", lambda original: note_refusal)


def _removed_worker_forgets_its_sessions() -> Planting:
    def move_sessions(self: Backlog, worker: Any) -> None:
        worker.ready.drain()

    return replace(Backlog, "_move_sessions", lambda original: move_sessions)


def _panic_ends_the_lane() -> Planting:
    def make(original: Any) -> Any:
        def raised(self: LaneTask, entry: Any, error: BaseException, now: float) -> None:
            original(self, entry, error, now)
            if isinstance(error, SystemExit):
                raise error

        return raised

    return replace(LaneTask, "_raised", make)


def _load_is_not_bounded() -> Planting:
    return replace(sessions_module, "load_limit", lambda original: lambda *args: math.inf)


def _one_global_flag() -> Planting:
    def call_worker(self: Switchboard, worker: Any) -> None:
        if self.parked and not self.coming:
            self.call_any()

    return replace(Switchboard, "call_worker", lambda original: call_worker)


def _call_dies_with_its_lane() -> Planting:
    return replace(LaneTask, "_pass_on", lambda original: lambda self: None)


def _cancel_reaches_the_next_job() -> Planting:
    return edit(Scheduler, "cancel_attempt", ("lane.handle.disturbed = True", "pass"))


MUTANTS = (
    Mutant("D1", "A stop with a deadline deleted what it interrupted.", _interrupted_is_lost),
    Mutant("D2", "A graceful stop dropped retries.", _drain_drops_retries),
    Mutant("D5 foreign", "Any timeout error was permanent.", _foreign_timeout_is_permanent),
    Mutant("D5 waiting", "Waiting counted against the timeout.", _waiting_counts_as_running),
    Mutant("D5 late", "A late normal return was booked as failed (A6 too).", _late_return_fails),
    Mutant("D6", "Jobs that failed for good vanished.", _failed_jobs_vanish),
    Mutant("D7", "A heap without a tie-break reversed a batch.", _heap_without_tie_break),
    Mutant("D8", "A popped job was dropped on cancellation.", _popped_and_dropped),
    Mutant("D9", "A second stop began anew beside the first.", _second_stop_begins_anew),
    Mutant("D10", "An id was free before its job was over.", _id_is_freed_too_early),
    Mutant("D11", "A deaf handler's job was booked as failed.", _deaf_handler_is_declared_failed),
    Mutant("D13 waits", "A stop waited for future jobs.", _stop_waits_for_the_future),
    Mutant("D13 starts", "A stop ran future jobs.", _drain_starts_the_future),
    Mutant("A1", "A busy session moved to a new worker.", _new_worker_takes_busy_sessions),
    Mutant("A2 handlers", "The pool's size bounded nothing.", _detach_without_bound),
    Mutant("A2 sessions", "The limit of sessions was never read.", _max_sessions_is_never_read),
    Mutant("A3", "Jobs were accepted after the drain.", _accepted_while_stopping),
    Mutant("A4", "A graceful stop cancelled at once.", _graceful_stop_cancels),
    Mutant("A5", "A worker added during a stop ran on.", _added_worker_ignores_the_stop),
    Mutant("A7", "A batch stopped half-way.", _batch_stops_half_way),
    Mutant("A8 sessions", "A removed worker lost its jobs.", _removed_worker_forgets_its_sessions),
    Mutant("A8 panic", "An exit in a handler ended its lane.", _panic_ends_the_lane),
    Mutant("A9", "The ring alone spread the sessions badly.", _load_is_not_bounded),
    Mutant("W1", "One flag for all wake-ups.", _one_global_flag),
    Mutant("W2", "A lane was cancelled together with its wake-up.", _call_dies_with_its_lane),
    Mutant("W3", "A cancel reached the next job.", _cancel_reaches_the_next_job),
)

WITHOUT_COUNTERPART = {
    "A6": "the late return is D5 late; a handler that never returns does block its session: no"
    " two jobs of one run at once, and that is promised",
}
"""D3, D4, D12 and D14 take a store, and are in `journal_mutants`."""
